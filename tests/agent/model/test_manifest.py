from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BundleError
from agent.model.bundle import parse_manifest
from agent.model.manifest import Manifest, Signature
from tests.support.bundles import manifest_of
from tests.support.tiny_models import detect_model

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"models/cpu-fp32.onnx": b"model", "golden/cpu-fp32.npz": b"golden"}


def plain() -> dict[str, Any]:
    return manifest_of(detect_model(), FILES)


def parse(manifest: dict[str, Any]) -> Manifest:
    return parse_manifest(json.dumps(manifest).encode())


def refusal(data: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(data, where="x/manifest.json")
    message = str(caught.value)
    assert message.startswith("x/manifest.json: ")
    assert message.isprintable(), "one line, nothing that moves a terminal's cursor"
    assert len(message) < 400
    return message


def test_a_complete_manifest_is_parsed_with_its_defaults() -> None:
    manifest = parse(plain())
    variant = manifest.variants[0]
    assert (manifest.schema_version, manifest.name, manifest.version, manifest.expires) == (1, "tiny", 3, None)
    assert (variant.input.width, variant.input.height, variant.input.resize) == (64, 48, "letterbox")
    assert (manifest.defaults.score_threshold, variant.golden.tolerances.box_px) == (0.35, 0.05)
    assert variant.golden.tolerances.mask == 0.005


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an unknown key": (lambda m: m.update(extra=1), "extra"),
    "an unknown key deep inside": (lambda m: m["variants"][0]["input"].update(mean=[0]), "variants.0.input.mean"),
    "an unknown key that would break the line": (lambda m: m.update({"a\nb\x1b[2J": 1}), r"'a\nb\x1b[2J'"),
    "a missing key": (lambda m: m.pop("labels"), "labels"),
    "a later schema": (lambda m: m.update(schema=2), "schema"),
    "no schema": (lambda m: m.pop("schema"), "schema"),
    "the schema as text": (lambda m: m.update(schema="1"), "schema"),
    "the version as text": (lambda m: m.update(version="3"), "version"),
    "the version as a fraction": (lambda m: m.update(version=3.5), "version"),
    "the version as a truth value": (lambda m: m.update(version=True), "version"),
    "version zero": (lambda m: m.update(version=0), "version"),
    "a name that is no slug": (lambda m: m.update(name="Two words"), "name"),
    "a name with a line break at its end": (lambda m: m.update(name="tiny\n"), "name"),
    "an unknown task": (lambda m: m.update(task="pose"), "task"),
    "no labels": (lambda m: m.update(labels=[]), "labels"),
    "an empty label": (lambda m: m.update(labels=["cat", ""]), "labels.1"),
    "a label that moves the cursor": (lambda m: m.update(labels=["\x1b[2Jcat", "dog"]), "labels.0"),
    "a label of two lines": (lambda m: m.update(labels=["cat\u2028dog", "dog"]), "labels.0"),
    "a threshold above one": (lambda m: m.update(defaults={"score_threshold": 1.5}), "defaults.score_threshold"),
    "a threshold that is no number": (
        lambda m: m.update(defaults={"iou_threshold": float("nan")}),
        "defaults.iou_threshold",
    ),
    "a metric that is no number": (
        lambda m: m["variants"][0].update(metrics=[{"name": "f1", "value": float("nan"), "cpu": "any"}]),
        "variants.0.metrics.0.value",
    ),
    "no variants": (lambda m: m.update(variants=[]), "variants"),
    "two variants of one id": (lambda m: m.update(variants=m["variants"] * 2), "different ids"),
    "an unknown provider": (lambda m: m["variants"][0].update(providers=["openvino"]), "variants.0.providers.0"),
    "an unknown precision": (lambda m: m["variants"][0].update(precision="int4"), "variants.0.precision"),
    "an unknown architecture": (
        lambda m: m["variants"][0].update(requires={"any_of": [{"arch": "riscv64"}]}),
        "variants.0.requires.any_of.0.arch",
    ),
    "an onnxruntime version with words": (
        lambda m: m["variants"][0].update(requires={"onnxruntime": "latest"}),
        "variants.0.requires.onnxruntime",
    ),
    "an input without size": (lambda m: m["variants"][0]["input"].update(width=0), "variants.0.input.width"),
    "a pad colour of two channels": (
        lambda m: m["variants"][0]["input"].update(pad_bgr=[1, 2]),
        "variants.0.input.pad_bgr",
    ),
    "a pad colour that is no byte": (
        lambda m: m["variants"][0]["input"].update(pad_bgr=[1, 2, 256]),
        "variants.0.input.pad_bgr.2",
    ),
    "a crop to nothing": (lambda m: m["variants"][0]["input"].update(crop_ratio=0), "variants.0.input.crop_ratio"),
    "a tolerance of zero": (
        lambda m: m["variants"][0]["golden"].update(tolerances={"box_px": 0}),
        "variants.0.golden.tolerances.box_px",
    ),
    "a model file that is not listed": (lambda m: m["files"].pop(1), "models/cpu-fp32.onnx"),
    "a golden file that is not listed": (lambda m: m["files"].pop(0), "golden/cpu-fp32.npz"),
    "a file listed twice": (lambda m: m["files"].append(m["files"][0]), "different paths"),
    "two files that differ in case alone": (
        lambda m: m["files"].append({**m["files"][0], "path": "Golden/CPU-fp32.npz"}),
        "different paths",
    ),
    "a negative size": (lambda m: m["files"][0].update(bytes=-1), "files.0.bytes"),
    "a size beyond all reason": (lambda m: m["files"][0].update(bytes=2**40), "files.0.bytes"),
    "a digest in capitals": (lambda m: m["files"][0].update(sha256="A" * 64), "files.0.sha256"),
    "a digest that is too short": (lambda m: m["files"][0].update(sha256="a" * 63), "files.0.sha256"),
    "an expiry that is no date": (lambda m: m.update(expires="soon"), "expires"),
    "an expiry as a number": (lambda m: m.update(expires=0), "expires"),
    "a date that does not exist": (lambda m: m.update(expires="2026-02-30"), "expires"),
    "provenance of no source": (lambda m: m["provenance"].pop("source"), "provenance.source"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_manifest_is_refused_for(case: str) -> None:
    change, named = CHANGES[case]
    manifest = plain()
    change(manifest)
    assert named in refusal(json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside", "climbs out"),
        ("models/../../outside", "climbs out further down"),
        ("..", "is the parent"),
        (".", "is the folder itself"),
        ("/etc/passwd", "is absolute"),
        ("models//x", "has an empty part"),
        ("models/", "ends in a separator"),
        ("", "is empty"),
        ("models\\x.onnx", "is a path on another system"),
        ("c:x.onnx", "names a drive"),
        (".hidden", "is hidden"),
        ("models/.hidden", "is hidden further down"),
        ("-rf", "looks like an option"),
        ("a\x00b", "ends early in C"),
        ("a\n", "ends in a line break"),
        ("a b", "has a space"),
        ("modèle", "can be spelt in two ways"),
        ("a" * 201, "is too long"),
    ],
)
def test_a_listed_path_is_refused_when_it(path: str, why: str) -> None:
    manifest = plain()
    manifest["files"].append({"path": path, "bytes": 0, "sha256": "0" * 64})
    assert "files.2.path" in refusal(json.dumps(manifest).encode()), why


@pytest.mark.parametrize("path", ["a", "models/cpu-int8.onnx", "a/b/c/d_1.x-y", "0", "_x", "a..b"])
def test_an_ordinary_path_is_accepted(path: str) -> None:
    manifest = plain()
    manifest["files"].append({"path": path, "bytes": 0, "sha256": "0" * 64})
    assert parse(manifest).files[2].path == path


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing"),
        (b"\x00\x01\x02", "no text"),
        (b"[]", "a list"),
        (b"null", "null"),
        (b'{"schema": 1,}', "a comma too many"),
        (b"[" * 100_000, "nested beyond all reason"),
        (b'{"annotations": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "nested where anything may stand"),
        (b'{"version": ' + b"9" * 10_000 + b"}", "a number of 10,000 digits"),
        (b'{"name": "' + b"x" * 1_000_000 + b'"}', "a name of a megabyte"),
        (b'{"name": "\xff"}', "not UTF-8"),
    ],
)
def test_bytes_that_are_no_manifest_are_refused_on_one_short_line(data: bytes, why: str) -> None:
    refusal(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_in_another_way(data: bytes) -> None:
    refusal(data)


def test_annotations_may_hold_anything() -> None:
    manifest = plain()
    manifest["annotations"] = {"x": [1, {"y": None}], "z": "text"}
    assert parse(manifest).annotations == manifest["annotations"]


def test_a_parsed_manifest_cannot_be_changed() -> None:
    manifest = parse(plain())
    with pytest.raises(ValueError, match="frozen"):
        manifest.version = 4  # type: ignore[misc]  # that is the point


text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20)
slugs = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
shares = st.floats(0, 1)
inputs = st.fixed_dictionaries(
    {"height": st.integers(1, 16_384), "width": st.integers(1, 16_384)},
    optional={
        "resize": st.sampled_from(["letterbox", "stretch", "center_crop"]),
        "align": st.sampled_from(["center", "top_left"]),
        "interpolation": st.sampled_from(["linear", "area", "nearest", "cubic"]),
        "crop_ratio": st.floats(0, 1, exclude_min=True),
        "pad_bgr": st.lists(st.integers(0, 255), min_size=3, max_size=3),
    },
)
hosts = st.fixed_dictionaries(
    {"arch": st.sampled_from(["x86_64", "aarch64"])}, optional={"cpu_features": st.lists(slugs, max_size=3)}
)
variant_parts = st.fixed_dictionaries(
    {
        "precision": st.sampled_from(["fp32", "fp16", "int8"]),
        "providers": st.lists(st.sampled_from(["cpu", "cuda", "tensorrt"]), min_size=1, max_size=3),
        "input": inputs,
    },
    optional={
        "requires": st.fixed_dictionaries({}, optional={"any_of": st.lists(hosts, max_size=2)}),
        "metrics": st.lists(
            st.fixed_dictionaries({"name": text, "value": st.floats(-1e9, 1e9), "cpu": text}), max_size=2
        ),
    },
)


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(slugs, min_size=1, max_size=3, unique=True))
    manifest = plain()
    manifest.update(
        name=draw(slugs),
        version=draw(st.integers(1, 2**63)),
        labels=draw(st.lists(text.filter(bool), min_size=1, max_size=4)),
        defaults={"score_threshold": draw(shares), "iou_threshold": draw(shares)},
        annotations=draw(st.dictionaries(text, text | st.integers(-(2**60), 2**60) | st.none(), max_size=3)),
    )
    if draw(st.booleans()):
        manifest["expires"] = draw(st.dates()).isoformat()
    manifest["files"], manifest["variants"] = [], []
    for number, name in enumerate(ids):
        paths = f"models/{number}.onnx", f"golden/{number}.npz"
        manifest["files"] += [{"path": path, "bytes": 1, "sha256": "a" * 64} for path in paths]
        golden = {"file": paths[1], "tolerances": {"score_floor": draw(shares)}}
        manifest["variants"].append({"id": name, "file": paths[0], "golden": golden, **draw(variant_parts)})
    return manifest


@given(manifests())
def test_what_is_written_is_what_is_read(content: dict[str, Any]) -> None:
    manifest = parse(content)
    written = manifest.model_dump_json(by_alias=True).encode()
    assert parse_manifest(written) == manifest
    assert set(content) <= set(json.loads(written)), "no key is lost"
    assert json.loads(written)["annotations"] == content["annotations"]


@pytest.mark.parametrize("end", "BCDEFPRfhijkvxz0189+/")
def test_a_signature_has_one_spelling(end: str) -> None:
    record = {"algorithm": "ed25519", "key_id": "0" * 16, "signature": "A" * 85 + "A=="}
    Signature.model_validate(record)
    with pytest.raises(ValueError, match="signature"):
        Signature.model_validate({**record, "signature": "A" * 85 + end + "=="})
