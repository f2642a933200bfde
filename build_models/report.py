"""The report of a build: one JSON file for programs, one self-contained HTML page for people."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from build_models.report_page import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from build_models.evaluation import Evaluation
    from build_models.recipe import Recipe
    from build_models.workpiece import Candidate


def collect(
    recipe: Recipe,
    provenance: Mapping[str, Any],
    cpu: str,
    candidates: Sequence[Candidate],
    sizes_bytes: Mapping[str, int],
    stages: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation | None = None,
) -> dict[str, Any]:
    """All facts of a build as plain JSON data, pictures of the evaluation in base64."""
    return {
        "schema": 1,
        "name": recipe.name,
        "version": recipe.version,
        "task": recipe.task,
        "labels": recipe.labels,
        "cpu": cpu,
        "budget": recipe.budget.model_dump(),
        "provenance": dict(provenance),
        "variants": [
            {
                "id": each.variant.id,
                "precision": each.variant.precision,
                "providers": list(each.variant.providers),
                "bytes": sizes_bytes[each.variant.id],
                "packed": each.refused is None,
                "refused": each.refused,
                "advice": list(each.advice),
                "metrics": [metric.model_dump() for metric in each.variant.metrics],
            }
            for each in candidates
        ],
        "stages": {name: dict(told) for name, told in stages.items()},
        "evaluation": _plain(evaluation) if evaluation else None,
    }


def write(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``report.json``, without the pictures' bytes, and ``report.html``."""
    bare = {**content, "evaluation": _without_bytes(content.get("evaluation"))}
    (folder / "report.json").write_text(json.dumps(bare, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(content), encoding="utf-8")


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "title": evaluation.title,
        "tables": [
            {"title": each.title, "columns": list(each.columns), "rows": [list(row) for row in each.rows]}
            for each in evaluation.tables
        ],
        "pictures": [
            {"title": each.title, "mime": each.mime, "base64": base64.b64encode(each.data).decode()}
            for each in evaluation.sheets
        ],
    }


def _without_bytes(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Programs have no use for a picture twice; the page holds it."""
    if evaluation is None:
        return None
    pictures = [{"title": each["title"], "mime": each["mime"]} for each in evaluation["pictures"]]
    return {**evaluation, "pictures": pictures}
