"""Reads and publishes events of Tidegate. What a stream is made of stands in the gateway's README, "Subscribe"."""

from ._parser import Block, EventStreamParser
from ._publish import Published, PublishError, publish, publish_async
from ._reader import AsyncTidegate, Tidegate
from ._types import Event, Gap, GapError, State, TidegateError

__all__ = [
    "AsyncTidegate",
    "Block",
    "Event",
    "EventStreamParser",
    "Gap",
    "GapError",
    "PublishError",
    "Published",
    "State",
    "Tidegate",
    "TidegateError",
    "publish",
    "publish_async",
]
