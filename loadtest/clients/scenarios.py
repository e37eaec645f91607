"""What is done to the cluster while the clients read, and what each of them saw of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "deploy/local/cluster"
EVENTS_PER_SECOND = 20
WARM = "warm"  # what is published until every client has seen some of it
PATIENCE_SECONDS = 60  # for that, on a machine that starts thirty programs at once
GRACE_SECONDS = 40  # for the last event: a client that backs off may just have begun to wait


class Client:
    """One program that reads one stream."""

    def __init__(self, name, library, command, url):
        self.name, self.library, self.url = name, library, url
        self.numbers, self.empty, self.warm = [], 0, False
        self.over, self.code = False, None  # waited for; how it had ended by then, if it had
        self.stderr = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*command, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            event = {"json": self.of_json, "sse": self.of_stream, "lines": self.of_line}[self.library.speaks](line)
            if event is None or event.get("type", "").startswith("tidegate."):
                continue
            data = event["data"]
            if data == WARM:
                self.warm = True
            elif data.isdigit():
                self.numbers.append(int(data))
            elif not data:
                self.empty += 1

    def of_json(self, line):
        event = json.loads(line)
        return {**event, "type": event.get("type") or ""}

    def of_stream(self, line):
        field, _, value = line.rstrip("\n").partition(": ")
        return {"data": value} if field == "data" else None

    def of_line(self, line):
        return {"data": line.rstrip("\n")}

    def has(self, number):
        """Whether it has seen this one, or never will."""
        return (self.numbers and self.numbers[-1] == number) or self.gone() is not None

    def gone(self):
        """How it ended, if it has. It is not waited for yet: so its number, and its session's, is nobody else's."""
        if self.over:
            return self.code
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended.si_status if ended else None

    def said(self):
        self.stderr.seek(0)
        return self.stderr.read()

    def end(self):
        """Ends it, and what it has started, which is of its session."""
        self.code, self.over = self.gone(), True
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(5)
        return self.code

    def verdict(self, sent):
        seen = set(self.numbers)
        return {
            "lost": len(set(range(1, sent + 1)) - seen),
            "repeated": len(self.numbers) - len(seen),
            "out of order": sum(a > b for a, b in zip(self.numbers, self.numbers[1:])),
            "empty": self.empty,
        }


class Publisher:
    """Numbers, one after the other, by Redis: so that they are published while no replica is there, too."""

    def __init__(self, topic):
        self.topic, self.sent, self.runs, self.warms = topic, 0, threading.Event(), threading.Event()
        self.over, self.fault = False, None
        self.connection = socket.create_connection(("127.0.0.1", int(os.environ["REDIS_PORT"])), timeout=10)
        self.replies = self.connection.makefile("rb")
        self.thread = threading.Thread(target=self.go, daemon=True)
        self.thread.start()

    def go(self):
        try:
            self.go_on()
        except Exception as why:  # else a run without events would be one without losses
            self.fault = why

    def go_on(self):
        due = time.monotonic()
        while not self.over:
            due = max(due + 1 / EVENTS_PER_SECOND, time.monotonic() - 1)
            if self.warms.is_set():
                self.publish(WARM)
            elif self.runs.is_set():
                self.publish(str(self.sent + 1))
                self.sent += 1
            time.sleep(max(0, due - time.monotonic()))

    def publish(self, data, *more):
        words = ["FCALL", "tidegate_publish", "0", self.topic, data, *more]
        lines = [f"*{len(words)}", *(part for word in words for part in (f"${len(word.encode())}", word))]
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        kind = self.replies.readline().decode()
        if not kind.startswith("$"):
            raise RuntimeError(f"Redis: {kind}")
        return self.replies.readline().decode().strip()

    def stop(self):
        self.over = True
        self.thread.join()
        if self.fault:
            raise self.fault


def cluster(*words):
    subprocess.run([CLUSTER, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class OwnNginx:
    """The cluster's nginx: what the scenarios do to it."""

    url = os.environ.get("BASE_URL")
    log = Path(os.environ.get("CLUSTER_DIR", ""), "log/nginx.log")

    def environment(self):
        return {}

    def start(self):
        cluster("start", "nginx")

    def kill(self):
        cluster("kill", "nginx")

    def reload(self):
        cluster("reload", "nginx")


def scenario_a(nginx, _runs):
    """A replica killed and started, all of them restarted one by one, nginx reloaded."""
    time.sleep(3)
    cluster("kill", "r1")
    time.sleep(3)
    cluster("start", "r1")
    time.sleep(3)
    cluster("restart", "r1", "r2", "r3")
    time.sleep(3)
    nginx.reload()
    time.sleep(5)


def scenario_b(nginx, runs):
    """20 s of silence, no replica for 7 s, no nginx for 3 s."""
    time.sleep(3)
    runs.clear()
    time.sleep(20)
    runs.set()
    time.sleep(3)
    without_replicas(7)
    time.sleep(5)
    without(nginx, 3)
    time.sleep(5)


def short(nginx, _runs):
    """Some of both, in less than half a minute."""
    time.sleep(1)
    cluster("kill", "r1")
    cluster("start", "r1")
    without_replicas(2)
    time.sleep(1)
    without(nginx, 1)
    nginx.reload()
    time.sleep(1)


def without_replicas(seconds):
    cluster("kill", "r1", "r2", "r3")
    time.sleep(seconds)
    cluster("start", "r1", "r2", "r3")


def without(nginx, seconds):
    nginx.kill()
    time.sleep(seconds)
    nginx.start()


def play(name, nginx, programs, do):
    """All programs read one topic while `do` is done. Returns how many events there were, and each one's verdict."""
    say(f"scenario {name}: {len(programs)} programs")
    # But for A, all begin with a cursor that cannot be read: they are told a gap, and go on live.
    query = "" if name == "A" else "?last_event_id=bad"
    publisher = Publisher(f"scenario-{name.lower()}")
    clients = [
        Client(key, library, command, f"{nginx.url}/events/{publisher.topic}{query}")
        for key, library, command in programs
    ]
    try:
        publisher.warms.set()
        wait(PATIENCE_SECONDS, lambda: all(client.warm for client in clients))
        publisher.warms.clear()
        for client in clients:
            if not client.warm:
                raise RuntimeError(
                    f"{client.name} has seen nothing within {PATIENCE_SECONDS} s: {client.said()[-2000:]}"
                )
        publisher.runs.set()
        do(nginx, publisher.runs)
        publisher.stop()
        wait(GRACE_SECONDS, lambda: all(client.has(publisher.sent) for client in clients))
    finally:
        gone = {client.name: client.end() for client in clients}
    for client in clients:
        if gone[client.name] and "-v" in sys.argv:
            say(f"{client.name} ended with {gone[client.name]}: {client.said()[-600:]}")
    return publisher.sent, {client.name: client.verdict(publisher.sent) for client in clients}


ENDS_SECONDS = 12  # in which a client that comes back asks at least twice


def ends(nginx, programs):
    """What each does about 204, which is for good, and about 400: "stops", "fails" (ends with an error), or "loops"."""
    say("204 and 400")
    publisher = Publisher("ended")
    clients = []
    for number, (key, library, command) in enumerate(programs):
        # A topic for each, by which nginx's log tells them apart.
        publisher.topic = f"ended-{number}"
        last = publisher.publish("done", "", "end")
        # No topic has a # in its name.
        for status, path in (204, f"ended-{number}?last_event_id={last}"), (400, f"bad-{number}%23"):
            clients.append((status, Client(key, library, command, f"{nginx.url}/events/{path}")))
    wait(PATIENCE_SECONDS, lambda: all(times_asked(nginx, status, client) for status, client in clients))
    time.sleep(ENDS_SECONDS)
    gone = [client.end() for _, client in clients]
    publisher.stop()
    found = {}
    for (status, client), code in zip(clients, gone):
        asked = times_asked(nginx, status, client)
        what = "never asks" if not asked else "loops" if asked > 1 else "fails" if code else "stops"
        found.setdefault(client.name, {})[status] = what
    return found


def times_asked(nginx, status, client):
    """How often it got this status, by nginx's log."""
    if client.library.speaks == "lines":  # `tail` says the topic in the query, which no log has; it ends when it stops
        return 0 if client.gone() is None else 1
    path = unquote(urlsplit(client.url).path)
    return nginx.log.read_text().count(f'"GET {path}" {status} ')


def wait(seconds, until):
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.1)


def say(text):
    print(f"clients: {text}", flush=True)
