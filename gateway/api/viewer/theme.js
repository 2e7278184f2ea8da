// Light or dark as the address says (`?theme=light`), or else as the person's system does. Runs before anything is drawn.
const wanted = new URLSearchParams(location.search);
if (["light", "dark"].includes(wanted.get("theme"))) {
  document.documentElement.dataset.theme = wanted.get("theme");
}
if (wanted.get("controls") === "false") {
  document.documentElement.dataset.controls = "none";
}
