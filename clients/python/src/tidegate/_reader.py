"""The two readers: in a coroutine, and in any thread."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar, Union

from ._stream import Control, Headers, Item, Live, Moved, OnRefused, Settings, Stream, Ticket
from ._types import Event, Gap, GapError, State

T = TypeVar("T")
Told = Union[object, Awaitable[object]]


class _Reader:
    def __init__(
        self,
        url: str,
        topics: Iterable[str] = (),
        *,
        types: Iterable[str] = (),
        cursor: str | None = None,
        since: str | None = None,
        last: int | None = None,
        headers: Headers = None,
        ticket: Ticket | None = None,
        on_gap: Callable[[Gap], Told] | None = None,
        on_live: Callable[[], Told] | None = None,
        on_state: Callable[[State], Told] | None = None,
        on_control: Callable[[str, Any], Told] | None = None,
        on_refused: OnRefused | None = None,
        client_options: Mapping[str, Any] | None = None,
        heartbeat: float = 15.0,
        patience: float = 8.0,
    ) -> None:
        """`url` is the path of streams with its origin, such as `https://example.com/events`.

        topics: up to 64; without any, the topic `events`.
        types: only events of these types.
        cursor: where to begin, `cursor` of an event or of an earlier reader. It wins over `since` and `last`.
        since: on a first visit, begin with what is retained: `earliest`, or a span such as `5m`.
        last: on a first visit, begin with the last so many events.
        headers: sent with each request; a function, also of a coroutine, is asked before each.
        ticket: a function, also of a coroutine, that is asked before each request for a fresh ticket, with which the stream opens.
            An error of httpx there is one of the network: it is asked again later.
        on_gap: events are missing: load the state anew. Without it, the loop raises a `GapError`.
        on_live: what was there has been shown, and from here on events come as they are published. Again after a break.
        on_state: how the stream stands.
        on_control: the gateway's own events, without `tidegate.`: `open`, `live`, `cursor`, `deleted`, `connections`.
        on_refused: the request was refused by 401, 403 or another status below 500. True: try again, with new headers.
        client_options: for `httpx.AsyncClient`, such as `verify`, `proxy`, `auth`, `http2`.
        heartbeat: what `stream.heartbeat` of the gateway is thought to be until it is known, in seconds.
        patience: how long the first bytes of a stream may take before short answers are asked for, in seconds.
        """
        self._is_closed = True
        if isinstance(topics, str) or isinstance(types, str):
            raise TypeError("topics and types are lists of strings")
        settings = Settings(
            url, tuple(topics), tuple(types), since, last, headers, ticket, on_refused, heartbeat=heartbeat, patience=patience
        )
        self._on_gap, self._on_live, self._on_state, self._on_control = on_gap, on_live, on_state, on_control
        self._stream = Stream(settings, dict(client_options or {}), cursor)
        self._cursor = cursor
        self._error: Exception | None = None
        self._is_over = False
        self._is_closed = False

    @property
    def cursor(self) -> str | None:
        """Where a stream would have to begin to show what was not handled yet."""
        return self._cursor

    def _tell(self, item: Item | None) -> Told:
        """Tells whoever listens for it. Of a coroutine it returns what is to be awaited."""
        if isinstance(item, Moved):
            # It stands right after an event: who asks for the next one is done with that.
            self._cursor = item.cursor
        elif isinstance(item, Gap):
            if self._on_gap is None:
                raise GapError(item)
            return self._on_gap(item)
        elif isinstance(item, Live) and self._on_live:
            return self._on_live()
        elif isinstance(item, Control) and self._on_control:
            return self._on_control(item.name, item.data)
        elif isinstance(item, State):
            self._error = item.error
            self._is_over = item.name in ("ended", "failed", "closed")
            return self._on_state(item) if self._on_state else None
        return None


class AsyncTidegate(_Reader):
    """Reads topics until they have ended or it is closed: `async for event in tide`. Callbacks may be coroutines.

    Leave it by `async with`, or by `aclose`.
    """

    def __aiter__(self) -> AsyncTidegate:
        return self

    async def __anext__(self) -> Event:
        while not self._is_closed:
            item = await self._stream.item()
            if isinstance(item, Event):
                return item
            if item is None:
                break
            told = self._tell(item)
            if inspect.isawaitable(told):
                await told
        if self._error:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends it, and a loop that waits in another task. Returns when the connection is closed."""
        self._is_closed = True
        await self._stream.close()
        if not self._is_over:
            told = self._tell(State("closed"))
            if inspect.isawaitable(told):
                await told

    async def __aenter__(self) -> AsyncTidegate:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Tidegate(_Reader):
    """Reads topics until they have ended or it is closed: `for event in tide`.

    The network is waited for in a thread that all of them share; so `headers`, `ticket` and `on_refused` are called there, and all
    other callbacks by the loop. Leave it by `with`, or by `close`.
    """

    def __iter__(self) -> Tidegate:
        return self

    def __next__(self) -> Event:
        while not self._is_closed:
            item = _wait_for(self._stream.item())
            if isinstance(item, Event):
                return item
            if item is None:
                break
            self._tell(item)
        if self._error:
            raise self._error
        raise StopIteration

    def close(self) -> None:
        """Ends it, and a loop that waits in another thread."""
        self._is_closed = True
        _wait_for(self._stream.close())
        if not self._is_over:
            self._tell(State("closed"))

    def __del__(self) -> None:
        # Left without `close`: nothing waits here, and at the end of the process nothing is left to be closed.
        if not self._is_closed and self._stream.is_open and not sys.is_finalizing():
            asyncio.run_coroutine_threadsafe(self._stream.close(), _loop())

    def __enter__(self) -> Tidegate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_starting = threading.Lock()
_shared: tuple[int, asyncio.AbstractEventLoop] | None = None


def _loop() -> asyncio.AbstractEventLoop:
    """Runs for as long as the process. A child of `fork` has none, and gets its own."""
    global _shared
    with _starting:
        if _shared is None or _shared[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="tidegate", daemon=True).start()
            _shared = os.getpid(), loop
        return _shared[1]


def _wait_for(what: Coroutine[Any, Any, T]) -> T:
    future = asyncio.run_coroutine_threadsafe(what, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # as by Ctrl-C
        raise
