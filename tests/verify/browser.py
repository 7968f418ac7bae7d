"""Headless Chromium, and a proxy that sees what it asks of the world."""

import base64
import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import socket
import subprocess
import threading

from shell import run


class Proxy:
    """Answers every request of a browser with "no", and remembers its address."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.addresses = []
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self.socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    request = connection.recv(65536).split(b" ")
                    if len(request) < 2:  # it was opened and not used
                        continue
                    self.addresses.append(request[1].decode())
                    connection.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n")

    def asked(self):
        """The addresses, without those that Chromium itself looks for whatever page is open."""
        hosts = ((address, address.split("//")[-1].split("/")[0]) for address in self.addresses)
        own = r"(.*\.google(apis)?|start\.duckduckgo)\.com(:443)?"  # the second is Debian's
        return [address for address, host in hosts if not re.fullmatch(own, host)]

    def __exit__(self, *_):
        self.socket.close()


class Browser:
    """Headless Chromium, driven through its debugging pipe."""

    def __init__(self, profile, proxy_port):
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        options += ["--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--hide-scrollbars", f"--proxy-server=http://127.0.0.1:{proxy_port}"]
        options += ["--disable-background-networking", "--disable-component-update"]
        options += ["--disable-sync", "--disable-default-apps", "--disable-extensions"]
        if os.getuid() == 0:
            options.append("--no-sandbox")
        ends = [*os.pipe(), *os.pipe()]
        # Chromium reads from 3 and writes to 4, which must not be in use when they are made.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
        for end in ends:
            os.close(end)
        theirs, self.write, self.read, answers = high

        def connect():
            os.dup2(theirs, 3)
            os.dup2(answers, 4)

        self.process = subprocess.Popen(
            [chromium(), *options],
            preexec_fn=connect,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self.number, self.session, self.buffer, self.events = 0, None, b"", []

    def __enter__(self):
        self.version = self.ask("Browser.getVersion")["product"]
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, method, **values):
        """One command; what happens until its answer is kept in `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], 120)
            read = os.read(self.read, 1 << 20) if ready else b""
            assert read, "Chromium does not answer"
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def look(self, file, width):
        """Opens a page: what it asked for, what went wrong, what it looks like."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.events = []
        self.ask("Page.navigate", url=file.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        result = self.ask("Runtime.evaluate", expression=INSPECT, returnByValue=True)["result"]
        content = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(content["height"], 16000), "scale": 1}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        requests, problems = [], []
        for event in self.events:
            method, values = event["method"], event["params"]
            if method == "Network.requestWillBeSent":
                requests.append(values["request"]["url"][:200])
            elif method in TROUBLE:
                problems.append(str(values)[:500])
        seen = {"requests": requests, "problems": problems}
        return result["value"] | seen, base64.b64decode(shot["data"])


TROUBLE = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
TROUBLE += ("Network.loadingFailed",)
INSPECT = """
(() => {
  const numbers = color => (color.match(/[\\d.]+/g) || []).map(Number);
  const light = color => color.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {  // the colour behind a text, through what is half transparent
    if (!element) return [255, 255, 255];
    const [r, g, b, a = 1] = numbers(getComputedStyle(element).backgroundColor);
    if (a === 1) return [r, g, b];
    return behind(element.parentElement).map((v, i) => v * (1 - a) + [r, g, b][i] * a);
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own) continue;
    const pair = [behind(element), numbers(getComputedStyle(element).color)].map(light);
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) faint.push([element.textContent.slice(0, 40), contrast]);
  }
  const images = [...document.images];
  return {
    title: document.title,
    images: images.length,
    broken: images.filter(image => !image.naturalWidth || !image.alt).map(image => image.alt),
    scripts: document.scripts.length,
    wide: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
    faint,
  };
})()
"""


def chromium():
    """The browser's path; installed where Debian's packages can be."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if not any(map(shutil.which, names)) and os.getuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update")
        run("apt-get", "install", "-y", "chromium")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, "no Chromium here, and none could be installed: apt-get install chromium"
    return found
