"""What waits at throttles: runs whose windows are over, and runs that are released later than it was planned.

A run whose window is over meets its trigger's throttle then: its event is read, its place on the key's clock is taken,
and it waits on until that has come. Places are planned; what counts is when runs are released. Where one is late (the
store was away, the machine slept, the clock was set forward), all that wait behind it are due as much later, so that
they keep their distances and don't come in a heap. All of this goes one after the other, so that runs keep their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace

from engine.clock import Clock, from_microseconds, to_microseconds
from engine.decide import gcra
from engine.decide.marks import Claim, Mark
from engine.decide.rules import Rule
from engine.errors import Conflict, ExpressionError, StoreError, StoreUnavailable
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.runs import Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import Accept, Postpone, Shift
from engine.triggers import SHAPING, Rate

log = logging.getLogger("engine.shaping")

RETRY_S = 1.0

LATE = timedelta(seconds=1)
"""What is released so much later than it was planned puts off what waits behind it."""

_ALL_BUT_THROTTLE = SHAPING - {"throttle"}

_Place = tuple[str, str]
"""A trigger, and a key at its throttle."""

_PUTS_OFF = ""
"""Stands for a run that has passed, late, until those behind it are put off."""


class TakeBack(Protocol):
    """Takes back a run that the throttle took on; `waits` tells whether it does so still."""

    def __call__(self, run: Run, *, waits: bool) -> None: ...


class Throttle:
    """Gives runs that have gathered their places, and sees to it that those released keep their distances."""

    def __init__(
        self, *, clock: Clock, store: Store, journal: Journal, marks: MarkKeeper,
        rule_of: Callable[[str], Rule | None], take_back: TakeBack,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._journal = journal
        self._marks = marks
        self._rule_of = rule_of
        self._take_back = take_back
        self._work: deque[Callable[[], Awaitable[None]]] = deque()
        self._has_work = asyncio.Event()
        self._passing: dict[_Place, dict[str, datetime]] = {}
        """The runs that are released, and not yet durably so, with when they were due."""
        self._behind: dict[_Place, list[Run]] = {}
        """Those whose time has come, and that wait for what is released before them."""
        self._moved: dict[_Place, datetime] = {}
        """The clocks whose runs were put off: until when somebody may know them as due earlier."""
        self._sure: set[str] = set()
        """Those of such clocks that are due now by the store's word."""

    def throttles(self, run: Run) -> bool:
        """Take on a run whose window is over, if its trigger has a throttle; it comes back through `take_back`."""
        rule = self._rule_of(run.trigger)
        if rule is None or rule.trigger.throttle is None:
            return False
        self._do(partial(self._put_off, run))
        return True

    def holds_back(self, run: Run, now: datetime) -> bool:
        """Take on a run whose place has come, where that may not be so any more; it comes back through `take_back`.

        Else it passes: `note_passing` has to be told what makes that durable.
        """
        place, is_sure = _place_of(run), run.id in self._sure
        self._sure.discard(run.id)
        passing = self._passing.setdefault(place, {})
        if passing and now - next(iter(passing.values())) > LATE:
            self._behind.setdefault(place, []).append(run)
            return True
        if place in self._moved and not is_sure:
            self._let_go(place)
            self._do(partial(self._see_again, run))
            return True
        passing[run.id] = run.due_at or now
        return False

    def note_passing(self, run: Run, passed: asyncio.Future[Any]) -> None:
        """Take note of what makes it durable that a run passes; of any other run nothing."""
        if run.id in self._passing.get(_place_of(run), ()):
            passed.add_done_callback(lambda _: self._note_passed(_place_of(run), run.id))

    async def catch_up(self) -> None:
        """Before anything starts, let what waits at throttles keep its distances, where its time has passed."""
        now = self._clock.now()
        for clock in await self._store.throttled(before=now):
            rule = self._rule_of(clock.trigger)
            rate = None if rule is None else rule.trigger.throttle
            if rate is None:
                continue
            by = now - clock.first_at
            until = clock.last_at + by + _rest(rate)
            shift = Shift(trigger=clock.trigger, key=clock.key, by=by, until=until)
            await self._journal.submit(Accept(entries=(), shift=shift))

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            while self._work:
                await self._work[0]()
                self._work.popleft()
            self._has_work.clear()
            await self._has_work.wait()

    def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work.append(work)
        self._has_work.set()

    # What has gathered

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
                    self._take_back(run, waits=False)
                    return
            except StoreError as error:
                log.warning("%s", error, extra={"action": "throttle_failed", "run": run.id})
                self._take_back(run, waits=False)
                return
            else:
                self._marks.known.settle(claims)
                self._take_back(put_off, waits=True)
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

    # What is late

    def _note_passed(self, place: _Place, run_id: str) -> None:
        """Take note that a run has passed, or will not; put off those behind it where it is the last and was late."""
        passing = self._passing.get(place, {})
        due_at = passing.pop(run_id, None)
        if due_at is None:
            return  # it was cut off, and is known to have passed
        if not passing and self._clock.now() - due_at > LATE:
            passing[_PUTS_OFF] = due_at  # until that is done nothing else passes
            self._do(partial(self._move_on, place, due_at))
        else:
            self._let_go(place)

    def _let_go(self, place: _Place) -> None:
        """Look again at what waited for those before it, once there are none."""
        if not self._passing.get(place):
            self._passing.pop(place, None)
            for run in self._behind.pop(place, ()):
                self._do(partial(self._see_again, run))

    async def _move_on(self, place: _Place, due_at: datetime) -> None:
        """Put off, durably, all that wait at a clock, as the one that was due then has passed just now."""
        trigger, key = place
        while True:
            rule = self._rule_of(trigger)
            rate = None if rule is None else rule.trigger.throttle
            try:
                until = None if rate is None else await self._stands_at(place, rate)
                by = self._clock.now() - due_at
                if until is not None and by > LATE:
                    shift = Shift(trigger=trigger, key=key, by=by, until=until + by)
                    await self._journal.submit(Accept(entries=(), shift=shift))
                    self._marks.known.set((trigger, "throttle", key), Mark(shift.until))
                    now = self._clock.now()
                    self._moved = {one: end for one, end in self._moved.items() if end > now} | {place: shift.until}
                    log.info(
                        "What waits at the throttle of %s is put off: the run before it was late", trigger,
                        extra={"action": "throttle_moved", "trigger": trigger, "by_s": by.total_seconds()},
                    )  # fmt: skip
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
                continue
            except StoreError as error:
                log.warning("%s", error, extra={"action": "throttle_failed", "trigger": trigger})
            break
        del self._passing[place]
        self._let_go(place)

    async def _stands_at(self, place: _Place, rate: Rate) -> datetime | None:
        """Return where a clock stands; None where it is at rest, and nothing waits there."""
        now = self._clock.now()
        if (mark := self._marks.known.find((place[0], "throttle", place[1]), now)) is not None:
            return mark.until
        for clock in await self._store.throttled(before=now):
            if (clock.trigger, clock.key) == place:
                return clock.last_at + _rest(rate)
        return None

    async def _see_again(self, run: Run) -> None:
        """Read when a run is due: it may have been put off since that was known, or taken its way."""
        while True:
            try:
                stored = await self._store.run(run.id)
                break
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
        if stored is None or stored.state is not RunState.PENDING or stored.due_at is None:
            self._take_back(run, waits=False)
            return
        if stored.due_at <= self._clock.now():
            self._sure.add(run.id)
        self._take_back(stored, waits=True)


def _place_of(run: Run) -> _Place:
    return run.trigger, run.throttled or ""


def _rest(rate: Rate) -> timedelta:
    """Return how far the clock stands ahead of the last one's place: `burst - 1` intervals, and its own."""
    return timedelta(microseconds=rate.burst * gcra.interval_us(rate))
