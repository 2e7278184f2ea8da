// The socket of a live view: connects again as long as that may help, and reads what comes.

const AGAIN_MS = [250, 500, 1000, 2000, 4000, 8000];

// Why it ended for good, for a person. Everything else may be over in a moment.
const ENDS = {
  4400: ["The view stopped", "The page and the gateway did not understand each other. Reload the page."],
  4401: ["This view has expired", "Ask the person who gave you the link for a new one."],
  4403: ["The view stopped", "This link is for watching only."],
  4404: ["The run has ended", "The browser was stopped. There is nothing to watch any more."],
  4429: ["Too many are watching", "As many views of this run are open as may be. Try again later."],
  1009: ["The view stopped", "The pasted text is too large."],
};
const LOST = ["The connection was lost", "The gateway can't be reached. Reload the page to try again."];

export class Socket {
  /** `on` has what is called: live(), lost(), ended(title, text), message(object), picture(about, blob). */
  constructor(address, on) {
    this.address = address;
    this.on = on;
    this.failures = 0;
    this.connect();
  }

  connect() {
    this.socket = new WebSocket(this.address);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("message", (event) => this.read(event.data));
    this.socket.addEventListener("close", (event) => this.closed(event.code));
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify(message));
    }
  }

  read(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "hello") {
        this.failures = 0;
      }
      this.on.message(message);
      return;
    }
    const length = new DataView(data).getUint16(0);
    const about = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 2, length)));
    this.on.picture(about, new Blob([new Uint8Array(data, 2 + length)], { type: "image/jpeg" }));
  }

  closed(code) {
    if (code in ENDS) {
      this.on.ended(...ENDS[code]);
    } else if (this.failures >= AGAIN_MS.length) {
      this.on.ended(...LOST);
    } else {
      this.on.lost();
      setTimeout(() => this.connect(), AGAIN_MS[this.failures]);
      this.failures += 1;
    }
  }
}
