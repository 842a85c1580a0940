"""A page in headless Chromium, by its debugging protocol over two pipes. https://chromedevtools.github.io/devtools-protocol/"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CODES = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8, "Tab": 9, "Enter": 13}
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
PATIENCE = 30
"""Seconds that the browser has for an answer."""


@dataclass
class Page:
    """An open page. events: all that the browser told of it."""

    to_browser: int
    from_browser: int
    session: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    _last: int = 0
    _rest: bytes = b""

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session and not method.startswith("Browser."):
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        found: dict[str, Any] = answer["result"]
        return found

    def wait(self, method: str, **params: Any) -> None:
        """Until the browser has told an event with these parameters."""

        def told() -> bool:
            return any(event["method"] == method and params.items() <= event["params"].items() for event in self.events)

        while not told():
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What the expression says in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, down and up."""
        code = {"windowsVirtualKeyCode": CODES[key], "key": key, "code": key}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": "\r"} if key == "Enter" else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **code)

    def complaints(self) -> list[dict[str, Any]]:
        """Errors of scripts, and what the page's policy refused."""
        return [event for event in self.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]

    def requests(self) -> list[str]:
        """The addresses that the page fetched."""
        return [one["params"]["request"]["url"] for one in self.events if one["method"] == "Network.requestWillBeSent"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self.from_browser], [], [], max(end - time.monotonic(), 0))
            assert ready, f"the browser told nothing more within {PATIENCE} s; the last was {self.events[-3:]}"
            content = os.read(self.from_browser, 1 << 20)
            assert content, "the browser has ended; chromium.log says why"
            self._rest += content
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def opened(file: Path, downloads: Path) -> Iterator[Page]:
    """The file in a browser; what is downloaded lies in `downloads`. The test is skipped where there is no Chromium."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    # The protocol is spoken over the descriptors 3 and 4.
    script = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    profile = f"--user-data-dir={downloads / 'profile'}"
    with (downloads / "chromium.log").open("wb") as told:
        browser = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *OPTIONS, profile],
            pass_fds=(their_in, their_out),
            stdout=told,
            stderr=told,
        )
    # Its ends are its own, so that ours are told when it ends.
    os.close(their_in)
    os.close(their_out)
    try:
        page = Page(our_out, our_in)
        page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True)
        target = page.ask("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.ask("Page.navigate", url=file.resolve().as_uri())
        page.wait("Page.loadEventFired")
        yield page
    finally:
        browser.terminate()
        browser.wait(timeout=PATIENCE)
        os.close(our_in)
        os.close(our_out)
