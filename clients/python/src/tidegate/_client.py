"""What a client of httpx is made with."""

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


@functools.cache
def _context() -> ssl.SSLContext:
    """To read all certificates takes longer than most requests."""
    return httpx.create_ssl_context()
