"""The changeover: a running engine takes up another configuration, as a diff.

What is to be durable first (the cursors of timers with another schedule) is written before anything is changed. Then
all jobs and triggers change in one turn of the event loop: each event is decided by the old ones or by the new ones,
and none falls between. What is the same is not touched. A source whose settings are others goes on from its cursor;
pauses, open windows, quarantines and learnt intervals are kept under the names of their triggers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.adaptive import Adaptation
from engine.chronicle import Chronicle
from engine.conditions import Conditions
from engine.config import Config
from engine.config.difference import Difference, difference, for_running, is_same
from engine.decide.rules import Rule
from engine.decide.schedule import schedule_of, timers_of
from engine.definitions import Change
from engine.deliveries import Receiver
from engine.dispatch import Dispatch
from engine.errors import EngineError, StoreUnavailable
from engine.gates import Gates
from engine.guards import Guards
from engine.housekeeping import Housekeeping
from engine.intake import Intake
from engine.journal import Journal
from engine.maintenance import Maintenance
from engine.operations import OPEN, Operations
from engine.plugin import Source
from engine.pools import Pools
from engine.sources import Sources
from engine.store.base import RunFilter, Store
from engine.store.changes import Accept, Cursor
from engine.timers import Timers
from engine.triggers import Trigger

REMOVED_AT_ONCE = 64
"""So many triggers are removed at once: as many changes as the journal writes together."""


class Organs(Struct, frozen=True, kw_only=True):
    """What a changeover works on. `receivers` and `secrets` are looked at by many, and changed in place."""

    adaptation: Adaptation
    chronicle: Chronicle
    conditions: Conditions
    dispatch: Dispatch
    gates: Gates
    guards: Guards
    housekeeping: Housekeeping
    intake: Intake
    journal: Journal
    maintenance: Maintenance
    operations: Operations
    pools: Pools
    sources: Sources
    store: Store
    timers: Timers
    rules: Mapping[str, Rule]
    receivers: dict[str, Receiver]
    secrets: set[str]


class Changeover:
    """Applies configurations, one after the other."""

    def __init__(self, organs: Organs) -> None:
        self._organs = organs
        self._turn = anyio.Lock()
        self._leaving: set[str] = set()
        """Jobs that are gone from the configuration, and have runs that wait or run."""

    async def apply(self, wanted: Config) -> Change:
        """Have the engine be as a configuration says, as far as that can be without a restart.

        Raises StoreUnavailable where the store can't take what has to be durable first: then nothing has changed.
        """
        # What has begun is carried through, also where who asked is gone.
        with anyio.CancelScope(shield=True):
            async with self._turn:
                change = await self._apply(wanted)
        return change

    async def _apply(self, wanted: Config) -> Change:
        organs = self._organs
        old = organs.operations.config
        new, restart = for_running(old, wanted)
        jobs, triggers = difference(organs.dispatch.jobs, new.jobs), difference(_triggers(organs.rules), new.triggers)
        jobs = replace(jobs, removed=tuple(name for name in jobs.removed if name not in self._leaving))
        change = Change(
            jobs=jobs, triggers=triggers, conditions=difference(old.conditions, new.conditions),
            maintenance=difference(old.maintenance, new.maintenance), restart=restart,
        )  # fmt: skip
        cursors = self._cursors(triggers, new)
        if cursors:
            await organs.journal.submit(Accept(entries=(), cursors=tuple(cursors)))
        used = _sources(_triggers(organs.rules))
        # From here on nothing is waited for until all that decides about events is another one.
        organs.secrets.update(new.secrets)
        new = replace(new, secrets=organs.secrets, receivers=organs.receivers)
        self._take_surroundings(new, wanted.receivers)
        self._take_jobs(new)
        self._take_triggers(triggers, new)
        anew = self._take_sources(used, _sources(new.triggers))
        for name in triggers.changed:  # by now their timers and sources are those whose interval is adapted
            organs.adaptation.renew(new.triggers[name])
        organs.operations.take_config(new)
        organs.gates.changed(None)
        left = await self._remove(triggers.removed)
        for name in organs.receivers.keys() - wanted.receivers.keys():
            del organs.receivers[name]
        self._leaving |= {name for name in organs.dispatch.jobs if name not in new.jobs}
        left += await self._forget_jobs(new)
        return replace(change, sources=tuple(anew), left=tuple(left))

    # What is durable first

    def _cursors(self, triggers: Difference, new: Config) -> list[Cursor]:
        """Return from where the timers go on whose schedule is another one: what it has in the past was never due."""
        found = []
        for name in triggers.changed:
            before = _timers(self._organs.rules[name].trigger)
            for timer, after in _timers(new.triggers[name]).items():
                if timer in before and schedule_of(before[timer]) != schedule_of(after):
                    cursor = self._organs.timers.moved(timer)
                    if cursor is not None:
                        found.append(cursor)
        return found

    # What changes at once

    def _take_surroundings(self, new: Config, receivers: Mapping[str, Receiver]) -> None:
        """Take up what jobs and triggers name; what nobody names any more goes last."""
        organs = self._organs
        organs.receivers.update(receivers)
        organs.pools.configure(concurrency=new.engine.concurrency, pools=new.pools)
        organs.conditions.configure(new.conditions, new.engine.conditions)
        organs.maintenance.configure(new.maintenance)
        organs.gates.gates = (organs.maintenance, organs.conditions) if new.conditions else (organs.maintenance,)
        organs.housekeeping.keep = new.store.keep
        organs.operations.log_levels.configure(new.logs.level, new.logs.levels)

    def _take_jobs(self, new: Config) -> None:
        organs = self._organs
        for name, job in new.jobs.items():
            before = organs.dispatch.jobs.get(name)
            if before is None or not is_same(before, job):
                organs.operations.add_job(job)
            elif before != job:
                organs.dispatch.note_place(job)
        self._leaving -= new.jobs.keys()

    def _take_triggers(self, triggers: Difference, new: Config) -> None:
        organs = self._organs
        for name in triggers.added:
            organs.operations.add_trigger(new.triggers[name])
        changed = frozenset(triggers.changed)
        for name, trigger in new.triggers.items():
            before = organs.rules.get(name)
            if before is None or before.trigger == trigger:
                continue
            rule = Rule(trigger, organs.dispatch.jobs[trigger.job])
            organs.intake.add(rule)
            if name in changed:
                self._change(before, rule)

    def _change(self, before: Rule, rule: Rule) -> None:
        """Have all that keeps something for a trigger go on with another version of it."""
        organs, trigger = self._organs, rule.trigger
        old, new = _timers(before.trigger), _timers(trigger)
        for name in old.keys() - new.keys():
            cursor = organs.timers.remove(name)
            if cursor is not None:
                organs.journal.submit(Accept(entries=(), cursors=(cursor,))).add_done_callback(_looked)
        for name, timer in new.items():
            if name not in old or _keeps_other_time(old[name], timer):
                organs.timers.add(timer)
        if trigger.adaptive is None and before.trigger.adaptive is not None:
            forgetting = organs.adaptation.forgetting(trigger.name)
            if forgetting is not None:
                organs.journal.submit(forgetting).add_done_callback(_looked)
        organs.chronicle.renew(rule)
        organs.guards.renew(before, rule)

    def _take_sources(self, old: Mapping[str, Source], new: Mapping[str, Source]) -> list[str]:
        """Start sources that are new, start those anew that are others, and stop those that nothing is on any more."""
        organs, anew = self._organs, []
        for name, source in new.items():
            if name in old and old[name] != source:
                organs.intake.hear_by(name, source)
                organs.sources.drop(name)
                anew.append(name)
            organs.sources.add(name, source)
        for name in old.keys() - new.keys():
            organs.sources.drop(name)
        return anew

    # What goes

    async def _remove(self, names: Sequence[str]) -> list[str]:
        """Remove triggers, many at once, as each waits for the store."""
        left = []

        async def remove(name: str) -> None:
            try:
                await self._organs.operations.remove_trigger(name)
            except StoreUnavailable as error:
                left.append(f"trigger {name} could not be removed: {error}")

        for start in range(0, len(names), REMOVED_AT_ONCE):
            async with anyio.create_task_group() as group:
                for name in names[start : start + REMOVED_AT_ONCE]:
                    group.start_soon(remove, name)
        return sorted(left)

    async def _forget_jobs(self, new: Config) -> list[str]:
        """Forget jobs that are gone, once no run of theirs is open."""
        organs, left = self._organs, []
        for name in sorted(self._leaving):
            if any(rule.job.name == name for rule in organs.rules.values()):
                continue  # its trigger could not be removed, which is told
            try:
                waits = await organs.store.runs(RunFilter(states=OPEN, job=name), limit=1)
            except EngineError as error:
                left.append(f"job {name} is kept, as the store can't tell whether runs of it wait: {error}")
                continue
            if waits:
                left.append(f"job {name} is kept for its runs that wait or run")
            else:
                organs.dispatch.remove_job(name)
                self._leaving.discard(name)
        return left


def _triggers(rules: Mapping[str, Rule]) -> dict[str, Trigger]:
    return {name: rule.trigger for name, rule in rules.items()}


def _timers(trigger: Trigger) -> dict[str, Trigger]:
    """Return the timers of a trigger that work, by name."""
    return {timer.name: timer for timer in timers_of(trigger) if trigger.works and timer.works}


def _keeps_other_time(old: Trigger, new: Trigger) -> bool:
    """Tell whether those who keep time have to know of another version of a trigger."""
    return (old.job, old.priority, old.misfire, schedule_of(old)) != (
        new.job, new.priority, new.misfire, schedule_of(new)
    )  # fmt: skip


def _sources(triggers: Mapping[str, Trigger]) -> dict[str, Source]:
    """Return the sources that triggers are on which work, by id."""
    found: dict[str, Source] = {}
    for trigger in triggers.values():
        for source, on in trigger.works_on:
            if isinstance(on, Source):
                found.setdefault(source, on)
    return found


def _looked(future: asyncio.Future[Any]) -> None:
    """Take note of a result that nobody waits for."""
    if not future.cancelled():
        future.exception()
