"""A headless Chromium, spoken to over the DevTools protocol's pipe: no port, nothing else to install.

https://chromedevtools.github.io/devtools-protocol/ - messages are JSON, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium")
_TIMEOUT_S = 30.0
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
_DOMAINS = ("Page", "Runtime", "Log", "Network", "DOM")


class DevToolsError(AssertionError):
    """The browser refused, or the page threw."""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile in the folder; it ends with the block."""
    browser = Browser(folder)
    try:
        yield browser
    finally:
        browser.close()


class Browser:
    """One process; pages share its profile and its limit of connections."""

    def __init__(self, folder: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads descriptor 3 and writes to 4.
        wiring = 'in=$1 out=$2; shift 2; eval "exec \\"\\$@\\" 3<&$in 4>&$out"'
        command = [str(CHROMIUM), *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", wiring, "chromium", str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._changed = threading.Condition()
        self._ids = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._ended = False
        self.events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._reader = threading.Thread(target=self._receive, daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        with self._changed:
            self._ids += 1
            number = self._ids
            message = {"id": number, "method": method, "params": params}
            os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
            answered = self._changed.wait_for(lambda: number in self._answers or self._ended, _TIMEOUT_S)
            if not answered or number not in self._answers:
                raise DevToolsError(f"{method}: the browser did not answer")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str, *, window: bool = False, **display: Any) -> Page:
        """A new tab, or window, that shows a URL; a tab hides the others. ``display`` as for `Page.display`."""
        target = self.call("Target.createTarget", url="about:blank", newWindow=window)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in _DOMAINS:
            page.call(f"{domain}.enable")
        if display:
            page.display(**display)
        page.call("Page.navigate", url=url)
        page.wait_for("location.href !== 'about:blank' && document.readyState !== 'loading'")
        return page

    def close(self) -> None:
        """End the browser."""
        with suppress(DevToolsError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_TIMEOUT_S)
        os.close(self._write)
        os.close(self._read)

    def _receive(self) -> None:
        pending = b""
        while content := os.read(self._read, 1 << 20):
            *messages, pending = (pending + content).split(b"\0")
            with self._changed:
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers[message["id"]] = message
                    else:
                        self.events[message.get("sessionId", "")].append(message)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Page:
    """One page, with all that it has said and asked for since it was opened."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this page."""
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise, as JSON data.

        Raises:
            DevToolsError: it threw.
        """
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.call("Runtime.evaluate", expression=expression, **options)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise DevToolsError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 15.0) -> None:
        """Return once a JavaScript expression is true; fail with the page's text when it does not become so."""
        if not wait_until(lambda: bool(self.evaluate(f"Boolean({expression})")), timeout_s):
            raise DevToolsError(f"not within {timeout_s:g} s: {expression}\n{self.evaluate('document.body.innerText')}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in an ``input``, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def display(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the viewport in CSS pixels and the colour scheme."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of the viewport, or of the whole page."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of one name so far."""
        return [each["params"] for each in list(self._browser.events[self._session]) if each["method"] == method]

    @property
    def complaints(self) -> list[str]:
        """Everything that its console shows: messages, uncaught errors, failed requests, broken policies."""
        said = [f"{each['type']}: {each['args']}" for each in self.events("Runtime.consoleAPICalled")]
        said += [str(each["exceptionDetails"]) for each in self.events("Runtime.exceptionThrown")]
        entries = [each["entry"] for each in self.events("Log.entryAdded")]
        return said + [f"{each['level']}: {each['text']} {each.get('url', '')}" for each in entries]

    @property
    def requests(self) -> list[str]:
        """The addresses that it has asked for."""
        return [each["request"]["url"] for each in self.events("Network.requestWillBeSent")]

    def close(self) -> None:
        """Close it, and its connections."""
        self._browser.call("Target.closeTarget", targetId=self._target)
