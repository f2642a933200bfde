"""The web pages in a real browser, over a real agent with six live cameras, a still one and one that is down."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import cv2
import psutil
import pytest

pytest.importorskip("fastapi", reason="needs the web extra")

from agent.demo.scenes import LABELS, Scene
from tests.support.agents import running_agent
from tests.support.devtools import CHROMIUM, Browser, Page
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.web_pages import INFER, RATE_HZ, colored, figures, img, live_camera, open_index, pixels, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.agents import AgentProcess

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")]

NOTHING = "\N{EN DASH}"  # where there is no number


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of the demo's world with several objects in it."""
    image_bgr, _ = Scene(640, 384, 7, 10.0).render(30)
    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    cv2.imwrite(str(path), image_bgr)
    return path


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, scene: Path) -> Iterator[AgentProcess]:
    cameras: list[dict[str, Any]] = [
        {"id": "still", "source": str(scene), "loop": True},
        {"id": "cellar", "source": f"http://127.0.0.1:{free_port()}/video"},
        *(live_camera(f"live-{number}", number) for number in range(1, 7)),
    ]
    config = write_config(tmp_path_factory.mktemp("agent"), cameras, max_upload_mib=1)
    with running_agent(config, "--dry-run-mqtt") as agent:
        yield agent


@pytest.fixture(scope="module")
def port(agent: AgentProcess) -> int:
    return agent.web_port()


@pytest.fixture(scope="module")
def page(browser: Browser, port: int) -> Iterator[Page]:
    """The index page, tall enough to show all cameras, once pictures have come."""
    page = open_index(browser, f"http://127.0.0.1:{port}/", width=1280, height=1900)
    page.wait_for("document.querySelectorAll('.frame img:not([hidden])').length === 7")
    yield page
    page.close()


def established(agent: AgentProcess) -> int:
    """Connections that the agent's server holds."""
    connections = psutil.Process(agent.process.pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in connections)


def test_the_title_tells_node_and_model(page: Page) -> None:
    assert page.evaluate("document.title") == "gatehouse · edge-agent"
    assert page.evaluate("document.querySelector('h1').textContent") == "gatehouse"
    assert "demo-shapes" in page.evaluate("document.querySelector('#runs').textContent")


@pytest.mark.parametrize("camera_id", ["live-1", "live-6"])
def test_pictures_are_live(page: Page, camera_id: str) -> None:
    """One is streamed, the other beyond the browser's connections: both change."""
    assert page.evaluate(f"{img(camera_id)}.naturalWidth") == 320
    before = pixels(page, img(camera_id))
    assert wait_until(lambda: pixels(page, img(camera_id)) != before)


def test_a_camera_that_shows_a_still_scene_does_not_change(page: Page) -> None:
    """The control of the test before: its numbers come from the camera, not from the page."""
    sums = {pixels(page, img("still")) for _ in range(20)}
    assert len(sums) == 1


def test_four_cameras_are_streamed_and_the_rest_take_turns(page: Page) -> None:
    sources = page.evaluate("[...document.querySelectorAll('.frame img:not([hidden])')].map(each => each.src)")
    assert sum("stream.mjpg" in source for source in sources) == 4
    assert sum(source.startswith("blob:") for source in sources) == 3


def test_boxes_are_drawn_until_they_are_switched_off(page: Page) -> None:
    """The same frame with and without: the colours are the boxes', not the scene's."""
    with_boxes = colored(page, img("still"))
    page.evaluate("document.querySelector('#boxes').click()")
    page.wait_for(f"{img('still')}.src.includes('boxes=false') && !{img('still')}.hidden")
    assert wait_until(lambda: colored(page, img("still")) < with_boxes / 4)
    without = colored(page, img("still"))
    page.evaluate("document.querySelector('#boxes').click()")
    assert wait_until(lambda: colored(page, img("still")) == with_boxes)
    assert with_boxes > without + 1000


def test_counts_and_figures_come(page: Page) -> None:
    page.wait_for("document.querySelectorAll('[data-camera=still] .seen li').length > 1")
    told = page.evaluate("[...document.querySelectorAll('[data-camera=still] .seen li')].map(each => each.innerText)")
    assert {text.split()[0] for text in told} <= set(LABELS)
    assert all(int(text.split()[1]) > 0 for text in told)
    assert wait_until(lambda: float(figures(page, "live-1")["frame rate"].strip(f"{NOTHING}/s ") or 0) > RATE_HZ / 2)
    seen = figures(page, "live-1")
    assert float(seen["frame rate"].split()[0]) < 2 * RATE_HZ
    assert float(seen["inference"].removesuffix(" ms")) > 0
    assert float(seen["frame age"].removesuffix(" ms")) >= 0
    assert re.findall(r"\d+", seen["size"]) == ["320", "192"]


def test_a_camera_that_is_down_is_shown_as_such(page: Page) -> None:
    card = "document.querySelector('[data-camera=cellar]')"
    page.wait_for(f"{card}.querySelector('.badge').textContent === 'down'")
    assert "This camera is down; the agent keeps trying." in page.evaluate(f"{card}.innerText")
    assert page.evaluate(f"{img('cellar')}.hidden")
    assert figures(page, "cellar")["frame rate"] == NOTHING
    assert page.evaluate("document.querySelector('[data-camera=still] .badge').textContent") == "up"


def test_a_picture_of_ones_own_is_shown_with_its_objects(page: Page, port: int, scene: Path) -> None:
    """While all the cameras run: what the page shows is what the API says."""
    page.choose_file("#file", scene)
    page.wait_for("document.querySelector('#result tbody tr')")
    rows = page.evaluate("[...document.querySelectorAll('#result tbody tr')].map(each => each.innerText.split('\\t'))")
    objects = ask(port, INFER, scene.read_bytes()).json["objects"]
    assert len(objects) >= 3
    expected = [[each["label"], f"{each['score']:.2f}"] for each in sorted(objects, key=lambda each: -each["score"])]
    assert [row[:2] for row in rows] == expected
    assert json.loads(page.evaluate("document.querySelector('#result pre').textContent"))["objects"] == objects
    assert page.evaluate("document.querySelector('#result canvas').getAttribute('aria-label')").startswith("scene.png:")
    assert colored(page, "document.querySelector('#result canvas')") > 1000


def test_a_higher_least_score_leaves_less(page: Page) -> None:
    page.evaluate("document.querySelector('#least').value = '1'")
    page.evaluate("document.querySelector('#least').dispatchEvent(new Event('change'))")
    page.wait_for("document.querySelector('#result h3').textContent === 'nothing found'")
    assert colored(page, "document.querySelector('#result canvas')") < 1000


def test_a_file_that_is_too_large_is_not_even_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(2 * 1024 * 1024))
    sent = sum(INFER in address for address in page.requests)
    page.choose_file("#file", tmp_path / "large.jpg")
    page.wait_for("document.querySelector('#refusal').innerText.includes('This file has 2 MiB, the agent takes 1 MiB')")
    assert sum(INFER in address for address in page.requests) == sent


def test_the_page_is_quiet_and_asks_only_the_agent(page: Page, port: int) -> None:
    """After all of the above: no error, no warning, nothing from elsewhere."""
    assert page.complaints == []
    assert len(page.requests) > 20
    own = (f"http://127.0.0.1:{port}/", f"blob:http://127.0.0.1:{port}/")
    assert [address for address in page.requests if not address.startswith(own)] == []


def test_everything_can_be_reached_with_the_keyboard(page: Page) -> None:
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"boxes", "SUMMARY", "file", "least"} <= set(reached), reached


def test_a_page_that_nobody_sees_gives_its_connections_back(browser: Browser, page: Page, agent: AgentProcess) -> None:
    assert wait_until(lambda: established(agent) >= 4)
    cover = browser.open("data:text/html,a tab in front")
    assert wait_until(lambda: established(agent) == 0, 20.0)
    asked = len(page.requests)
    cover.close()
    page.call("Page.bringToFront")
    page.wait_for("document.querySelectorAll('.frame img:not([hidden])').length === 7")
    assert len(page.requests) > asked + 7


@pytest.mark.parametrize("path", ["", "docs"])
def test_nothing_is_wider_than_a_phone(browser: Browser, port: int, path: str) -> None:
    page = browser.open(f"http://127.0.0.1:{port}/{path}", width=390, height=844, phone=True, dark=True)
    page.wait_for("document.querySelectorAll('article').length > 4")
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in ground.strip("rgb()").split(",")) < 64, "a dark page where the device is dark"
    assert page.complaints == []
    page.close()


def test_a_refusal_is_shown_as_its_sentence(browser: Browser, port: int, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no picture at all")
    page = open_index(browser, f"http://127.0.0.1:{port}/", width=1280, height=500)
    page.choose_file("#file", tmp_path / "note.txt")
    page.wait_for("!document.querySelector('#refusal').hidden")
    sentence = ask(port, INFER, b"no picture at all").problem
    assert sentence[1:] in page.evaluate("document.querySelector('#refusal').textContent")
    assert page.evaluate("document.querySelector('#result').hidden")
    # Browsers put every failed request into the console: the one control that the console is listened to.
    assert ["415" in complaint for complaint in page.complaints] == [True]
    page.close()


def test_the_policy_keeps_strangers_out(browser: Browser, port: int) -> None:
    """The control: what the page never does would be stopped, and told in the console."""
    page = browser.open(f"http://127.0.0.1:{port}/docs", width=1280, height=900)
    page.wait_for("document.querySelectorAll('article').length > 4")
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/track.png'}))")
    page.evaluate("document.head.append(document.createElement('script'))")
    page.evaluate("document.head.lastChild.append('intruder = 1')")
    assert wait_until(lambda: len(page.complaints) >= 2)
    assert all("Content Security Policy" in complaint for complaint in page.complaints)
    assert page.evaluate("typeof intruder") == "undefined"
    page.close()


def test_the_docs_show_every_operation_with_a_command(browser: Browser, port: int) -> None:
    page = browser.open(f"http://127.0.0.1:{port}/docs", width=1280, height=900)
    paths = ask(port, "/openapi.json").json["paths"]
    count = sum(len(methods) for methods in paths.values())
    page.wait_for(f"document.querySelectorAll('article').length === {count}")
    shown = page.evaluate("[...document.querySelectorAll('article h3 code')].map(each => each.textContent)")
    assert sorted(shown) == sorted(path for path, methods in paths.items() for _ in methods)
    commands = "[...document.querySelectorAll('.command code')].map(each => each.textContent)"
    assert f"curl --data-binary @picture.jpg http://127.0.0.1:{port}{INFER}" in page.evaluate(commands)
    assert f"curl -o picture.jpg http://127.0.0.1:{port}/api/v1/cameras/door/snapshot.jpg" in page.evaluate(commands)
    assert not any("undefined" in text for text in page.evaluate("[document.body.innerText]"))
    page.evaluate("document.querySelector('#token').click()")
    assert all("Bearer $TOKEN" in command for command in page.evaluate(commands))
    page.evaluate("document.querySelector('.command button').click()")
    page.wait_for("document.querySelector('.command button').textContent === 'Copied'")
    assert page.complaints == []
    page.close()
