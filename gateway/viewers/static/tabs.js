// A strip of tabs (ARIA tabs): arrows, Home and End move the focus, Enter, Space and a click choose.

export class Tabs {
  /** `chosen` is called with a tab's id. */
  constructor(list, chosen) {
    this.list = list;
    this.chosen = chosen;
    list.addEventListener("keydown", (event) => this.move(event));
    list.addEventListener("click", (event) => {
      const tab = event.target.closest("[role=tab]");
      if (tab) {
        this.chosen(tab.dataset.id);
      }
    });
  }

  /** Each tab has an id, a title and a url. */
  show(tabs, selected) {
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const there = new Map([...this.list.children].map((tab) => [tab.dataset.id, tab]));
    this.list.replaceChildren(...tabs.map((tab) => this.made(there.get(tab.id), tab, tab.id === selected)));
    const first = this.list.querySelector("[aria-selected=true]") ?? this.list.firstElementChild;
    for (const tab of this.list.children) {
      tab.tabIndex = tab === first ? 0 : -1;
    }
    if (focused !== null) {
      (this.list.querySelector(`[data-id="${CSS.escape(focused)}"]`) ?? first)?.focus();
    }
    if (selected !== this.selected) {
      this.selected = selected;
      this.list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  made(old, { id, title, url }, selected) {
    const tab = old ?? document.createElement("button");
    const name = title || url || "New tab";
    tab.type = "button";
    tab.className = "tab";
    tab.dataset.id = id;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-selected", String(selected));
    tab.setAttribute("aria-controls", "stage");
    if (tab.textContent !== name) {
      tab.textContent = name;
    }
    tab.title = name;
    return tab;
  }

  move(event) {
    const tabs = [...this.list.children];
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) {
      return;
    }
    event.preventDefault();
    tabs[(to + tabs.length) % tabs.length].focus();
  }
}
