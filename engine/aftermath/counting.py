"""Counting: how runs end and how late they begin, hour by hour and day by day, without a word to the store for each.

What is counted is stored every few seconds: the end of a run costs a look into a dictionary. What an engine that was
killed had counted since is counted anew by the next one, from the runs that ended after what was stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from engine.clock import EPOCH, Clock, rfc3339
from engine.errors import EngineError, StoreUnavailable
from engine.events import EventOutcome, Outcome
from engine.metrics import Counts
from engine.runs import FAILURES, OUTCOMES, Attempt, Origin, Run, RunState
from engine.store.base import Store
from engine.store.changes import Accept, Memory
from engine.tallies import Last, Statistics, Tally, TallyKey, TallyRow, Width, sum_up

log = logging.getLogger("engine.counting")

FLUSH_S = 5.0
ROWS_AT_ONCE = 200

KEPT = {Width.HOUR: timedelta(days=8), Width.DAY: timedelta(days=400)}
"""How long tallies are kept."""

BY_HOURS = timedelta(days=7)
"""Up to that statistics are added up by the hour, beyond by the day."""

LONGEST = timedelta(days=366)

TIDY_S = 3600.0
TIDY_PAUSE_S = 0.05
MOST_TIDIED = 1_000

SOURCE, UNTIL = "engine:counting", "until"
"""Under these the store remembers when the last run ended whose count is stored."""

MOST_COUNTED_ANEW = 20_000
"""So many of the latest runs are looked at after a crash, and where nothing was counted yet."""

_TICK = timedelta(microseconds=1)

Submit = Callable[[Accept], Awaitable[Any]]


def _end_of(run: Run) -> datetime:
    return run.finished_at or run.created_at


def _keep_latest(known: dict[str, Last], trigger: str, last: Last) -> None:
    if (other := known.get(trigger)) is None or other.at <= last.at:
        known[trigger] = last


class _Slot:
    """What one trigger and job has counted: in its hour, in its day, and since it was last stored."""

    __slots__ = ("_last", "_noted", "day", "day_at", "failures", "fresh", "hour", "hour_at", "unbroken", "until")

    def __init__(self) -> None:
        self.until = self.hour_at = self.day_at = EPOCH
        self.hour, self.day, self.fresh = Tally(), Tally(), Tally()
        self._last: Last | None = None
        self._noted: tuple[str, RunState, str, datetime] | None = None
        """The end that came last, as it was heard of: it is seldom asked for, and made what is stored only then."""
        self.failures = 0
        """So many have failed in a row."""
        self.unbroken = True
        """Whether the row may have begun before what is known here."""

    def end(self, run: Run, state: RunState, code: str, at: datetime) -> None:
        """Take note of the end that came last."""
        if state is RunState.SUCCEEDED:
            self.failures, self.unbroken = 0, False
        elif state in FAILURES:
            self.failures += 1
        self._noted = (run.id, state, code, at)

    @property
    def last(self) -> Last | None:
        """The end that came last."""
        if self._noted is not None:
            run, state, code, at = self._noted
            self._last = self.fresh.last = Last(run=run, state=state, code=code, at=at, failures=self.failures)
            self._noted = None
        return self._last

    def learn(self, before: Last | None) -> None:
        """Take up what was stored before this engine counted: the row of failures may go on from there."""
        last = self.last
        if last is None:
            self._last, self.failures = before, 0 if before is None else before.failures
        elif self.unbroken and before is not None and before.at <= last.at:
            self.failures += before.failures
            self._last = self.fresh.last = replace(last, failures=self.failures)
        self.unbroken = False

    def turn(self, at: datetime) -> None:
        """Begin the hour, and perhaps the day, of an instant."""
        self.hour_at, self.hour = Width.HOUR.start_of(at), Tally()
        self.until = self.hour_at + Width.HOUR.length
        day_at = Width.DAY.start_of(at)
        if day_at != self.day_at:
            self.day_at, self.day = day_at, Tally()

    def merge(self) -> None:
        """Add what is fresh to hour and day."""
        _ = self.last  # of what is fresh, too
        self.hour.take(self.fresh)
        self.day.take(self.fresh)
        self.fresh = Tally()


class Counting:
    """Counts ends, stores the sums, and says what they are. `submit` makes a change durable.

    `counts` are the counters for Prometheus; `job_of` names the job of a trigger.
    """

    def __init__(
        self, *, clock: Clock, store: Store, submit: Submit, counts: Counts | None = None,
        job_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._submit = submit
        self._counts = counts
        self._job_of = job_of
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._unstored: dict[TallyKey, Tally] = {}
        self._tidied = 0
        self._counted = asyncio.Event()
        self._last_at = EPOCH
        """When the last run ended that was counted."""
        self._strange: list[tuple[str, str]] = []
        """Those of whose past nothing was looked up yet."""
        self._past: dict[str, Last | None] = {}
        """The latest ends that were looked up, of triggers of which none ended since the start."""

    async def load(self) -> None:
        """Read what was counted in the hour and day of the last end, and count what ended later; raise StoreError."""
        remembered = await self._store.memory(SOURCE, after=None, limit=1)
        until = EPOCH if (text := remembered.get(UNTIL)) is None else datetime.fromisoformat(text)
        for width in Width:
            for row in await self._store.tallies_at(width, width.start_of(until)):
                slot = self._slots.setdefault((row.key.trigger, row.key.job), _Slot())
                if slot.until <= until:
                    slot.turn(until)
                if width is Width.HOUR:
                    slot.hour = row.tally
                else:
                    slot.day = row.tally
                slot.learn(row.tally.last)
        await self._count_anew(until)

    async def _count_anew(self, until: datetime) -> None:
        """Count what ended after what was stored: the engine before this one died, or is the first that counts."""
        for run in sorted(await self._store.ended_since(until, limit=MOST_COUNTED_ANEW), key=_end_of):
            took_s = None
            if run.state in OUTCOMES and run.attempts and run.started_at is not None:
                took_s = (_end_of(run) - run.started_at).total_seconds()
            self._add(run, run.state, run.code, _end_of(run), took_s, run.instants)
            for attempt in run.attempts:
                if attempt.finished_at > until:
                    self._begin(run, attempt)

    def ended(self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None) -> int:
        """Count the end of a run: one of what is the record of missed instants counts as these; return how many."""
        count = run.instants
        if self._counts is not None:
            self._counts.ended(run.job, state, code, run.origin, duration_s, count)
        self._add(run, state, code, at, duration_s, count)
        return count

    def began(self, run: Run, attempt: Attempt) -> None:
        """Count, at the end of the first attempt of a run, how long after its due instant that began."""
        late_s = self._begin(run, attempt)
        if late_s is not None and self._counts is not None:
            self._counts.began(run.trigger, late_s)

    def due(self, outcomes: Sequence[Outcome]) -> None:
        """Count what became of the event of a due instant, where that is no run of its own."""
        for outcome in outcomes:
            if outcome.outcome is EventOutcome.RUN or outcome.trigger is None:
                continue
            job = self._job_of(outcome.trigger)
            if job is not None:
                self._slot(outcome.trigger, job, self._clock.now()).fresh.plan.pass_by(outcome.code)

    def _add(
        self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None, count: int
    ) -> None:  # fmt: skip
        slot = self._slot(run.trigger, run.job, at)
        slot.fresh.add(state, duration_s, count)
        if run.origin is Origin.SCHEDULE:
            slot.fresh.plan.end(state, code, count)
        if state is not RunState.MISSED:
            slot.end(run, state, code, at)
        if at > self._last_at:
            self._last_at = at

    def _begin(self, run: Run, attempt: Attempt) -> float | None:
        if run.origin is not Origin.SCHEDULE or run.scheduled_for is None:
            return None
        if attempt.number != 1 or not attempt.counted:
            return None
        late_s = max((attempt.started_at - run.scheduled_for).total_seconds(), 0.0)
        self._slot(run.trigger, run.job, attempt.finished_at).fresh.plan.begin(late_s)
        return late_s

    def _slot(self, trigger: str, job: str, at: datetime) -> _Slot:
        """Return where what happened at an instant is counted."""
        slot = self._slots.get((trigger, job))
        if slot is None:
            slot = self._slots[trigger, job] = _Slot()
            self._strange.append((trigger, job))
        if at >= slot.until:  # where the clock was set back, its hour goes on
            self._put_aside(trigger, job, slot)
            slot.turn(at)
        if not self._counted.is_set():
            self._counted.set()
        return slot

    async def run(self) -> None:
        """Store what was counted some seconds ago, until cancelled; an engine without work does nothing."""
        while True:
            await self._counted.wait()
            await self._clock.sleep(FLUSH_S)
            self._counted.clear()
            try:
                await self.flush()
                if self._tidied != (hour := int(self._clock.now().timestamp() // TIDY_S)):
                    self._tidied = hour
                    await self._tidy()
            except StoreUnavailable:
                self._counted.set()

    async def end(self) -> None:
        """Store what was counted to the end."""
        try:
            await self.flush()
        except EngineError as error:
            log.info("The last counts are not stored: %s", error, extra={"action": "counts_not_stored"})

    async def flush(self) -> None:
        """Store what was counted; raise StoreUnavailable, and keep it, where that can't be now."""
        await self._look_up()
        for (trigger, job), slot in self._slots.items():
            self._put_aside(trigger, job, slot)
        until = Memory(source=SOURCE, values={UNTIL: rfc3339(self._last_at)})
        while self._unstored:
            taken = [(key, self._unstored[key]) for key in list(self._unstored)[:ROWS_AT_ONCE]]
            rows = tuple(TallyRow(key=key, tally=tally) for key, tally in taken)
            whole = len(taken) == len(self._unstored)
            await self._submit(Accept(entries=(), tallies=rows, memory=until if whole else None))
            for key, tally in taken:
                if self._unstored.get(key) is tally:
                    del self._unstored[key]

    async def _look_up(self) -> None:
        """Find out how runs ended, before this engine, of what was not counted by it before."""
        if not self._strange:
            return
        strange, self._strange = self._strange, []
        try:
            rows = await self._store.last_tallies(dict.fromkeys(trigger for trigger, _ in strange))
        except StoreUnavailable:
            self._strange = [*strange, *self._strange]
            raise
        before = {(row.key.trigger, row.key.job): row.tally.last for row in rows}
        for key in strange:
            if (slot := self._slots.get(key)) is not None:
                slot.learn(before.get(key))

    def _put_aside(self, trigger: str, job: str, slot: _Slot) -> None:
        """Have what a slot counted stored next time."""
        if slot.fresh.is_empty:
            return
        slot.merge()
        for width, at, tally in ((Width.HOUR, slot.hour_at, slot.hour), (Width.DAY, slot.day_at, slot.day)):
            copy = Tally()
            copy.take(tally)
            self._unstored[TallyKey(trigger=trigger, job=job, width=width, began_at=at)] = copy

    async def _tidy(self) -> None:
        """Forget old tallies, and what has not run for a day."""
        now = self._clock.now()
        before = {width: width.start_of(now - kept) for width, kept in KEPT.items()}
        for _ in range(MOST_TIDIED):
            old = [await self._has_before(width, at) for width, at in before.items()]
            if not any(old):
                break
            await self._submit(Accept(entries=(), forget_tallies=before))
            await self._clock.sleep(TIDY_PAUSE_S)
        idle = [key for key, slot in self._slots.items() if slot.until < now - Width.DAY.length]
        for trigger, job in idle:
            if (last := self._slots.pop((trigger, job)).last) is not None:
                self._past[trigger] = last

    async def _has_before(self, width: Width, at: datetime) -> bool:
        first = await self._store.first_tally_at(width)
        return first is not None and first < at

    async def lasts(self, triggers: Sequence[str]) -> dict[str, Last]:
        """Return how the latest run of each trigger ended; those that had none are left out. Raises StoreUnavailable.

        What ended since this engine started is known to it; only the others are looked up.
        """
        await self._look_up()
        known: dict[str, Last] = {}
        wanted = set(triggers)
        for (trigger, _), slot in self._slots.items():
            if trigger in wanted and slot.last is not None:
                _keep_latest(known, trigger, slot.last)
        strange = [name for name in triggers if name not in known and name not in self._past]
        if strange:
            found: dict[str, Last] = {}
            for row in await self._store.last_tallies(strange):
                if row.tally.last is not None:
                    _keep_latest(found, row.key.trigger, row.tally.last)
            self._past.update({name: found.get(name) for name in strange})
        for name in triggers:
            if name not in known and (past := self._past.get(name)) is not None:
                known[name] = past
        return known

    async def statistics(self, *, trigger: str | None = None, job: str | None = None, over: timedelta) -> Statistics:
        """Return how the runs of a trigger, or of a job, ended in the time up to now.

        The time begins with an hour, or with a day (UTC) where it is longer than a week. Raises StoreUnavailable.
        """
        await self.flush()
        now = self._clock.now()
        width = Width.HOUR if over <= BY_HOURS else Width.DAY
        start = width.start_of(now - min(over, LONGEST))
        rows = await self._store.tallies(trigger=trigger, job=job, width=width, start=start, end=now + _TICK)
        return sum_up([row.tally for row in rows], start, now)
