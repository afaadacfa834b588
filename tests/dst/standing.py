"""The judge of what stands: looks now and then at what waits, and says what could have gone on long ago.

It looks only where nothing has been in the way for a while: the engine is up, its disk is fair, the clock was not set.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from engine.clock import rfc3339, to_microseconds
from engine.config import Config
from engine.decide.rules import Rule
from engine.operations import Operations
from engine.runs import WAITING
from tests.dst.disk import FAIR, Disk
from tests.dst.gone import Gone
from tests.dst.started import Started
from tests.dst.turns import Clock
from tests.dst.world import SkyCheck, World

LOOK_S = 3_000.0
"""So long is between two looks, on average."""

SETTLES_S = 300.0
"""What is due is dealt with by then, beside what the organs look round for."""

_STATES = ", ".join(f"'{state}'" for state in sorted(WAITING))


class Standing:
    """Looks at one life of the engine; `quiet_s` is how long nothing must have been in the way."""

    def __init__(
        self, world: World, config: Config, disk: Disk, clock: Clock, started: Started, gone: Gone
    ) -> None:  # fmt: skip
        self._world = world
        self._config = config
        self._disk = disk
        self._clock = clock
        self._started = started
        self._gone = gone
        self._rounds_s = world.plan.longest_sleep_s
        self._rules = {name: Rule(trigger, config.jobs[trigger.job]) for name, trigger in config.triggers.items()}
        self._random = random.Random(f"standing {world.plan.seed}")
        self._up_s = 0.0
        self._foul_s = 0.0
        """When the disk was foul last."""

    async def watch(self, operations: Operations) -> None:
        """Look until cancelled."""
        self._up_s = self._clock.monotonic()
        while True:
            await self._clock.sleep(self._random.expovariate(1 / LOOK_S))
            await self.look(operations)

    async def look(self, operations: Operations) -> None:
        """Look once."""
        quiet_s = self._quiet_s()
        if quiet_s <= self._rounds_s + SETTLES_S:
            return
        for finding in (
            *self._overdue(), *self._startable(operations), *self._held(operations), *self._gone.overdue(quiet_s)
        ):  # fmt: skip
            self._world.find(finding)
        await self._counts(operations)

    def _quiet_s(self) -> float:
        """Return for how long nothing has been in the way."""
        now_s = self._clock.monotonic()
        if self._disk.weather is not FAIR:
            self._foul_s = now_s
            return 0.0
        begun_s = max([self._up_s, self._foul_s, self._disk.foul_until_s, *(at for at, _ in self._world.steps[-1:])])
        return now_s - begun_s

    # What waits for its time

    def _overdue(self) -> Iterator[str]:
        now_us = to_microseconds(self._clock.now())
        past_us = now_us - round((self._rounds_s + SETTLES_S) * 1e6)
        rows = self._rows(
            "select id, trigger, state, code, due_at from runs "
            "where state in ('pending', 'retrying', 'held') and due_at < ?", past_us,
        )  # fmt: skip
        yield from (
            f"run {run} of {trigger} is {state} ({code}), due at {due}" for run, trigger, state, code, due in rows
        )
        rows = self._rows(
            "select id, trigger, state, code, expires_at from runs "
            "where state in ('pending', 'queued', 'held') and started_at is null and expires_at < ?", past_us,
        )  # fmt: skip
        yield from (
            f"run {run} of {trigger} is {state} ({code}), expired at {at}" for run, trigger, state, code, at in rows
        )

    # What waits for a slot

    def _startable(self, operations: Operations) -> Iterator[str]:
        if any(pause.scope == "engine" for pause in operations.pauses()):
            return
        engine = self._config.engine
        running = dict(self._rows("select job, count(*) from runs where state = 'running' group by job"))
        kept = sum(self._world.plan.tables["engine"].get("reserve", {}).values())
        if sum(running.values()) >= engine.concurrency - kept:
            return
        past_us = to_microseconds(self._clock.now()) - round((self._rounds_s + SETTLES_S) * 1e6)
        rows = self._rows(
            "select id, trigger, job, code, trace from runs where state = 'queued' and origin <> 'backfill'"
        )
        for run, trigger, job, code, trace in rows:
            if self._config.jobs[job].pools or self._config.jobs[job].concurrency_key is not None:
                continue  # what it waits for may be taken by others
            limit = self._config.jobs[job].concurrency
            queued_us = _latest(trace)
            if (limit is None or running.get(job, 0) < limit) and queued_us < past_us:
                yield f"run {run} of {trigger} is queued ({code}) since {queued_us}, and could start"

    # What is held

    def _held(self, operations: Operations) -> Iterator[str]:
        now, now_s = self._clock.now(), self._clock.monotonic()
        since_s = now_s - self._rounds_s - SETTLES_S
        past_us = to_microseconds(now) - round((self._rounds_s + SETTLES_S) * 1e6)
        rows = self._rows("select id, trigger, code, trace from runs where state = 'held' and code <> 'held_by_hand'")
        for run, trigger, code, trace in rows:
            held_us = _latest(trace)
            rule = self._rules[trigger]
            if held_us > past_us:
                continue
            said = f"run {run} of {trigger} is held ({code}) since {held_us} at {rfc3339(now)}"
            if code.startswith("maintenance") and not operations.maintenance.holding(trigger):
                yield f"{said}, and no window is open"
            elif code == "gate_asked":
                yield f"{said}, and nobody asks any more"
            elif code == "condition" and not operations.maintenance.holding(trigger):
                names = [*self._config.engine.conditions, *rule.trigger.conditions]
                if all(self._passes_steadily(name, since_s, now_s) for name in names):
                    yield f"{said}, and its conditions pass"

    def _passes_steadily(self, name: str, since_s: float, now_s: float) -> bool:
        """Tell whether a condition has surely let pass all the while, and whoever waits for it must have noticed."""
        one = self._config.conditions[name]
        if not isinstance(one.check, SkyCheck) or self._started.is_changed("engine:conditions", name):
            return False
        sky = self._world.plan.skies[one.check.label]
        found = sky.steady(since_s - one.every_s - one.timeout_s, now_s)
        return found is not None and found >= one.check.least

    # What is counted

    async def _counts(self, operations: Operations) -> None:
        """What the engine counts is what is stored; what is on its way is waited for."""
        wrong: Sequence[str] = ()
        for _ in range(40):
            wrong = [*self._miscounted(operations)]
            if not wrong:
                return
            await self._clock.sleep(3.0)
            if self._quiet_s() <= self._rounds_s + SETTLES_S:
                return
        for finding in wrong:
            self._world.find(finding)

    def _miscounted(self, operations: Operations) -> Iterator[str]:
        (waiting,) = self._rows(f"select count(*) from runs where state in ({_STATES})")[0]
        told = operations.queue.status()["waiting"]
        if told != waiting:
            yield f"the engine counts {told} runs that wait, stored are {waiting}"
        (running,) = self._rows("select count(*) from runs where state = 'running'")[0]
        if running != operations._dispatch.running:
            yield f"the engine counts {operations._dispatch.running} runs that have a slot, stored are {running}"

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._disk.reader.execute(query, values).fetchall()


def _latest(trace: str) -> int:
    """Return when the latest step of a trace was."""
    return int(json.loads(f"[{trace}]")[-1][0])
