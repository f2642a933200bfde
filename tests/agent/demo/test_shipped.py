"""The demo model that ships: signed, small, sound on this machine, and as good as was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import agent.demo
from agent.model.activate import activate
from agent.model.bundle import load_bundle
from agent.model.runtime import available_providers, ort
from agent.model.session import SessionOptions
from agent.model.variants import this_device, why_not

SHIPPED = Path(agent.demo.__file__).parent
KEY = SHIPPED / "demo.public.pem"
TRAINING = Path(__file__).parents[3] / "build_models" / "demo" / "training.json"


def test_its_signature_is_by_the_key_that_ships_and_it_is_small() -> None:
    manifest = load_bundle(SHIPPED / "bundles" / "shapes", [KEY]).manifest
    assert [variant.id for variant in manifest.variants] == ["cpu-int8", "cpu-fp32"]
    assert sum(entry.bytes for entry in manifest.files) < 3e6


@pytest.mark.parametrize("variant_id", ["cpu-fp32", "cpu-int8"])
def test_each_variant_made_for_this_machine_gives_its_golden_outputs(variant_id: str) -> None:
    manifest = load_bundle(SHIPPED / "bundles" / "shapes", [KEY]).manifest
    variant = next(each for each in manifest.variants if each.id == variant_id)
    if why_not(variant, this_device(ort.__version__, available_providers())) is None:
        activate(SHIPPED / "bundles" / "shapes", [KEY], SessionOptions(), variant_id)
    else:
        assert variant_id == "cpu-int8", "fp32 is for any machine"


def test_each_variant_finds_the_held_out_objects() -> None:
    report = json.loads((SHIPPED / "bundles" / "shapes" / "report" / "report.json").read_bytes())
    precision = {
        table["title"].split(":")[0]: float(table["title"].split()[-1]) for table in report["evaluation"]["tables"]
    }
    assert precision.keys() == {"cpu-int8", "cpu-fp32"}
    assert min(precision.values()) >= 0.85


def test_it_was_trained_within_its_limits_on_pictures_with_enough_small_objects() -> None:
    training = json.loads(TRAINING.read_bytes())
    objects = {row["size"]: row["objects"] for row in training["table"] if row["label"] == "all"}
    assert training["map50"] >= 0.85
    assert not training["shuffled_labels"]
    assert training["seconds"] < 20 * 60
    assert objects["<24"] >= 0.3 * objects["all"]
