// The timeline of a run beside its picture.

const MOST_ENTRIES = 300;
const NEAR_END_PIXELS = 40;

export class Activity {
  /** `chosen`, where it is given, is called with an entry when a person chooses it. */
  constructor(list, chosen = null) {
    this.list = list;
    this.chosen = chosen;
    this.known = new Set();
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
    time.textContent = new Date(entry.time).toLocaleTimeString([], { hour12: false });
    text.textContent = entry.message;
    item.append(time, text);
    this.list.append(item);
    while (this.list.children.length > MOST_ENTRIES) {
      this.known.delete(this.list.firstElementChild.dataset.id);
      this.list.firstElementChild.remove();
    }
    if (atEnd) {
      this.list.scrollTop = this.list.scrollHeight;
    }
  }
}
