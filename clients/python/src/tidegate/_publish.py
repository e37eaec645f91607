"""Publishing over HTTP, once, however often it has to be sent."""

from __future__ import annotations

import json
import random
import time
import uuid
from dataclasses import dataclass
from typing import Any, Union
from urllib.parse import quote, urlencode

import anyio
import httpx

from ._client import Beginning, client_options

# The pause after the first failure; it doubles. In seconds.
_FIRST_PAUSE = 0.2
_PAUSE_MAX = 5.0
# Of one request.
_REQUEST_TIMEOUT = 10.0


@dataclass(frozen=True)
class Published:
    """The event is in the log."""

    topic: str
    id: str | None
    """None if the topic is not logged."""


class PublishError(Exception):
    """It was refused; or, without a status or with one of 500 and above, nobody knows whether it was published."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Publication:
    """The request, and what to do after each answer."""

    def __init__(
        self, url: str, topic: str, data: Any, event: str | None, end: bool, key: str | None,
        publish_key: str | None, timeout: float,
    ) -> None:  # fmt: skip
        query = [("event", event)] if event else []
        query += [("end", "true")] if end else []
        self.url = f"{url.rstrip('/')}/{quote(topic, safe='')}" + (f"?{urlencode(query)}" if query else "")
        text = data if isinstance(data, (str, bytes)) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        self.body = text.encode() if isinstance(text, str) else text
        self.headers = {"Content-Type": "text/plain; charset=utf-8", "Idempotency-Key": key or str(uuid.uuid4())}
        if publish_key:
            self.headers["Authorization"] = f"Bearer {publish_key}"
        self._until = time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    def judge(self, came: Union[httpx.Response, httpx.TransportError], text: Beginning) -> Union[Published, float]:
        """The answer, or how long to wait for the next attempt. Raises when there is none."""
        status, told, why = None, 0.0, str(came)
        if isinstance(came, httpx.Response):
            status = came.status_code
            try:
                said = json.loads(str(text))
                if status == 200:
                    return Published(said["topic"], said["id"])
                why = f"{status}: {said['detail']}"
            except (ValueError, TypeError, KeyError, RecursionError):
                why = f"{status}: {str(text)[:200]}"
            after = came.headers.get("Retry-After", "")
            told = float(after) if after.isascii() and after.isdigit() else 0.0
        pause = max(told, self._pause * (0.5 + random.random()))
        self._pause = min(2 * self._pause, _PAUSE_MAX)
        is_for_good = status is not None and status < 500 and status not in (408, 425, 429)
        if is_for_good or time.monotonic() + pause > self._until:
            raise PublishError(why, status)
        return pause


def publish(
    url: str,
    topic: str,
    data: Any,
    *,
    event: str | None = None,
    end: bool = False,
    key: str | None = None,
    publish_key: str | None = None,
    timeout: float = 30.0,
    client: httpx.Client | None = None,
) -> Published:
    """Publishes once, and tries again for `timeout` seconds where it may have failed.

    url: the path of streams with its origin, such as `https://example.com/events`.
    data: text or bytes as they are (UTF-8); anything else as JSON.
    event: the type. end: it is the topic's last.
    key: the idempotency key, for an attempt that outlives this process; else one is drawn.
    publish_key: what the gateway asks of publishers (`auth.publish_key`).
    """
    what = _Publication(url, topic, data, event, end, key, publish_key, timeout)
    own = client or httpx.Client(**client_options())
    try:
        while True:
            came: Union[httpx.Response, httpx.TransportError]
            text = Beginning()
            try:
                with own.stream(
                    "POST", what.url, content=what.body, headers=what.headers, timeout=_REQUEST_TIMEOUT
                ) as came:
                    for chunk in came.iter_bytes():
                        if text.is_full(chunk):
                            break
            except httpx.TransportError as error:
                came = error
            outcome = what.judge(came, text)
            if isinstance(outcome, Published):
                return outcome
            time.sleep(outcome)
    finally:
        if client is None:
            own.close()


async def publish_async(
    url: str,
    topic: str,
    data: Any,
    *,
    event: str | None = None,
    end: bool = False,
    key: str | None = None,
    publish_key: str | None = None,
    timeout: float = 30.0,
    client: httpx.AsyncClient | None = None,
) -> Published:
    """As `publish`, in a coroutine."""
    what = _Publication(url, topic, data, event, end, key, publish_key, timeout)
    own = client or httpx.AsyncClient(**client_options())
    try:
        while True:
            came: Union[httpx.Response, httpx.TransportError]
            text = Beginning()
            try:
                async with own.stream(
                    "POST", what.url, content=what.body, headers=what.headers, timeout=_REQUEST_TIMEOUT
                ) as came:
                    async for chunk in came.aiter_bytes():
                        if text.is_full(chunk):
                            break
            except httpx.TransportError as error:
                came = error
            outcome = what.judge(came, text)
            if isinstance(outcome, Published):
                return outcome
            await anyio.sleep(outcome)
    finally:
        if client is None:
            await own.aclose()
