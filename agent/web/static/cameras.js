// The cameras' cards: one poll a second for all of them, and who of them gets a stream.

import { CameraCard } from "./camera_card.js";
import { colorsOf } from "./colors.js";
import { find, tell } from "./dom.js";
import { askJson, reason } from "./requests.js";

// Browsers open six connections to a host. A stream holds one for ever; two stay free for polls and pictures sent.
const MOST_STREAMS = 4;
const POLL_MS = 1000;
const MOST_PAUSE_MS = 15_000;

export class Cameras {
  #cards;
  #streams = MOST_STREAMS;
  #polling = false;
  #refreshing = false;

  // From the answer to a first poll.
  constructor(cameras, labels) {
    const colorOf = colorsOf(labels);
    this.#cards = cameras.map(({ id }) => new CameraCard(id, colorOf));
    this.#update(cameras);
    find("cards").replaceChildren(...this.#cards.map((card) => card.element));
  }

  start() {
    const seen = new IntersectionObserver((entries) => this.#onScreen(entries), { rootMargin: "200px" });
    for (const card of this.#cards) seen.observe(card.element);
    find("boxes").addEventListener("change", () => this.#share());
    document.addEventListener("visibilitychange", () => this.#onVisibility());
    this.#onVisibility();
  }

  #onVisibility() {
    this.#share();
    if (!document.hidden) this.#poll();
  }

  #onScreen(entries) {
    for (const entry of entries) {
      const card = this.#cards.find((each) => each.element === entry.target);
      card.isOnScreen = entry.isIntersecting;
    }
    this.#share();
  }

  // Streams for the first cards that people can see, single pictures for the rest of them, nothing for others.
  #share() {
    let free = document.hidden ? 0 : this.#streams;
    for (const card of this.#cards) {
      const isWatched = !document.hidden && card.isOnScreen && card.hasFrame;
      const mode = !isWatched ? "off" : free > 0 ? "stream" : "snapshot";
      if (mode === "stream") free -= 1;
      card.picture.show(mode, find("boxes").checked);
    }
    this.#refresh();
  }

  async #poll() {
    if (this.#polling) return;
    this.#polling = true;
    let failures = 0;
    let isCut = false;
    while (!document.hidden) {
      await pause(Math.min(POLL_MS * 2 ** Math.max(0, failures - 1), MOST_PAUSE_MS));
      try {
        const { cameras } = await askJson("api/v1/cameras");
        if (isCut) for (const card of this.#cards) card.picture.restart();
        [failures, isCut] = [0, false];
        this.#update(cameras);
      } catch (error) {
        failures += 1;
        isCut ||= error.name !== "TimeoutError";
        this.#fail(error, failures);
      }
    }
    for (const card of this.#cards) card.forget();
    this.#polling = false;
    if (!document.hidden) this.#poll();
  }

  #update(cameras) {
    const now_ms = performance.now();
    tell(find("trouble"), "");
    for (const card of this.#cards) {
      const facts = cameras.find((each) => each.id === card.id);
      if (facts) card.update(facts, now_ms);
    }
    this.#share();
  }

  #fail(error, failures) {
    // Other windows may hold the connections that a poll needs: this one gives one of its own back.
    const isTimeout = error.name === "TimeoutError";
    if (isTimeout) this.#streams = Math.max(0, this.#streams - 1);
    this.#share();
    if (isTimeout && failures === 1) return;
    tell(find("trouble"), `${reason(error)} Trying again.`);
    for (const card of this.#cards) card.lose();
  }

  // Single pictures, one after another, so that they never take more than one connection.
  async #refresh() {
    if (this.#refreshing) return;
    this.#refreshing = true;
    for (;;) {
      const began_ms = performance.now();
      const pictures = this.#cards.map((card) => card.picture).filter((picture) => picture.mode === "snapshot");
      if (pictures.length === 0) break;
      for (const picture of pictures) await picture.refresh();
      await pause(Math.max(100, POLL_MS - (performance.now() - began_ms)));
    }
    this.#refreshing = false;
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
