"""``configs/``: the commented example is complete, the schema is current, and all of them load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from agent.config import AgentConfig, Section
from agent.config_file import load_config
from agent.config_problems import sections
from agent.config_schema import json_schema
from agent.yaml_document import KeyPath, parse

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLE = (CONFIGS / "agent.yaml").read_text()
OTHER_VALUE_SHOWN = {
    "cameras.source",  # its default, no source, suits only the synthetic engine
    *("mqtt.tls", "web"),  # their default, null, stands beside the section that the test looks at
}


def missing_from(text: str) -> list[str]:
    """Keys without their default value, or without their description in a comment above them."""
    text = re.sub(r"^( *)tls: null\n +#tls:", r"\1tls:", text, flags=re.MULTILINE)
    text = re.sub(r"^web: null\n((?:#.*\n)+)", lambda found: re.sub("(?m)^#", "", found[1]), text, flags=re.MULTILINE)
    document = parse(text)
    values = {".".join(p for p in path if isinstance(p, str)): _at(document.data, path) for path in document.keys}
    comments = set(re.findall(r"^ *# +(.*)$", text, flags=re.MULTILINE))
    missing = []
    for where, model in sections().items():
        for name, field in model.model_fields.items():
            key = f"{where}.{name}".removeprefix(".")
            if key not in values:
                missing.append(key)
                continue
            default = field.get_default(call_default_factory=True)
            if not isinstance(default, Section | type(PydanticUndefined)) and key not in OTHER_VALUE_SHOWN:
                shown = str(default) if isinstance(default, Path) else default
                if values[key] != shown:
                    missing.append(f"{key}: its default {shown!r}")
            meaning = field.description or _doc_of(key)
            if not any(comment.startswith(meaning.rstrip(".")) for comment in comments):
                missing.append(f"{key}: its meaning {meaning!r}")
    return missing


def _at(data: Any, path: KeyPath) -> object:
    for part in path:
        data = data[part]
    return data


def _doc_of(key: str) -> str:
    return str(sections()[key].__doc__)


def test_the_example_documents_every_key_with_its_default_and_meaning() -> None:
    assert missing_from(EXAMPLE) == []


@pytest.mark.parametrize(
    ("line", "instead", "expected"),
    [
        ("  port: 1883\n", "", "mqtt.port"),
        ("  port: 1883\n", "  port: 1884\n", "mqtt.port: its default 1883"),
        ("    loop: false\n", "", "cameras.loop"),
        ("    max_rate_hz: 10.0\n", "", "mqtt.detections.max_rate_hz"),
        ("{ca_file: null, ", "{", "mqtt.tls.ca_file"),
        ("  # user name\n", "", "mqtt.username: its meaning 'user name'"),
        ("# The durable queue between events and broker.\n", "", "outbox: its meaning"),
    ],
)
def test_what_is_left_out_of_the_example_is_noticed(line: str, instead: str, expected: str) -> None:
    assert EXAMPLE.count(line) == 1
    (missing,) = missing_from(EXAMPLE.replace(line, instead))
    assert missing.startswith(expected)


def test_the_example_shows_no_key_that_does_not_exist() -> None:
    known = {f"{where}.{name}".removeprefix(".") for where, model in sections().items() for name in model.model_fields}
    shown = {".".join(part for part in path if isinstance(part, str)) for path in parse(EXAMPLE).keys}
    assert shown <= known


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads_as_it_is_and_names_its_schema(path: Path) -> None:
    assert load_config(path, {}).config.cameras
    assert path.read_text().startswith("# yaml-language-server: $schema=agent.schema.json\n")


def test_the_example_is_the_defaults() -> None:
    example = load_config(CONFIGS / "agent.yaml", {}).config
    given = example.model_dump(include={"model": {"bundle", "trusted_keys"}, "cameras": {0: {"id", "source"}}})
    assert AgentConfig.model_validate(given) == example


def test_the_committed_schema_is_current() -> None:
    assert json.loads((CONFIGS / "agent.schema.json").read_text()) == json_schema()


def test_the_schema_uses_only_what_draft_7_knows() -> None:
    known = {
        *("$schema", "definitions", "$ref", "title", "description", "default", "type", "properties", "required"),
        *(
            "additionalProperties",
            "enum",
            "const",
            "anyOf",
            "allOf",
            "items",
            "minItems",
            "maxItems",
            "pattern",
            "format",
        ),
        *("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength"),
    }

    def check(schema: dict[str, Any]) -> None:
        assert set(schema) <= known
        assert "$ref" not in schema or set(schema) == {"$ref"}, "draft 7 ignores what stands beside a $ref"
        for part in [*schema.get("properties", {}).values(), *schema.get("definitions", {}).values()]:
            check(part)
        for part in [*schema.get("anyOf", []), *schema.get("allOf", [])]:
            check(part)
        if "items" in schema:
            check(schema["items"])

    check(json_schema())


def test_the_schema_describes_every_key_and_allows_references_for_numbers() -> None:
    schema = json_schema()
    for model in sections().values():
        described = schema if model is AgentConfig else schema["definitions"][model.__name__]
        assert described["additionalProperties"] is False
        assert set(described["properties"]) == set(model.model_fields)
        for name, field in model.model_fields.items():
            assert described["properties"][name].get("description") == field.description
    port = schema["definitions"]["MqttConfig"]["properties"]["port"]
    assert {"type": "string", "pattern": r"\$\{"} in port["anyOf"]
    assert port["default"] == 1883
