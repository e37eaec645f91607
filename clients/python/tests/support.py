"""What the tests stand on: the cluster that `deploy/local/cluster run` has started, and a relay that spoils the way to it."""

import asyncio
import itertools
import os
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

import httpx
from tidegate import AsyncTidegate, Tidegate, publish

BASE_URL = os.environ["BASE_URL"]
EVENTS = f"{BASE_URL}/events"
# Longer than anything takes on a slow machine; nothing waits for it to pass.
FAILSAFE_SECONDS = 60
_POLL_SECONDS = 0.01
# For tests that publish much: a connection for each would take longer than all else.
PUBLISHER = httpx.Client()
_topics = itertools.count()


def new_topic():
    """A topic that no other test has."""
    return f"py-{os.getpid()}-{time.time_ns()}-{next(_topics)}"


def cluster(*words):
    """Does something to parts of the cluster, such as `cluster("kill", "r1")`."""
    subprocess.run([f"{os.environ['TIDEGATE_ROOT']}/deploy/local/cluster", *words], check=True, stdout=subprocess.DEVNULL)


def count(topic, *numbers):
    """Publishes numbers, one after another."""
    for number in range(*numbers):
        publish(EVENTS, topic, number, timeout=FAILSAFE_SECONDS, client=PUBLISHER)


def until(what, condition):
    """Waits until a condition holds."""
    end = time.monotonic() + FAILSAFE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never came about: {what}")
        threading.Event().wait(_POLL_SECONDS)


class Follower:
    """A reader in a thread of its own, and what it is told."""

    def __init__(self, kind, topics, url=EVENTS, **options):
        self.events, self.gaps, self.states, self.controls, self.lives, self.error = [], [], [], [], 0, None
        told = {
            "on_gap": self.gaps.append,
            "on_state": self.states.append,
            "on_control": lambda name, data: self.controls.append((name, data)),
            "on_live": self._live,
        }
        self.tide = kind(url, topics, **{**told, **options})
        self._loop = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _live(self):
        self.lives += 1

    def _run(self):
        try:
            if isinstance(self.tide, Tidegate):
                for event in self.tide:
                    self.events.append(event)
            else:
                asyncio.run(self._read())
        except Exception as error:
            self.error = error

    async def _read(self):
        self._loop = asyncio.get_running_loop()
        async with self.tide:
            async for event in self.tide:
                self.events.append(event)

    @property
    def data(self):
        return [event.data for event in self.events]

    @property
    def state(self):
        return self.states[-1].name if self.states else None

    def live(self):
        until("live", lambda: self.state == "live")

    def shows(self, count):
        until(f"{count} events", lambda: len(self.events) >= count)

    def ends(self):
        self._thread.join(FAILSAFE_SECONDS)
        assert not self._thread.is_alive(), "the loop never ended"

    def close(self):
        if isinstance(self.tide, Tidegate):
            self.tide.close()
        elif self._thread.is_alive():
            until("it runs", lambda: self._loop)
            asyncio.run_coroutine_threadsafe(self.tide.aclose(), self._loop).result(FAILSAFE_SECONDS)
        self.ends()


KINDS = [Tidegate, AsyncTidegate]


class Relay:
    """A server between client and cluster, one request a connection.

    `mode` says what it does with the next streams, and with what comes on those that are open: `pass`; `hold`, which passes
    an answer on when it is complete; `freeze`, which passes nothing on, nor closes; or a status with which it refuses.
    """

    def __init__(self):
        self.mode = "pass"
        self.asked = []  # heads of all requests
        self.heartbeats = 0  # passed on, of all streams
        self._open = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.events = f"http://127.0.0.1:{self._server.getsockname()[1]}/events"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Breaks every stream off."""
        for client in list(self._open):
            _shut(client)

    def stop(self):
        _shut(self._server)
        self._server.close()
        self.cut()

    @property
    def open(self):
        return len(self._open)

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        self._open.add(client)
        try:
            with client:
                self._pass(client)
        except OSError:
            pass
        finally:
            self._open.discard(client)

    def _pass(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = client.recv(65536)
            if not chunk:
                return
            head += chunk
        self.asked.append(head.decode())
        if isinstance(self.mode, int):
            client.sendall(b"HTTP/1.1 %d Refused\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused" % self.mode)
            return
        line, _, rest = head.partition(b"\r\n")
        cluster_address = urlsplit(BASE_URL)
        with socket.create_connection((cluster_address.hostname, cluster_address.port)) as onwards:
            onwards.sendall(line + b"\r\nConnection: close\r\n" + rest.replace(b"Connection: keep-alive\r\n", b""))
            body = threading.Thread(target=_pass_on, args=(client, onwards), daemon=True)
            body.start()
            held = b""
            while chunk := onwards.recv(65536):
                held += chunk
                if self.mode == "pass":
                    client.sendall(held)
                    self.heartbeats += b"tidegate.heartbeat" in chunk
                if self.mode != "hold":
                    held = b""
            if self.mode == "freeze":
                body.join()
            client.sendall(held)


def _pass_on(client, onwards):
    """The rest of the request, and that whoever asked has gone."""
    try:
        while chunk := client.recv(65536):
            onwards.sendall(chunk)
    except OSError:
        pass
    _shut(onwards)


def _shut(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
