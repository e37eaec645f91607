"""The interpretation of an event stream, after WHATWG HTML, section 9.2.6:
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

# Characters of one block, at most: whoever sends more without an end is no gateway.
_BLOCK_CHARACTERS_MAX = 64 << 20
_LINE_END = re.compile(r"\r\n?|\n")
_DIGITS = re.compile(r"0*([0-9]{1,15})[0-9]*")


@dataclass(frozen=True)
class Block:
    """One block that was completed. Without `data` a page would raise no event for it, but its id counts."""

    type: str
    data: str | None
    id: str | None


class EventStreamParser:
    """Takes bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self.retry: int | None = None
        """The reconnection time that the stream has asked for, in milliseconds."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_first = True
        self._line: list[str] = []
        self._after_cr = False
        self._size = 0
        self._begin()

    def _begin(self) -> None:
        self._type = ""
        self._data: list[str] = []
        self._id: str | None = None
        self._has_fields = False
        self._size = 0

    def feed(self, chunk: bytes) -> list[Block]:
        """The blocks that these bytes complete."""
        text = self._decoder.decode(chunk)
        blocks: list[Block] = []
        if not text:
            return blocks
        if self._is_first:
            self._is_first = False
            text = text.removeprefix("\ufeff")
        if self._after_cr and text:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        start = 0
        for end in _LINE_END.finditer(text):
            self._line.append(text[start : end.start()])
            line = "".join(self._line)
            self._line.clear()
            start = end.end()
            if line:
                self._field(line)
            elif self._has_fields:
                blocks.append(Block(self._type, "\n".join(self._data) if self._data else None, self._id))
                self._begin()
        self._line.append(text[start:])
        self._size += len(text)
        if self._size > _BLOCK_CHARACTERS_MAX and not blocks:
            raise ValueError("a block without an end")
        return blocks

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if not name:
            return
        value = value.removeprefix(" ")
        self._has_fields = True
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and (digits := _DIGITS.fullmatch(value)):
            # With more digits it is more than anybody waits anyway, and no float or even int might hold it.
            self.retry = int(digits[1])
