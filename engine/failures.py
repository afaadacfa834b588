"""Failures in a row: a trigger with `pause_after` that fails so often pauses itself, until somebody resumes it.

What counts are ends of runs: `failed` and `timed_out` count, `succeeded` begins anew, everything else says nothing; so
does what a backfill runs. The count is stored in the commit of the end that it counts, so that it survives what the
engine does not. When it is reached, the trigger is paused and the event `engine.trigger.paused` is accepted, both
durably; an engine that dies between the two does the rest at its next start. `resume` counts anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.clock import Clock
from engine.decide.rules import Rule
from engine.errors import EngineError
from engine.events import Event
from engine.journal import Journal
from engine.runs import FAILURES, Origin, Run, RunState
from engine.store.base import Store
from engine.store.changes import Accept, End, Finish, Memory
from engine.triggers import BY_ENGINE, Pause, PauseScope

log = logging.getLogger("engine.failures")

FAILURES_SOURCE = "engine:failures"
"""Under this id the store remembers the counts, by trigger."""

EVENT_TYPE = "engine.trigger.paused"
EVENT_SOURCE = "engine:failures"

PAGE = 1_000
RETRY_S = 5.0


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many runs of a trigger failed one after the other, the last of them, and why; and whether it is paused so."""

    count: int
    run: str
    reason: str
    paused: bool = False


class Pausing(Protocol):
    """What failures need of pauses."""

    def of(self, trigger: str) -> tuple[Pause, ...]:
        """Return the pauses that hold for a trigger."""
        ...

    async def pause(self, scope: PauseScope, name: str, *, reason: str, until: None, who: str) -> Pause:
        """Pause a trigger, durably."""
        ...


class Failures:
    """Counts, and pauses. `rules` are the triggers; `announce` accepts an event of the engine's own, durably."""

    def __init__(
        self, clock: Clock, journal: Journal, rules: Mapping[str, Rule], pauses: Pausing,
        announce: Callable[[Event], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._rules = rules
        self._pauses = pauses
        self._announce = announce
        self._rows: dict[str, Row] = {}
        self._reached: set[str] = set()
        self._changed = asyncio.Event()

    async def load(self, store: Store) -> None:
        """Take up the counts that are stored."""
        after: str | None = None
        while page := await store.memory(FAILURES_SOURCE, after=after, limit=PAGE):
            for trigger, value in page.items():
                self._rows[trigger] = msgspec.convert(value, Row)
            after = next(reversed(page))
        for trigger, row in list(self._rows.items()):
            if row.paused and not self._is_paused(trigger):
                self._forget(trigger)  # it was resumed when the engine died
            elif not row.paused:
                self._look(trigger)

    def count(self, trigger: str) -> int:
        """Return how many runs of a trigger have failed one after the other."""
        row = self._rows.get(trigger)
        return 0 if row is None else row.count

    def pausing(self, run: Run) -> str | None:
        """Say that the trigger of a run is paused for its end, where that was noted and is so."""
        row, rule = self._rows.get(run.trigger), self._rules.get(run.trigger)
        most = None if rule is None else rule.trigger.pause_after
        if row is None or most is None or row.run != run.id or row.count < most:
            return None
        return f"trigger {run.trigger} is paused now: {_in_a_row(row.count)}; resume it when that is mended"

    def noting(self, run: Run, end: Finish | End) -> Finish | End:
        """Return an end of a run together with what it makes of the count of its trigger."""
        row = self._after(run, end)
        if row is None:
            return end
        if row.count:
            self._rows[run.trigger] = row
            self._look(run.trigger)
        else:
            del self._rows[run.trigger]
        return replace(end, then=Accept(entries=(), memories=(_memory(run.trigger, row),)))

    def _after(self, run: Run, end: Finish | End) -> Row | None:
        """Return the count of a trigger after an end; None where that changes nothing."""
        rule, state = self._rules.get(run.trigger), end.step.state
        if rule is None or rule.trigger.pause_after is None or run.origin is Origin.BACKFILL:
            return None
        known = self._rows.get(run.trigger)
        if state in FAILURES:
            before = Row(count=0, run="", reason="") if known is None else known
            return replace(before, count=before.count + 1, run=run.id, reason=end.step.reason)
        if state is RunState.SUCCEEDED and known is not None:
            return replace(known, count=0)
        return None

    def _look(self, trigger: str) -> None:
        rule, row = self._rules.get(trigger), self._rows[trigger]
        most = None if rule is None else rule.trigger.pause_after
        if most is not None and row.count >= most and not row.paused:
            self._reached.add(trigger)
            self._changed.set()

    def pauses_changed(self, names: Collection[str] | None) -> None:
        """Hear that pauses of these triggers (None: maybe of all) have begun or ended: what was resumed counts anew."""
        for trigger, row in list(self._rows.items()):
            if row.paused and (names is None or trigger in names) and not self._is_paused(trigger):
                self._forget(trigger)

    def _is_paused(self, trigger: str) -> bool:
        return any(pause.scope is PauseScope.TRIGGER for pause in self._pauses.of(trigger))

    def _forget(self, trigger: str) -> None:
        row = self._rows.pop(trigger)
        self._store(trigger, replace(row, count=0))

    def _store(self, trigger: str, row: Row) -> None:
        """Have a count stored; where that fails now, the next start comes to the same."""
        stored = self._journal.submit(Accept(entries=(), memory=_memory(trigger, row)))
        stored.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def run(self) -> None:
        """Pause the triggers whose count is reached, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for trigger in sorted(self._reached):
                try:
                    await self._pause(trigger)
                except EngineError as error:
                    log.warning("Trigger %s can't be paused now: %s", trigger, error, extra={"action": "not_paused"})
                    await self._clock.sleep(RETRY_S)
                    self._changed.set()
                else:
                    self._reached.discard(trigger)

    async def _pause(self, trigger: str) -> None:
        """Pause one, tell of it, and note that both is done. Done twice it comes to the same."""
        row, rule = self._rows.get(trigger), self._rules.get(trigger)
        if row is None or rule is None or row.paused:
            return
        reason = (
            f"{_in_a_row(row.count)} (pause_after = {rule.trigger.pause_after}), the last: run {row.run}: {row.reason}"
        )
        if not any(pause.who == BY_ENGINE for pause in self._pauses.of(trigger)):
            await self._pauses.pause(PauseScope.TRIGGER, trigger, reason=reason, until=None, who=BY_ENGINE)
        data = {"trigger": trigger, "job": rule.job.name, "failures": row.count, "run": row.run, "reason": reason}
        await self._announce(
            Event(type=EVENT_TYPE, source=EVENT_SOURCE, subject=trigger, key=f"{trigger} {row.run}", data=data)
        )
        now = self._rows.get(trigger)
        if now is not None and now.count >= row.count:  # else somebody has resumed it, or a run succeeded
            self._rows[trigger] = replace(now, paused=True)
            self._store(trigger, self._rows[trigger])


def _in_a_row(count: int) -> str:
    return "1 run failed" if count == 1 else f"{count} runs failed in a row"


def _memory(trigger: str, row: Row) -> Memory:
    return Memory(source=FAILURES_SOURCE, values={trigger: msgspec.to_builtins(row) if row.count else None})
