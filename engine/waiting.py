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


RETRIABLE = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED, RunState.SKIPPED, RunState.EXPIRED})
"""The ends that may be asked to be retried together; each other run is retried by its id."""

MOST_RETRIED = 1_000
"""So many runs are retried by one request."""

LONGEST_RETRIED_S = 60.0
"""A request takes no longer: its rate and its limit have to allow that."""


class RetryRequest(Struct, frozen=True, kw_only=True):
    """Which ended runs are to be run once more; what is None does not restrict.

    - `start`, `end`: of those that came to be from then on, and before then.
    - `before`: those before this id, as the answer before said.
    - `limit`: so many at most; `rate_per_s` of them a second.
    """

    states: frozenset[RunState] = frozenset({RunState.FAILED, RunState.TIMED_OUT})
    job: str | None = None
    trigger: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    before: str | None = None
    limit: int = 100
    rate_per_s: float = 10.0

    def check(self) -> None:
        """Raise InvalidRequest where it is not what one request may ask for."""
        if not self.states or not self.states <= RETRIABLE:
            raise InvalidRequest(f"what is retried together has ended as one of {', '.join(sorted(RETRIABLE))}")
        if not 1 <= self.limit <= MOST_RETRIED:
            raise InvalidRequest(f"a limit is 1 to {MOST_RETRIED}")
        if self.rate_per_s <= 0 or self.limit / self.rate_per_s > LONGEST_RETRIED_S:
            raise InvalidRequest(f"{self.limit} runs at this rate take longer than a minute: ask for fewer at once")


class Retried(Struct, frozen=True, kw_only=True):
    """What a retry of many did, or would do.

    - `made`: by the runs that were run once more, the new runs; where nothing was made yet, none.
    - `refused`: those that could not be, and why. `known`: those that were retried so before.
    - `following`: where to go on, None at the end.
    """

    made: Mapping[str, tuple[str, ...]]
    refused: Mapping[str, str]
    known: tuple[str, ...]
    following: str | None


class Flushed(Struct, frozen=True, kw_only=True):
    """What a flush ended, or would end: how many runs, by trigger; `runs` names the first of them."""

    count: int
    triggers: Mapping[str, int]
    runs: tuple[str, ...]
