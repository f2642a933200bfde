// One camera: its picture, its health and its figures.

import { element, facts, setText } from "./dom.js";
import { LivePicture } from "./live_picture.js";

const RATE_WINDOW = 5; // polls
const LATE_S = 3; // without a new frame, though the camera says that it is up
const STATES = {
  starting: "Starting: waiting for the first frame.",
  up: "Waiting for the first frame.",
  down: "This camera is down; the agent keeps trying.",
  stalled: "This camera does not return from a read; the agent keeps waiting.",
  ended: "The recording has ended.",
  failed: "This camera failed; the agent's log says why.",
  stopped: "This camera is stopped.",
};

export class CameraCard {
  isOnScreen = false;
  hasFrame = false;
  #colorOf;
  #polls = [];
  #badge = element("span", { class: "badge" }, "…");
  #seen = element("ul", { class: "seen" });
  #seenKey = null;
  #figures = {};

  constructor(id, colorOf) {
    this.id = id;
    this.#colorOf = colorOf;
    this.picture = new LivePicture(id);
    const names = ["frame rate", "frame age", "inference", "size", "dropped", "events"];
    for (const name of names) this.#figures[name] = element("span", {}, "–");
    const rows = facts(names.map((name) => [name, this.#figures[name]]));
    const heading = element("div", { class: "heading" }, element("h3", {}, id), this.#badge);
    this.#seen.setAttribute("aria-label", `what camera ${id} sees`);
    this.element = element("article", { class: "panel camera" }, heading, this.picture.element, this.#seen, rows);
    this.element.dataset.camera = id;
  }

  // The answer to a poll.
  update(facts, now_ms) {
    this.hasFrame = facts.frame !== undefined;
    this.#setHealth(facts.health);
    const isLate = facts.seconds_since_frame > LATE_S;
    const since = isLate ? `No new frame for ${duration(facts.seconds_since_frame)}.` : "";
    if (facts.health === "up" && this.hasFrame) this.picture.say(since);
    else {
      const trouble = facts.trouble && `${facts.trouble}.`;
      this.picture.say([STATES[facts.health] ?? facts.health, trouble, since].filter(Boolean).join(" "));
    }
    this.picture.follow(facts.frame);
    this.#showFigures(facts, now_ms);
    this.#showSeen(facts);
  }

  // The agent does not answer.
  lose() {
    this.forget();
    this.#setHealth("unknown");
    this.picture.say("Waiting for the agent.");
  }

  // Polls pause: the next one begins a new measurement.
  forget() {
    this.#polls = [];
    setText(this.#figures["frame rate"], "–");
  }

  #setHealth(health) {
    setText(this.#badge, health);
    this.#badge.dataset.health = health;
    this.element.classList.toggle("asleep", health !== "up");
  }

  #showFigures(facts, now_ms) {
    const last = this.#polls.at(-1);
    if (last && facts.frames < last.frames) this.#polls = []; // the agent has started anew
    this.#polls.push({ frames: facts.frames, at_ms: now_ms });
    if (this.#polls.length > RATE_WINDOW) this.#polls.shift();
    const first = this.#polls[0];
    const seconds = (now_ms - first.at_ms) / 1000;
    const rate = this.hasFrame && seconds > 0 ? `${((facts.frames - first.frames) / seconds).toFixed(1)} /s` : "–";
    const show = (name, text) => setText(this.#figures[name], text);
    show("frame rate", rate);
    show("frame age", this.hasFrame ? `${facts.frame_age_ms.toFixed(1)} ms` : "–");
    show("inference", this.hasFrame ? `${facts.inference_ms.toFixed(1)} ms` : "–");
    show("size", this.hasFrame ? `${facts.frame.w} × ${facts.frame.h}` : "–");
    show("dropped", `${facts.dropped}`);
    show("events", `${facts.events}`);
  }

  #showSeen(facts) {
    const chips = [];
    for (const [label, count] of byLabel(facts.counts)) chips.push([label, `${count}`]);
    for (const [label, share] of Object.entries(facts.areas ?? {})) chips.push([label, percent(share)]);
    if (facts.class) chips.push([facts.class.label, percent(facts.class.score)]);
    const key = JSON.stringify(chips);
    if (key === this.#seenKey) return;
    this.#seenKey = key;
    const items = chips.map(([label, value]) => {
      const swatch = element("i", { class: "swatch" });
      swatch.style.background = this.#colorOf(label);
      return element("li", {}, swatch, `${label} `, element("b", {}, value));
    });
    const nothing = element("li", { class: "quiet" }, this.hasFrame ? "nothing in view" : "no frame yet");
    this.#seen.replaceChildren(...(items.length ? items : [nothing]));
  }
}

function byLabel(counts = {}) {
  return Object.entries(counts).sort(([one], [other]) => one.localeCompare(other));
}

function percent(share) {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}
