// The player of a recording. What it shows comes from below its own address: `state`, and then the video or `frames`.

import { Activity } from "./activity.js";
import { Pictures, placeAt, Video } from "./playback.js";
import { Tabs } from "./tabs.js";

const POLL_MS = 1000;
const REPORT_MS = 250;
const STEP_MS = 5000;
const LONG_STEP_MS = 30_000;
// The state at the beginning of a recording is recorded as separate events.
const BEGINNING_MS = 100;

const STATES = { preparing: "Waiting for its video", processing: "Its video is being made", ready: "Recorded" };

const part = (id) => document.getElementById(id);
const [address, frame, note, play, seek, stage, video] =
  ["address", "frame", "note", "play", "seek", "stage", "video"].map(part);

const home = `${location.pathname.replace(/\/+$/, "")}/`;
let state = null;
let source = null;
let speed = 1;
let wasPlaying = false;
let isDragging = false;
// At each change of tabs, which are open, and which is shown.
let moments = [];
let reported = 0;
let markedDuration = 0;
let activityCursor = "";
let startedAt = 0;

const tabs = new Tabs(part("tabs"), seekToTab);
const activity = new Activity(part("entries"), {
  chosen: (entry) => seekTo(timeOf(entry)),
  clock: (entry) => clock(timeOf(entry)),
  most: Infinity,
});

// Playing

function use(next) {
  const goesOn = source?.playing ?? false;
  if (source) {
    source.pause();
    next.time = source.time;
    source.element.hidden = true;
  }
  source = next;
  source.setSpeed(speed);
  source.element.hidden = false;
  play.disabled = seek.disabled = false;
  if (goesOn) {
    source.play();
  }
  show();
}

function drop() {
  source?.pause();
  source = null;
  play.disabled = seek.disabled = true;
  wasPlaying = false;
  document.body.classList.remove("playing");
}

function seekTo(ms) {
  if (source) {
    source.time = ms;
    show();
    speak();
  }
}

function toggle() {
  if (source) {
    if (source.playing) {
      source.pause();
    } else {
      source.play();
    }
    show();
  }
}

/** To when a tab is shown next or, if that is over, was shown last. */
function seekToTab(id) {
  if (!source) {
    return;
  }
  const shown = moments.filter((moment, place) => moment.shown === id && moments[place - 1]?.shown !== id);
  const found = shown.find(({ time }) => time > source.time) ?? shown.at(-1);
  if (found) {
    seekTo(found.time);
  }
}

function tick() {
  requestAnimationFrame(tick);
  if (!source) {
    return;
  }
  source.tick();
  if (source.playing || wasPlaying) {
    show();
    if (performance.now() - reported >= REPORT_MS) {
      speak();
    }
  }
}

/** Report to the page that embeds this one. It may be any page, so it gets nothing but times. */
function speak() {
  reported = performance.now();
  if (window.parent !== window && source) {
    const message = {
      type: "bctrl:recording-time",
      currentTimeMs: Math.round(source.time),
      durationMs: Math.round(source.duration),
      playing: source.playing,
    };
    window.parent.postMessage(message, "*");
  }
}

// Showing

function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

function show() {
  if (!source) {
    return;
  }
  const { time, duration } = source;
  if (Math.abs(duration - markedDuration) > REPORT_MS) {
    markedDuration = duration;
    seek.max = Math.ceil(duration);
    showMarks();
  }
  if (!isDragging) {
    seek.value = time;
  }
  seek.setAttribute("aria-valuetext", `${clock(time)} of ${clock(duration)}`);
  part("now").textContent = clock(time);
  part("length").textContent = clock(duration);
  if (source.playing !== wasPlaying) {
    wasPlaying = source.playing;
    document.body.classList.toggle("playing", wasPlaying);
    play.setAttribute("aria-label", wasPlaying ? "Pause" : "Play");
    speak();
  }
  showTabs(time);
  // A video may be a fraction of a millisecond before where it was sought.
  activity.mark(time < duration ? time + 1 : Infinity, timeOf);
}

function showTabs(time) {
  const moment = moments[placeAt(moments, Math.max(time, BEGINNING_MS), (each) => each.time)];
  if (!moment || moment === showTabs.last) {
    return;
  }
  showTabs.last = moment;
  tabs.show(moment.open, moment.shown);
  const tab = moment.open.find(({ id }) => id === moment.shown);
  address.value = tab?.url ?? "";
  const name = tab?.title || tab?.url;
  source.element.setAttribute("aria-label", name ? `Picture of ${name}` : "Picture of the browser");
}

/** Further events of tabs, in the order of their times. */
function addTabs(events) {
  const open = new Map((moments.at(-1)?.open ?? []).map((tab) => [tab.id, tab]));
  let shown = moments.at(-1)?.shown ?? null;
  for (const event of events) {
    const id = String(event.tab);
    if (event.type === "closed") {
      open.delete(id);
    } else {
      open.set(id, { id, title: event.title, url: event.url });
    }
    if (event.type === "switched") {
      shown = id;
    }
    moments.push({ time: event.timeMs, open: [...open.values()], shown });
  }
}

function showMarks() {
  const marks = activity.entries.filter((entry) => timeOf(entry) <= markedDuration).map((entry) => {
    const mark = document.createElement("i");
    mark.dataset.severity = entry.severity;
    mark.style.left = `${(timeOf(entry) / markedDuration) * 100}%`;
    return mark;
  });
  part("marks").replaceChildren(...marks);
}

function timeOf(entry) {
  return Math.max(0, Date.parse(entry.time) - startedAt);
}

function showState(kind, text) {
  part("status").dataset.state = kind;
  part("status-text").textContent = text;
}

function remark(text) {
  note.textContent = text;
  note.hidden = !text;
}

function end(title, text) {
  drop();
  remark("");
  showState("ended", "Not playing");
  part("end-title").textContent = title;
  part("end-text").textContent = text;
  part("end").hidden = false;
  frame.hidden = video.hidden = true;
}

// Asking

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path) {
  const answer = await fetch(home + path, { cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) {
    throw new Refused(answer.status, body.error);
  }
  return body;
}

/** Whether there is something to ask for again. */
async function look() {
  state = await ask("state");
  startedAt = Date.parse(state.startedAt);
  switch (state.status) {
    case "ready":
      remark("");
      showState("live", STATES.ready);
      moments = [];
      showTabs.last = null;
      addTabs(state.tabs);
      use(new Video(video, `${home}video`, state.durationMs, show, () =>
        end("The video can't be played", "It may have been deleted, or this browser can't play WebM.")));
      return false;
    case "failed":
      end("The recording failed", state.message);
      return false;
    case "not_available":
      end("There is no recording", state.message);
      return false;
    default:
      showState("connecting", state.live ? "Still recording" : STATES[state.status]);
      await lookForPictures();
      return true;
  }
}

async function lookForPictures() {
  const pictures = source ?? new Pictures(frame, (number) => `${home}frames/${number}`);
  pictures.isLive = state.live;
  let more = true;
  while (more) {
    let page;
    try {
      page = await ask(`frames?from=${pictures.next}`);
    } catch (error) {
      if (!(error instanceof Refused) || (error.status !== 404 && error.status !== 503)) {
        throw error;
      }
      // Gone, since there is a video by now; or with a gateway that can't be reached.
      remark(source ? "" : state.message);
      return;
    }
    startedAt = Date.parse(page.startedAt);
    addTabs(page.tabs);
    pictures.take(page);
    more = page.more;
  }
  if (pictures.frames.length === 0) {
    remark("Nothing was seen yet.");
  } else if (source) {
    show();
  } else {
    remark("");
    use(pictures);
  }
}

async function lookForActivity() {
  if (!state.activity || state.status === "not_available") {
    return;
  }
  part("show-activity").hidden = false;
  part("activity").hidden = part("show-activity").getAttribute("aria-expanded") === "false";
  let more = true;
  let isNew = false;
  while (more) {
    const page = await ask(`activity?after=${activityCursor}`);
    page.items.forEach((item) => activity.add(item));
    activityCursor = page.cursor ?? activityCursor;
    more = page.more;
    isNew ||= page.items.length > 0;
  }
  part("no-entries").hidden = activity.entries.length > 0;
  if (isNew) {
    markedDuration = 0;
    show();
  }
}

async function follow() {
  let again = true;
  while (again) {
    try {
      again = await look();
      await lookForActivity();
    } catch (error) {
      if (error instanceof Refused && error.status < 500 && error.status !== 429) {
        end(error.status === 410 ? "This link has expired" : "Nothing is shown here", error.message);
        return;
      }
      showState("connecting", "Connecting again");
      again = true;
    }
    if (again) {
      await new Promise((done) => setTimeout(done, POLL_MS));
    }
  }
}

// Input of the person

play.addEventListener("click", toggle);
video.addEventListener("click", toggle);
frame.addEventListener("click", toggle);
seek.addEventListener("pointerdown", () => {
  isDragging = true;
});
for (const over of ["pointerup", "pointercancel"]) {
  seek.addEventListener(over, () => {
    isDragging = false;
  });
}
seek.addEventListener("input", () => seekTo(Number(seek.value)));

part("speeds").addEventListener("click", ({ target }) => {
  if (target.dataset.speed) {
    speed = Number(target.dataset.speed);
    source?.setSpeed(speed);
    for (const button of part("speeds").children) {
      button.setAttribute("aria-pressed", String(button === target));
    }
  }
});

part("show-activity").addEventListener("click", () => {
  const isShown = part("activity").hidden;
  part("activity").hidden = !isShown;
  part("show-activity").setAttribute("aria-expanded", String(isShown));
});

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (!source || event.altKey || event.ctrlKey || event.metaKey || target === address) {
    return;
  }
  const isElsewhere = target.closest("[role=tab], button") !== null;
  const steps = { ArrowLeft: -STEP_MS, ArrowRight: STEP_MS, PageDown: -LONG_STEP_MS, PageUp: LONG_STEP_MS };
  if (target === seek) {
    Object.assign(steps, { ArrowDown: -STEP_MS, ArrowUp: STEP_MS, Home: -Infinity, End: Infinity });
  }
  if (key === " " && !isElsewhere) {
    toggle();
  } else if (key in steps && !isElsewhere) {
    seekTo(source.time + steps[key]);
  } else {
    return;
  }
  event.preventDefault();
});

requestAnimationFrame(tick);
follow();
