"""What waits, as people see it and ask for it: a page of the queue, and which runs a flush is for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from engine.errors import InvalidRequest
from engine.runs import WAITING, Lane, Run, RunState


class Standing(Struct, frozen=True, kw_only=True):
    """Where a queued run stands in its line, from 1, and when it may start; None where that can't be told."""

    position: int
    expected_start_at: datetime | None


class QueuePage(Struct, frozen=True, kw_only=True):
    """A page of the line of what is ready.

    - `items`: runs and where they stand, in order; `more`: whether others stand behind them.
    - `counts`: how many runs stand in each state that is no end; `slots`: how many may run at once.
    """

    items: tuple[tuple[Run, Standing], ...]
    more: bool
    counts: Mapping[RunState, int]
    slots: int


class FlushRequest(Struct, frozen=True, kw_only=True):
    """Which of the runs that wait are to be flushed; what is None does not restrict. `whole` says that all are meant.

    `priority_below`: only those with a lower priority.
    """

    job: str | None = None
    trigger: str | None = None
    tag: str | None = None
    states: frozenset[RunState] = WAITING
    lane: Lane | None = None
    priority_below: int | None = None
    whole: bool = False

    def check(self) -> None:
        """Raise InvalidRequest where it does not say what is meant."""
        given = (self.job, self.trigger, self.tag, self.lane, self.priority_below)
        narrowed = any(one is not None for one in given) or self.states != WAITING
        if narrowed == self.whole:
            raise InvalidRequest("say what to flush: a job, a trigger, a tag, a lane, states, a priority; or all")
        if not self.states or not self.states <= WAITING:
            raise InvalidRequest(f"what waits is in one of the states {', '.join(sorted(WAITING))}")


class Flushed(Struct, frozen=True, kw_only=True):
    """What a flush ended, or would end: how many runs, by trigger; `runs` names the first of them."""

    count: int
    triggers: Mapping[str, int]
    runs: tuple[str, ...]
