"""The index page when its agent goes and comes, behind a token, and without cameras."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the web extra")

from tests.support.agents import running_agent, running_process
from tests.support.bundles import make_bundle
from tests.support.devtools import CHROMIUM, Browser, Page
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.tiny_models import classify_model, segment_model
from tests.support.waiting import wait_until
from tests.support.web_pages import BUNDLE, PUBLIC_KEY, img, live_camera, open_index, pixels, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")]

TOKEN = "a-token-of-many-characters"
MARKUP = "<b>red</b>"


def test_it_comes_back_when_the_agent_does_and_the_token_opens_it(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, [live_camera("door")], port=port, token=TOKEN)
    address = f"http://viewer:{TOKEN}@127.0.0.1:{port}/"
    with running_agent(config, "--dry-run-mqtt") as agent:
        agent.web_port()
        assert ask(port, "/").status == 401
        page = open_index(browser, address, width=1280, height=900)
        page.wait_for(f"{img('door')}?.naturalWidth === 320")
        before = pixels(page, img("door"))
        assert wait_until(lambda: pixels(page, img("door")) != before)
        assert page.complaints == []
        agent.signal_and_wait(signal.SIGTERM)
    page.wait_for("document.querySelector('#trouble').innerText.includes('The agent cannot be reached.')")
    assert page.evaluate("document.querySelector('.badge').textContent") == "unknown"
    with running_agent(config, "--dry-run-mqtt") as agent:
        agent.web_port()
        page.wait_for("document.querySelector('#trouble').hidden")
        page.wait_for("document.querySelector('.badge').innerText === 'up'")
        before = pixels(page, img("door"))
        assert wait_until(lambda: pixels(page, img("door")) != before)
    page.close()


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is blue on its left quarter and red elsewhere."""
    image_bgr = np.zeros((48, 64, 3), np.uint8)
    image_bgr[:, :16, 0] = image_bgr[:, 16:, 2] = 255
    path = tmp_path_factory.mktemp("red") / "red.png"
    cv2.imwrite(str(path), image_bgr)
    return path


@pytest.fixture(scope="module")
def alone(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of ``edge-agent serve`` with three models; one label is markup."""
    folder = tmp_path_factory.mktemp("serve")
    bundles = {BUNDLE: PUBLIC_KEY}
    labels = ("blue", "green", MARKUP)
    for name, tiny in {"colours": classify_model(labels=labels), "ground": segment_model(labels=labels)}.items():
        made = make_bundle(folder / name, tiny=tiny, change=partial(dict.update, name=name))
        bundles[made.root] = made.public_key
    flags = [word for root, key in bundles.items() for word in ("--bundle", str(root), "--trusted-key", str(key))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        with running_process("serve", *flags, "--port", "0") as server:
            page = open_index(browser, f"http://127.0.0.1:{server.web_port()}/", width=1280, height=900)
            yield page
            page.close()


def choose_model(page: Page, name: str) -> None:
    page.evaluate(f"document.querySelector('#model').value = '{name}'")
    page.evaluate("document.querySelector('#model').dispatchEvent(new Event('change'))")


def test_without_cameras_it_shows_the_models(alone: Page) -> None:
    assert alone.evaluate("document.querySelector('#cameras').hidden")
    names = alone.evaluate("[...document.querySelectorAll('#models h3')].map(each => each.textContent)")
    assert names == ["demo-shapes", "colours", "ground"]


def test_a_class_is_shown_and_its_label_is_never_markup(alone: Page, red: Path) -> None:
    choose_model(alone, "colours")
    alone.choose_file("#file", red)
    alone.wait_for(f"document.querySelector('#result h3')?.textContent.startsWith('{MARKUP}, score 0.99')")
    assert alone.evaluate("document.querySelectorAll('main b').length") == 0


def test_areas_are_shown_and_the_agent_draws_them(alone: Page, red: Path) -> None:
    """Choosing another model asks again with the same picture; a mask is drawn by the agent, not by the page."""
    alone.choose_file("#file", red)
    choose_model(alone, "ground")
    alone.wait_for("document.querySelector('#result h3')?.textContent === '2 classes'")
    rows = "[...document.querySelectorAll('#result tbody tr')].map(each => each.innerText.split('\\t'))"
    assert alone.evaluate(rows) == [[MARKUP, "75.0 %"], ["blue", "25.0 %"]]
    assert any("annotate=true" in address for address in alone.requests)


def test_all_of_this_leaves_the_console_silent(alone: Page) -> None:
    """A page without cameras asks for none: the browser would complain about the 404."""
    assert alone.complaints == []
    assert not any("/api/v1/cameras" in address for address in alone.requests)
