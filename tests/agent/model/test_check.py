"""``edge-agent model check``: what runs here is tried, what cannot is listed, what fails is told and is exit code 3."""

from __future__ import annotations

import json
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.__main__ import main
from agent.model.check import largest_differences
from agent.model.manifest import Tolerances
from tests.support.bundles import MODEL_PATH, SignedBundle, make_bundle
from tests.support.tiny_models import classify_model, nan_model

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCES = Tolerances(score_floor=0.25, score=0.1, box_px=4.0)


def check(signed: SignedBundle, *arguments: str) -> int:
    return main(["model", "check", str(signed.root), "--trusted-key", str(signed.public_key), *arguments])


def add_variants(manifest: dict[str, Any]) -> None:
    """The same file twice more: for another machine, and for another provider."""
    variant = manifest["variants"][0]
    hosts = [{"arch": arch, "cpu_features": ["no_such_feature"]} for arch in ("x86_64", "aarch64")]
    manifest["variants"] += [
        {**variant, "id": "trt-int8", "providers": ["tensorrt"]},
        {**variant, "id": "picky", "requires": {"any_of": hosts}},
    ]


def put_child(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in the place of the trial's child process."""
    path = folder / "child.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))


def test_a_bundle_that_runs_here_has_a_line_for_each_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(make_bundle(tmp_path, change=add_variants)) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("tiny version 3: detect, signed by trusted key ")
    assert [line.split()[0] for line in lines] == ["cpu-fp32", "trt-int8", "picky"]
    assert lines[0].split()[1:3] == ["cpu", "ok"]
    assert " ms a run; " in lines[0]
    assert lines[1].split(maxsplit=2)[1:] == ["-", "not run made for tensorrt, available: cpu"]
    assert lines[2].endswith("not run the CPU lacks no_such_feature")


def test_programs_read_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(make_bundle(tmp_path, change=add_variants), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["version"], facts["task"]) == ("tiny", 3, "detect")
    tried, *others = facts["trials"]
    assert tried["ms_per_run"] > 0
    assert (tried["variant"], tried["provider"], tried["result"], tried["reason"]) == ("cpu-fp32", "cpu", "ok", None)
    assert tried["differences"]["score"] < 1e-5
    assert tried["differences"]["box_px"] == 0
    assert [(each["variant"], each["provider"], each["result"]) for each in others] == [
        ("trt-int8", None, "not run"),
        ("picky", None, "not run"),
    ]


def test_a_classifier_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(make_bundle(tmp_path, tiny=classify_model()), "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["trials"][0]["differences"]) == ["score"]


def test_a_model_that_gives_other_outputs_here_fails_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(make_bundle(tmp_path, tiny=nan_model())) == 3
    out, err = capsys.readouterr()
    assert "cpu-fp32     cpu      failed  its trial run failed: variant cpu-fp32: golden input 0" in out
    assert "not finite" in out
    assert err.startswith("edge-agent: bundle tiny: 1 of 1 trials failed on this device: cpu-fp32 on cpu; ")


def test_a_model_that_crashes_is_a_sentence_and_the_next_one_is_still_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(manifest: dict[str, Any]) -> None:
        manifest["variants"].append({**manifest["variants"][0], "id": "other"})

    signed = make_bundle(tmp_path, change=again)
    put_child('[ "$4" = other ] || kill -SEGV $$', tmp_path, monkeypatch)
    assert check(signed) == 3
    lines = capsys.readouterr().out.splitlines()[1:]
    assert "failed  its trial run was ended by signal 11 (Segmentation fault)" in lines[0]
    assert lines[1].split()[:3] == ["other", "cpu", "ok"]


def test_one_variant_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(tmp_path, change=add_variants)
    assert check(signed, "--variant", "cpu-fp32") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert check(signed, "--variant", "cpu-fp64") == 3
    assert "there is no variant 'cpu-fp64'; it has: cpu-fp32, trt-int8, picky" in capsys.readouterr().err


def test_a_bundle_that_cannot_run_here_at_all_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(make_bundle(tmp_path, change=add_variants), "--variant", "trt-int8") == 3
    out, err = capsys.readouterr()
    assert "not run made for tensorrt, available: cpu" in out
    assert "none of what was to be tried can run on this device" in err


def test_nothing_runs_that_no_trusted_key_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = make_bundle(tmp_path)
    (signed.root / MODEL_PATH).write_bytes(b"changed")
    put_child(f"touch {tmp_path}/ran", tmp_path, monkeypatch)
    assert check(signed) == 3
    assert capsys.readouterr().out == ""
    stranger = make_bundle(tmp_path / "stranger")
    assert main(["model", "check", str(stranger.root), "--trusted-key", str(signed.public_key)]) == 3
    assert "which is not trusted" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SystemExit):  # without a key there is nothing to trust
        main(["model", "check", str(stranger.root)])


def test_without_a_temporary_folder_the_reason_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert check(make_bundle(tmp_path)) == 1
    assert "needs a temporary folder" in capsys.readouterr().err


# --- the largest differences


def detections(*rows: tuple[float, float, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Rows of left edge, score and class."""
    return {
        "boxes": np.array([[[left, 0, left + 20, 20] for left, _, _ in rows]], np.float32),
        "scores": np.array([[score for _, score, _ in rows]], np.float32),
        "labels": np.array([[label for _, _, label in rows]], np.int64),
    }


def test_detections_are_paired_by_class_and_nearness_in_any_order() -> None:
    expected = detections((0, 0.9, 0), (100, 0.8, 0), (100, 0.8, 1))
    actual = detections((101, 0.75, 1), (100.5, 0.8, 0), (0, 0.88, 0))
    found = largest_differences(expected, actual, TOLERANCES)
    assert found == pytest.approx({"score": 0.05, "box_px": 1.0})


def test_equal_detections_have_no_difference_and_faint_ones_do_not_count() -> None:
    expected = detections((0, 0.9, 0), (50, 0.3, 0))
    assert largest_differences(expected, expected, TOLERANCES) == {"score": 0.0, "box_px": 0.0}
    assert largest_differences(expected, detections((0, 0.9, 0), (70, 0.3, 0)), TOLERANCES)["box_px"] == 0.0


def test_nothing_to_be_sure_of_is_no_difference() -> None:
    assert largest_differences(detections((0, 0.1, 0)), detections((9, 0.1, 0)), TOLERANCES)["box_px"] == 0.0


def test_other_tasks_have_their_own_terms() -> None:
    scores = {"scores": np.array([[0.2, 0.8]], np.float32)}
    assert largest_differences(scores, {"scores": np.array([[0.3, 0.7]], np.float32)}, TOLERANCES) == pytest.approx(
        {"score": 0.1}
    )
    mask = {"mask": np.array([[[0, 1], [2, 2]]], np.uint8)}
    assert largest_differences(mask, {"mask": np.array([[[0, 1], [2, 0]]], np.uint8)}, TOLERANCES) == {"mask": 0.25}
