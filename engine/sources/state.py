"""How a source is: its state, what is wrong with it, and what it did so far."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import anyio
from msgspec import Struct, field

from engine.clock import Clock, rfc3339
from engine.events import Accepted, Event
from engine.plugin import Source
from engine.sources.refusals import Refusals

SLOW_ROUND_S, SLOW_ROUNDS = 60.0, 10
"""A round of `every` is slow when it takes longer than this, and than so many periods."""

RECENT_S = 300.0
"""So long after its last failure a source that runs again is told of as one that fails."""


class Phase(StrEnum):
    """Where a source is in its life.

    `starting` → `running` (it said that it is ready) → `failed` (it raised, ended or was late; it waits for its next
    start) → `starting` …; `stuck` where it ignores that it is told to stop; `stopped` at the end.
    """

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STUCK = "stuck"
    STOPPED = "stopped"


class Round(Struct):
    """A round of `every` that is going on."""

    began_s: float
    period_s: float


class Trouble(Struct, frozen=True, kw_only=True):
    """What is wrong with a source, in words, and since when, where that is known."""

    text: str
    since: datetime | None = None


class SourceState(Struct):
    """One source; the counts are since the engine's start.

    - `since`: since when it is in its state; `error`: why it is not `running`; `warning`: what it says is wrong.
    - `failing_since`, `warning_since`: when it failed first since it last ran well, and when it began to warn.
    - `events` were stored, `duplicates` had come before; `rejected` came but were not valid; `refused` were no events;
      `pushed_back` calls came when the store could not take them.
      A source that emits nothing by itself shows no counts of events.
    - `emitting` calls wait for their commit now; all calls together waited `waited_s`.
    - `refusals`: requests to its routes that were refused.
    - `lag_s`: how old the last event was when it was durable, where the source said when it happened.
    - `awaited`: whether it is there since the engine's start and has not had its chance yet: it neither was ready nor
      failed. `has_run`: whether it ever was ready; `paths` are those that it ever answered requests at.
    """

    id: str
    source: Source
    state: Phase = Phase.STARTING
    since: datetime | None = None
    error: str | None = None
    failing_since: datetime | None = None
    warning: str | None = None
    warning_since: datetime | None = None
    restarts: int = 0
    events: int = 0
    duplicates: int = 0
    rejected: int = 0
    refused: int = 0
    pushed_back: int = 0
    emitting: int = 0
    waited_s: float = 0.0
    lag_s: float | None = None
    last_event_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    settling: int = 0
    beat: Round | None = None
    refusals: Refusals = field(default_factory=Refusals)
    awaited: bool = False
    has_run: bool = False
    paths: set[str] = field(default_factory=set)
    turned_away: int = 0
    """Calls in a row that were refused, for whatever reason."""
    factor: float = 1.0
    """By how much its periods and pauses are longer than its settings say, where its interval is adapted."""
    paced: anyio.Event = field(default_factory=anyio.Event)
    """Set when `factor` changes, and then another one."""
    ailing: bool = False
    """Whether it failed, and the log does not say yet that it is well again."""

    def enter(self, state: Phase, now: datetime) -> None:
        """Go over to a state."""
        self.state, self.since = state, now
        self.awaited &= state is Phase.STARTING
        self.has_run |= state is Phase.RUNNING

    def fail(self, error: str, now: datetime) -> None:
        """Note why it does not run."""
        if not self._failed_of_late(now):
            self.failing_since = now
        self.error = self.last_error = error
        self.last_error_at = now
        self.ailing = True

    def warn(self, text: str | None, now: datetime) -> None:
        """Note what it says is wrong; None: nothing is."""
        if text is None or self.warning is None:
            self.warning_since = None if text is None else now
        self.warning = text

    def count(self, events: Sequence[Event], answers: Sequence[Accepted], now: datetime) -> None:
        """Count what was accepted."""
        self.turned_away = 0
        if not answers:
            return
        duplicates = 0
        for answer in answers:
            duplicates += answer.duplicate
        self.duplicates += duplicates
        self.events += len(answers) - duplicates
        self.last_event_at = now
        if (time := events[-1].time) is not None:
            self.lag_s = (now - time).total_seconds()

    def problem(self, clock: Clock) -> str | None:
        """Return what keeps it from receiving, in words, or None."""
        if self.state is Phase.RUNNING:
            return self._slow_round(clock)
        how = "failed" if self.state is Phase.FAILED else f"is {self.state}"
        return f"source {self.id} {how}" + (f": {self.error}" if self.error else "")

    def may_answer(self, path: str) -> bool:
        """Tell whether it may answer requests at a path once it runs: where it did before, or has never run."""
        return self.state is not Phase.RUNNING and (path in self.paths or not self.has_run)

    def trouble(self, clock: Clock) -> Trouble | None:
        """Return what may keep its triggers from running: its problem, what it warns of, or failures of late."""
        now = clock.now()
        if (problem := self.problem(clock)) is not None:
            failing = self._failed_of_late(now) or self.state is not Phase.RUNNING
            since = self.failing_since if failing and self.failing_since else self.since
            return Trouble(text=problem.removeprefix(f"source {self.id} ").removeprefix("is "), since=since)
        if self.warning is not None:
            return Trouble(text=self.warning, since=self.warning_since)
        if self._failed_of_late(now):
            times = f"restarted {self.restarts} time{'' if self.restarts == 1 else 's'}"
            return Trouble(text=f"it runs, and was {times}: {self.last_error}", since=self.failing_since)
        return None

    def _failed_of_late(self, now: datetime) -> bool:
        return self.last_error_at is not None and (now - self.last_error_at).total_seconds() < RECENT_S

    def _slow_round(self, clock: Clock) -> str | None:
        # While it waits for the engine itself, which tells of its own troubles, the source is not to blame.
        if self.beat is None or self.emitting or self.settling:
            return None
        took_s = clock.monotonic() - self.beat.began_s
        if took_s <= max(SLOW_ROUND_S, SLOW_ROUNDS * self.beat.period_s):
            return None
        return f"source {self.id} hangs: it looks every {self.beat.period_s:g} s, and has been at it for {took_s:.0f} s"

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        # What timers and sources that only listen bring about is counted by their triggers.
        counted = isinstance(self.source, Source) and self.source.emits
        return {
            "name": self.id,
            "plugin": self.source.name,
            "state": self.state.value,
            "since": _at(self.since),
            "error": self.error,
            "warning": self.warning,
            "restarts": self.restarts,
            "events": self.events if counted else None,
            "duplicates": self.duplicates if counted else None,
            "rejected": self.rejected,
            "refused": self.refused,
            "refused_requests": self.refusals.view(),
            "pushed_back": self.pushed_back,
            "emitting": self.emitting,
            "waited_s": round(self.waited_s, 6),
            "lag_s": self.lag_s,
            "last_event_at": _at(self.last_event_at),
            "last_error": self.last_error,
            "last_error_at": _at(self.last_error_at),
        }


def _at(time: datetime | None) -> str | None:
    return None if time is None else rfc3339(time)
