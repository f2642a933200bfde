"""Agents for the web pages to show, and what can be measured of the pictures on the index page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from agent.demo.scenes import LABELS
from agent.vision.draw import color_of
from tests.support.agents import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.devtools import Browser, Page

BUNDLE = CHECKOUT / "agent/demo/bundles/shapes"
PUBLIC_KEY = CHECKOUT / "agent/demo/demo.public.pem"
INFER = "/api/v1/infer"
RATE_HZ = 5
# Numbers from a picture on the page, through a canvas: a number that any changed pixel changes, and how many pixels
# have one of some colours (BGR).
_LOOK = """window.look = (picture, colors) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
  if (canvas.width === 0) return {sum: 0, colored: 0};
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let [sum, colored] = [0, 0];
  for (let at = 0; at < data.length; at += 4) {
    sum = (sum * 31 + data[at] + 7 * data[at + 1] + 13 * data[at + 2]) % 4294967291;
    const near = (color) => [0, 1, 2].every((channel) => Math.abs(data[at + channel] - color[2 - channel]) < 24);
    if (colors.some(near)) colored += 1;
  }
  return {sum, colored};
}; null"""


def write_config(folder: Path, cameras: list[dict[str, Any]], **web: Any) -> Path:
    """``folder/agent.yaml``: the demo model, these cameras and a web API on a free port."""
    values = {
        "node": "gatehouse",
        "state_dir": "state",
        "model": {"bundle": str(BUNDLE), "trusted_keys": [str(PUBLIC_KEY)]},
        "runtime": {"threads": 1},
        "cameras": cameras,
        "web": {"port": 0, **web},
    }
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def live_camera(camera_id: str, seed: int = 7) -> dict[str, Any]:
    """A small synthetic camera, 320 pixels wide."""
    return {"id": camera_id, "engine": "synthetic", "width": 320, "height": 192, "fps": RATE_HZ, "seed": seed}


def open_index(browser: Browser, url: str, **display: Any) -> Page:
    """The index page, once it shows what there is."""
    page = browser.open(url, **display)
    page.wait_for("!document.querySelector('#content').hidden")
    page.evaluate(_LOOK)
    return page


def img(camera_id: str) -> str:
    """The expression for a camera's picture."""
    return f"document.querySelector('[data-camera={camera_id}] img')"


def figures(page: Page, camera_id: str) -> dict[str, str]:
    """What a card's list of figures says."""
    rows = f"[...document.querySelectorAll('[data-camera={camera_id}] .facts > div')]"
    return dict(page.evaluate(f"{rows}.map(row => [row.children[0].textContent, row.children[1].textContent])"))


def colored(page: Page, picture: str) -> int:
    """Pixels of a picture that have a label's colour."""
    colors = [color_of(label) for label in range(len(LABELS))]
    return int(page.evaluate(f"look({picture}, {json.dumps(colors)}).colored"))


def pixels(page: Page, picture: str) -> int:
    """A number that changes with any pixel of a picture."""
    return int(page.evaluate(f"look({picture}, []).sum"))
