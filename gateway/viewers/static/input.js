// Mouse, touch and keyboard of the person in front of a live view, as messages for the browser behind it.

const BUTTONS = ["left", "middle", "right", "back", "forward"];
const LINE_PIXELS = 40;
const PAGE_PIXELS = 800;
const TAP_PIXELS = 8;
// So that a keyboard of a screen has something to delete, and reports it.
const FILLER = "\u200b\u200b";
const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export class Input {
  /** `place()` says which tab is seen and how large, as {tab, deviceWidth}; null while there is none. */
  constructor(picture, keys, stage, send, place) {
    Object.assign(this, { picture, keys, stage, send, place });
    this.moved = null;
    this.turned = null;
    this.down = new Map();
    this.touch = null;
    this.listen();
  }

  listen() {
    const { picture, keys } = this;
    picture.addEventListener("mousedown", (event) => this.press(event));
    addEventListener("mouseup", (event) => this.release(event));
    addEventListener("mousemove", (event) => this.move(event));
    picture.addEventListener("contextmenu", (event) => event.preventDefault());
    picture.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const type of ["touchstart", "touchmove", "touchend", "touchcancel"]) {
      picture.addEventListener(type, (event) => this[type](event), { passive: false });
    }
    keys.hidden = false;
    keys.tabIndex = 0;
    keys.value = FILLER;
    keys.addEventListener("focus", () => this.stage.classList.add("typing"));
    keys.addEventListener("blur", () => this.leave());
    keys.addEventListener("keydown", (event) => this.key(event));
    keys.addEventListener("keyup", (event) => this.keyUp(event));
    keys.addEventListener("beforeinput", (event) => this.write(event));
    keys.addEventListener("compositionend", (event) => this.compose(event));
    keys.addEventListener("paste", (event) => this.paste(event));
  }

  focus() {
    this.keys.focus({ preventScroll: true });
  }

  // Mouse

  /** Where in the picture, as shares of it, or null beside it. */
  at(event, held = false) {
    const box = this.picture.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const y = (event.clientY - box.top) / box.height;
    if (!held && (x < 0 || y < 0 || x > 1 || y > 1)) {
      return null;
    }
    return { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) };
  }

  mouse(move, at, event, button, clicks) {
    const tab = this.place()?.tab;
    if (tab) {
      const message = { type: "mouse", tab, move, ...at, button, buttons: event.buttons & 31, clicks };
      this.send({ ...message, modifiers: modifiersOf(event) });
    }
  }

  press(event) {
    event.preventDefault();
    this.focus();
    this.held = true;
    this.flush();
    this.mouse("down", this.at(event, true), event, BUTTONS[event.button] ?? "none", Math.min(3, event.detail || 1));
  }

  release(event) {
    if (!this.held) {
      return;
    }
    this.held = event.buttons !== 0;
    this.flush();
    this.mouse("up", this.at(event, true), event, BUTTONS[event.button] ?? "none", Math.min(3, event.detail || 1));
  }

  move(event) {
    const at = event.target === this.picture || this.held ? this.at(event, this.held) : null;
    if (at) {
      // One a picture of the screen is all that can be seen.
      this.moved ?? requestAnimationFrame(() => this.flush());
      this.moved = { at, event };
    }
  }

  wheel(event) {
    event.preventDefault();
    const at = this.at(event);
    if (!at) {
      return;
    }
    const unit = [1, LINE_PIXELS, PAGE_PIXELS][event.deltaMode];
    this.turn(at, event.deltaX * unit, event.deltaY * unit, modifiersOf(event));
  }

  turn(at, deltaX, deltaY, modifiers) {
    this.turned ?? requestAnimationFrame(() => this.flush());
    const before = this.turned ?? { deltaX: 0, deltaY: 0 };
    this.turned = { at, deltaX: before.deltaX + deltaX, deltaY: before.deltaY + deltaY, modifiers };
  }

  /** Send what waits for the next picture of the screen. */
  flush() {
    const { moved, turned } = this;
    this.moved = this.turned = null;
    if (moved) {
      const held = BUTTONS[[1, 4, 2, 8, 16].findIndex((bit) => moved.event.buttons & bit)] ?? "none";
      this.mouse("move", moved.at, moved.event, held, 0);
    }
    const tab = this.place()?.tab;
    if (turned && tab) {
      const { at, ...deltas } = turned;
      this.send({ type: "wheel", tab, ...at, ...deltas });
    }
  }

  // Touch: a tap is a click, a finger that moves scrolls. Two fingers are the person's own zoom.

  touchstart(event) {
    this.touch = null;
    if (event.touches.length === 1) {
      const finger = event.touches[0];
      this.touch = { x: finger.clientX, y: finger.clientY, scrolls: false };
    }
  }

  touchmove(event) {
    const finger = event.touches[0];
    if (!this.touch || event.touches.length !== 1) {
      this.touch = null;
      return;
    }
    event.preventDefault();
    const [x, y] = [this.touch.x - finger.clientX, this.touch.y - finger.clientY];
    if (this.touch.scrolls || Math.hypot(x, y) > TAP_PIXELS) {
      const scale = (this.place()?.deviceWidth ?? 0) / this.picture.getBoundingClientRect().width;
      this.turn(this.at(finger, true), x * scale, y * scale, 0);
      this.touch = { x: finger.clientX, y: finger.clientY, scrolls: true };
    }
  }

  touchend(event) {
    const touch = this.touch;
    this.touch = null;
    if (!touch || event.touches.length > 0) {
      return;
    }
    // No mouse is made up for it.
    event.preventDefault();
    if (!touch.scrolls) {
      const at = this.at({ clientX: touch.x, clientY: touch.y }, true);
      const finger = (buttons) => ({ buttons });
      this.mouse("move", at, finger(0), "none", 0);
      this.mouse("down", at, finger(1), "left", 1);
      this.mouse("up", at, finger(0), "left", 1);
    }
  }

  touchcancel() {
    this.touch = null;
  }

  // Keyboard

  key(event) {
    if (event.key === "Escape" && event.shiftKey) {
      event.preventDefault();
      this.keys.blur();
      document.querySelector("#address").focus();
      return;
    }
    const pastes = event.key.toLowerCase() === "v" && (event.ctrlKey || event.metaKey);
    // Composed and pasted text arrives as a text.
    if (event.isComposing || event.keyCode === 229 || ["Process", "Dead", "Unidentified"].includes(event.key) || pastes) {
      return;
    }
    event.preventDefault();
    if (IS_MAC && event.key === "Meta") {
      return;
    }
    this.sendKey(event, true);
    if (IS_MAC && event.metaKey) {
      // Its release is not sent while that key is held.
      this.sendKey(event, false);
    } else {
      this.down.set(event.code, event);
    }
  }

  keyUp(event) {
    if (this.down.delete(event.code)) {
      event.preventDefault();
      this.sendKey(event, false);
    }
  }

  sendKey(event, down) {
    const tab = this.place()?.tab;
    if (tab && event.key.length <= 32) {
      const { key, code, keyCode, location, repeat } = event;
      const message = { type: "key", tab, down, key, code, keyCode: keyCode & 255, location, repeats: repeat };
      this.send({ ...message, modifiers: modifiersOf(event) });
    }
  }

  /** Release everything that is held down: no later event would do it. */
  leave() {
    this.stage.classList.remove("typing");
    for (const event of this.down.values()) {
      this.sendKey({ ...plain(event), repeat: false }, false);
    }
    this.down.clear();
  }

  write(event) {
    if (event.isComposing) {
      return;
    }
    event.preventDefault();
    if (event.inputType.startsWith("delete")) {
      const [key, keyCode] = event.inputType.endsWith("Forward") ? ["Delete", 46] : ["Backspace", 8];
      this.strike(key, keyCode);
    } else if (event.inputType === "insertLineBreak" || event.inputType === "insertParagraph") {
      this.strike("Enter", 13);
    } else {
      this.text(event.data ?? event.dataTransfer?.getData("text/plain"));
    }
  }

  compose(event) {
    this.text(event.data);
    this.keys.value = FILLER;
  }

  paste(event) {
    event.preventDefault();
    this.text(event.clipboardData.getData("text/plain"));
  }

  strike(key, keyCode) {
    const event = { key, code: key, keyCode, location: 0, repeat: false };
    this.sendKey(event, true);
    this.sendKey(event, false);
  }

  text(text) {
    const tab = this.place()?.tab;
    if (tab && text) {
      this.send({ type: "text", tab, text });
    }
  }
}

function plain({ key, code, keyCode, location }) {
  return { key, code, keyCode, location };
}

/** As DevTools counts them. The command key of a Mac is the control key of the browser, which runs elsewhere. */
function modifiersOf(event) {
  const writes = event.getModifierState?.("AltGraph");
  const control = (event.ctrlKey && !writes) || (IS_MAC && event.metaKey);
  const meta = event.metaKey && !IS_MAC;
  return (event.altKey && !writes ? 1 : 0) | (control ? 2 : 0) | (meta ? 4 : 0) | (event.shiftKey ? 8 : 0);
}
