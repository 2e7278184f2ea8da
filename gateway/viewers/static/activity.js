// The timeline of a run beside its picture.

const MOST_ENTRIES = 300;
const NEAR_END_PIXELS = 40;

export class Activity {
  /**
   * `chosen`, where it is given, is called with an entry when a person chooses it. `clock` says the time of an entry,
   * and at most `most` entries are kept.
   */
  constructor(list, { chosen = null, clock = timeOfDay, most = MOST_ENTRIES } = {}) {
    this.list = list;
    this.chosen = chosen;
    this.clock = clock;
    this.most = most;
    this.known = new Set();
    this.entries = [];
    this.marked = null;
  }

  /** Follow a stream of server-sent events, which the browser itself connects again. */
  follow(address) {
    const stream = new EventSource(address);
    stream.addEventListener("message", (event) => this.add(JSON.parse(event.data)));
    return stream;
  }

  /** An entry has an id, a time, a message, and perhaps a severity. */
  add(entry) {
    if (!entry.message || this.known.has(entry.id)) {
      return;
    }
    this.known.add(entry.id);
    const atEnd = this.list.scrollTop + this.list.clientHeight >= this.list.scrollHeight - NEAR_END_PIXELS;
    const item = document.createElement("li");
    const time = document.createElement("time");
    const text = document.createElement("span");
    item.className = "entry";
    item.dataset.id = entry.id;
    item.dataset.severity = entry.severity ?? "info";
    time.dateTime = entry.time;
    time.textContent = this.clock(entry);
    text.textContent = entry.message;
    if (this.chosen) {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => this.chosen(entry));
      button.append(time, text);
      item.append(button);
    } else {
      item.append(time, text);
    }
    this.list.append(item);
    this.entries.push(entry);
    while (this.entries.length > this.most) {
      this.known.delete(this.entries.shift().id);
      this.list.firstElementChild.remove();
    }
    if (atEnd) {
      this.list.scrollTop = this.list.scrollHeight;
    }
  }

  /** Mark the last entry that is not after `ms`, as `timeOf` says it, and bring it into view. */
  mark(ms, timeOf) {
    const item = this.list.children[this.entries.findLastIndex((entry) => timeOf(entry) <= ms)] ?? null;
    if (item === this.marked) {
      return;
    }
    this.marked?.removeAttribute("aria-current");
    this.marked = item;
    item?.setAttribute("aria-current", "true");
    if (!this.list.contains(document.activeElement)) {
      item?.scrollIntoView({ block: "nearest" });
    }
  }
}

function timeOfDay(entry) {
  return new Date(entry.time).toLocaleTimeString([], { hour12: false });
}
