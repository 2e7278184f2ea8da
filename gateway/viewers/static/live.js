// The page of a live view: what it shows, and what its bars do.

import { Activity } from "./activity.js";
import { Input } from "./input.js";
import { Socket } from "./socket.js";
import { Tabs } from "./tabs.js";

const NOTE_MS = 6000;
const SOON_SECONDS = 60;

const part = (id) => document.getElementById(id);
const [address, follow, full, keys, keyboard, note, picture, stage] =
  ["address", "follow", "full", "keys", "keyboard", "note", "picture", "stage"].map(part);
const canvas = picture.getContext("2d", { alpha: false });

let state = { tabs: [], active: null, shown: null, follows: true };
let mayControl = false;
let expiresAt = Infinity;
let isOver = false;
let seen = null;
let noteTimer = 0;
let input = null;
let stream = null;
// The newest picture of the tab, kept while the page is hidden: the gateway sends no further one meanwhile.
let undrawn = null;

const home = location.pathname.replace(/\/$/, "");
const socket = new Socket(`${location.protocol.replace("http", "ws")}//${location.host}${home}/socket`, {
  message: read,
  picture: (about, blob) => {
    undrawn = { about, blob };
    draw();
  },
  lost: () => showState("connecting", "Connecting again"),
  ended: end,
});
const tabs = new Tabs(part("tabs"), (tab) => socket.send({ type: "show", tab }));

// Incoming messages

function read(message) {
  switch (message.type) {
    case "hello":
      greet(message);
      break;
    case "tabs":
      state = message;
      drawBars();
      break;
    case "notice":
      remark(message.text);
      break;
  }
}

function greet(hello) {
  expiresAt = Date.parse(hello.expiresAt);
  mayControl = hello.control === "input";
  part("navigation").hidden = !mayControl;
  address.readOnly = !mayControl;
  keyboard.hidden = !(mayControl && matchMedia("(pointer: coarse)").matches);
  if (mayControl && !input) {
    const place = () => (isOver || seen?.tab !== state.shown ? null : seen);
    input = new Input(picture, keys, stage, (message) => socket.send(message), place);
  }
  if (hello.activityStream && !stream) {
    part("activity").hidden = part("show-activity").hidden = false;
    stream = new Activity(part("entries")).follow(new URL(hello.activityStream, location.href));
    resize();
  }
  if (!state.follows && state.shown) {
    // After a break the gateway knows nothing of what was chosen.
    socket.send({ type: "show", tab: state.shown });
  }
  showState("live", mayControl ? "Live, with control" : "Live");
  watchTime();
}

async function draw() {
  if (document.hidden || !undrawn) {
    return;
  }
  const { about, blob } = undrawn;
  undrawn = null;
  const image = await createImageBitmap(blob);
  if (picture.width !== image.width || picture.height !== image.height) {
    picture.width = image.width;
    picture.height = image.height;
  }
  canvas.drawImage(image, 0, 0);
  image.close();
  const isOther = seen?.deviceWidth !== about.deviceWidth || seen?.deviceHeight !== about.deviceHeight;
  seen = about;
  if (isOther) {
    resize();
  }
  socket.send({ type: "seen", picture: about.picture });
}

function drawBars() {
  tabs.show(state.tabs, state.shown);
  follow.setAttribute("aria-pressed", String(state.follows));
  const tab = state.tabs.find(({ id }) => id === state.shown);
  if (document.activeElement !== address || address.readOnly) {
    address.value = tab?.url ?? "";
  }
  const name = tab?.title || tab?.url;
  picture.setAttribute("aria-label", name ? `Picture of ${name}` : "No tab is open");
  document.title = name ? `${name} – Live view` : "Live view";
  if (!tab) {
    remark("No tab is open.", true);
  } else if (!tab.inFront) {
    remark("This tab is behind another one; its picture is frozen.", true);
  } else if (note.dataset.stays) {
    note.hidden = true;
  }
}

// Messages for the person

function showState(kind, text) {
  part("status").dataset.state = kind;
  part("status-text").textContent = text;
}

function remark(text, stays = false) {
  clearTimeout(noteTimer);
  note.textContent = text;
  note.hidden = false;
  note.dataset.stays = stays ? "yes" : "";
  if (!stays) {
    noteTimer = setTimeout(() => {
      note.hidden = true;
    }, NOTE_MS);
  }
}

function end(title, text) {
  isOver = true;
  showState("ended", "Ended");
  note.hidden = true;
  picture.classList.add("over");
  part("end-title").textContent = title;
  part("end-text").textContent = text;
  part("end").hidden = false;
  for (const control of document.querySelectorAll(".bars button, .bars input")) {
    control.disabled = true;
  }
  stream?.close();
  toParent("bctrl:live-ended", { reason: title });
}

/** Reports the state to the embedding page; no message contains a secret. */
function toParent(type, about) {
  if (parent !== window) {
    parent.postMessage({ type, ...about }, "*");
  }
}

let hasWarned = false;
setInterval(watchTime, 1000);

function watchTime() {
  const left = Math.ceil((expiresAt - Date.now()) / 1000);
  if (isOver || left > SOON_SECONDS) {
    return;
  }
  if (!hasWarned) {
    hasWarned = true;
    toParent("bctrl:live-expiring", { expiresAt: new Date(expiresAt).toISOString() });
  }
  if (part("status").dataset.state === "live") {
    showState("live", `Ends in ${Math.max(0, left)} s`);
  }
}

// Size: as large as there is room, and no larger than twice the page.

function resize() {
  const style = getComputedStyle(stage);
  const width = stage.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const height = stage.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  const [across, down] = seen ? [seen.deviceWidth, seen.deviceHeight] : [picture.width, picture.height];
  const scale = Math.min(width / across, height / down, 2);
  picture.style.width = `${Math.max(1, across * scale)}px`;
  picture.style.height = `${Math.max(1, down * scale)}px`;
}

new ResizeObserver(resize).observe(stage);

// Bars

part("bar").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = address.value.trim();
  if (mayControl && given && state.shown) {
    const url = /^[a-z][a-z0-9+.-]*:(?!\d)/i.test(given) ? given : `${isLocal(given) ? "http" : "https"}://${given}`;
    socket.send({ type: "navigate", tab: state.shown, url });
    input.focus();
  }
});

address.addEventListener("focus", () => address.select());
address.addEventListener("blur", drawBars);
address.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.shiftKey) {
    address.value = state.tabs.find(({ id }) => id === state.shown)?.url ?? "";
    address.select();
  }
});

part("navigation").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && state.shown) {
    socket.send({ type: "go", tab: state.shown, to: button.dataset.go });
  }
});

follow.addEventListener("click", () => socket.send({ type: "show", tab: state.follows ? state.shown : null }));
keyboard.addEventListener("click", () => input?.focus());

part("show-activity").addEventListener("click", (event) => {
  const panel = part("activity");
  panel.hidden = !panel.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!panel.hidden));
});

full.hidden = !document.fullscreenEnabled;
full.addEventListener("click", () => {
  if (document.fullscreenElement) {
    document.exitFullscreen();
  } else {
    document.documentElement.requestFullscreen();
  }
});
document.addEventListener("fullscreenchange", () => {
  full.setAttribute("aria-label", document.fullscreenElement ? "Leave full screen" : "Full screen");
});

document.addEventListener("visibilitychange", draw);

function isLocal(given) {
  return /^(localhost|\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:]+\])(:|\/|$)/i.test(given);
}
