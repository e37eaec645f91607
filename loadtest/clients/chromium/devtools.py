"""A Chromium without a window, spoken to over its debugging pipe (https://chromedevtools.github.io/devtools-protocol/)."""

import json
import os
import shutil
import subprocess
import tempfile

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


class Chromium:
    """The pipe is descriptors 3 and 4 of the browser, which ends when it closes."""

    def __init__(self, flags=()):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        # The shell moves them to the numbers that Chromium wants.
        move = f'exec "$@" 3<&{to_browser} 4>&{from_browser} </dev/null >/dev/null 2>&1'
        command = [shutil.which("chromium"), *FLAGS, *flags, "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            ["bash", "-c", move, "bash", *command, f"--user-data-dir={self.profile.name}"],
            pass_fds=(to_browser, from_browser),
        )
        os.close(to_browser)
        os.close(from_browser)
        self.read = os.fdopen(self.answers, "rb")
        self.last, self.kept, self.session = 0, b"", None

    def open(self, url, script, listen):
        """A page with `script`, whose function `report(object)` calls `listen`. Returns when the browser has gone."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.call("Page.enable")
        self.call("Runtime.addBinding", name="reported")
        self.call("Page.navigate", url=url)
        while self.message().get("method") != "Page.loadEventFired":
            pass
        whole = f"var report = (what) => reported(JSON.stringify(what));\n{script}"
        answer = self.call("Runtime.evaluate", expression=whole)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        while True:
            message = self.message()
            if message.get("method") == "Runtime.bindingCalled":
                listen(json.loads(message["params"]["payload"]))

    def call(self, method, **params):
        self.last += 1
        asked = {"id": self.last, "method": method, "params": params}
        if self.session:
            asked["sessionId"] = self.session
        os.write(self.commands, json.dumps(asked).encode() + b"\0")
        while (message := self.message()).get("id") != self.last:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def message(self):
        while b"\0" not in self.kept:
            read = self.read.read1(1 << 16)
            if not read:
                raise EOFError("Chromium has gone")
            self.kept += read
        text, _, self.kept = self.kept.partition(b"\0")
        return json.loads(text)
