"""Goal: what no gateway would say ends no loop by another error than ours, fills no memory, and has nobody ask all the time.

Method: a server that answers each request with what the test gives it.
"""

import asyncio
import itertools
import socket
import threading
import time
import unittest
from decimal import Decimal

from support import KINDS, Follower, until
from tidegate import PublishError, TidegateError, publish, publish_async

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
OPEN = b'id: 1-0\nevent: tidegate.open\ndata: {"topics":["a"]}\n\n'
ENDED = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def event(number, data):
    return (
        b'id: 1-%d\ndata: {"topic":"a","id":"1-%d","event":null,"time":1,"encoding":"json","data":%s}\n\n'
        % (number, number, data)
    )


class Liar:
    """Answers the requests one after another so, the last answer again and again.

    None says nothing until whoever asked has gone. A function gives the beginning of an answer without an end.
    """

    def __init__(self, *answers):
        self.began = time.monotonic()
        self.asked = 0
        self.sent = 0
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.events = f"http://127.0.0.1:{self._server.getsockname()[1]}/events"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client:
                try:
                    self._answer(client)
                except OSError:
                    pass

    def _answer(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        self.asked += 1
        answer = next(self._answers)
        if answer is None:
            client.recv(1)
            return
        if isinstance(answer, bytes):
            client.sendall(answer)
            return
        client.sendall(answer())
        # To whoever is still there, up to a bound that spares this machine.
        while self.sent < 256 << 20:
            client.sendall(b"x" * 65536)
            self.sent += 65536


class Lies(unittest.TestCase):
    def liar(self, *answers):
        liar = Liar(*answers)
        self.addCleanup(liar.stop)
        return liar

    def each(self, *answers, **options):
        for kind in KINDS:
            with self.subTest(kind=kind.__name__):
                liar = self.liar(*answers)
                follower = Follower(kind, ["a"], url=liar.events, **options)
                self.addCleanup(follower.close)
                yield follower, liar

    def test_a_number_that_no_int_holds_ends_nothing(self):
        digits = b"9" * 5000
        said = HEAD + OPEN + event(1, b'{"n":-%s}' % digits) + event(2, b"1e999") + event(3, b'"after"')
        for follower, _ in self.each(said, ENDED):
            follower.ends()
            self.assertIsNone(follower.error)
            self.assertEqual(follower.data, [{"n": Decimal(f"-{digits.decode()}")}, float("inf"), "after"])

    def test_what_no_gateway_says_is_a_cut(self):
        good = HEAD + OPEN + event(1, b'"good"')
        bad = [
            b"event: tidegate.gap\ndata: 5\n\n",
            b"event: tidegate.gap\ndata: {}\n\n",
            b'event: tidegate.gap\ndata: {"topic":1,"reason":"late","from":null,"to":null}\n\n',
            b"event: tidegate.open\ndata: null\n\n",
            b"event: tidegate.live\ndata: {\n\n",
            b"event: tidegate.open\ndata: " + b"[" * 200_000 + b"\n\n",
            b"retry: " + b"9" * 400 + b"\nretry: " + b"9" * 5000 + b"\nretry: 1\n\nevent: tidegate.gap\ndata: 5\n\n",
            b"id: 1-\x011\n\n",
            b"id: 1-\x7f1\n\n",
        ]
        for follower, _ in self.each(*(HEAD + b"retry: 1\n" + OPEN + each for each in bad), good, ENDED):
            follower.ends()
            self.assertIsNone(follower.error)
            self.assertEqual((follower.data, follower.gaps, follower.state), (["good"], [], "ended"))

    def test_events_without_an_envelope_are_told(self):
        for data in (b"hello", b"5", b"null", b'{"topic":1,"id":"1-1"}', b'{"topic":"a"}', b"[" * 200_000):
            for follower, _ in self.each(HEAD + OPEN + b"data: " + data + b"\n\n"):
                follower.ends()
                self.assertIsInstance(follower.error, TidegateError)
                self.assertIn("without an envelope", str(follower.error))

    def test_a_server_is_not_asked_all_the_time_whatever_it_says(self):
        closing = HEAD + b"retry: 0\n" + OPEN
        events = closing + event(1, b"1")
        refusing = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n"
        for answers, options in [
            ((closing,), {}),
            ((events,), {}),
            ((closing, refusing), {}),
            # Nothing comes of the first, and so short answers are asked for.
            ((None, events), {"patience": 0.5}),
        ]:
            for follower, liar in self.each(*answers, **options):
                until("asked six times", lambda: liar.asked >= 6)
                self.assertGreaterEqual(time.monotonic() - liar.began, 0.5)
                follower.close()

    def test_a_refusal_without_an_end_is_one(self):
        def refusal():
            return b"HTTP/1.1 401 Unauthorized\r\n\r\n"

        for follower, liar in self.each(refusal):
            follower.ends()
            self.assertEqual(follower.error.status, 401)
            self.assertLess(liar.sent, 32 << 20, "it is read no further")
        for publishing in (publish, lambda *asked: asyncio.run(publish_async(*asked))):
            liar = self.liar(refusal)
            with self.assertRaises(PublishError) as refused:
                publishing(liar.events, "a", "hello")
            self.assertEqual(refused.exception.status, 401)
            self.assertLess(liar.sent, 32 << 20, "it is read no further")
