"""The report in a real browser, in a viewport as wide as a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the build extra")

from build_models.report_page import page
from tests.support.report_content import report_content

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")]

PHONE_PX = 400
POLICY = "default-src &#x27;none&#x27;;"
# Inside the page: what it measures when all is loaded, sent to the page around it.
PROBE = """<script>
const failed = [];
addEventListener("error", event => failed.push(event.target.src || event.message), true);
addEventListener("load", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const root = document.documentElement;
  parent.postMessage({
    viewport_px: innerWidth, width_px: root.scrollWidth, height_px: root.scrollHeight,
    plots_px: [...document.querySelectorAll("svg")].map(each => each.getBoundingClientRect().width),
    text_px: [...document.querySelectorAll("svg text")].map(each =>
      parseFloat(getComputedStyle(each).fontSize) * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b)),
    failed,
  }, "*");
});</script>"""
AROUND = """<!DOCTYPE html><html><head><script>
addEventListener("message", event => { document.documentElement.dataset.seen = JSON.stringify(event.data); });
</script></head><body><iframe src="inner.html" width="WIDTH" height="800" style="border:0"></iframe></body></html>"""


@dataclass(frozen=True)
class Seen:
    """What the browser measured, in CSS pixels, what failed to load or run, and the lines of its console."""

    viewport_px: int
    width_px: int
    height_px: int
    plots_px: list[float]
    text_px: list[float]
    failed: list[str]
    console: list[str]


def look(text: str, folder: Path) -> Seen:
    """Show a page in an iframe of a phone's width: the browser's own window cannot be so narrow."""
    # The page's policy forbids any script, the probe too.
    probed = text.replace(POLICY, f"{POLICY} script-src &#x27;unsafe-inline&#x27;;").replace("<body>", f"<body>{PROBE}")
    assert PROBE in probed
    (folder / "inner.html").write_text(probed, encoding="utf-8")
    (folder / "outer.html").write_text(AROUND.replace("WIDTH", str(PHONE_PX)), encoding="utf-8")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    ]  # fmt: skip
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--enable-logging=stderr"]
    command = [str(CHROMIUM), *options, "--dump-dom", (folder / "outer.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None, f"the page told nothing: {done.stdout[:500]} {done.stderr[-2000:]}"
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(**json.loads(html.unescape(found[1])), console=console)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return look(page(report_content()), tmp_path_factory.mktemp("report"))


def test_nothing_is_wider_than_a_phone(seen: Seen) -> None:
    assert seen.viewport_px == PHONE_PX
    assert seen.width_px <= PHONE_PX
    assert seen.height_px > 2000


def test_plots_fill_the_width_and_their_text_can_be_read(seen: Seen) -> None:
    assert len(seen.plots_px) == 8
    assert min(seen.plots_px) > 0.85 * PHONE_PX
    assert min(seen.text_px) >= 10


def test_the_console_stays_silent_and_nothing_that_the_page_shows_is_missing(seen: Seen) -> None:
    assert seen.console == []
    assert seen.failed == []


def test_a_page_that_does_all_this_wrong_is_caught(tmp_path: Path) -> None:
    wrong = (
        "<!DOCTYPE html><html><head></head><body><div style='width: 900px'>wide</div>"
        "<svg viewBox='0 0 1000 10' width='100'><text>small</text></svg><img src='missing.png'>"
        "<script>console.error('oh')</script></body></html>"
    )
    seen = look(wrong, tmp_path)
    assert seen.width_px >= 900
    assert max(seen.plots_px) < 0.85 * PHONE_PX
    assert min(seen.text_px) < 10
    assert [Path(name).name for name in seen.failed] == ["missing.png"]
    assert '"oh"' in seen.console[0]
