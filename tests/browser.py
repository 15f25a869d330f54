"""A real browser, driven headless through chromedriver's own protocol, JSON over HTTP: no library is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "no chromium with its chromedriver on this machine"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
KEYS = {"right": "\ue014", "left": "\ue012", "home": "\ue011", "end": "\ue010", "tab": "\ue004", "enter": "\ue007"}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's word for a reference


class Browser:
    """One window. ``errors`` are what the console said since it was asked last."""

    def __init__(self, address: str) -> None:
        self.address = address
        options = {"binary": CHROMIUM, "args": list(FLAGS)}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/session/{answer['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        """Load a file and wait until it is there."""
        self._ask("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *args: Any) -> Any:
        """What ``return ...`` in a script says."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def errors(self) -> list[str]:
        """Errors and warnings of the console."""
        return [line["message"] for line in self._ask("POST", "/se/log", {"type": "browser"})]

    def press(self, selector: str, *keys: str) -> None:
        """Keys for the element that a CSS selector finds first."""
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._ask("POST", f"/element/{found}/value", {"text": "".join(KEYS.get(key, key) for key in keys)})

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Show pages at that size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._command("Emulation.setDeviceMetricsOverride", size)

    def dark(self, dark: bool) -> None:
        """Say to pages that the reader prefers dark, or light."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, path: Path, clip: Sequence[float] | None = None) -> None:
        """Save what is to be seen, or a part of the page: left, top, width, height."""
        part = {} if clip is None else {
            "clip": {**dict(zip(("x", "y", "width", "height"), clip, strict=True)), "scale": 1},
            "captureBeyondViewport": True,
        }  # fmt: skip
        path.write_bytes(base64.b64decode(self._command("Page.captureScreenshot", {"format": "png", **part})["data"]))

    def _command(self, name: str, params: Any) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def close(self) -> None:
        """Close the window; its process ends."""
        self._ask("DELETE", "")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it must in ``folder`` and leaves nothing running."""
    assert DRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)}
    driver = subprocess.Popen([DRIVER, f"--port={port}"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    window = None
    try:
        for _ in range(100):
            try:
                window = Browser(f"http://127.0.0.1:{port}")
                break
            except (urllib.error.URLError, ConnectionError) as error:
                if isinstance(error, urllib.error.HTTPError):
                    raise RuntimeError(error.read().decode()) from error
                time.sleep(0.1)
        assert window is not None, "chromedriver does not answer"
        yield window
    finally:
        if window is not None:
            window.close()
        driver.terminate()
        driver.wait()
