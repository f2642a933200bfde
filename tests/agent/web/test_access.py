"""Who may ask: with a token whoever knows it, without one only this machine under a name of its own."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from agent.config import WebConfig
from tests.agent.web.conftest import running
from tests.support.http import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.web.service import Service

TOKEN = "a-token-of-many-characters"


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[int]:
    with running(service, token=TOKEN) as port:
        yield port


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"anybody:{TOKEN}"), basic(f":{TOKEN}")]
)
@pytest.mark.parametrize("path", ["/api/v1/models", "/", "/static/index.js", "/metrics", "/openapi.json"])
def test_who_knows_the_token_gets_in(guarded: int, authorization: str, path: str) -> None:
    assert ask(guarded, path, headers={"Authorization": authorization}).status in (200, 404)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Token {TOKEN}",
        TOKEN,
        basic(TOKEN),
        basic(f"{TOKEN}:"),
        "Basic not base64!",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic \xe9",
        "Bearer \xe9",
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/models", "/", "/static/index.js", "/metrics", "/openapi.json", "/nowhere"])
def test_everybody_else_is_told_what_is_expected(guarded: int, authorization: str | None, path: str) -> None:
    answer = ask(guarded, path, headers={} if authorization is None else {"Authorization": authorization})
    assert answer.status == 401
    assert "expected the token of web.token" in answer.problem
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert TOKEN not in answer.body.decode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(guarded: int, path: str) -> None:
    assert ask(guarded, path).status == 200


def test_the_description_says_that_the_token_is_wanted(guarded: int, port: int) -> None:
    document = ask(guarded, "/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json
    assert {each["scheme"] for each in document["components"]["securitySchemes"].values()} == {"bearer", "basic"}
    assert document["security"] == [{name: []} for name in document["components"]["securitySchemes"]]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in document["paths"]["/metrics"]["get"]
    assert "security" not in ask(port, "/openapi.json").json


def test_with_a_token_any_name_of_the_machine_will_do(guarded: int) -> None:
    headers = {"Host": "camera.example", "Authorization": f"Bearer {TOKEN}"}
    assert ask(guarded, "/api/v1/models", headers=headers).status == 200


@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket"])
def test_without_a_token_no_other_sites_page_may_use_the_cameras(port: int, mode: str) -> None:
    answer = ask(port, "/api/v1/models", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode})
    assert answer.status == 403
    assert "another site's page" in answer.problem


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_our_own_pages_may(port: int, site: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
    answer = ask(port, "/api/v1/models", headers=headers)
    assert answer.status == 200
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_link_to_our_page_may_be_followed_from_anywhere(port: int) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(port, "/", headers=headers).status == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "localhost:8080", "127.0.0.1:1", "127.0.0.2", "[::1]:8080", "[::1]"],
)
def test_without_a_token_this_machine_may_ask_by_its_own_names(port: int, host: str) -> None:
    assert ask(port, "/api/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", ""]
)
def test_without_a_token_a_strange_name_is_refused_because_it_may_have_been_pointed_here(port: int, host: str) -> None:
    answer = ask(port, "/api/v1/models", headers={"Host": host})
    assert answer.status == 421
    assert "expected a request for localhost" in answer.problem
    assert ask(port, "/healthz", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.10", "camera.example"])  # noqa: S104
def test_other_machines_are_let_in_only_with_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        WebConfig.model_validate({"host": host})
    assert WebConfig.model_validate({"host": host, "token": TOKEN}).host == host


@pytest.mark.parametrize("token", ["", "short"])
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="at least 16 characters"):
        WebConfig.model_validate({"token": token})
