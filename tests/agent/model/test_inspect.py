from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import BundleError
from agent.model import inspect as inspect_module
from agent.model.bundle import load_bundle
from agent.model.variants import Device
from tests.support.bundles import MODEL_PATH, SignedBundle, make_bundle
from tests.support.tiny_models import classify_model, detect_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PI = Device("aarch64", frozenset({"asimddp"}), "Raspberry Pi 5", "1.23.2", ("cpu",))


@pytest.fixture(autouse=True)
def _on_a_pi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_module, "this_device", lambda version, providers: PI)


def inspect(signed: SignedBundle, *, trusted: bool = True, as_json: bool = False) -> None:
    keys: Sequence[Path] = [signed.public_key] if trusted else []
    assert inspect_module.run(argparse.Namespace(path=signed.root, trusted_key=keys, json=as_json)) == 0


def enrich(manifest: dict[str, Any]) -> None:
    variant = manifest["variants"][0]
    variant["metrics"] = [
        {"name": "mAP50", "value": 0.87654, "drop": 0.0123456, "cpu": "Xeon"},
        {"name": "latency_ms", "value": 3.4, "cpu": "Pi 5"},
    ]
    manifest["variants"].insert(0, {**variant, "id": "trt-int8", "precision": "int8", "providers": ["tensorrt"]})
    manifest["expires"] = "9999-12-31"
    manifest["provenance"]["source_licence"] = "Apache-2.0"
    manifest["annotations"] = {"team": "a\nb"}


def test_people_read_what_it_is_and_what_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(tmp_path, change=enrich)
    inspect(signed)
    key = load_bundle(signed.root, [signed.public_key]).key_id
    total = sum(path.stat().st_size for path in signed.root.rglob("*/*")) / 1e3
    size = f"{(signed.root / MODEL_PATH).stat().st_size / 1e3:.1f} kB"
    assert capsys.readouterr().out == (
        f"tiny version 3: detect, 2 labels, {total:.1f} kB\n"
        f"  signature   valid, by trusted key {key}\n"
        "  labels      cat, dog\n"
        "  defaults    score_threshold 0.35, iou_threshold 0.5, max_detections 100\n"
        "  expires     9999-12-31\n"
        "  source      tests/support/tiny_models.py (licence: Apache-2.0)\n"
        "  variants, preferred first\n"
        f"    trt-int8     int8  {size:>9}  input 64x48 letterbox  providers tensorrt  "
        "runs here: made for tensorrt, available: cpu\n"
        "      mAP50 0.8765 (drop against fp32: 0.01235), on Xeon\n"
        "      latency_ms 3.4, on Pi 5\n"
        f"    cpu-fp32     fp32  {size:>9}  input 64x48 letterbox  providers cpu  runs here: yes\n"
        "      mAP50 0.8765 (drop against fp32: 0.01235), on Xeon\n"
        "      latency_ms 3.4, on Pi 5\n"
        "  this device aarch64, Raspberry Pi 5, onnxruntime 1.23.2\n"
        "  would run   cpu-fp32\n"
    )


def test_programs_read_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(tmp_path, change=enrich)
    inspect(signed, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["signature"].startswith("valid, by trusted key ")
    assert (facts["name"], facts["version"], facts["task"], facts["labels"]) == ("tiny", 3, "detect", ["cat", "dog"])
    assert facts["device"] == {
        "arch": "aarch64",
        "cpu": "Raspberry Pi 5",
        "onnxruntime": "1.23.2",
        "providers": ["cpu"],
        "would_run": "cpu-fp32",
    }
    assert [(each["id"], each["runs_here"]) for each in facts["variants"]] == [
        ("trt-int8", "made for tensorrt, available: cpu"),
        ("cpu-fp32", "yes"),
    ]
    assert facts["bytes"] == sum(path.stat().st_size for path in signed.root.rglob("*/*"))
    assert facts["annotations"] == {"team": "a\nb"}
    assert facts["expires"] == "9999-12-31"


def test_without_a_key_the_signature_is_said_to_be_unchecked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed = make_bundle(tmp_path)
    (signed.root / "manifest.sig").write_bytes(b"no signature")
    inspect(signed, trusted=False)
    out = capsys.readouterr().out
    assert "  signature   not checked: name the key with --trusted-key\n" in out
    assert "  expires     never\n" in out
    assert "(licence: not stated)\n" in out
    with pytest.raises(BundleError):
        inspect(signed)


def test_a_changed_file_is_refused_even_without_a_key(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path)
    (signed.root / MODEL_PATH).write_bytes(b"changed")
    with pytest.raises(BundleError, match="has 7 bytes"):
        inspect(signed, trusted=False)


def test_when_nothing_runs_here_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def for_cuda(manifest: dict[str, Any]) -> None:
        manifest["variants"][0]["providers"] = ["cuda"]

    signed = make_bundle(tmp_path, change=for_cuda)
    inspect(signed)
    assert capsys.readouterr().out.endswith("  would run   none of the variants\n")
    inspect(signed, as_json=True)
    assert json.loads(capsys.readouterr().out)["device"]["would_run"] is None


def test_many_labels_are_counted_and_large_files_are_in_megabytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"class_{number}" for number in range(80)]
    count = 30_000
    boxes = [(0.0, 0.0, 1.0, 1.0)] * count
    large = detect_model(boxes_xyxy=boxes, scores=[0.5] * count, class_ids=[0] * count, labels=names)
    inspect(make_bundle(tmp_path / "large", tiny=large))
    out = capsys.readouterr().out
    assert "class_7, ... (80 in all)\n" in out
    assert " MB  input 64x48" in out
    inspect(make_bundle(tmp_path / "small", tiny=classify_model()))
    assert "  labels      blue, green, red\n" in capsys.readouterr().out
