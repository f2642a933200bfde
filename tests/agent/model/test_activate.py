from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import BundleError
from agent.model.activate import activate
from agent.model.bundle import parse_manifest
from agent.model.session import Session, SessionOptions
from tests.support.bundles import MODEL_PATH, SignedBundle, listing, make_bundle, write_manifest
from tests.support.tiny_models import TinyModel, classify_model, detect_model, nan_model, segment_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.model.canary import Canary


def go(signed: SignedBundle, **keys: Any) -> Session:
    return activate(signed.root, [signed.public_key], SessionOptions(), **keys).session


@pytest.mark.parametrize(
    "tiny",
    [detect_model(), classify_model(), segment_model(), segment_model(labels=["water"], confidence=True)],
    ids=["detect", "classify", "segment", "segment with fewer labels than classes"],
)
def test_a_good_bundle_goes_live(tmp_path: Path, caplog: pytest.LogCaptureFixture, tiny: TinyModel) -> None:
    caplog.set_level(logging.INFO)
    signed = make_bundle(tmp_path, tiny=tiny)
    active = activate(signed.root, [signed.public_key], SessionOptions())
    assert (active.bundle.manifest.name, active.variant.id, active.session.provider) == ("tiny", "cpu-fp32", "cpu")
    assert caplog.messages == ["model tiny version 3: variant cpu-fp32 on cpu, 1 threads, golden replay passed"]


def test_the_model_runs_for_the_replay_and_to_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = Session.run

    def counted(self: Session) -> Mapping[str, NDArray[Any]]:
        runs.append(self)
        return run(self)

    monkeypatch.setattr(Session, "run", counted)
    go(make_bundle(tmp_path), warm_up_runs=3)
    assert len(runs) == 2 + 3


def test_the_canary_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def check(self, *arguments: object) -> None:
            raise BundleError("it died")

    def never(*arguments: object) -> None:
        raise AssertionError("loaded in this process though the canary died")

    monkeypatch.setattr(Session, "__init__", never)
    with pytest.raises(BundleError, match="it died"):
        go(make_bundle(tmp_path), canary=cast("Canary", Refusing()))


@pytest.mark.parametrize("labels", [["blue", "green"], ["blue", "green", "red", "grey"]])
def test_a_classifier_needs_a_label_for_each_class(tmp_path: Path, labels: list[str]) -> None:
    signed = make_bundle(tmp_path, tiny=classify_model(), change=lambda manifest: manifest.update(labels=labels))
    with pytest.raises(BundleError, match=f"expected {len(labels)} classes as there are labels, found 3"):
        go(signed)


def test_a_model_that_gives_no_numbers_does_not_go_live(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not finite"):
        go(make_bundle(tmp_path, tiny=nan_model()))


def test_a_wanted_variant_must_exist(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path)
    assert go(signed, wanted="cpu-fp32").provider == "cpu"
    with pytest.raises(BundleError, match="there is no variant 'cpu-int8'"):
        go(signed, wanted="cpu-int8")


def test_a_provider_that_the_config_does_not_allow_is_not_used(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path)
    with pytest.raises(BundleError, match="made for cpu, available: none"):
        activate(signed.root, [signed.public_key], SessionOptions(("tensorrt",)))


@pytest.mark.parametrize(("task", "output"), [("segment", "mask uint8"), ("classify", "scores float32")])
def test_a_model_of_another_task_does_not_go_live(tmp_path: Path, task: str, output: str) -> None:
    tiny = segment_model() if task == "classify" else detect_model()
    signed = make_bundle(tmp_path, tiny=tiny, change=lambda manifest: manifest.update(task=task))
    with pytest.raises(BundleError, match=f"task {task} needs an output {output}"):
        go(signed)


def test_a_swapped_model_does_not_go_live_even_when_it_is_signed(tmp_path: Path) -> None:
    signed = make_bundle(tmp_path)
    other = detect_model(scores=(0.7, 0.8, 0.6, 0.0))
    manifest = parse_manifest((signed.root / "manifest.json").read_bytes()).model_dump(mode="json", by_alias=True)
    (signed.root / MODEL_PATH).write_bytes(other.file)
    manifest["files"] = [
        listing(MODEL_PATH, other.file) if entry["path"] == MODEL_PATH else entry for entry in manifest["files"]
    ]
    write_manifest(signed.root, manifest, signed.key)
    with pytest.raises(BundleError, match="golden input 0 does not give its expected output"):
        go(signed)


def test_a_bundle_of_another_signer_does_not_go_live(tmp_path: Path) -> None:
    ours = make_bundle(tmp_path / "ours")
    theirs = make_bundle(tmp_path / "theirs", Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match="not trusted"):
        activate(theirs.root, [ours.public_key], SessionOptions())
