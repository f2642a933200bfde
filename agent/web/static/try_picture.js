// A picture of one's own: sent to the agent as it is, shown with what the agent saw in it.

import { colorsOf } from "./colors.js";
import { element, find, tell } from "./dom.js";
import { ask, askJson, reason } from "./requests.js";

const TIMEOUT_MS = 30_000;
const MOST_WIDTH = 1600;

// Make the form work; `about` is the answer of api/v1/models.
export function tryPictures(about) {
  const form = new Form(about);
  form.start();
}

class Form {
  #models;
  #limits;
  #file = null;
  #turn = 0;

  constructor({ models, limits }) {
    this.#models = models;
    this.#limits = limits;
  }

  start() {
    const { max_bytes, max_pixels } = this.#limits;
    find("limits").textContent =
      `JPEG, PNG or WebP, at most ${round(max_bytes / 2 ** 20)} MiB and ${round(max_pixels / 1e6)} megapixels`;
    find("model").replaceChildren(...this.#models.map(({ name }) => element("option", { value: name }, name)));
    find("which").hidden = this.#models.length < 2;
    find("try").addEventListener("submit", (event) => event.preventDefault());
    find("file").addEventListener("change", () => this.#take(find("file").files));
    find("model").addEventListener("change", () => this.#onModel());
    find("least").addEventListener("change", () => this.#send());
    this.#acceptDrops(find("drop"));
    this.#onModel();
  }

  get #model() {
    return this.#models.find(({ name }) => name === find("model").value);
  }

  #onModel() {
    find("least").placeholder = this.#model.defaults.score_threshold;
    find("least").parentElement.hidden = this.#model.task !== "detect";
    this.#send();
  }

  // Anywhere else on the page a dropped picture would replace the page.
  #acceptDrops(zone) {
    for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
    zone.addEventListener("dragover", () => zone.classList.add("over"));
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      zone.classList.remove("over");
      this.#take(event.dataTransfer.files);
    });
  }

  #take(files) {
    if (files.length === 0) return;
    this.#file = files[0];
    find("file").value = ""; // the same file may be chosen again
    this.#send();
  }

  async #send() {
    if (this.#file === null) return;
    const turn = ++this.#turn;
    const [file, model] = [this.#file, this.#model];
    find("result").setAttribute("aria-busy", "true");
    let shown = null;
    let refused = "";
    try {
      if (file.size > this.#limits.max_bytes) refused = this.#tooLarge(file);
      else shown = await result(file, model, await this.#asked(file, model));
    } catch (error) {
      refused = reason(error);
    }
    if (turn !== this.#turn) return; // a newer picture is on its way
    find("result").removeAttribute("aria-busy");
    tell(find("refusal"), refused && `${file.name}: ${refused}`);
    find("result").hidden = shown === null;
    find("result").replaceChildren(...(shown ?? []));
  }

  async #asked(file, model) {
    const least = find("least").value;
    const query = { model: model.name, score_threshold: model.task === "detect" && least !== "" ? least : null };
    const request = { method: "POST", body: file, timeout_ms: TIMEOUT_MS };
    const answer = await askJson("api/v1/infer", { query, ...request });
    return { answer, drawn: async () => (await ask("api/v1/infer", { query: { ...query, annotate: true }, ...request })).blob() };
  }

  #tooLarge(file) {
    const most = round(this.#limits.max_bytes / 2 ** 20);
    return `This file has ${round(file.size / 2 ** 20)} MiB, the agent takes ${most} MiB; choose a smaller one.`;
  }
}

// The elements that show an answer.
async function result(file, model, { answer, drawn }) {
  const objects = [...(answer.objects ?? [])].sort((one, other) => other.score - one.score);
  const colorOf = colorsOf(model.labels);
  const canvas = element("canvas", { role: "img" });
  // A mask is not in the answer, and a browser may not know a format that the agent knows: then the agent draws.
  const own = model.task === "segment" ? null : await createImageBitmap(file).catch(() => null);
  paint(canvas, own ?? (await createImageBitmap(await drawn())), own ? objects : [], colorOf);
  const seen = summary(answer, objects);
  canvas.setAttribute("aria-label", `${file.name}: ${seen}`);
  const { name, version, variant } = answer.model;
  const size = `${answer.frame.w} × ${answer.frame.h} pixels`;
  const caption = `${file.name}, ${size}; ${name} version ${version}, ${variant}, ${answer.inference_ms.toFixed(1)} ms`;
  const figure = element("figure", {}, canvas, element("figcaption", { class: "quiet" }, caption));
  const json = element("details", {}, element("summary", {}, "JSON"));
  json.append(element("pre", { tabindex: "0" }, JSON.stringify(answer, null, 1)));
  const told = element("div", {}, element("h3", {}, seen), table(answer, objects, colorOf), json);
  return [figure, told];
}

function summary(answer, objects) {
  if (answer.class) return `${answer.class.label}, score ${answer.class.score.toFixed(2)}`;
  if (answer.areas) return `${Object.keys(answer.areas).length} classes`;
  return objects.length === 0 ? "nothing found" : `${objects.length} object${objects.length === 1 ? "" : "s"}`;
}

function table(answer, objects, colorOf) {
  let head = ["label", "score"];
  let rows = answer.class ? [[answer.class.label, answer.class.score.toFixed(2)]] : [];
  if (answer.areas) {
    head = ["label", "share"];
    rows = Object.entries(answer.areas).map(([label, share]) => [label, `${(100 * share).toFixed(1)} %`]);
  } else if (answer.objects) {
    head = ["label", "score", "left", "top", "right", "bottom"];
    rows = objects.map(({ label, score, box }) => [label, score.toFixed(2), ...box.map((side) => side.toFixed(3))]);
  }
  if (rows.length === 0) return "";
  const body = rows.map(([label, ...cells]) => {
    const swatch = element("i", { class: "swatch" });
    swatch.style.background = colorOf(label);
    const first = element("th", { scope: "row" }, swatch, label);
    return element("tr", {}, first, ...cells.map((cell) => element("td", {}, cell)));
  });
  const titles = element("tr", {}, ...head.map((title) => element("th", { scope: "col" }, title)));
  const made = element("table", {}, element("thead", {}, titles), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: "0" }, made);
}

function paint(canvas, picture, objects, colorOf) {
  const ratio = Math.min(1, MOST_WIDTH / picture.width);
  const [width, height] = [Math.round(picture.width * ratio), Math.round(picture.height * ratio)];
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  const text_px = Math.max(11, Math.round(width / 55));
  context.lineWidth = Math.max(2, width / 320);
  context.font = `600 ${text_px}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { label, score, box } of [...objects].reverse()) {
    const [left, top, right, bottom] = [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
    const text = `${label} ${score.toFixed(2)}`;
    const strip = { width: context.measureText(text).width + text_px * 0.6, height: text_px * 1.35 };
    const x = Math.max(0, Math.min(left, width - strip.width));
    const y = Math.max(0, Math.min(top - strip.height, height - strip.height));
    context.strokeStyle = context.fillStyle = colorOf(label);
    context.strokeRect(left, top, right - left, bottom - top);
    context.fillRect(x, y, strip.width, strip.height);
    context.fillStyle = "black";
    context.fillText(text, x + text_px * 0.3, y + strip.height / 2);
  }
}

function round(number) {
  return Number(number.toFixed(1));
}
