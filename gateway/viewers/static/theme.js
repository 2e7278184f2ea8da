// Light or dark as the address says (`?theme=light`), or else as the person's system does. Runs before anything is drawn.
const wanted = new URLSearchParams(location.search);
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = ["light", "dark"].find((theme) => theme === wanted.get("theme"));
const setTheme = () => {
  document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
};
setTheme();
system.addEventListener("change", setTheme);
if (wanted.get("controls") === "false") {
  document.documentElement.dataset.controls = "none";
}
