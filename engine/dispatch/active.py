"""What dispatch knows of a run that has a slot, and what it needs of the part of shaping that waits."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Protocol

import anyio
from msgspec import Struct

from engine.runs import Run


class Active(Struct):
    """A run that has a slot: it is about to start, or running.

    `why` says why it is being cancelled, and `by` for whom or what: the run that takes its place, who asked for it, or
    what it makes way for. Where there is one, it is not tried again.
    """

    run: Run
    start: asyncio.Future[None] | None = None
    task: asyncio.Task[None] | None = None
    scope: anyio.CancelScope | None = None
    why: str | None = None
    by: str = ""
    process: int | None = None
    cancelled_s: float = 0.0
    """When it was, by the monotonic clock."""
    keeps: bool = False
    """Whether its attempt is to go on when the engine stops or dies."""
    adopted: bool = False
    """Whether another engine process began its attempt."""
    ended_at: datetime | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None


class Shaping(Protocol):
    """What dispatch needs of the part of shaping that waits."""

    def throttles(self, run: Run) -> bool:
        """Take on a run whose window is over, where it has to meet a throttle; it comes back through `take_back`."""
        ...

    def holds_back(self, run: Run, now: datetime) -> bool:
        """Take on a run whose place at a throttle has come, where that may have moved; else it passes."""
        ...

    def note_passing(self, run: Run, passed: asyncio.Future[Any]) -> None:
        """Take note of what makes it durable that a run passes a throttle."""
        ...

    def note_expiry(self, at: datetime) -> None:
        """Take note that a run that waits expires then."""
        ...
