"""Pictures in, what they show out: the same as the agent's frame path gives, or a refusal that says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.config import DetectConfig
from agent.delivery.events import FrameRef, ModelRef
from agent.delivery.payload import Origin, encode_detections
from agent.tasks import look, thresholds_of
from tests.agent.web.conftest import running
from tests.support.http import ask, form

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.model.activate import ActiveModel
    from agent.web.service import Service

INFER = "/api/v1/infer"
ORIGIN = Origin("boot", ModelRef("m", 1, "v"))


def picture(extension: str = ".png", size_wh: tuple[int, int] = (80, 60), grey: int = 255) -> bytes:
    _, encoded = cv2.imencode(extension, np.full((size_wh[1], size_wh[0], 3), grey, np.uint8))
    return encoded.tobytes()


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(100, 256, (60, 80, 3), np.uint8)


def as_png(image_bgr: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", image_bgr)[1].tobytes())


def seen_by_the_frame_path(model: ActiveModel, image_bgr: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """The objects of a detections message about these pixels."""
    placement = model.resizer(image_bgr)
    manifest = model.bundle.manifest
    seen = look(model.session.run(), placement, manifest, thresholds_of(manifest, DetectConfig()))
    height, width = image_bgr.shape[:2]
    message = encode_detections(FrameRef("c", 1, width, height, 0), seen.objects, ORIGIN, clock_synced=True)
    objects: list[dict[str, Any]] = json.loads(message)["objects"]
    return objects


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_what_the_agent_publishes_about_the_same_pixels(
    port: int, detector: ActiveModel, seed: int
) -> None:
    image_bgr = noise(seed)
    answer = ask(port, INFER, as_png(image_bgr))
    assert answer.status == 200
    expected = seen_by_the_frame_path(detector, image_bgr)
    assert expected, "an empty answer would prove nothing"
    assert answer.json["objects"] == expected
    assert seen_by_the_frame_path(detector, noise(seed + 100)) != expected, "other pixels give something else"


def test_an_answer_has_the_shape_of_the_event_payload(port: int, detector: ActiveModel) -> None:
    answer = ask(port, INFER, picture()).json
    manifest = detector.bundle.manifest
    assert answer["v"] == 1
    assert answer["model"] == {"name": manifest.name, "version": manifest.version, "variant": detector.variant.id}
    assert answer["frame"] == {"w": 80, "h": 60}
    assert answer["ts"].endswith("Z")
    assert abs(answer["ts_ms"]) > 0
    assert answer["inference_ms"] > 0
    assert [set(each) for each in answer["objects"]] == [{"label", "score", "box"}] * len(answer["objects"])


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("way", ["raw", "form", "chunks"])
def test_a_picture_may_come_as_the_body_or_in_a_form(port: int, extension: str, way: str) -> None:
    content = picture(extension)
    if way == "form":
        body, headers = form((f"cat{extension}", content))
        answer = ask(port, INFER, body, headers=headers)
    elif way == "chunks":
        answer = ask(port, INFER, iter([content[:10], content[10:]]))
    else:
        answer = ask(port, INFER, content)
    assert answer.status == 200, answer.body
    assert [each["label"] for each in answer.json["objects"]] == ["cat", "dog", "cat"]


def test_nothing_to_see_is_an_empty_list(port: int) -> None:
    assert ask(port, INFER, picture(grey=0)).json["objects"] == []


def test_a_classifier_gives_the_class(port: int) -> None:
    red = as_png(np.full((60, 80, 3), (0, 0, 255), np.uint8))
    answer = ask(port, f"{INFER}?model=colours", red).json
    assert answer["class"]["label"] == "red"
    assert 0.9 < answer["class"]["score"] <= 1
    assert "objects" not in answer


def test_a_segmenter_gives_the_share_of_each_class(port: int) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:12, :, 2] = 200
    image[12:, :, 0] = 200
    answer = ask(port, f"{INFER}?model=ground", as_png(image)).json
    assert answer["areas"] == pytest.approx({"blue": 0.75, "red": 0.25}, abs=0.1)
    assert list(answer["areas"]) == ["blue", "red"], "the largest first"
    assert sum(answer["areas"].values()) == pytest.approx(1.0, abs=1e-3)
    assert not {"objects", "class"} & set(answer)


def test_the_threshold_can_be_chosen(port: int) -> None:
    few = ask(port, f"{INFER}?score_threshold=0.85", picture()).json["objects"]
    assert [each["label"] for each in few] == ["cat"]
    assert len(ask(port, INFER, picture()).json["objects"]) > 1


@pytest.mark.parametrize("model", ["", "colours", "ground"])
def test_the_annotated_picture_is_the_picture_with_something_drawn(port: int, model: str) -> None:
    query = f"?annotate=true{'&model=' + model if model else ''}"
    answer = ask(port, INFER + query, picture(size_wh=(320, 240)))
    assert answer.headers["content-type"] == "image/jpeg"
    drawn = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert drawn.shape == (240, 320, 3)
    assert 0.0 < float((drawn < 200).mean()) < (1.0 if model == "ground" else 0.6), "not the white it was"


def test_the_models_are_told_with_the_default_first(port: int, detector: ActiveModel) -> None:
    models = ask(port, "/api/v1/models").json["models"]
    assert [each["name"] for each in models] == [detector.bundle.manifest.name, "colours", "ground"]
    assert [each["default"] for each in models] == [True, False, False]
    assert models[0]["task"] == "detect"
    assert models[0]["labels"] == ["cat", "dog"]
    assert models[1]["task"] == "classify"


# --- refusals


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is so large."""
    import struct
    import zlib

    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = zlib.crc32(b"IHDR" + fields)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + fields + struct.pack(">I", checksum)


REFUSED = {
    "too many pixels": (png_header(50_000, 50_000), 413, "megapixels"),
    "truncated": (picture(".jpg")[:-30], 422, "truncated"),
    "text": (b"hello, is there anybody?", 415, "expected a JPEG, PNG or WebP picture"),
    "a page": (b"<html>" * 1000, 415, "expected a JPEG, PNG or WebP picture"),
    "another format": (bytes(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes()), 415, "expected a JPEG"),
    "nothing": (b"", 422, "empty body"),
    "too many bytes": (bytes(1024 * 1024 + 1), 413, "at most 1048576 bytes"),
}


@pytest.mark.parametrize("way", ["raw", "form", "chunks"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_usable_picture_is_refused_with_a_sentence(port: int, case: str, way: str) -> None:
    content, status, part = REFUSED[case]
    if way == "form":
        body, headers = form(("picture.jpg", content))
        answer = ask(port, INFER, body, headers=headers)
    else:
        answer = ask(port, INFER, iter([content]) if way == "chunks" else content)
    assert answer.status == status
    assert part in answer.problem
    assert ask(port, INFER, picture()).status == 200, "the next picture is served"


def test_a_picture_of_the_largest_size_is_taken(service: Service) -> None:
    content = picture(".jpg")
    padded = content + bytes(1024 * 1024 - len(content))  # what follows a JPEG's end is left alone
    with running(service, max_upload_mib=1) as port:
        assert ask(port, INFER, padded).status == 200
        assert ask(port, INFER, padded + b"x").status == 413
        for content, status in {padded: 200, padded + b"x": 413}.items():
            body, headers = form(("a.jpg", content))
            assert ask(port, INFER, body, headers=headers).status == status


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (form(("a.jpg", picture()), ("b.jpg", picture())), "one file, got 2"),
        ((b"--edge--\r\n", form()[1]), "one file, got 0"),
        ((b"no form at all", form()[1]), "multipart/form-data"),
        ((form(("a.jpg", picture()))[0], {"Content-Type": "multipart/form-data"}), "multipart/form-data"),
    ],
    ids=["two files", "no file", "no form", "no boundary"],
)
def test_a_form_holds_one_picture(port: int, body: tuple[bytes, dict[str, str]], part: str) -> None:
    answer = ask(port, INFER, body[0], headers=body[1])
    assert answer.status == 422
    assert part in answer.problem


def test_fields_beside_the_file_are_left_alone(port: int) -> None:
    body, headers = form(("note", b"hello"), ("a.png", picture()))
    assert ask(port, INFER, body, headers=headers).status == 200


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        (f"{INFER}?model=lions", 404, "no model 'lions'; there are: "),
        (f"{INFER}?score_threshold=2", 422, "score_threshold: "),
        (f"{INFER}?annotate=perhaps", 422, "annotate: "),
        (f"{INFER}?score_treshold=0.5", 422, "no argument 'score_treshold'; did you mean score_threshold?"),
        (f"{INFER}?x=1", 422, "no argument 'x'; there are: model, annotate, score_threshold"),
    ],
)
def test_wrong_arguments_are_named(port: int, path: str, status: int, part: str) -> None:
    answer = ask(port, path, picture())
    assert answer.status == status
    assert part in answer.problem


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", INFER, 405), ("GET", "/nowhere", 404), ("PUT", "/", 405)]
)
def test_what_does_not_exist_is_a_problem_too(port: int, method: str, path: str, status: int) -> None:
    answer = ask(port, path, method=method)
    assert answer.status == status
    assert "/docs" in answer.problem
