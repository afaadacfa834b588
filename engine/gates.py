"""Held runs: what dispatch asks before it starts a run, and what becomes of those that may not start now.

A held run is a row in the store in state `held`, and nothing in memory: so any number of them cost disk alone, have no
slot, and stand in nobody's way. They are asked again, page by page, when a gate tells of a change, when their time
has come, and when the engine starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import Clock
from engine.decide.gates import PASS, Gate, Hold, Later, Pass, Skip, Verdict, decided
from engine.decide.rules import Rule
from engine.errors import Conflict, StoreError, StoreUnavailable
from engine.events import Event
from engine.journal import Journal
from engine.queue import Waiting
from engine.runs import HELD_BY_HAND, Run, RunState, Step
from engine.store.base import HeldPlace, Store
from engine.store.changes import Enqueue
from engine.store.changes import Hold as HoldRun

log = logging.getLogger("engine.gates")

PAGE = 256
"""So many held runs are read, and asked about, at a time."""

MOST_ASIDE = 1_024
"""So many runs stay in memory while a gate finds out; further ones are held in the store meanwhile."""

MOST_APART = 32
"""Where a change is of more triggers than these, the held runs of all are asked about in one walk."""

LEAST_HELD_S = 1.0
"""A run is not held for less: no gate can make it come up again at once, for ever."""

RETRY_READ_S = 1.0


class Hands(Struct, frozen=True, kw_only=True):
    """What held runs need of dispatch.

    - `offer`: takes in a run that is queued in the store; `wait`: one that waits for its time; `wait_no_more`: forgets
      that time.
    - `moves`, `moved`: a run is on its way from one state to the next, and has arrived; `is_active` tells whether it is
      on its way, or has a slot.
    - `note_open`: how an open run stands now; `was_replaced`: whether it was ended while it was on its way.
    - `end_waiting`: ends a run that has no slot; `spawn`: runs something as part of dispatch.
    """

    offer: Callable[[Run, Event | None], None]
    wait: Callable[[Run], None]
    wait_no_more: Callable[[str], None]
    moves: Callable[[str], None]
    moved: Callable[[str], None]
    is_active: Callable[[str], bool]
    note_open: Callable[[Run], None]
    was_replaced: Callable[[str], bool]
    end_waiting: Callable[[Run, Step], None]
    spawn: Callable[..., None]


class _Ready(NamedTuple):
    """A run that was held, as it will stand in the queue, and what is done when that is durable."""

    run: Run
    stored: asyncio.Future[Any]


class _Wanted(Struct):
    """Whose held runs are to be asked about; `all` of them, or those of `names`."""

    names: set[str]
    all: bool = False


class Gates:
    """The gates that runs pass, in their order, and the runs that they hold.

    `rule_of` finds the trigger of a run; runs of one that is not there any more meet no gate.
    """

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, rule_of: Callable[[str], Rule | None],
        gates: Sequence[Gate] = (), on_change: Callable[[str], None] = lambda run_id: None,
    ) -> None:  # fmt: skip
        self.gates = tuple(gates)
        self._clock = clock
        self._journal = journal
        self._store = store
        self._rule_of = rule_of
        self._on_change = on_change
        self._dispatch: Hands
        self._aside: dict[str, dict[str, Waiting]] = {}
        """The runs, by trigger, of which a gate is finding out whether they may start; in the store they are queued."""
        self._trigger_of: dict[str, str] = {}
        """The triggers of these, by run."""
        self._wanted = _Wanted(set(), all=True)
        self._changed = asyncio.Event()
        self._changed.set()

    def serve(self, dispatch: Hands) -> None:
        """Work with these hands of dispatch."""
        self._dispatch = dispatch

    # Asking

    def concern(self, trigger: str) -> bool:
        """Tell whether runs of a trigger meet a gate."""
        if not self.gates:
            return False
        if (rule := self._rule_of(trigger)) is not None:
            for gate in self.gates:
                if gate.concerns(rule):
                    return True
        return False

    def look(self, run: Run) -> Verdict:
        """Ask all gates about a run."""
        if not self.gates or (rule := self._rule_of(run.trigger)) is None:
            return PASS
        asked: list[Gate] = []
        for gate in self.gates:
            if gate.concerns(rule):
                asked.append(gate)  # noqa: PERF401 - mostly none does, and it is asked for each run
        if not asked:
            return PASS
        return asked[0].look(run, rule) if len(asked) == 1 else decided(gate.look(run, rule) for gate in asked)

    def seen(self, run: Run) -> str | None:
        """Return what the gates saw that let a run start now, empty for nothing; None where they do not, or not yet.

        Nothing becomes of it for that.
        """
        verdict = self.look(run)
        return verdict.seen if isinstance(verdict, Pass) else None

    def passed(self, waiting: Waiting) -> str | None:
        """Ask about a queued run that was taken to be started: return what was seen where it may, empty for nothing.

        None where it may not: then it is seen to, and takes no slot.
        """
        verdict = self.look(waiting.run)
        if isinstance(verdict, Pass):
            return verdict.seen
        self._keep(waiting, verdict)
        return None

    def ask_due(self, run: Run) -> None:
        """Ask about a held run whose time has come."""
        self._dispatch.moves(run.id)
        self._dispatch.spawn(self._ask_due, run.id)

    def changed(self, names: Collection[str] | None) -> None:
        """Ask again about what waits for a gate at these triggers (None: at any), as the answer may be another now."""
        self._offer_aside(names)
        if names is None:
            self._wanted.all = True
        else:
            self._wanted.names.update(names)
        self._changed.set()

    async def anyone_waits(self, names: Collection[str] | None) -> bool:
        """Tell whether runs of one of these triggers (None: of any) wait for a gate. Raises StoreUnavailable."""
        if any(names is None or name in names for name in self._aside):
            return True
        if names is None or len(names) > MOST_APART:
            return bool(await self._store.held(None, after=None, limit=1))
        for name in names:
            if await self._store.held(name, after=None, limit=1):
                return True
        return False

    def is_aside(self, run_id: str) -> bool:
        """Tell whether a queued run was taken from the queue, as a gate is finding out whether it may start."""
        return run_id in self._trigger_of

    def take_out(self, run_id: str) -> None:
        """Forget such a run, as something else becomes of it."""
        trigger = self._trigger_of.pop(run_id, None)
        if trigger is not None:
            del self._aside[trigger][run_id]
            if not self._aside[trigger]:
                del self._aside[trigger]

    # Keeping

    def _keep(self, waiting: Waiting, verdict: Verdict) -> None:
        run = waiting.run
        if not isinstance(verdict, Later):
            self._answer(run, verdict)
        elif len(self._trigger_of) < MOST_ASIDE:
            self._aside.setdefault(run.trigger, {})[run.id] = waiting
            self._trigger_of[run.id] = run.trigger
        else:
            self._hold(run, Hold(code="gate_asked", reason="held: what it waits for is being asked"))

    def _answer(self, run: Run, verdict: Verdict) -> None:
        """Do with a run that has no slot what the gates say."""
        if isinstance(verdict, Skip):
            self._dispatch.wait_no_more(run.id)
            step = Step(at=self._clock.now(), state=verdict.state, code=verdict.code, reason=verdict.reason)
            self._dispatch.end_waiting(run, step)
        elif isinstance(verdict, Hold):
            self._hold(run, verdict)
        elif isinstance(verdict, Pass):
            self._dispatch.spawn(self._settle_released, [self._release(run, verdict)])

    def _hold(self, run: Run, hold: Hold) -> None:
        """Hold a run, durably."""
        self._dispatch.wait_no_more(run.id)
        now = self._clock.now()
        until = None if hold.until is None else max(hold.until, now + timedelta(seconds=LEAST_HELD_S))
        step = Step(at=now, state=RunState.HELD, code=hold.code, reason=hold.reason)
        held = replace(
            run, state=RunState.HELD, code=hold.code, reason=hold.reason, due_at=until, trace=(*run.trace, step)
        )  # fmt: skip
        self._dispatch.note_open(held)
        self._dispatch.moves(run.id)
        self._dispatch.spawn(self._record_hold, held, step, until)

    async def _record_hold(self, held: Run, step: Step, until: datetime | None) -> None:
        try:
            await self._journal.submit(HoldRun(run=held.id, step=step, until=until))
        except Conflict:
            return  # It was ended or moved meanwhile: the store's word counts.
        except StoreError as error:
            log.warning("%s", error, extra={"action": "hold_failed", "run": held.id})
            return
        finally:
            self._dispatch.moved(held.id)
            self._on_change(held.id)
        if self._dispatch.was_replaced(held.id):
            return
        if until is not None:
            self._dispatch.wait(held)
        verdict = self.look(held)
        if not isinstance(verdict, (Hold, Later)):
            # What it waited for changed before it could be found among the held ones.
            self._answer(held, verdict)

    def _offer_aside(self, names: Collection[str] | None) -> None:
        """Put the runs of which a gate was finding out back in line."""
        for name in [name for name in self._aside if names is None or name in names]:
            for run_id, waiting in self._aside.pop(name).items():
                del self._trigger_of[run_id]
                if not self._dispatch.was_replaced(waiting.run.id):
                    self._dispatch.offer(waiting.run, waiting.event)

    # Asking again

    async def run(self) -> None:
        """Ask about held runs when a gate tells of a change, and once at the start; until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted, self._wanted = self._wanted, _Wanted(set())
            everyone = wanted.all or len(wanted.names) > MOST_APART
            for name in (None,) if everyone else sorted(wanted.names):
                await self._walk(name)

    async def _walk(self, trigger: str | None) -> None:
        """Ask about the held runs of a trigger (None: of all), in the order of their queue."""
        after: HeldPlace | None = None
        while True:
            try:
                page = await self._store.held(trigger, after=after, limit=PAGE)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
                continue
            await self._settle_released([ready for run in page if (ready := self._look_again(run)) is not None])
            if len(page) < PAGE:
                return
            last = page[-1]
            after = HeldPlace(last.trigger, last.rank, last.id)

    async def _ask_due(self, run_id: str) -> None:
        while True:
            try:
                # What was read when its time was noted may be over by now.
                run = await self._store.run(run_id)
                break
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
        self._dispatch.moved(run_id)
        if run is not None and run.state is RunState.HELD and (ready := self._look_again(run, due=True)) is not None:
            await self._settle_released([ready])

    def _look_again(self, run: Run, *, due: bool = False) -> _Ready | None:
        """Ask about a held run as it was read; return it where it is on its way into the queue."""
        if self._dispatch.is_active(run.id) or run.code == HELD_BY_HAND:
            return None
        verdict = self.look(run)
        if isinstance(verdict, Pass):
            return self._release(run, verdict)
        if due or not isinstance(verdict, Hold) or not _is_as_it_stands(verdict, run):
            self._answer(run, verdict)
        return None

    def _release(self, run: Run, verdict: Pass) -> _Ready:
        """Make a held run ready, in its old place in the queue."""
        self._dispatch.wait_no_more(run.id)
        self._dispatch.moves(run.id)
        reason = f"{verdict.seen or 'nothing holds it any more'}; waits for a slot"
        step = Step(at=self._clock.now(), state=RunState.QUEUED, code="released", reason=reason)
        ready = replace(
            run, state=RunState.QUEUED, due_at=None, code=step.code, reason=reason, trace=(*run.trace, step)
        )  # fmt: skip
        self._dispatch.note_open(ready)
        return _Ready(ready, self._journal.submit(Enqueue(run=run.id, step=step, rank=run.rank)))

    async def _settle_released(self, released: Sequence[_Ready]) -> None:
        """Put runs that were held in line, once it is durable that they are ready."""
        for run, stored in released:
            try:
                await stored
            except Conflict:
                continue
            except StoreError as error:
                log.warning("%s", error, extra={"action": "release_failed", "run": run.id})
                continue
            finally:
                self._dispatch.moved(run.id)
                self._on_change(run.id)
            if not self._dispatch.was_replaced(run.id):
                self._dispatch.offer(run, None)


def _is_as_it_stands(hold: Hold, run: Run) -> bool:
    """Tell whether a run is held just so already: what differs by a moment was said a moment before."""
    if hold.code != run.code or (hold.until is None) != (run.due_at is None):
        return False
    return hold.until is None or run.due_at is None or abs((hold.until - run.due_at).total_seconds()) < LEAST_HELD_S
