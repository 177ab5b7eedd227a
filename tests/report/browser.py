"""A headless Chromium over its DevTools protocol, on a pipe; it resolves no name and is told that it is offline."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Widths in CSS pixels, and whether the reader asked for dark colours.
LOOKS = {
    "light": (1280, False),
    "dark": (1280, True),
    "phone": (375, False),
    "phone, dark": (375, True),
}


def program() -> str | None:
    """The path of a Chromium; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@dataclass
class Visit:
    """What a page did while it was shown.

    Args:
        requests: The addresses that it asked for, but for its own and for ``data:``.
        complaints: Errors that the browser logged, violations of the content-security policy among
            them.
        overflow: How many CSS pixels the page is wider than the window.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    overflow: int = 0


class NoAnswerError(RuntimeError):
    """The browser ended, its page crashed, or neither says anything any more."""


class Browser:
    """A running browser with one page."""

    def __init__(self, write: int, read: int, log: Path) -> None:
        self._write, self._read, self._log = write, read, log
        self._count, self._buffer = 0, b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Log", "Runtime", "Inspector"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._write, data) :]
        except BrokenPipeError:
            raise self._silent("the browser ended") from None
        while True:
            answer = self._receive()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer)

    def _receive(self, timeout: float = 120.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 16) if ready else b""
            if not data:
                raise self._silent(
                    "the browser ended"
                    if ready
                    else f"the browser has not answered for {timeout:.0f} s"
                )
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(message)
        # What was asked of a crashed page is never answered.
        if answer.get("method") in ("Inspector.targetCrashed", "Target.targetCrashed"):
            raise self._silent("the page crashed")
        return answer

    def _silent(self, what: str) -> NoAnswerError:
        said = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        return NoAnswerError("; ".join([what, *said]))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; that of its promise, where it is one."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def visit(self, path: Path, width: int, dark: bool) -> Visit:
        """Show a file."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        url = path.resolve().as_uri()
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while not any(
            e.get("method") == "Page.lifecycleEvent"
            and (e["params"]["name"], e["params"]["loaderId"]) == ("load", loader)
            for e in self._events
        ):
            self._events.append(self._receive())
        overflow = self.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        found = Visit(overflow=overflow)
        for event in self._events:
            about = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                asked = about["request"]["url"]
                if asked != url and not asked.startswith(("data:", "about:")):
                    found.requests.append(asked)
            elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
                found.complaints.append(about["entry"]["text"])
            elif event.get("method") == "Runtime.exceptionThrown":
                found.complaints.append(about["exceptionDetails"]["text"])
        return found

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        import base64

        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(chromium: str) -> Iterator[Browser]:
    """Start one, and end it.

    Args:
        chromium: Its program.
    """
    profile = tempfile.mkdtemp(prefix="browser.")
    hear, tell = os.pipe()
    listen, say = os.pipe()
    # Above 3 and 4, which the browser reads from and writes to.
    hear_at, say_at = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (hear, say))

    def place() -> None:
        os.dup2(hear_at, 3)
        os.dup2(say_at, 4)

    log = Path(profile, "said")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                chromium, "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-extensions", "--remote-debugging-pipe",
                "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
            ],
            pass_fds=(3, 4), preexec_fn=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=said, start_new_session=True,
        )  # fmt: skip
    for fd in (hear, say, hear_at, say_at):
        os.close(fd)
    try:
        yield Browser(tell, listen, log)
    finally:
        os.close(tell)  # the browser ends when its pipe does
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)
        os.close(listen)
        shutil.rmtree(profile, ignore_errors=True)
