"""One stream at a time, and when to open the next one. Both readers stand on it."""

from __future__ import annotations

import inspect
import json
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Union
from urllib.parse import urlencode

import anyio
import httpx

from ._client import Beginning, client_options
from ._parser import Block, EventStreamParser
from ._types import Event, Gap, State, StateName, TidegateError

# What is added to the time that the gateway has told, at most, after failure upon failure. All times are in seconds.
_BACKOFF_MAX = 30.0
# No `retry:` is believed beyond it, nor below this, which is also between the beginnings of two requests: whatever a
# server says, it is not asked hundreds of times a second.
_RETRY_MAX = 3600.0
_RETRY_MIN = 0.1
# How long the silence may become that is borne before the pause between heartbeats is known.
_SILENCE_MAX = 360.0
# Life of a short answer, for networks that hold answers back until they are complete.
_SHORT = 25
# A short answer that is still open so long after its first bytes is not held back.
_FLOWS = 1.0
# Events of a short answer that was asked for many, at most. One with so many does not wait for the next.
_MANY = 100

HeaderValues = Union[Mapping[str, str], Iterable[tuple[str, str]], None]
Headers = Union[HeaderValues, Callable[[], Union[HeaderValues, Awaitable[HeaderValues]]]]
Ticket = Callable[[], Union[str, Awaitable[str]]]
OnRefused = Callable[[TidegateError], Union[object, Awaitable[object]]]


@dataclass(frozen=True)
class Live:
    """What was there has been shown."""


@dataclass(frozen=True)
class Control:
    """Another of the gateway's own events."""

    name: str
    data: Any


@dataclass(frozen=True)
class Moved:
    """The cursor has moved, often by the event before."""

    cursor: str


Item = Union[Event, Gap, Live, Control, Moved, State]


@dataclass(frozen=True)
class Settings:
    """What a stream goes by."""

    url: str
    topics: tuple[str, ...]
    types: tuple[str, ...]
    since: str | None
    last: int | None
    headers: Headers
    ticket: Ticket | None
    on_refused: OnRefused | None
    heartbeat: float
    patience: float


@dataclass
class _Answer:
    """What one answer came to."""

    short: bool  # it was asked to end by itself
    behind: bool  # it was asked for many events at once
    resumes: bool  # it began with a cursor, `since` or `last`
    began: float = 0.0  # when it was asked for
    opened: bool = False  # a block of the gateway has come
    live: bool = False
    clean: bool = False  # it was ended, not cut
    has_bytes: bool = False
    waited: float = 0.0  # for bytes after the first
    events: int = 0
    why: Literal["held", "silent", None] = None  # it was given up
    heartbeat: float | None = None  # when the last block came, if that was a heartbeat
    renewed: bool = False  # it was refused, and other headers are to be tried
    wait: float = 0.0  # the server asks for it


class Stream:
    """Items in order, by `item`, for one caller at a time. It reads no more than was asked for."""

    def __init__(self, settings: Settings, client: Mapping[str, Any], cursor: str | None) -> None:
        self.cursor = cursor  # where the next stream begins
        self._settings = settings
        self._options = client
        self._client: httpx.AsyncClient | None = None
        self._items: deque[Item] = deque()
        self._answer: _Answer | None = None
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._parser = EventStreamParser()
        self._is_over = False
        self._retry = 3.0
        self._failures = 0
        self._held = False  # short answers are asked for
        self._behind = False  # the last short answer did not get as far as the head
        self._silence = 3 * settings.heartbeat
        self._pause = 0.0
        self._not_before = 0.0  # when the next request may begin
        self._scope: anyio.CancelScope | None = None
        self._was_live = False
        self._renewed = False  # the last answer was a refusal
        self._turn: anyio.Lock | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self._client is not None

    async def item(self) -> Item | None:
        """The next one; none at the end."""
        if not self._items and not self._is_over:
            self._turn = self._turn or anyio.Lock()
            async with self._turn:
                await self._until_there_is_one()
        return self._items.popleft() if self._items else None

    async def _until_there_is_one(self) -> None:
        # Whoever closes it ends what is waited for here.
        with anyio.CancelScope() as self._scope:
            while not self._items and not self._is_over:
                await self._step()

    def stop(self) -> None:
        """Ends it, and what `item` is waiting for. `close` is still to be called."""
        self._is_over = True
        self._items.clear()
        if self._scope:
            self._scope.cancel()

    async def close(self) -> None:
        self.stop()
        # Whoever waits in `item` lets go of the answer first.
        async with self._turn or anyio.Lock():
            await self._let_go()
            client, self._client = self._client, None
            if client:
                await client.aclose()

    async def _step(self) -> None:
        if self._pause:
            pause, self._pause = self._pause, 0.0
            await anyio.sleep(pause)
        elif self._answer is None and self._not_before > time.monotonic():
            await anyio.sleep(self._not_before - time.monotonic())
        elif self._answer is None:
            s = self._settings
            self._not_before = time.monotonic() + _RETRY_MIN
            resumes = any(begin is not None for begin in (self.cursor, s.since, s.last))
            self._answer = _Answer(self._held, self._behind, resumes)
            self._say("connecting")
        else:
            await self._go_on(self._answer)

    async def _go_on(self, answer: _Answer) -> None:
        """Asks, or reads once."""
        try:
            if await (self._ask(answer) if self._response is None else self._read(answer)):
                return
        except TimeoutError:
            # Before it was asked, it was the function that gives the headers.
            if answer.began:
                answer.why = "held" if not answer.has_bytes else "silent"
        except TidegateError as error:
            await self._let_go()
            self._end("failed", error)
            return
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError, anyio.ClosedResourceError):
            pass  # cut
        except BaseException:
            await self._let_go()
            raise
        await self._finish(answer)

    # --- one answer ---

    async def _ask(self, answer: _Answer) -> bool:
        """Whether there is something to read, or an end."""
        s = self._settings
        given = s.headers() if callable(s.headers) else s.headers
        headers = httpx.Headers(await given if inspect.isawaitable(given) else given)  # type: ignore[arg-type]
        # Each request has its own: the one before was used.
        ticket = s.ticket() if s.ticket else None
        if inspect.isawaitable(ticket):
            ticket = await ticket
        headers["Accept"] = "text/event-stream"
        headers["Accept-Encoding"] = "identity"
        headers["Cache-Control"] = "no-store"
        if self.cursor:
            headers["Last-Event-ID"] = self.cursor
        if self._client is None:
            self._client = httpx.AsyncClient(**client_options(self._options))
        request = self._client.build_request("GET", self._url(answer, ticket), headers=headers, timeout=None)
        answer.began = time.monotonic()
        with anyio.fail_after(self._patience(answer)):
            response = await self._client.send(request, stream=True)
        try:
            is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
            if response.status_code == 204:
                self._end("ended")
            elif response.status_code == 200 and is_stream:
                self._response = response
                self._chunks = response.aiter_bytes()
                self._parser = EventStreamParser()
            else:
                with anyio.fail_after(self._patience(answer)):
                    await self._refused(response, answer)
        finally:
            if self._response is not response:
                await response.aclose()
        return self._response is response or self._is_over

    def _url(self, answer: _Answer, ticket: str | None) -> str:
        s = self._settings
        query: list[tuple[str, str]] = [("topic", topic) for topic in s.topics]
        query += [("type", event_type) for event_type in s.types]
        query += [("envelope", ""), ("heartbeat", "event")]
        if ticket:
            query.append(("ticket", ticket))
        if not self.cursor and s.since is not None:
            query.append(("since", s.since))
        elif not self.cursor and s.last is not None:
            query.append(("last", str(s.last)))
        if answer.short:
            limit, age = (str(_MANY), "1s") if answer.behind else ("1", f"{_SHORT}s")
            query += [("limit", limit), ("max_age", age)]
        return f"{s.url}{'&' if '?' in s.url else '?'}{urlencode(query)}"

    def _patience(self, answer: _Answer) -> float:
        """How long the next bytes may take."""
        if not answer.short and answer.has_bytes:
            return self._silence
        all_of_it = self._settings.patience + (_SHORT if answer.short else 0)
        return max(answer.began + all_of_it - time.monotonic(), 0.0)

    async def _refused(self, response: httpx.Response, answer: _Answer) -> None:
        """Raises if it is for good."""
        status = response.status_code
        if 400 <= status < 500 and status not in (408, 425, 429):
            text = await _beginning(response)
            try:
                detail = json.loads(text)["detail"]
            except (ValueError, TypeError, KeyError, RecursionError):
                detail = text[:200]
            error = TidegateError(f"{status}: {detail}", status)
            again: object = False
            if status != 400 and self._settings.on_refused:
                again = self._settings.on_refused(error)
                if inspect.isawaitable(again):
                    again = await again
            if not again:
                raise error
            # Other headers are tried at once, but not again and again.
            answer.renewed, self._renewed = not self._renewed, True
        told = response.headers.get("Retry-After", "")
        answer.wait = float(told) if told.isascii() and told.isdigit() else 0.0

    async def _read(self, answer: _Answer) -> bool:
        """Whether the answer goes on."""
        assert self._chunks is not None
        asked = time.monotonic()
        try:
            with anyio.fail_after(self._patience(answer)):
                chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            answer.clean = True
            return False
        finally:
            answer.waited += time.monotonic() - asked if answer.has_bytes else 0.0
        answer.has_bytes = True
        blocks = self._parser.feed(chunk)
        if self._parser.retry is not None:
            self._retry = min(max(self._parser.retry / 1000, _RETRY_MIN), _RETRY_MAX)
        for block in blocks:
            self._take(block, answer)
        return True

    def _take(self, block: Block, answer: _Answer) -> None:
        before, answer.heartbeat = answer.heartbeat, None
        if block.data is not None:
            if not answer.opened:
                answer.opened = True
                self._failures = 0
                self._renewed = False
                self._say("catching-up")
            if block.type == "tidegate.heartbeat":
                answer.heartbeat = time.monotonic()
                # Two heartbeats with nothing between them are one pause apart.
                if before is not None:
                    self._silence = max(3 * (answer.heartbeat - before), 1.0)
            else:
                self._show(block.type, block.data, block.id or self.cursor, answer)
        if block.id:
            if not block.id.isprintable():
                raise ValueError("an id that no header can carry")
            self.cursor = block.id
            self._items.append(Moved(block.id))

    def _show(self, event_type: str, data: str, cursor: str | None, answer: _Answer) -> None:
        if not event_type.startswith("tidegate."):
            answer.events += 1
            self._items.append(_event(event_type, data, cursor))
            return
        name, said = event_type.removeprefix("tidegate."), _object(data)
        if name == "gap":
            self._items.append(_gap(said, cursor))
        else:
            self._items.append(Control(name, said))
        if not answer.live and (name == "live" or (name == "open" and not answer.resumes)):
            answer.live = True
            # One short answer after another is one stream to whoever looks at it.
            if not self._was_live:
                self._was_live = True
                self._items.append(State("live", answer.short))
                self._items.append(Live())

    # --- what comes next ---

    async def _finish(self, answer: _Answer) -> None:
        await self._let_go()
        self._pause = self._wait(answer)
        if not (answer.short and answer.opened and answer.clean):
            self._was_live = False
        if self._pause:
            self._say("waiting")

    async def _let_go(self) -> None:
        response, self._response, self._chunks, self._answer = self._response, None, None, None
        if response is not None:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _wait(self, answer: _Answer) -> float:
        """When to open the next stream."""
        if answer.short:
            # A short answer that was not held back, or did not come either: try a stream again.
            flows = not answer.behind and answer.waited > _FLOWS
            self._held = answer.opened and answer.clean and not flows
            self._behind = answer.resumes and not answer.live
            if answer.opened and answer.clean:
                if answer.events >= _MANY:
                    self._not_before = 0.0
                return 0.0
        elif answer.why:
            self._held, self._behind = True, False
            if answer.why == "silent":
                self._silence = min(2 * self._silence, _SILENCE_MAX)
            return 0.0
        if answer.opened:
            # After an end that is none of a cut, the next answer tells whether it was the end of all topics.
            soon = answer.clean and answer.events
            return random.random() * min(self._retry, 0.5) if soon else self._retry
        if answer.clean:
            # A stream of nothing but `retry:` has drawn the time for this client already.
            return self._retry
        if answer.renewed:
            return 0.0
        self._failures = min(self._failures + 1, 16)
        least = min(max(self._retry, answer.wait), _RETRY_MAX)
        return least + random.random() * min(_BACKOFF_MAX, self._retry * 2.0 ** (self._failures - 1))

    def _say(self, name: StateName) -> None:
        if name != "waiting" and self._was_live:
            return
        self._items.append(State(name, self._held, self._pause or None))

    def _end(self, name: StateName, error: Exception | None = None) -> None:
        self._is_over = True
        self._items.append(State(name, self._held, error=error))


async def _beginning(response: httpx.Response) -> str:
    """What it says, as far as anybody reads it. As it comes: it was asked for without an encoding, and one may swell."""
    text = Beginning()
    async for chunk in response.aiter_raw():
        if text.is_full(chunk):
            break
    return str(text)


def _event(event_type: str, data: str, cursor: str | None) -> Event:
    try:
        said = _object(data)
        if not event_type and _is_text(said["topic"]) and (said["id"] is None or _is_text(said["id"])):
            return Event(**{name: said[name] for name in _ENVELOPE}, cursor=cursor)
    except (ValueError, KeyError):
        pass
    raise TidegateError("events come without an envelope: the gateway is too old for this client")


def _gap(said: dict[str, Any], cursor: str | None) -> Gap:
    topic, reason, from_id, to_id = (said.get(name) for name in ("topic", "reason", "from", "to"))
    if _is_text(topic) and _is_text(reason):
        return Gap(str(topic), str(reason), from_id, to_id, cursor)
    raise ValueError("a gap without a topic or a reason")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _object(data: str) -> dict[str, Any]:
    """Raises a ValueError if it is none."""
    try:
        try:
            said = json.loads(data)
        except ValueError:
            # Perhaps a whole number has more digits than `int` reads.
            said = json.loads(data, parse_int=_whole)
    except RecursionError:
        raise ValueError("JSON that is too deep") from None
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    return said


def _whole(digits: str) -> int | Decimal:
    try:
        return int(digits)
    except ValueError:
        return Decimal(digits)


_ENVELOPE = ("topic", "id", "event", "time", "encoding", "data")
