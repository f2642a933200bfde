"""The API's description is complete, and is valid OpenAPI 3.1 as far as readers rely on it."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="needs the web extra")

from agent.config import WebConfig
from agent.web.api import make_api
from agent.web.service import Service
from agent.web.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.frame import Frame
    from agent.tasks import Sighting


class NoCameras:
    """An agent's cameras, of which it has none."""

    ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def latest(self, camera_id: str) -> tuple[Frame, Sighting] | None:
        return None

    def facts(self, camera_id: str) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    workers = Workers()
    try:
        api = make_api(Service({}, cameras=NoCameras()), WebConfig(), workers)  # type: ignore[arg-type]
        return dict(json.loads(json.dumps(api.openapi())))
    finally:
        workers.close()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def resolves(description: dict[str, Any], reference: str) -> bool:
    at: Any = description
    for key in reference.removeprefix("#/").split("/"):
        if not isinstance(at, dict) or key not in at:
            return False
        at = at[key]
    return reference.startswith("#/")


def complaints(description: dict[str, Any]) -> list[str]:
    """Everything that a reader would miss, and what makes the document invalid."""
    found = [] if re.fullmatch(r"3\.1\.\d", description["openapi"]) else [f"openapi {description['openapi']}"]
    ids = [operation.get("operationId") for _, operation in operations(description)]
    found += [f"operationId {each} {ids.count(each)} times" for each in ids if each is None or ids.count(each) > 1]
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(description))
    found += [f"dangling {each}" for each in references if not resolves(description, each)]
    for name, operation in operations(description):
        found += [f"{name}: no {key}" for key in ("summary", "description", "tags") if not operation.get(key)]
        found += _of_parameters(name, operation)
        for status, response in operation["responses"].items():
            found += [f"{name}: {each}" for each in _of_response(status, response)]
    return found


def _of_parameters(name: str, operation: dict[str, Any]) -> list[str]:
    given = operation.get("parameters", [])
    placeholders = set(re.findall(r"{(\w+)}", name))
    in_path = {each["name"] for each in given if each["in"] == "path" and each["required"]}
    found = [] if placeholders == in_path else [f"{name}: path parameters {in_path}"]
    return found + [f"{name}: {each['name']} not described" for each in given if not each.get("description")]


def _of_response(status: str, response: dict[str, Any]) -> list[str]:
    text, content = response.get("description", ""), response.get("content", {})
    found = [f"{status} not described"] if text in ("", "Successful Response", "Validation Error") else []
    if not content:
        return [*found, f"{status} without content"]
    if status >= "400" and list(content) != ["application/problem+json"]:
        found.append(f"{status} as {list(content)}")
    bare = [kind for kind, media in content.items() if not media.keys() & {"schema", "example", "examples"}]
    return found + [f"{status} {kind} without schema and example" for kind in bare]


def test_the_description_is_complete(description: dict[str, Any]) -> None:
    assert len(list(operations(description))) >= 8
    assert complaints(description) == []


def _same_ids(description: dict[str, Any]) -> None:
    for _, operation in operations(description):
        operation["operationId"] = "same"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda each: each.update(openapi="2.0"), "openapi 2.0"),
        (_same_ids, "operationId same 8 times"),
        (lambda each: each["paths"]["/healthz"]["get"].pop("summary"), "get /healthz: no summary"),
        (lambda each: each["paths"]["/healthz"]["get"]["responses"]["200"].pop("content"), "200 without content"),
        (lambda each: each["paths"]["/healthz"]["get"]["responses"]["503"].update(description=""), "503 not described"),
        (lambda each: each["info"].update({"$ref": "#/nowhere"}), "dangling #/nowhere"),
        (
            lambda each: each["paths"]["/api/v1/infer"]["post"]["parameters"][0].pop("description"),
            "model not described",
        ),
        (
            lambda each: each["paths"]["/api/v1/cameras/{camera_id}/stream.mjpg"]["get"].pop("parameters"),
            "path parameters set()",
        ),
    ],
)
def test_what_is_missing_is_found(
    description: dict[str, Any], spoil: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    """The control of the test before."""
    spoilt = copy.deepcopy(description)
    spoil(spoilt)
    assert any(complaint in each for each in complaints(spoilt)), complaints(spoilt)
