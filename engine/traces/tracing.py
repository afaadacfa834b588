"""What the engine asks of tracing; where it is off, there is none, and nothing is asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from engine.events import Accepted, Event
from engine.plugin import Outcome
from engine.runs import Run


class AttemptSpan(Protocol):
    """The span of an attempt that is going on."""

    @property
    def traceparent(self) -> str:
        """What others go on from."""
        ...

    @property
    def trace(self) -> str:
        """The id of its trace."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Say how the attempt ended."""
        ...


class Tracing(Protocol):
    """Makes spans of events and of attempts."""

    def origin(self, traceparent: str | None) -> str | None:
        """Return what is stored with an event that came with a traceparent; None where that is none."""
        ...

    def accepted(self, event: Event, answer: Accepted) -> None:
        """Make the span of an event that is durable, or came before."""
        ...

    def attempt(self, run: Run, events: Sequence[Event]) -> AbstractContextManager[AttemptSpan]:
        """Make the span of an attempt, around it: its code, where it runs in this process, is within."""
        ...

    def of_run(self, run_id: str) -> str | None:
        """Return the traceparent of the latest attempt of a run; None where that is not known any more."""
        ...

    def run_of(self, traceparent: str) -> str | None:
        """Return the id of the run whose span a traceparent names; None where that is not known."""
        ...

    async def close(self) -> None:
        """Have what was made sent, in bounded time."""
        ...
