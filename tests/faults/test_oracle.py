"""The oracle sees each kind of broken promise; without that its verdict on the agent would say nothing."""

from __future__ import annotations

import json

from tests.faults.oracle import judge

EMITTED = [f"n:a:{seq}" for seq in range(1, 6)] + [f"n:b:{seq}" for seq in range(6, 11)]


def payloads(ids: list[str], mark: str = "") -> list[bytes]:
    return [json.dumps({"id": entry_id, "mark": mark}).encode() for entry_id in ids]


def test_everything_once_in_order_is_clean() -> None:
    verdict = judge(EMITTED, payloads(EMITTED))
    assert verdict.is_clean()
    assert (verdict.emitted, verdict.received, verdict.duplicates) == (10, 10, 0)


def test_duplicates_and_unlogged_events_are_allowed() -> None:
    arrived = [*EMITTED[:4], *EMITTED[2:5], "n:a:99", *EMITTED[5:]]
    verdict = judge(EMITTED, payloads(arrived))
    assert verdict.is_clean()
    assert verdict.duplicates == 2


def test_a_missing_event_is_lost() -> None:
    assert judge(EMITTED, payloads(EMITTED[:3] + EMITTED[4:])).lost == ["n:a:4"]


def test_another_payload_under_one_id_is_a_conflict() -> None:
    assert judge(EMITTED, payloads(EMITTED) + payloads(EMITTED[:1], "other")).conflicting == ["n:a:1"]


def test_a_first_arrival_after_a_later_one_is_an_inversion() -> None:
    swapped = EMITTED[:1] + EMITTED[2:3] + EMITTED[1:2] + EMITTED[3:]
    verdict = judge(EMITTED, payloads(swapped))
    assert verdict.inverted == ["n:a:2"]
    assert not verdict.is_clean()


def test_an_epoch_that_passes_an_older_one_is_seen() -> None:
    verdict = judge(EMITTED, payloads(EMITTED[5:] + EMITTED[:5]))
    assert verdict.inverted == []
    assert verdict.overtaken == EMITTED[:5]
