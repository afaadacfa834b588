"""What alerts may ask of the other organs, put together; see `engine.alerts.Facts`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta

from engine.aftermath import Counting
from engine.alerts import Facts, Usual
from engine.backlog import Backlog
from engine.clock import Clock
from engine.conditions import Conditions
from engine.decide.rules import Rule
from engine.defined import Kind
from engine.guards import Guards
from engine.lease import Lease
from engine.loopwatch import LoopWatch
from engine.operations import Operations
from engine.tallies import Statistics
from engine.timers import Timers

WEEK = timedelta(days=7)


def facts_of(
    operations: Operations, *, clock: Clock, rules: Mapping[str, Rule], timers: Timers, conditions: Conditions,
    guards: Guards, counting: Counting, lease: Lease, loop_watch: LoopWatch,
    backlog: Backlog,
) -> Facts:  # fmt: skip
    """Return what alerts look at."""

    async def statistics(job: str) -> Statistics:
        return await counting.statistics(job=job, over=WEEK)

    def in_state(states: Collection[str]) -> Iterator[tuple[str, str, str | None]]:
        """Ask for those states alone that somebody wants to know of: there may be very many triggers."""
        if "invalid" in states:
            for name, problem in operations.definitions.invalid(Kind.TRIGGER).items():
                if name not in rules:
                    yield name, "invalid", problem
        if "quarantined" in states:
            yield from ((name, "quarantined", why) for name, why in guards.quarantined().items())
        for state, of in asked.items():
            if state not in states:
                continue
            for name in list(rules):
                if (why := of(name)) is not None:
                    yield name, state, why

    def paused(name: str) -> str | None:
        pause = operations.pause_of(name)
        return None if pause is None else pause.said_of(name)

    asked: Mapping[str, Callable[[str], str | None]] = {
        "disabled": lambda name: rules[name].disabled, "completed": timers.why_completed, "paused": paused,
    }  # fmt: skip

    def unchecked() -> Iterator[tuple[str, str]]:
        for name in conditions.all:
            reading = conditions.reading(name)
            if reading is not None and reading.failed:
                yield name, reading.reason

    config = operations.config
    return Facts(
        rules=rules, zone=config.engine.timezone, usual_s=Usual(clock, statistics).of, troubles=operations.troubles,
        silent=guards.silent, unchecked=unchecked, in_state=in_state,
        is_paused=lambda name: operations.pause_of(name) is not None, waiting=lambda: backlog.total,
        schedule_of=timers.schedule,
        disks=(config.store.path.parent, config.engine.data),
        least_free_bytes=config.store.min_free_bytes, lease_age_s=lambda: lease.age_s(clock.now()),
        held_up=loop_watch.held_up,
    )  # fmt: skip
