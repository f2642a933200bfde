"""One way to make an int8 file, the file, and what is known of it; known things are kept for a search that goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from build_models.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from build_models.metrics.bootstrap import Drop

_FORMAT = 2


@dataclass(frozen=True)
class Choice:
    """Everything that decides an int8 file, besides the float graph and its calibration.

    Attributes:
        method: of calibration.
        equalized: the float graph's channels were equalised first.
        bias: the biases were corrected.
        float_nodes: nodes that stay in float although the provider would fuse them.
        form: of the file, for speed; see `forms.py`.
    """

    method: str
    equalized: bool = False
    bias: bool = False
    float_nodes: frozenset[str] = frozenset()
    form: str = "plain"

    def __str__(self) -> str:
        parts = [self.method]
        parts += ["equalised"] if self.equalized else []
        parts += ["biases corrected"] if self.bias else []
        parts += [f"{len(self.float_nodes)} nodes in float"] if self.float_nodes else []
        return ", ".join(parts) + (f" ({self.form})" if self.form != "plain" else "")


@dataclass(frozen=True)
class Attempt:
    """A file that was made and compared with fp32 on the search pictures.

    Attributes:
        choice: how it was made.
        sha256: of the file.
        size: of the file, in bytes.
        drop: on the search pictures.
        agreement: how many of fp32's own answers on them it loses; the same as ``drop`` without labels.
        float_share: of the arithmetic inside the network, the part that runs in float.
        good: it keeps what the search aims at.
        path: the file.
        latency: milliseconds and speed against fp32 by device, where it was measured.
    """

    choice: Choice
    sha256: str
    size: int
    drop: Drop
    agreement: Drop
    float_share: float
    good: bool
    path: Path
    latency: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For the report; no path."""
        choice = dataclasses.asdict(self.choice) | {"float_nodes": sorted(self.choice.float_nodes)}
        return {
            "said": str(self.choice),
            "choice": choice,
            "sha256": self.sha256,
            "bytes": self.size,
            "drop": dataclasses.asdict(self.drop),
            "agreement": dataclasses.asdict(self.agreement),
            "good": self.good,
            "float_share": round(self.float_share, 4),
            "latency": self.latency,
        }


class Memory:
    """What earlier runs found out, by digest, in a folder; a damaged note is found out again.

    Args:
        folder: made when something is noted; None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def recall(self, *facts: str) -> dict[str, Any] | None:
        """What was noted under these facts, or None."""
        if self.folder is None:
            return None
        try:
            noted = json.loads(self._path(facts).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(noted, dict) or not isinstance(noted.get("value"), dict):
            return None
        value: dict[str, Any] = noted["value"]
        return value if noted == _noted(value, facts) else None

    def note(self, value: dict[str, Any], *facts: str) -> None:
        """Keep it; nothing reads half a note.

        Raises:
            RecipeError: the folder cannot be written.
        """
        if self.folder is None:
            return
        path = self._path(facts)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(_noted(value, facts)), encoding="utf-8")
            part.replace(path)
        except OSError as err:
            raise RecipeError(
                f"{self.folder}: cannot write what the search found: {err.strerror}; choose another --work"
            ) from err

    def _path(self, facts: tuple[str, ...]) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.json"


def _noted(value: dict[str, Any], facts: tuple[str, ...]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
    return {"format": _FORMAT, "facts": list(facts), "value": value, "sha256": digest}
