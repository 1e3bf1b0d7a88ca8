"""A headless Chromium, driven over the WebDriver protocol with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

PROGRAMS = ("chromium", "chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, fixed by the protocol
KEYS = {"Enter": "\ue007", "Space": " ", "Tab": "\ue004", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def missing() -> str:
    """Why there is no browser; empty if there is one."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not installed (Debian: apt-get install chromium chromium-driver)" if lacking else ""


class Browser:
    """One window."""

    def __init__(self, address: str, profile: Path) -> None:
        self._opener = build_opener(ProxyHandler({}))
        self._address = address
        arguments = [*_ARGUMENTS, f"--user-data-dir={profile}"]
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        found = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{found['sessionId']}"

    def _call(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = Request(self._address + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']['message']}") from error

    def _do(self, path: str, content: Any = None) -> Any:
        return self._call("POST", self._session + path, {} if content is None else content)

    def open(self, path: Path) -> None:
        """Show a file."""
        self._do("/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What JavaScript returns."""
        return self._do("/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        """The element that a CSS selector finds first."""
        return str(self._do("/element", {"using": "css selector", "value": selector})[ELEMENT])

    def click(self, element: str) -> None:
        """As by a mouse."""
        self._do(f"/element/{element}/click")

    def focus(self, element: str) -> None:
        """As by a script; keys go there afterwards."""
        self.run("arguments[0].focus()", {ELEMENT: element})

    def press(self, *keys: str) -> None:
        """Keys of :data:`KEYS`, one after the other, wherever the focus is."""
        strokes = [{"type": kind, "value": KEYS[key]} for key in keys for kind in ("keyDown", "keyUp")]
        self._do("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def hover(self, element: str) -> None:
        """Move the pointer there."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", {ELEMENT: element})
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": {ELEMENT: element}}
        self._do("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the page in CSS pixels, smaller than any real window may be; its reader likes nothing that moves."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        likes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in likes.items()]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def scripts(self, allowed: bool) -> None:
        """Whether pages that are opened from now on may run scripts."""
        self._devtools("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def _devtools(self, command: str, parameters: Any) -> Any:
        return self._do("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Messages since the last call: ``browser`` is the console, ``performance`` has what was loaded."""
        return list(self._do("/se/log", {"type": kind}))

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call; not those of the page that a new window begins with."""
        events = [json.loads(one["message"])["message"] for one in self.log("performance")]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one for one in asked if not one.startswith("chrome://")]

    def close(self) -> None:
        """End it."""
        self._call("DELETE", self._session)


@contextmanager
def browser() -> Iterator[Browser]:
    """A new browser with an empty profile, and the driver that it needs."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "driver.log"
        with log.open("wb") as output, subprocess.Popen(["chromedriver", "--port=0"], stdout=output, stderr=output) as driver:
            try:
                window = Browser(f"http://127.0.0.1:{_port(driver, log)}", Path(folder) / "profile")
                try:
                    yield window
                finally:
                    window.close()
            finally:
                driver.terminate()


def _port(driver: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the driver chose."""
    for _ in range(300):
        found = re.search(r"on port (\d+)", log.read_text(errors="replace").partition("\n")[2])
        if found:
            return int(found[1])
        if driver.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"chromedriver did not start: {log.read_text(errors='replace')}")
