"""Judges a delivery from outside: what was emitted, logged by another process, against what a subscriber received."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Verdict:
    """Empty lists mean that the promise was kept.

    Attributes:
        emitted: ids logged as emitted.
        received: messages received, duplicates included.
        duplicates: messages whose id had arrived before.
        lost: emitted ids that never arrived.
        conflicting: ids that arrived with different payloads.
        inverted: ids that arrived for the first time after a later one of the same epoch.
        overtaken: ids that arrived for the first time after one that was emitted later, over all epochs.
    """

    emitted: int
    received: int
    duplicates: int
    lost: list[str] = field(default_factory=list)
    conflicting: list[str] = field(default_factory=list)
    inverted: list[str] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """True if nothing was lost, changed or out of order."""
        return not (self.lost or self.conflicting or self.inverted or self.overtaken)

    def __str__(self) -> str:
        trouble = {
            name: ids[:5] for name in ("lost", "conflicting", "inverted", "overtaken") if (ids := getattr(self, name))
        }
        return f"{self.emitted} emitted, {self.received} received, {self.duplicates} duplicates, {trouble or 'clean'}"


def judge(emitted_ids: Sequence[str], payloads: Iterable[bytes]) -> Verdict:
    """Compare the ids in the order of their emission with the payloads in the order of their arrival."""
    first: dict[str, bytes] = {}
    received = 0
    conflicting, inverted, overtaken = [], [], []
    last_seq: dict[str, int] = {}
    emission = {entry_id: at for at, entry_id in enumerate(emitted_ids)}
    last_emission = -1
    for payload in payloads:
        received += 1
        entry_id = json.loads(payload)["id"]
        if entry_id in first:
            if first[entry_id] != payload:
                conflicting.append(entry_id)
            continue
        first[entry_id] = payload
        _, epoch, seq = entry_id.split(":")
        if int(seq) < last_seq.get(epoch, 0):
            inverted.append(entry_id)
        last_seq[epoch] = int(seq)
        at = emission.get(entry_id, last_emission)  # killed before it could log: emitted all the same
        if at < last_emission:
            overtaken.append(entry_id)
        last_emission = max(last_emission, at)
    lost = [entry_id for entry_id in emitted_ids if entry_id not in first]
    return Verdict(len(emitted_ids), received, received - len(first), lost, conflicting, inverted, overtaken)
