"""Goal: streams are read as the standard says, wherever they are cut."""

import unittest

from tidegate import Block, EventStreamParser


def block(data, type="", id=None):
    return Block(type, data, id)


# The cases of loadtest/sse-client, which the tests of the gateway read streams with.
CASES = [
    ("data: a\n\n", [block("a")]),
    ("data:a\ndata\ndata:  b\n\n", [block("a\n\n b")]),
    ("data\n\n", [block("")]),
    ("data\ndata\n\n", [block("\n")]),
    ("data:test\n\ndata: test\n\n", [block("test"), block("test")]),
    ("id: 1\nevent: x\ndata: a\n\n", [block("a", "x", "1")]),
    ("id: 1\n\ndata: a\n\n", [block(None, id="1"), block("a")]),
    ("id\ndata: a\n\n", [block("a", id="")]),
    ("id: 1\0\ndata: a\n\n", [block("a")]),
    ("\ufeffdata: a\r\rdata: b\r\n\r\n", [block("a"), block("b")]),
    ("data: a\n\n\ufeffdata: b\n\n", [block("a"), block(None)]),
    (":\n: comment\ndata: a\n\n", [block("a")]),
    ("event: x\n\ndata: a\n\n", [block(None, "x"), block("a")]),
    ("Data: a\nfoo: b\n\n", [block(None)]),
    ("data: cut off\n", []),
    ("id: 7\ndata: a\n\nid: 8\ndata: b\n", [block("a", id="7")]),
    ("data: ü: €\U0001f30a\u2028\n\n", [block("ü: €\U0001f30a\u2028")]),
]


def parse(pieces):
    parser = EventStreamParser()
    return [block for piece in pieces for block in parser.feed(piece)]


class Parser(unittest.TestCase):
    def test_streams_are_read_alike_however_they_are_cut(self):
        for text, expected in CASES:
            with self.subTest(text=text):
                everything = text.encode()
                self.assertEqual(parse([everything]), expected)
                for at in range(len(everything)):
                    self.assertEqual(parse([everything[:at], everything[at:]]), expected, f"cut at {at}")
                self.assertEqual(parse(bytes([byte]) for byte in everything), expected, "byte by byte")

    def test_a_retry_has_digits_only_and_bytes_that_are_no_utf_8_are_replaced(self):
        parser = EventStreamParser()
        parser.feed("retry: 2500\nretry: 3x\nretry:\nretry: ٣\n".encode())
        self.assertEqual(parser.retry, 2500)
        self.assertEqual(parse([b"data:\xff\n\n"]), [block("\ufffd")])
