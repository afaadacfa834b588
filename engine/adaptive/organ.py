"""The organ: hears of ends of runs, decides, has timers and sources keep the new interval, and remembers it."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from engine.adaptive.cases import (
    ADAPTIVE_SOURCE,
    CHANGED,
    FROZEN,
    MOST_CHANGES,
    PROPOSED,
    UNFROZEN,
    Case,
    Change,
    Freeze,
    Kept,
    change_view,
    kept_interval_s,
    said_of_freeze,
    said_of_kept,
    sample_of,
)
from engine.adaptive.machine import Machine
from engine.adaptive.needs import Door, SourcePaces, TimerPaces
from engine.adaptive.remembered import remembered
from engine.clock import Clock
from engine.decide.adaptive import Decision, Mean, Pace, Seen, decide, idle
from engine.decide.attempts import AttemptEnd
from engine.errors import Conflict, EngineError
from engine.events import Event
from engine.plugin import Source, Timer
from engine.runs import ENDED, Origin, Run, RunState
from engine.store.base import RunFilter, Store
from engine.store.changes import Accept, Memory
from engine.triggers import Mode, Trigger
from engine.units import format_span

log = logging.getLogger("engine.adaptive")

LOOK_S = 5.0
"""The machine is sampled so often, and it is seen whether a source is quiet; while something is to be seen."""

_OWN = frozenset({Origin.SCHEDULE, Origin.EVENT})
_OPEN = frozenset(RunState) - ENDED


class Adaptation:
    """All adaptive triggers. Call it with each end of an attempt; it decides in `run`, off the path of runs.

    Of several triggers on one source the shortest interval that is wanted counts; one that is not adaptive wants the
    configured one.
    """

    def __init__(
        self, *, clock: Clock, door: Door, store: Store, timers: TimerPaces, sources: SourcePaces,
        machine: Machine | None = None,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._door = door
        self._store = store
        self._timers = timers
        self._sources = sources
        self._machine = machine or Machine()
        self._cases: dict[str, Case] = {}
        self._stored: dict[str, Any] = {}
        self._on_source: dict[str, dict[str, Trigger]] = {}
        self._ended: dict[str, None] = {}
        self._woken = anyio.Event()
        self._look_wanted = anyio.Event()
        self._one_at_a_time = anyio.Lock()

    # Triggers that come and go

    async def load(self) -> None:
        """Read what is remembered, for the triggers that come from now on."""
        self._stored = await remembered(self._store)

    def add(self, trigger: Trigger) -> None:
        """Take in a trigger, whose timer or source is there already, with what is remembered of it."""
        if not trigger.works:
            return
        if isinstance(trigger.on, Source):
            self._on_source.setdefault(trigger.source, {})[trigger.name] = trigger
        if trigger.adaptive is not None:
            self._take_up(trigger)
        if isinstance(trigger.on, Source):
            self._spread(trigger.source)

    def _take_up(self, trigger: Trigger) -> None:
        settings, on, name = trigger.adaptive, trigger.on, trigger.name
        base_s = on.base_interval()
        if settings is None or base_s is None:
            return
        now_s = self._clock.monotonic()
        case = self._cases[name] = Case(
            trigger=trigger, settings=settings, base_s=base_s, on_timer=isinstance(on, Timer),
            pace=Pace(interval_s=base_s), since_s=now_s, heard_s=now_s,
        )  # fmt: skip
        self._look_wanted.set()
        kept = self._kept(name)
        if kept is None:
            return
        case.frozen, case.changes = kept.frozen, kept.changes
        case.why = said_of_kept(kept)
        interval_s = kept_interval_s(kept, settings, base_s)
        if interval_s is not None:
            self._go_on(case, kept, interval_s)
        elif kept.pace.interval_s != base_s:
            log.info(
                "The interval of trigger %s is the configured one: that, or the mode, was changed", name,
                extra={"action": "interval_dropped", "trigger": name},
            )  # fmt: skip

    def _go_on(self, case: Case, kept: Kept, interval_s: float) -> None:
        """Have the timer or source of a trigger go on with the interval that it had."""
        try:
            if case.on_timer and kept.first is not None:
                self._timers.set_interval(case.name, _own(interval_s, case.base_s), kept.first)
        except Exception:  # a timer's
            log.exception(
                "The interval that trigger %s had can't be kept", case.name,
                extra={"action": "timer_raised", "trigger": case.name},
            )  # fmt: skip
            return
        case.pace, case.first = replace(kept.pace, interval_s=interval_s), kept.first
        if kept.changes:
            case.since_s -= max((self._clock.now() - kept.changes[-1].at).total_seconds(), 0.0)
        if interval_s != case.base_s:
            log.info(
                "Trigger %s goes on with an interval of %s", case.name, format_span(interval_s),
                extra={"action": "interval_kept", "trigger": case.name},
            )  # fmt: skip

    def _kept(self, name: str) -> Kept | None:
        try:
            return msgspec.convert(self._stored[name], Kept) if name in self._stored else None
        except msgspec.ValidationError:
            log.exception(
                "What is remembered of the interval of trigger %s can't be read", name,
                extra={"action": "interval_unread", "trigger": name},
            )  # fmt: skip
            return None

    def forgetting(self, name: str) -> Accept | None:
        """Return what makes the store forget a trigger that is removed; None where it remembers nothing of it."""
        if name not in self._stored:
            return None
        return Accept(entries=(), memory=Memory(source=ADAPTIVE_SOURCE, values={name: None}))

    def forget(self, name: str) -> None:
        """Forget a trigger that was removed."""
        self._cases.pop(name, None)
        self._stored.pop(name, None)
        for source, triggers in list(self._on_source.items()):
            if triggers.pop(name, None) is not None:
                if triggers:
                    self._spread(source)
                else:
                    del self._on_source[source]

    def renew(self, trigger: Trigger) -> None:
        """Take in another version of a trigger, with what is remembered of it."""
        kept = self._stored.get(trigger.name)
        self.forget(trigger.name)
        if kept is not None:
            self._stored[trigger.name] = kept
        self.add(trigger)

    # What comes of runs

    def __call__(self, run: Run, end: AttemptEnd, /) -> None:
        case = self._cases.get(run.trigger)
        if case is None or run.origin not in _OWN:
            return
        sample = sample_of(end, case.settings)
        if sample is None:
            return
        now_s = self._clock.monotonic()
        case.heard_s = now_s
        if now_s - (end.step.at - run.created_at).total_seconds() < case.since_s:
            return  # it began under the interval before
        if case.settings.asks_machine and (reading := self._machine.reading) is not None:
            sample = replace(sample, cpu=reading.cpu, memory=reading.memory, load=reading.load)
        case.seen = case.seen.with_run(sample)
        self._ended[case.name] = None
        self._woken.set()

    async def run(self) -> None:
        """Decide after each end of a run until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._look, name="adaptive: look")
            while True:
                while self._ended:
                    name = next(iter(self._ended))
                    del self._ended[name]
                    case = self._cases.get(name)
                    if case is not None:
                        await self._consider(case)
                self._woken = anyio.Event()
                await self._woken.wait()

    async def _look(self) -> None:
        """Sample the machine, and find the sources that are quiet, as long as there is a reason to."""
        while True:
            if not self._has_to_look():
                self._look_wanted = anyio.Event()
                await self._look_wanted.wait()
            if any(case.settings.asks_machine for case in self._cases.values()):
                self._machine.sample()
            for case in list(self._cases.values()):
                if _may_be_quiet(case):
                    await self._consider_quiet(case)
            await self._clock.sleep(LOOK_S)

    def _has_to_look(self) -> bool:
        return any(case.settings.asks_machine or _may_be_quiet(case) for case in self._cases.values())

    async def _consider(self, case: Case) -> None:
        async with self._one_at_a_time:
            if case.frozen is not None or self._cases.get(case.name) is not case:
                return
            since_s = self._clock.monotonic() - case.since_s
            await self._follow(case, decide(case.settings, case.base_s, case.pace, case.seen, since_s))

    async def _consider_quiet(self, case: Case) -> None:
        """Let a source that brings nothing go back to its interval: no run would ever tell that all is well."""
        quiet_s = self._clock.monotonic() - max(case.since_s, case.heard_s)
        seen = Seen()
        if case.settings.asks_machine and (reading := self._machine.reading) is not None:
            cpu, memory, load = (Mean(value=value, count=1) for value in (reading.cpu, reading.memory, reading.load))
            seen = Seen(cpu=cpu, memory=memory, load=load)
        decision = idle(case.settings, case.base_s, case.pace, seen, quiet_s)
        if decision is None:
            return
        try:
            which = RunFilter(states=_OPEN, triggers=frozenset({case.name}))
            if await self._store.runs(which, limit=1):
                return
        except EngineError:
            return  # it is looked at again
        async with self._one_at_a_time:
            if case.frozen is None and self._cases.get(case.name) is case:
                await self._follow(case, decision)

    async def _follow(self, case: Case, decision: Decision) -> None:
        """Do what was decided, or in shadow mode only say it."""
        case.why = decision.why
        new_s, old_s = decision.pace.interval_s, case.pace.interval_s
        if new_s == old_s:
            case.pace, case.proposed_s = decision.pace, None
            return
        try:
            if case.settings.mode is Mode.SHADOW:
                if case.proposed_s != new_s:
                    await self._propose(case, decision)
            else:
                await self._change(case, decision)
        except EngineError as error:
            case.why = f"{decision.why}; it could not be recorded and is not done: {error}"
            log.warning(
                "The interval of trigger %s stays for now: %s", case.name, error,
                extra={"action": "interval_not_recorded", "trigger": case.name},
            )  # fmt: skip
        except Exception:  # a timer's
            case.why = f"{decision.why}; its timer raised, and it stays"
            log.exception(
                "The interval of trigger %s can't be changed", case.name,
                extra={"action": "timer_raised", "trigger": case.name},
            )  # fmt: skip

    async def _propose(self, case: Case, decision: Decision) -> None:
        changes = self._noted(case, decision)
        await self._record(case, case.event(PROPOSED, decision), replace(case.kept(), changes=changes))
        case.changes, case.proposed_s = changes, decision.pace.interval_s
        log.info(
            "The interval of trigger %s would be %s", case.name, decision.why,
            extra={"action": "interval_proposed", "trigger": case.name},
        )  # fmt: skip

    async def _change(self, case: Case, decision: Decision) -> None:
        """Record a change, and make it then: after a crash between the two the next start makes it."""
        seconds = _own(decision.pace.interval_s, case.base_s)
        first = self._timers.first_by(case.name, seconds) if case.on_timer else None
        changes = self._noted(case, decision)
        kept = replace(case.kept(), pace=decision.pace, first=first, changes=changes)
        await self._record(case, case.event(CHANGED, decision), kept)
        case.pace, case.first, case.changes = decision.pace, first, changes
        case.begin(self._clock.monotonic())
        if first is not None:
            self._timers.set_interval(case.name, seconds, first)
        else:
            self._spread(case.trigger.source)
            self._look_wanted.set()
        log.info(
            "The interval of trigger %s is %s", case.name, decision.why,
            extra={"action": "interval_changed", "trigger": case.name, "rule": decision.rule},
        )  # fmt: skip

    def _noted(self, case: Case, decision: Decision) -> tuple[Change, ...]:
        """Return the latest changes with one more."""
        change = Change(
            at=self._clock.now(), old_s=case.pace.interval_s, new_s=decision.pace.interval_s, rule=decision.rule,
            why=decision.why,
        )  # fmt: skip
        return (*case.changes, change)[-MOST_CHANGES:]

    async def _record(self, case: Case, event: Event, kept: Kept) -> None:
        """Make an event durable, and with it what is remembered of the trigger. Raises StoreUnavailable."""
        remembered = msgspec.to_builtins(kept)
        with anyio.CancelScope(shield=True):  # who asked may be gone; it is soon known what became of it
            await self._door.accept(ADAPTIVE_SOURCE, (event,), remember={case.name: remembered})
        if self._cases.get(case.name) is case:  # it may have been removed meanwhile
            self._stored[case.name] = remembered

    def _spread(self, source: str) -> None:
        """Have a source keep the shortest interval that one of its triggers wants."""
        self._sources.set_factor(source, self._factor(source))

    def _factor(self, source: str) -> float:
        cases = [self._cases.get(name) for name in self._on_source.get(source, {})]
        return min((1.0 if case is None else case.pace.interval_s / case.base_s for case in cases), default=1.0)

    # What people ask for

    def view(self, name: str) -> dict[str, Any] | None:
        """Return how the interval of a trigger is, as the API shows it; None where it is not adaptive."""
        case = self._cases.get(name)
        if case is None:
            return None
        in_force_s = case.pace.interval_s
        if not case.on_timer:
            in_force_s = round(case.base_s * self._factor(case.trigger.source), 3)
        return case.view(in_force_s)

    def whole_view(self, name: str) -> dict[str, Any]:
        """Return it with what was seen since the last change, and the latest changes; raise Conflict."""
        case, view = self._case(name), self.view(name)
        return {**(view or {}), "inputs": case.inputs(), "changes": [change_view(each) for each in case.changes]}

    async def act(self, name: str, action: str, reason: str) -> None:
        """Do what is asked for by hand, durably: `freeze` (leave the interval as it is), `unfreeze` or `reset`.

        Raises Conflict (it is not adaptive) and StoreUnavailable.
        """
        case = self._case(name)
        async with self._one_at_a_time:
            if action == "reset":
                await self._reset(case, reason)
            elif action == "freeze":
                await self._set_frozen(case, Freeze(since=self._clock.now(), reason=reason), reason)
            elif action == "unfreeze" and case.frozen is not None:
                await self._set_frozen(case, None, reason)

    async def _set_frozen(self, case: Case, frozen: Freeze | None, reason: str) -> None:
        kind, word = (UNFROZEN, "adapted again") if frozen is None else (FROZEN, "frozen")
        event = Event(type=kind, subject=case.name, data={"interval_s": case.pace.interval_s, "reason": reason})
        await self._record(case, event, replace(case.kept(), frozen=frozen))
        case.frozen = frozen
        case.begin(self._clock.monotonic())
        case.why = said_of_freeze(word, reason)
        log.info(
            "The interval of trigger %s is %s: %s", case.name, word, reason or "no reason given",
            extra={"action": "interval_frozen" if frozen else "interval_unfrozen", "trigger": case.name},
        )  # fmt: skip

    async def _reset(self, case: Case, reason: str) -> None:
        """Go back to the configured interval and forget what was learnt; what is frozen stays so."""
        why = f"reset to the configured {format_span(case.base_s)}{reason and ': '}{reason}"
        await self._change(case, Decision(pace=Pace(interval_s=case.base_s), rule="reset", why=why))
        case.why, case.proposed_s = why, None

    def _case(self, name: str) -> Case:
        case = self._cases.get(name)
        if case is None:
            raise Conflict(f"the interval of trigger {name} is not adaptive; give it `adaptive`")
        return case


def _may_be_quiet(case: Case) -> bool:
    """Tell whether a trigger's source may have to come back without any run that tells of it."""
    return not case.on_timer and case.frozen is None and case.pace.interval_s != case.base_s


def _own(interval_s: float, base_s: float) -> float | None:
    """Return an interval as timers want it: None is the configured one."""
    return None if interval_s == base_s else interval_s
