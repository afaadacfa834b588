"""What alerts may ask of the other organs, put together; see `engine.alerts.Facts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from engine.aftermath import Counting
from engine.alerts import Facts, Usual
from engine.clock import Clock
from engine.conditions import Conditions
from engine.decide.rules import Rule
from engine.guards import Guards
from engine.lease import Lease
from engine.loopwatch import LoopWatch
from engine.operations import Operations, state_of
from engine.tallies import Statistics
from engine.timers import Timers

WEEK = timedelta(days=7)


def facts_of(
    operations: Operations, *, clock: Clock, rules: Mapping[str, Rule], timers: Timers, conditions: Conditions,
    guards: Guards, counting: Counting, lease: Lease, loop_watch: LoopWatch,
) -> Facts:  # fmt: skip
    """Return what alerts look at."""

    async def statistics(job: str) -> Statistics:
        return await counting.statistics(job=job, over=WEEK)

    def state(name: str) -> tuple[str, str | None]:
        rule = rules[name]
        found, why = state_of(
            rule.trigger, operations.pause_of(name), completed=timers.why_completed(name), job=rule.job,
            quarantine=guards.quarantine_of(rule),
        )  # fmt: skip
        return found.value, why

    def unchecked() -> Iterator[tuple[str, str]]:
        for name in conditions.all:
            reading = conditions.reading(name)
            if reading is not None and reading.failed:
                yield name, reading.reason

    config = operations.config
    return Facts(
        rules=rules, zone=config.engine.timezone, usual_s=Usual(clock, statistics).of, troubles=operations.troubles,
        silent=guards.silent, unchecked=unchecked, state_of=state, schedule_of=timers.schedule,
        disks=(config.store.path.parent, config.engine.data), lease_age_s=lambda: lease.age_s(clock.now()),
        held_up=loop_watch.held_up,
    )  # fmt: skip
