"""What callers are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

StateName = Literal["connecting", "catching-up", "live", "waiting", "ended", "failed", "closed"]


@dataclass(frozen=True)
class Event:
    """One event."""

    topic: str
    id: str | None
    """None if the event is not logged: then it is shown to whoever is there, and never again."""
    event: str | None
    """The type, or None."""
    time: int | None
    """When it was logged, in milliseconds since 1970."""
    encoding: Literal["json", "text"]
    data: Any
    """A value if the event's data is JSON that every parser takes, else a string."""
    cursor: str | None
    """Where a stream would go on after it: to be kept, and given as `cursor`."""


@dataclass(frozen=True)
class Gap:
    """Events of `topic` above `from_id` up to `to_id` may be missing here."""

    topic: str
    reason: str
    """Such as `trimmed`; the gateway's README, "Gaps", has all."""
    from_id: str | None
    to_id: str | None
    cursor: str | None


@dataclass(frozen=True)
class State:
    """How a stream stands."""

    name: StateName
    short: bool = False
    """The network holds answers back, and short ones are asked for instead of a stream."""
    wait: float | None = None
    """Seconds until the next attempt, with `waiting`."""
    error: Exception | None = None


class TidegateError(Exception):
    """The request can never succeed, or was refused."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the answer, if there was one."""


class GapError(Exception):
    """Events may be missing, and nobody listens for it (`on_gap`). To iterate again goes on after them."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"events of {gap.topic} may be missing: {gap.reason}")
        self.gap = gap
