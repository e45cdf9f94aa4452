"""A headless browser, so that tests can look at a page as a reader sees it.

It is driven through a pipe by the Chrome DevTools Protocol
(https://chromedevtools.github.io/devtools-protocol/), which every Chromium speaks without further
packages: a message is JSON and a null byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
TIMEOUT = 300  # seconds
# Where the browser looks for its two ends of the pipe.
COMMANDS_FD, EVENTS_FD = 3, 4


def find_browser():
    """The path of a Chromium of any maker; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def _pipe():
    """A pipe whose ends have numbers that the browser's do not."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, EVENTS_FD + 1) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Browser:
    """A running browser with one tab; close it at the end.

    Attributes:
        events: What it has told since the page was opened: dicts with `method` and `params`.
    """

    def __init__(self, executable, profile):
        read_end, self._commands = _pipe()
        self._answers, write_end = _pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",  # tests may run as root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        redirected = f'exec "$@" {COMMANDS_FD}<&{read_end} {EVENTS_FD}>&{write_end}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", executable, *flags],
            pass_fds=(read_end, write_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._buffer, self._number, self._session, self.events = b"", 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def close(self):
        """Ends the browser."""
        self._process.terminate()
        self._process.wait(TIMEOUT)
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method, **params):
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        answer = self._wait_for(lambda message: message.get("id") == self._number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _wait_for(self, is_meant):
        deadline = time.monotonic() + TIMEOUT
        while True:
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if is_meant(message):
                    return message
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            received = os.read(self._answers, 1 << 20) if ready else b""
            if not received:
                raise TimeoutError("the browser does not answer")
            self._buffer += received

    def open(self, path, width, height=800, dark=False):
        """Opens a file in a window of that size, in CSS pixels, and waits until it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        loaded = "Page.loadEventFired"
        if not any(event["method"] == loaded for event in self.events):
            self._wait_for(lambda message: message.get("method") == loaded)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @property
    def requests(self):
        """The addresses that the page has asked for, those of data inside it left out."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def complaints(self):
        """What the browser has to say about the page in its console."""
        entries = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        said = [e["params"] for e in self.events if e["method"] == "Runtime.consoleAPICalled"]
        return [entry["text"] for entry in entries] + said

    def print(self):
        """The page on A4 paper, as PDF."""
        answer = self.send(
            "Page.printToPDF",
            preferCSSPageSize=False,
            paperWidth=8.27,
            paperHeight=11.69,
            printBackground=False,
        )
        return base64.b64decode(answer["data"])
