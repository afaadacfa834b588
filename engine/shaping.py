"""What shaping does in its own time: it throttles what has gathered, and ends what has waited too long.

A run whose window is over meets its trigger's throttle then: its event is read, its place on the key's clock is taken,
and it waits on until that has come. These go one after the other, so that they keep their order. A run that expires is
ended at its instant, wherever it waits; and marks that have no effect any more are forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import anyio
from msgspec.structs import replace

from engine.clock import LONGEST_SLEEP_S, Clock, from_microseconds, sleep_or_wake, to_microseconds
from engine.decide import gcra
from engine.decide.expiry import expired
from engine.decide.marks import Claim, Mark
from engine.decide.rules import Rule
from engine.errors import Conflict, ExpressionError, StoreError, StoreUnavailable
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.runs import Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import Accept, Postpone, Shift
from engine.triggers import SHAPING

log = logging.getLogger("engine.shaping")

RETRY_S = 1.0

FORGET_EVERY_S = 60.0
"""How often marks without effect are looked for."""

_ALL_BUT_THROTTLE = SHAPING - {"throttle"}

AT_ONCE = 256
"""So many runs that have expired are read at a time."""


class Waiting(Protocol):
    """What is needed of dispatch."""

    def take_back(self, run: Run, *, waits: bool) -> None:
        """Take back a run that the throttle took on; `waits` tells whether it does so still."""
        ...

    def expire(self, run: Run, step: Step) -> None:
        """End a run that has waited too long, unless it is about to begin."""
        ...


class Shaper:
    """The part of shaping that waits; `rules` are the triggers by name."""

    def __init__(
        self, *, clock: Clock, store: Store, journal: Journal, marks: MarkKeeper, rule_of: Callable[[str], Rule | None]
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._journal = journal
        self._marks = marks
        self._rule_of = rule_of
        self._gathered: deque[Run] = deque()
        self._has_gathered = asyncio.Event()
        self._expires_sooner = asyncio.Event()
        self._looks_at: datetime | None = None
        self.dispatch: Waiting

    def throttles(self, run: Run) -> bool:
        """Take on a run whose window is over, if its trigger has a throttle; it comes back through `take_back`."""
        rule = self._rule_of(run.trigger)
        if rule is None or rule.trigger.throttle is None:
            return False
        self._gathered.append(run)
        self._has_gathered.set()
        return True

    def note_expiry(self, at: datetime) -> None:
        """Take note that a run expires then."""
        if self._looks_at is None or at < self._looks_at:
            self._looks_at = at
            self._expires_sooner.set()

    async def catch_up(self) -> None:
        """Before anything starts, let what waits at throttles keep its distances, where its time has passed."""
        now = self._clock.now()
        for clock in await self._store.throttled(before=now):
            rule = self._rule_of(clock.trigger)
            rate = None if rule is None else rule.trigger.throttle
            if rate is None:
                continue
            by = now - clock.first_at
            # Where the last one passes, its clock stands `burst - 1` intervals ahead, and it moves that on by one.
            rest = timedelta(microseconds=rate.burst * gcra.interval_us(rate))
            shift = Shift(trigger=clock.trigger, key=clock.key, by=by, until=clock.last_at + by + rest)
            await self._journal.submit(Accept(entries=(), shift=shift))

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._throttle_gathered, name="shaping: throttle")
            group.start_soon(self._expire, name="shaping: expiry")
            group.start_soon(self._forget, name="shaping: marks")

    # Throttle

    async def _throttle_gathered(self) -> None:
        while True:
            while self._gathered:
                await self._put_off(self._gathered[0])
                self._gathered.popleft()
            self._has_gathered.clear()
            await self._has_gathered.wait()

    async def _put_off(self, run: Run) -> None:
        """Give a run its place on the clock of its key, durably, and let it wait until that has come."""
        key: str | None = None
        while True:
            claims: tuple[Claim, ...] = ()
            try:
                key = await self._key_of(run) if key is None else key
                put_off, claims = self._place(run, key)
                step = put_off.trace[-1]
                change = Postpone(run=run.id, step=step, due_at=put_off.due_at or step.at, throttled=key, claims=claims)
                await self._journal.submit(change)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
            except Conflict:
                if await self._is_over(run, claims):
                    self.dispatch.take_back(run, waits=False)
                    return
            except StoreError as error:
                log.warning("%s", error, extra={"action": "throttle_failed", "run": run.id})
                self.dispatch.take_back(run, waits=False)
                return
            else:
                self._marks.known.settle(claims)
                self.dispatch.take_back(put_off, waits=True)
                return

    async def _key_of(self, run: Run) -> str:
        """Return a run's key at its throttle: that of its latest event, which had one when it came."""
        rule = self._rule_of(run.trigger)
        if rule is None or "throttle" not in rule.keys:
            return ""
        events = await self._store.run_events(run.id)
        try:
            latest = events[-1]
            return rule.keys_of(latest, rule.scope(latest, rule.data_of(latest)), _ALL_BUT_THROTTLE)["throttle"]
        except (IndexError, ExpressionError) as error:
            # What a webhook's request held is not stored, and the trigger may be another by now.
            log.warning(
                "Run %s has no key at its throttle any more: %s", run.id, error or "its events are gone",
                extra={"action": "throttle_key_failed", "run": run.id, "trigger": run.trigger},
            )  # fmt: skip
            return ""

    def _place(self, run: Run, key: str) -> tuple[Run, tuple[Claim, ...]]:
        """Return the run with its place on the clock of its key, and what becomes of that."""
        rule, now = self._rule_of(run.trigger), self._clock.now()
        rate = None if rule is None else rule.trigger.throttle
        due_at, text = now, "pending: its window is over"
        claims: tuple[Claim, ...] = ()
        if rate is not None:
            place = (run.trigger, "throttle", key)
            mark = self._marks.known.find(place, now)
            now_us, tat_us = to_microseconds(now), 0 if mark is None else to_microseconds(mark.until)
            due_at = from_microseconds(gcra.free_at(rate, tat_us, now_us))
            moved = Mark(from_microseconds(gcra.moved(rate, tat_us, now_us)))
            claims = (Claim(place=place, mark=moved, now=now, seen=None if mark is None else mark.until),)
            self._marks.known.set(place, moved)
            text = f"pending: {gcra.said_of_throttle(rate, due_at)}"
        step = Step(at=now, state=RunState.PENDING, code="throttle", reason=text)
        put_off = replace(
            run, code=step.code, reason=text, due_at=due_at, window=None, throttled=key, trace=(*run.trace, step)
        )  # fmt: skip
        return put_off, claims

    async def _is_over(self, run: Run, claims: tuple[Claim, ...]) -> bool:
        """After a refusal, read what is in the way; return whether the run does not wait any more."""
        try:
            await self._marks.learn(claims)
            return bool(await self._marks.over([run.id]))
        except StoreUnavailable:
            await self._clock.sleep(RETRY_S)
            return False

    # Expiry

    async def _expire(self) -> None:
        """End what has waited too long: at the start, whenever something expires, and where that changes."""
        while True:
            self._expires_sooner.clear()
            try:
                runs = await self._store.expiring(limit=AT_ONCE)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
                continue
            now = self._clock.now()
            over = [run for run in runs if run.expires_at is not None and run.expires_at <= now]
            for run in over:
                self.dispatch.expire(run, expired(run, now))
            if over:
                # They are on their way to their ends; what is to begin just now has its slot.
                self._looks_at = None
                await self._clock.sleep(RETRY_S)
                continue
            self._looks_at = runs[0].expires_at if runs else None
            left_s = LONGEST_SLEEP_S if self._looks_at is None else (self._looks_at - now).total_seconds()
            await sleep_or_wake(self._clock, min(left_s, LONGEST_SLEEP_S), self._expires_sooner)

    # Marks

    async def _forget(self) -> None:
        while True:
            try:
                while await self._store.has_marks_before(self._clock.now()):
                    await self._journal.submit(Accept(entries=(), forget_marks=self._clock.now()))
            except StoreError as error:
                log.debug("Marks are forgotten later: %s", error, extra={"action": "forget_failed"})
            await self._clock.sleep(FORGET_EVERY_S)
