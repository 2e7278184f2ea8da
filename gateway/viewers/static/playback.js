// What plays a recording: its video or, as long as there is none, the pictures of which it will be made. Both have a time
// and a duration in milliseconds, and play and pause.

const KEPT_PICTURES = 40;
const AHEAD = 4;

/** The place of the last one that is not after `ms`, or -1. `list` is in the order of `timeOf`. */
export function placeAt(list, ms, timeOf) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(list[middle]) <= ms) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

export class Pictures {
  /** `address` gives the address of a picture by its number. */
  constructor(canvas, address) {
    this.element = canvas;
    this.address = address;
    this.frames = [];
    // The record from which on more is to be asked for.
    this.next = 0;
    this.duration = 0;
    this.isLive = false;
    this.playing = false;
    this.speed = 1;
    this.at = 0;
    this.since = 0;
    this.kept = new Map();
    this.drawn = null;
  }

  /** Adds frames that the gateway announced, each as [number, time, tab]. */
  take({ frames, next, durationMs }) {
    this.frames.push(...frames);
    this.next = next;
    this.duration = Math.max(this.duration, durationMs);
    this.draw();
  }

  get time() {
    return this.playing ? Math.min(this.duration, this.at + (performance.now() - this.since) * this.speed) : this.at;
  }

  set time(ms) {
    this.at = Math.max(0, Math.min(this.duration, ms));
    this.since = performance.now();
    this.draw();
  }

  setSpeed(speed) {
    this.at = this.time;
    this.since = performance.now();
    this.speed = speed;
  }

  play() {
    if (this.at >= this.duration && !this.isLive) {
      this.at = 0;
    }
    this.since = performance.now();
    this.playing = true;
  }

  pause() {
    this.at = this.time;
    this.playing = false;
  }

  /** Called for every picture that the screen shows. */
  tick() {
    if (this.playing && this.time >= this.duration) {
      if (this.isLive) {
        // It goes on from here as soon as there is more.
        this.time = this.duration;
      } else {
        this.pause();
      }
    }
    this.draw();
  }

  draw() {
    if (this.frames.length === 0) {
      return;
    }
    const place = Math.max(0, placeAt(this.frames, this.time, ([, time]) => time));
    const [number] = this.frames[place];
    const picture = this.picture(number);
    for (const [later] of this.frames.slice(place + 1, place + 1 + AHEAD)) {
      this.picture(later);
    }
    if (this.drawn === number || !picture.complete || !picture.naturalWidth) {
      return;
    }
    this.drawn = number;
    this.element.width = picture.naturalWidth;
    this.element.height = picture.naturalHeight;
    this.element.getContext("2d").drawImage(picture, 0, 0);
  }

  picture(number) {
    let picture = this.kept.get(number);
    if (picture) {
      this.kept.delete(number);
    } else {
      picture = new Image();
      picture.addEventListener("load", () => this.draw());
      picture.src = this.address(number);
    }
    // The one that was wanted last is the last one of the map.
    this.kept.set(number, picture);
    if (this.kept.size > KEPT_PICTURES) {
      this.kept.delete(this.kept.keys().next().value);
    }
    return picture;
  }
}

export class Video {
  /** `duration` counts until the video says its own; `changed` is called with what happens by itself. */
  constructor(element, address, duration, changed, failed) {
    this.element = element;
    this.known = duration;
    this.wanted = 0;
    this.speed = 1;
    element.src = address;
    element.addEventListener("loadedmetadata", () => {
      if (this.wanted > 0) {
        element.currentTime = this.wanted / 1000;
      }
      changed();
    });
    for (const event of ["seeked", "ended", "pause", "playing"]) {
      element.addEventListener(event, changed);
    }
    element.addEventListener("error", failed);
  }

  get duration() {
    return this.element.readyState ? this.element.duration * 1000 : this.known;
  }

  get time() {
    return this.element.readyState ? this.element.currentTime * 1000 : this.wanted;
  }

  set time(ms) {
    this.wanted = Math.max(0, Math.min(this.duration, ms));
    if (this.element.readyState) {
      this.element.currentTime = this.wanted / 1000;
    }
  }

  get playing() {
    return !this.element.paused && !this.element.ended;
  }

  setSpeed(speed) {
    this.speed = this.element.playbackRate = speed;
  }

  play() {
    this.element.playbackRate = this.speed;
    // Refused only where a page may not play at all, and then it is seen to stand still.
    this.element.play().catch(() => {});
  }

  pause() {
    this.element.pause();
  }

  tick() {}
}
