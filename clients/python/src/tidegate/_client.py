"""What a client of httpx is made with, and what is read of its answers."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from typing import Any

import httpx


def client_options(given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """These options over our own."""
    own: dict[str, Any] = {"follow_redirects": True}
    # A certificate of the caller's would stay in the context that all share.
    if not given or "cert" not in given:
        own["verify"] = _context()
    return {**own, **(given or {})}


class Beginning:
    """The text of an answer that is no stream, as far as anybody reads it: whoever sends more is no gateway."""

    _BYTES_MAX = 64 << 10

    def __init__(self) -> None:
        self._bytes = bytearray()

    def is_full(self, chunk: bytes) -> bool:
        """Takes more, and tells whether there is no room left."""
        self._bytes += chunk[: self._BYTES_MAX - len(self._bytes)]
        return len(self._bytes) == self._BYTES_MAX

    def __str__(self) -> str:
        return self._bytes.decode("utf-8", "replace")


@functools.cache
def _context() -> ssl.SSLContext:
    """To read all certificates takes longer than most requests."""
    return httpx.create_ssl_context()
