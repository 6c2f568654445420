"""A headless Chromium, driven by chromedriver over the W3C WebDriver protocol: the few commands that the page's tests need."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of an element
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}


class Browser:
    """One window."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self.session, self.url = session, url

    def call(self, method: str, command: str, **arguments: Any) -> Any:
        answer = self.session.request(method, f"{self.url}/{command}", json=arguments if method == "POST" else None, timeout=120).json()
        value = answer["value"]
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"{command}: {value['message']}")
        return value

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.cdp("Emulation.setFocusEmulationEnabled", enabled=True)  # a window without a screen has no focus of its own
        self.call("POST", "url", url="about:blank")  # a page that is opened twice is loaded twice
        self.call("POST", "url", url=path.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the JavaScript ``script`` returns; elements may be among its arguments and in its value."""
        return self.call("POST", "execute/sync", script=script, args=list(arguments))

    def find(self, selector: str, number: int = 0) -> Any:
        return self.call("POST", "elements", using="css selector", value=selector)[number]

    def click(self, selector: str, number: int = 0) -> None:
        self.call("POST", f"element/{self.find(selector, number)[ELEMENT]}/click")

    def press(self, *keys: str) -> None:
        downs = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.call("POST", "actions", actions=[{"type": "key", "id": "keyboard", "actions": downs}])

    def hover(self, selector: str, number: int = 0) -> None:
        element = self.find(selector, number)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        move = {"type": "pointerMove", "duration": 0, "origin": element, "x": 0, "y": 0}
        self.call("POST", "actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.call("POST", "goog/cdp/execute", cmd=command, params=arguments)

    def errors(self) -> list[str]:
        """What the console was told since the last call, but for mere information."""
        return [entry["message"] for entry in self.call("POST", "se/log", type="browser") if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self) -> bytes:
        return base64.b64decode(self.call("GET", "screenshot"))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in ``folder``. Skips the test where Chromium or its driver is not installed."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Chromium is not installed (Debian: chromium and chromium-driver)")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout
        port = next(match[1] for line in process.stdout if (match := re.search(r"started successfully on port (\d+)", line)))
        with requests.Session() as session:
            session.trust_env = False
            yield from _window(session, f"http://127.0.0.1:{port}/session", program, folder)
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _window(session: requests.Session, url: str, program: str, folder: Path) -> Iterator[Browser]:
    options = {"binary": program, "args": [*FLAGS, f"--user-data-dir={folder}"]}
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    answer = session.post(url, json={"capabilities": {"alwaysMatch": wanted}}, timeout=120).json()["value"]
    assert "sessionId" in answer, answer
    window = Browser(session, f"{url}/{answer['sessionId']}")
    try:
        yield window
    finally:
        session.delete(window.url, timeout=60)
