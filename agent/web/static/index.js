// The index page: cameras where an agent runs some, the models, and a picture of one's own.

import { Cameras } from "./cameras.js";
import { element, facts, find, setText, tell } from "./dom.js";
import { askJson, reason } from "./requests.js";
import { tryPictures } from "./try_picture.js";

const MOST_PAUSE_S = 15;

start(1);

async function start(pause_s) {
  let about;
  let seen = null;
  try {
    about = await askJson("api/v1/models");
    if (about.cameras) seen = (await askJson("api/v1/cameras")).cameras;
  } catch (error) {
    tell(find("trouble"), `${reason(error)} Trying again.`);
    setTimeout(start, pause_s * 1000, Math.min(2 * pause_s, MOST_PAUSE_S));
    return;
  }
  tell(find("trouble"), "");
  const names = about.models.map((model) => model.name);
  const title = about.node ?? names.join(", ");
  document.title = `${title} · edge-agent`;
  setText(find("node"), title);
  const runs = about.node ? names.join(", ") : "models without cameras";
  setText(find("runs"), `edge-agent · ${runs}`);
  find("models").replaceChildren(...about.models.map(described));
  tryPictures(about);
  find("cameras").hidden = seen === null;
  find("content").hidden = false; // all at once: nothing moves while people read
  if (seen) new Cameras(seen, about.models[0].labels).start();
}

function described(model) {
  const { width, height, resize } = model.input;
  const labels = element("details", {}, element("summary", {}, count(model.labels.length, "label")));
  labels.append(element("p", {}, model.labels.join(", ")));
  const rows = [
    ["task", model.task],
    ["variant", `${model.variant} (${model.precision})`],
    ["runs on", model.provider],
    ["input", `${width} × ${height}, ${resize.replace("_", " ")}`],
  ];
  if (model.task === "detect") rows.push(["least score", `${model.defaults.score_threshold}`]);
  const version = element("span", { class: "quiet" }, `version ${model.version}`);
  const heading = element("div", { class: "heading" }, element("h3", {}, model.name), version);
  return element("article", { class: "panel" }, heading, facts(rows), labels);
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
