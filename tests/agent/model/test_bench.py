"""``edge-agent bench``: variants are timed in turn, those that cannot have a reason, and JSON is for the build side."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.__main__ import main
from agent.model import bench
from agent.model.bench import summary
from tests.support.bundles import MODEL_PATH, SignedBundle, make_bundle
from tests.support.tiny_models import nan_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def run(signed: SignedBundle, *arguments: str) -> int:
    short = ["--rounds", "2", "--seconds", "0.01"]
    return main(["bench", str(signed.root), "--trusted-key", str(signed.public_key), *short, *arguments])


def more_variants(manifest: dict[str, Any]) -> None:
    """The same file again, and once for a provider that is not here."""
    variant = manifest["variants"][0]
    manifest["variants"] += [{**variant, "id": "again"}, {**variant, "id": "trt-int8", "providers": ["tensorrt"]}]


def test_json_has_what_the_build_side_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(tmp_path, change=more_variants)
    assert run(signed, "--json", "--threads", "1") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["name"], told["threads"], told["rounds"]) == (1, "tiny", 1, 2)
    assert told["device"].keys() >= {"arch", "cpu", "features", "onnxruntime", "providers"}
    assert told["device"]["features"] == sorted(told["device"]["features"])
    sha256 = hashlib.sha256((signed.root / MODEL_PATH).read_bytes()).hexdigest()
    assert [(each["variant"], each["provider"], each["precision"], each["sha256"]) for each in told["results"]] == [
        ("cpu-fp32", "cpu", "fp32", sha256),
        ("again", "cpu", "fp32", sha256),
    ]
    for each in told["results"]:
        assert 0 < each["min_ms"] <= each["median_ms"] <= each["p90_ms"]
        assert each["runs"] >= 6
        assert each["peak_mb"] > 20
    assert told["not_run"] == [{"variant": "trt-int8", "reason": "made for tensorrt, available: cpu"}]


def test_people_get_a_line_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_bundle(tmp_path, change=more_variants)) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("tiny version 3; ")
    assert "spinning off; 2 rounds in turn" in head
    assert [line.split()[0] for line in lines] == ["cpu-fp32", "again", "trt-int8"]
    assert " ms  p90 " in lines[0]
    assert lines[2].endswith("not run: made for tensorrt, available: cpu")


def test_one_variant_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = make_bundle(tmp_path, change=more_variants)
    assert run(signed, "--variant", "again", "--json") == 0
    assert [each["variant"] for each in json.loads(capsys.readouterr().out)["results"]] == ["again"]
    assert run(signed, "--variant", "none") == 3
    assert run(signed, "--variant", "trt-int8") == 3
    assert "none of what was to be timed can run on this device" in capsys.readouterr().err


def test_a_variant_that_fails_is_told_and_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_bundle(tmp_path, tiny=nan_model()), "--json") == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["results"] == []
    assert "not finite" in told["not_run"][0]["reason"]
    assert "bundle tiny: failed on this device: cpu-fp32" in err


def test_nothing_is_timed_that_no_trusted_key_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = make_bundle(tmp_path)
    (signed.root / MODEL_PATH).write_bytes(b"changed")
    monkeypatch.setattr(bench, "TimedChild", None)  # would be an error if it were called
    assert run(signed) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--rounds", "0"], ["--seconds", "-1"]])
def test_a_number_that_makes_no_sense_is_exit_code_2(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(make_bundle(tmp_path), *arguments) == 2
    assert f"{arguments[0]}: expected more than 0, got {arguments[1]}" in capsys.readouterr().err


def test_figures_are_over_all_rounds() -> None:
    assert summary([[2.0, 1.0, 9.0], [3.0, 4.0]]) == {"median_ms": 3.0, "p90_ms": 9.0, "min_ms": 1.0, "runs": 5}
