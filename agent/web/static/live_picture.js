// A camera's picture: a stream where a connection is free for it, else single pictures; mended when it breaks.

import { element, tell } from "./dom.js";
import { address, ask } from "./requests.js";

const SAMPLE_WH = [32, 18];
const STUCK_POLLS = 6; // the agent has new frames, the picture stays the same
const MOST_PAUSE_S = 30;

export class LivePicture {
  mode = "off";
  #id;
  #boxes = true;
  #image = element("img", { hidden: true });
  #still = element("canvas", { "aria-hidden": "true" });
  #state = element("p", { class: "state" });
  #sample = element("canvas", { width: SAMPLE_WH[0], height: SAMPLE_WH[1] });
  #frame = null;
  #refreshed = null;
  #attempts = 0;
  #pause_s = 1;
  #retry = null;
  #same = { polls: 0, pixels: "", frame: null };
  #said = "";
  #broken = "";

  constructor(cameraId) {
    this.#id = cameraId;
    this.element = element("div", { class: "frame" }, this.#still, this.#image, this.#state);
    this.#image.addEventListener("load", () => this.#onLoad());
    this.#image.addEventListener("error", () => this.#onError());
    this.say("Waiting for the agent.");
  }

  // Show it so from now on: "stream", "snapshot" or "off".
  show(mode, boxes) {
    if (mode === this.mode && boxes === this.#boxes) return;
    this.mode = mode;
    this.#boxes = boxes;
    this.restart();
  }

  // Begin anew with what is shown now, which stays until the first new picture.
  restart() {
    clearTimeout(this.#retry);
    this.#keepStill();
    this.#refreshed = null;
    this.#same.polls = 0;
    this.#image.alt = `Camera ${this.#id}, live${this.#boxes ? ", with boxes around what was seen" : ""}`;
    if (this.mode !== "stream") {
      this.#image.hidden = true;
      this.#setSource(null);
      return;
    }
    this.#attempts += 1; // browsers show one and the same stream again, broken or not, for the same address
    this.#setSource(this.#address("stream.mjpg", { n: this.#attempts }));
  }

  // The newest frame that a poll told of: sizes the picture, and finds a stream that has broken off silently.
  follow(frame) {
    if (!frame) return;
    this.element.style.aspectRatio = `${frame.w} / ${frame.h}`;
    this.#frame = frame;
    if (this.mode !== "stream" || this.#image.hidden) return;
    const pixels = this.#pixels();
    const isStuck = pixels === this.#same.pixels && frame.id !== this.#same.frame;
    if (pixels !== this.#same.pixels) this.#pause_s = 1;
    this.#same = { polls: isStuck ? this.#same.polls + 1 : 0, pixels, frame: frame.id };
    if (this.#same.polls >= STUCK_POLLS * this.#pause_s) {
      this.#pause_s = Math.min(2 * this.#pause_s, MOST_PAUSE_S);
      this.restart();
    }
  }

  // What people should know of the camera; "" while all is well.
  say(text) {
    this.#said = text;
    this.#tell();
  }

  // One picture, in snapshot mode, when there is a new frame.
  async refresh() {
    const wanted = { id: this.#frame?.id, boxes: this.#boxes };
    if (this.mode !== "snapshot" || wanted.id === this.#refreshed) return;
    try {
      const picture = await (await ask(this.#path("snapshot.jpg"), { query: { boxes: wanted.boxes } })).blob();
      if (this.mode !== "snapshot" || wanted.boxes !== this.#boxes) return;
      this.#refreshed = wanted.id;
      this.#setSource(URL.createObjectURL(picture));
    } catch {
      this.#onError(); // the next round tries again
    }
  }

  #onLoad() {
    this.#image.hidden = false;
    this.element.classList.add("filled");
    this.#broken = "";
    this.#tell();
  }

  #onError() {
    if (this.mode === "off") return;
    this.#keepStill();
    this.#image.hidden = true;
    this.#broken = "The picture broke off; trying again.";
    this.#tell();
    if (this.mode !== "stream") return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.restart(), this.#pause_s * 1000);
    this.#pause_s = Math.min(2 * this.#pause_s, MOST_PAUSE_S);
  }

  #tell() {
    tell(this.#state, this.#said || this.#broken);
  }

  #path(name) {
    return `api/v1/cameras/${encodeURIComponent(this.#id)}/${name}`;
  }

  #address(name, query) {
    return address(this.#path(name), { boxes: this.#boxes, ...query });
  }

  #setSource(source) {
    const old = this.#image.src;
    if (source === null) this.#image.removeAttribute("src");
    else this.#image.src = source;
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  }

  #keepStill() {
    const { naturalWidth: width, naturalHeight: height } = this.#image;
    if (this.#image.hidden || width === 0) return;
    this.#still.width = width;
    this.#still.height = height;
    this.#still.getContext("2d").drawImage(this.#image, 0, 0);
  }

  #pixels() {
    const context = this.#sample.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.#image, 0, 0, ...SAMPLE_WH);
    return context.getImageData(0, 0, ...SAMPLE_WH).data.join();
  }
}
