"""Steering: what people ask of runs that wait or run: cancel, hold, release, another priority, and a flush of many.

A run that waits is first taken from where it waits, so that nothing starts it meanwhile; then the change is made
durable; then it is put back as the store has it. A running one is first marked in the store, so that a crash does not
run again what somebody cancelled; then its attempt is ended. So what was answered holds, whatever dies when.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol

import anyio
from msgspec.structs import replace

from engine.clock import Clock
from engine.decide.joins import JOIN_WAITS
from engine.decide.priority import effective
from engine.decide.rules import Rule
from engine.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from engine.journal import Journal
from engine.runs import (
    CANCELLING,
    ENDED,
    HELD_BY_HAND,
    PRIORITY,
    WAITING,
    Run,
    RunState,
    Step,
)
from engine.store.base import RunFilter, Store
from engine.store.changes import AskCancel, End, Enqueue, Finish, Hold, SetPriority
from engine.waiting import Flushed, FlushRequest

log = logging.getLogger("engine.steering")

TRIES = 50
"""A run that moves on so often while something is asked of it is left; whoever asked may ask again."""

LONGEST_WAIT_S = 10.0
"""So long is waited for a run that is on its way from one state to the next; the store may be away."""

READS, RETRY_READ_S = 3, 1.0

PAGE = 500
"""So many runs of a flush are read, and ended, at a time."""

MOST_NAMED = 100
"""So many of the runs that were flushed are named in the answer."""


class Hands(Protocol):
    """What steering needs of dispatch."""

    async def settled(self, run_id: str) -> None:
        """Return when a run is not on its way from one state to the next."""
        ...

    def has_moved(self, run: Run) -> bool:
        """Tell whether a run moves, or has, since it was read."""
        ...

    def take_out(self, run: Run, *, for_good: bool) -> None:
        """Take a waiting run from where it waits: until `put_back` nothing starts it.

        With `for_good` it does not gather events any more.
        """
        ...

    def put_back(self, run: Run) -> None:
        """Take in a run that was taken out, as it is stored now."""
        ...

    def cut_off(self, run_id: str, said: str, *, at_launch: bool = False) -> bool:
        """End the attempt of a run for good; return whether it has a slot."""
        ...


class Steering:
    """Changes what waits and what runs, as people ask. Each change names who asked, and why, in the run's trace.

    `finish` hands in how a run ended, with what follows from it; `rules` are the triggers, for their bounds and tags,
    `retired` those that were removed.
    """

    def __init__(
        self, *, clock: Clock, store: Store, journal: Journal, hands: Hands, rules: Mapping[str, Rule],
        retired: Mapping[str, Rule], ageing_s: float, finish: Callable[[Run, Finish | End], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._journal = journal
        self._hands = hands
        self._rules = rules
        self._retired = retired
        self._ageing_us = int(ageing_s * 1_000_000)
        self._finish = finish

    async def cancel(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Cancel a run: one that waits has ended when this returns; one that runs is being ended, and ends soon.

        It is durable when this returns. A run that is being cancelled already is returned as it is. Raises NotFound,
        Conflict where it has ended, and StoreUnavailable.
        """
        said = _said(who, reason)
        for _ in range(TRIES):
            run = await self._look(run_id)
            if run.state in ENDED:
                raise Conflict(f"run {run_id} has ended: it is {run.state}")
            if run.state is not RunState.RUNNING:
                if await self._end(run, f"cancelled: {said}", code="cancelled"):
                    return await self._read(run_id)
            elif await self._cut_off(run, said):
                return await self._read(run_id)
        raise _moves_on(run_id)

    async def hold(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Hold a run that waits: it does not start until it is released. Durable when this returns.

        One that gathers events gathers no more. One that is held by hand already stays so. Raises NotFound, Conflict
        where it runs or has ended, and StoreUnavailable.
        """
        for _ in range(TRIES):
            run = await self._look(run_id)
            self._must_wait(run)
            if run.state is RunState.HELD and run.code == HELD_BY_HAND:
                return run
            if run.code == JOIN_WAITS:
                raise Conflict(f"run {run_id} waits for the inputs of its join: pause its trigger, or cancel it")
            step = self._step(RunState.HELD, code=HELD_BY_HAND, reason=f"held: {_said(who, reason)}")
            if await self._move(run, partial(self._journal.submit, Hold(run=run_id, step=step))):
                return await self._read(run_id)
        raise _moves_on(run_id)

    async def release(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Release a run that somebody holds: it is ready, in the place in the queue that it had. Durable.

        Raises NotFound, Conflict where nobody holds it, and StoreUnavailable.
        """
        for _ in range(TRIES):
            run = await self._look(run_id)
            if run.state is not RunState.HELD:
                raise Conflict(f"run {run_id} is not held: it is {run.state}")
            if run.code != HELD_BY_HAND:
                raise Conflict(f"run {run_id} is not held by hand, but: {run.reason}")
            step = self._step(
                RunState.QUEUED, code="released", reason=f"released: {_said(who, reason)}; waits for a slot"
            )
            change = Enqueue(run=run_id, step=step, rank=run.rank)
            if await self._move(run, partial(self._journal.submit, change)):
                return await self._read(run_id)
        raise _moves_on(run_id)

    async def set_priority(self, run_id: str, priority: int, *, reason: str = "", who: str = "") -> Run:
        """Give a run that waits another priority, at most the `priority_max` of its trigger. Durable.

        Its place in the queue is the one that it would have had with it from the start. Raises NotFound, Conflict where
        it runs or has ended, InvalidRequest, and StoreUnavailable.
        """
        if not 0 <= priority <= 9:
            raise InvalidRequest("a priority is 0 to 9")
        for _ in range(TRIES):
            run = await self._look(run_id)
            self._must_wait(run)
            rule = self._rules.get(run.trigger) or self._retired.get(run.trigger)
            given = priority
            if rule is not None:
                given = effective(rule.trigger.priority, priority, rule.trigger.priority_max)
            if given == run.priority:
                return run
            bound = f", not {priority}, as its trigger allows no more" if given < priority else ""
            text = f"priority {given} in the place of {run.priority}{bound}: {_said(who, reason)}"
            step = self._step(run.state, code=PRIORITY, reason=text)
            change = SetPriority(run=run_id, step=step, priority=given, ageing_us=self._ageing_us)
            if await self._move(run, partial(self._journal.submit, change), for_good=False):
                return await self._read(run_id)
        raise _moves_on(run_id)

    # Many at once

    async def flush(self, which: FlushRequest, *, reason: str, who: str = "", dry_run: bool = False) -> Flushed:
        """Cancel all runs that wait and are meant; return what was, or would be, ended.

        Each is a run that is cancelled, with the reason. What comes meanwhile, or starts before its turn, is left. Each
        is durable for itself: what raises leaves the others as they are. Raises InvalidRequest and StoreUnavailable.
        """
        which.check()
        said = f"cancelled: flushed {_said(who, reason)}"
        triggers: Counter[str] = Counter()
        named: list[str] = []
        async for page in self._meant(which):
            if dry_run:
                ended = list(page)
            else:
                ends = await asyncio.gather(*[self._flush_one(run, which, said) for run in page])
                ended = [run for run in ends if run is not None]
            triggers.update(run.trigger for run in ended)
            named += [run.id for run in ended[: MOST_NAMED - len(named)]]
        count = triggers.total()
        if count and not dry_run:
            log.info(
                "Flushed %d runs that waited, %s", count, _said(who, reason),
                extra={"action": "flushed", "count": count, "by": who},
            )  # fmt: skip
        return Flushed(count=count, triggers=dict(sorted(triggers.items())), runs=tuple(named))

    async def _meant(self, which: FlushRequest) -> AsyncIterator[Sequence[Run]]:
        """Yield the runs that are meant, page by page, the newest first."""
        triggers = None if which.trigger is None else frozenset({which.trigger})
        found = RunFilter(states=which.states, job=which.job, triggers=triggers)
        before: str | None = None
        while page := await self._store.runs(found, limit=PAGE, before=before):
            yield [run for run in page if self._is_meant(run, which)]
            before = page[-1].id

    def _is_meant(self, run: Run, which: FlushRequest) -> bool:
        rule = self._rules.get(run.trigger) or self._retired.get(run.trigger)
        tags = () if rule is None else chain(rule.trigger.tags, rule.job.tags)
        return (
            run.state in which.states
            and (which.lane is None or run.lane is which.lane)
            and (which.priority_below is None or run.priority < which.priority_below)
            and (which.tag is None or which.tag in tags)
        )

    async def _flush_one(self, run: Run, which: FlushRequest, said: str) -> Run | None:
        for _ in range(TRIES):
            if await self._end(run, said, code="flushed"):
                return run
            run = await self._look(run.id)
            if not self._is_meant(run, which):
                return None
        return None

    # One run

    async def _look(self, run_id: str) -> Run:
        """Return a run as it stands, once it stands still."""
        with anyio.move_on_after(LONGEST_WAIT_S):
            while True:
                await self._hands.settled(run_id)
                run = await self._read(run_id)
                if not self._hands.has_moved(run):
                    return run
                await asyncio.sleep(0)
        raise StoreUnavailable(f"run {run_id} is on its way from one state to the next; try again in a moment")

    async def _read(self, run_id: str) -> Run:
        run = await self._store.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return run

    @staticmethod
    def _must_wait(run: Run) -> None:
        if run.state is RunState.RUNNING:
            raise Conflict(f"run {run.id} does not wait any more: it is running")
        if run.state in ENDED:
            raise Conflict(f"run {run.id} has ended: it is {run.state}")

    async def _end(self, run: Run, said: str, *, code: str) -> bool:
        """End a run that waits; return False where it has moved on."""
        end = End(run=run.id, step=self._step(RunState.CANCELLED, code=code, reason=said))
        over = replace(run, state=end.step.state, code=code, reason=said, trace=(*run.trace, end.step))
        return await self._move(run, partial(self._finish, run, end), then=over)

    async def _move(
        self, run: Run, begin: Callable[[], Awaitable[Any]], *, for_good: bool = True, then: Run | None = None
    ) -> bool:
        """Make a change to a run that waits; return False where it has moved on.

        `then` is how the run stands when it is made; None: as the store has it, which may have joined more events.
        Once it is handed to the journal it is seen to the end, also where whoever asked is gone.
        """
        if self._journal.failure is not None:
            raise StoreUnavailable(str(self._journal.failure))
        if self._hands.has_moved(run):
            return False
        self._hands.take_out(run, for_good=for_good)
        with anyio.CancelScope(shield=True):
            made = False
            try:
                await begin()
                made = True
            except Conflict:
                pass
            finally:
                self._hands.put_back(then if made and then is not None else await self._read_again(run))
        return made

    async def _read_again(self, run: Run) -> Run:
        """Return a run as it is stored now; as it was before where that can't be read."""
        for _ in range(READS):
            try:
                return await self._store.run(run.id) or run
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
        return run  # what is no more so is refused by the store

    async def _cut_off(self, run: Run, said: str) -> bool:
        """Have a running run end; return False where it has moved on."""
        if run.code != CANCELLING:
            if self._journal.failure is not None:
                raise StoreUnavailable(str(self._journal.failure))
            step = self._step(RunState.RUNNING, code=CANCELLING, reason=f"{CANCELLING}: {said}")
            try:
                await self._journal.submit(AskCancel(run=run.id, step=step))
            except Conflict:
                return False
        if self._hands.cut_off(run.id, said):
            return True
        now = await self._look(run.id)
        if now.state is RunState.RUNNING:
            # It is stored as running, and about to be launched.
            self._hands.cut_off(run.id, said, at_launch=True)
        return now.state not in WAITING

    def _step(self, state: RunState, *, code: str, reason: str) -> Step:
        return Step(at=self._clock.now(), state=state, code=code, reason=reason)


def _said(who: str, reason: str) -> str:
    """Say who asked, and why."""
    return f"by {who or 'hand'}" + (f": {reason}" if reason else "")


def _moves_on(run_id: str) -> Conflict:
    return Conflict(f"run {run_id} moves on and on; ask again")
