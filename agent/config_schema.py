"""The JSON Schema of ``agent.yaml``, in the constructs of draft 7, which editors' YAML servers understand."""

from __future__ import annotations

from typing import Any

from agent.config import AgentConfig

_REFERENCE = {"type": "string", "pattern": r"\$\{"}  # ${NAME} may stand wherever a value may


def json_schema() -> dict[str, Any]:
    """The schema; every key carries its description and its default."""
    schema = _draft_7(AgentConfig.model_json_schema())
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "title": "edge-agent configuration"}


def _draft_7(schema: dict[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"$defs", "properties"}:
            inner = {name: _draft_7(part) for name, part in value.items()}
            converted["definitions" if key == "$defs" else key] = inner
        elif key == "$ref":
            # Draft 7 ignores what stands beside a $ref, so it goes into an allOf of its own.
            converted["allOf"] = [{"$ref": value.replace("#/$defs/", "#/definitions/")}]
        elif key in {"anyOf", "allOf"}:
            converted[key] = [_draft_7(part) for part in value]
        elif key == "items":
            converted[key] = _or_reference(_draft_7(value))
        elif key != "title":
            converted[key] = value
    if "properties" in converted:
        converted["properties"] = {name: _or_reference(part) for name, part in converted["properties"].items()}
    return converted


def _or_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a plain value, or a reference in its place; texts without a rule allow one already."""
    limits = {key: value for key, value in schema.items() if key not in {"description", "default"}}
    branches = limits.get("anyOf", [limits])
    holds_section = any("allOf" in branch or branch.get("type") in {"array", "object"} for branch in branches)
    if holds_section or limits in ({"type": "string"}, {"type": "string", "format": "path"}):
        return schema
    described = {key: value for key, value in schema.items() if key in {"description", "default"}}
    return {**described, "anyOf": [*branches, _REFERENCE]}
