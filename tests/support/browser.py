"""A page in headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from required import missing
from websockets.sync.client import ClientConnection, connect

_TIMEOUT_S = 30.0
REQUIRED = "MONAI_TL_REQUIRE_BROWSER"
"""In the environment where a missing browser is a fault, as in the gate."""


class Page:
    """One page. ``events`` holds all that Chromium told so far."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self._number = 0
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self._number += 1
        self.socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=_TIMEOUT_S))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def open(self, path: Path) -> None:
        """Load a file and wait until all of it is there."""
        self.send("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + _TIMEOUT_S
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # scripts of the load event, and pictures that they change
        time.sleep(0.3)

    def wait_for(self, method: str) -> None:
        """Wait until Chromium has told of an event."""
        deadline = time.monotonic() + _TIMEOUT_S
        while all(event["method"] != method for event in self.events):
            assert time.monotonic() < deadline
            self.send("Page.getFrameTree")
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings of console, scripts and content security policy."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(str(params["entry"]))
        return found

    def requests(self) -> list[str]:
        """What was asked for, pictures within the page apart."""
        asked = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [str(event["params"]["request"]["url"]) for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def print_pdf(self) -> bytes:
        """The page on paper."""
        return base64.b64decode(self.send("Page.printToPDF")["data"])

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window a size, CSS pixels."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def emulate(self, scheme: str = "light", media: str = "") -> None:
        """Prefer light or dark, on screen or, with ``print``, as on paper."""
        self.send(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def press(self, key: str, code: int) -> None:
        """Press and release a key as a person does: it goes to what has the focus.

        Args:
            key: Its name in DOM, e.g. ``Tab``.
            code: Its virtual key code, which decides what Chromium itself does with it.
        """
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def turn_wheel(self, x: float, y: float, delta: float) -> None:
        """Turn the mouse's wheel over a point of the window."""
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta)
        # scrolling goes on by itself
        time.sleep(0.3)


@contextmanager
def open_browser(folder: Path, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Start Chromium with a profile of its own; where there is none the test is skipped, or fails with REQUIRED."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("chromium is not installed", REQUIRED)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    options += [f"--user-data-dir={folder}", f"--window-size={width},{height}"]
    with subprocess.Popen(
        [program, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port_file, deadline = folder / "DevToolsActivePort", time.monotonic() + _TIMEOUT_S
            while not port_file.is_file() or len(port_file.read_text().split()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            port = port_file.read_text().split()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=_TIMEOUT_S) as answer:
                pages = [entry for entry in json.loads(answer.read()) if entry["type"] == "page"]
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
