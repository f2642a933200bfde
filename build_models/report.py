"""The report of a build: one JSON file for programs, one self-contained HTML page for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from build_models.pipeline import Candidate
    from build_models.recipe import Recipe


def collect(
    recipe: Recipe,
    provenance: Mapping[str, Any],
    cpu: str,
    candidates: Sequence[Candidate],
    sizes_bytes: Mapping[str, int],
    stages: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """All facts of a build as plain JSON data."""
    return {
        "schema": 1,
        "name": recipe.name,
        "version": recipe.version,
        "task": recipe.task,
        "labels": recipe.labels,
        "cpu": cpu,
        "provenance": dict(provenance),
        "variants": [
            {
                "id": each.variant.id,
                "precision": each.variant.precision,
                "bytes": sizes_bytes[each.variant.id],
                "packed": each.refused is None,
                "refused": each.refused,
                "metrics": [metric.model_dump() for metric in each.variant.metrics],
            }
            for each in candidates
        ],
        "stages": {name: dict(told) for name, told in stages.items()},
    }


def write(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.json`` and ``report.html``."""
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
