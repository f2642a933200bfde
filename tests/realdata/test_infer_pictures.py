"""The web API on real pictures: it answers as the agent does on the same pixels, whatever the file's form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import pytest
import yaml

pytest.importorskip("PIL", reason="needs the build extra (pillow)")

from PIL import Image

from tests.support.agents import run_command, running_process
from tests.support.http import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.realdata.conftest import Built

pytestmark = [pytest.mark.realdata, pytest.mark.build]

EXIF_ORIENTATION, ROTATED = 0x0112, 6
WITH_PEOPLE = {"people", "crowd", "rotated", "grey", "cmyk", "form"}


@pytest.fixture(scope="module")
def pictures(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Real pictures by what is special about them."""
    folder = tmp_path_factory.mktemp("pictures")
    crowd = realdata / "samples" / "faces" / "ultraface_11.jpg"
    squat = realdata / "samples" / "squat.png"
    people = folder / "people.jpg"
    Image.open(squat).convert("RGB").save(people, quality=95)
    cifar = min((realdata / "data-cifar10-jpg").rglob("*.jpg"))
    screenshot = folder / "screenshot.png"
    with_alpha = Image.open(squat).convert("RGBA")
    with_alpha.putalpha(Image.linear_gradient("L").resize(with_alpha.size))
    with_alpha.save(screenshot)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = ROTATED
    rotated = folder / "rotated.jpg"
    # Turned against what the EXIF tag says, so that a decoder which follows it sees people upright.
    Image.open(crowd).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(rotated, exif=exif, quality=95)
    grey, cmyk, webp = folder / "grey.jpg", folder / "cmyk.jpg", folder / "form.webp"
    Image.open(crowd).convert("L").save(grey, quality=95)
    Image.open(crowd).convert("CMYK").save(cmyk, quality=95)
    Image.open(crowd).convert("RGB").save(webp, lossless=True)
    return {
        "people": people,
        "crowd": crowd,
        "cifar": cifar,
        "screenshot": screenshot,
        "rotated": rotated,
        "grey": grey,
        "cmyk": cmyk,
        "form": webp,
    }


@pytest.fixture(scope="module")
def published(
    pictures: Mapping[str, Path], yolox_bundle: Built, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, dict[str, Any]]:
    """What the agent publishes about each picture: the detections message of ``run --once``."""
    folder = tmp_path_factory.mktemp("agent")
    config = {
        "state_dir": str(folder),
        "model": {"bundle": str(yolox_bundle.bundle), "trusted_keys": [str(yolox_bundle.public_key)]},
        "cameras": [{"id": name, "source": str(path)} for name, path in pictures.items()],
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(config))
    said = run_command("run", "--config", folder / "agent.yaml", "--once", "--dry-run-mqtt")
    assert said.returncode == 0, said.stderr
    payloads = [json.loads(line[line.index("{") :]) for line in said.stdout.splitlines() if "/detections" in line]
    assert len(payloads) == len(pictures)
    return {payload["camera"]: payload for payload in payloads}


@pytest.fixture(scope="module")
def port(yolox_bundle: Built) -> Iterator[int]:
    options = ["--bundle", str(yolox_bundle.bundle), "--trusted-key", str(yolox_bundle.public_key), "--port", "0"]
    with running_process("serve", *options) as server:
        yield server.web_port()


CASES = ["people", "crowd", "cifar", "screenshot", "rotated", "grey", "cmyk", "form"]


@pytest.mark.parametrize("case", CASES)
def test_a_real_picture_is_answered_as_the_agent_sees_it(
    port: int, pictures: Mapping[str, Path], published: Mapping[str, dict[str, Any]], case: str
) -> None:
    answer = ask(port, "/api/v1/infer", pictures[case].read_bytes())
    assert answer.status == 200, answer.body
    expected = published[case]
    assert answer.json["objects"] == [
        {key: each[key] for key in ("label", "score", "box")} for each in expected["objects"]
    ]
    assert answer.json["frame"] == {"w": expected["frame"]["w"], "h": expected["frame"]["h"]}
    people = sum(each["label"] == "person" for each in answer.json["objects"])
    assert people > 0 or case not in WITH_PEOPLE


def test_a_rotated_picture_is_turned_before_it_is_judged(
    port: int, pictures: Mapping[str, Path], published: Mapping[str, dict[str, Any]]
) -> None:
    with Image.open(pictures["rotated"]) as image:
        stored = image.size
    answer = ask(port, "/api/v1/infer", pictures["rotated"].read_bytes()).json
    assert answer["frame"] == {"w": stored[1], "h": stored[0]}
    upright, turned = (len(published[case]["objects"]) for case in ("crowd", "rotated"))
    assert abs(upright - turned) <= max(2, upright // 4), "about the same people, upright again"
    as_stored = cv2.imread(str(pictures["rotated"]), cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_COLOR)
    assert as_stored is not None
    lying = ask(port, "/api/v1/infer", cv2.imencode(".jpg", as_stored)[1].tobytes()).json
    assert lying["frame"] == {"w": stored[0], "h": stored[1]}, "without its EXIF block it stays as it is stored"
    assert lying["objects"] != published["rotated"]["objects"]
