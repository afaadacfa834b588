"""The judge of starts: what had to hold in the moment in which an attempt of a run was decided to begin.

It is told of each start when that is durable, and goes back from there to when it was decided. Where somebody changed
what holds (a pause, a window, an override) so shortly before that the engine need not know, nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.clock import from_microseconds, to_microseconds
from engine.conditions.organ import CONDITIONS_SOURCE
from engine.config import Config
from engine.decide.conditions import Joins, Named, OnError
from engine.decide.rules import Rule
from engine.decide.windows import spell_at
from engine.jobs import Overlap
from engine.maintenance.organ import MAINTENANCE_SOURCE
from engine.pauses import PAUSES_SOURCE
from engine.store.changes import Accept
from tests.dst.disk import Disk
from tests.dst.turns import Clock
from tests.dst.world import SkyCheck

if TYPE_CHECKING:
    from tests.dst.world import World

KNOWN_AFTER_S = 90.0
"""What is durable is known to the engine by then: its disk may be slow."""

_BY_ITSELF = ("schedule", "event")


class Started:
    """Judges starts; `find` is told what is wrong."""

    def __init__(self, config: Config, disk: Disk, clock: Clock, find: Callable[[str], None]) -> None:
        self.world: World
        self._config = config
        self._disk = disk
        self._clock = clock
        self._find = find
        self._changed_s: dict[tuple[str, str], float] = {}
        """When what is remembered was changed last, by the monotonic clock."""
        self._queued_s: dict[str, float] = {}
        self._rules = {
            name: Rule(trigger, config.jobs[trigger.job]) for name, trigger in config.triggers.items()
        }  # fmt: skip
        self._gated = any(
            [*config.conditions, *config.maintenance, *(job.overlap is Overlap.REPLACE for job in config.jobs.values())]
        )  # fmt: skip

    def see_accept(self, accept: Accept) -> None:
        """Take note of what changes, and when."""
        if accept.memory is not None:
            for key in accept.memory.values:
                self._changed_s[accept.memory.source, key] = self._clock.monotonic()

    def is_changed(self, source: str, key: str) -> bool:
        """Tell whether what is remembered was ever changed."""
        return (source, key) in self._changed_s

    def see_queued(self, run: str) -> None:
        """Take note that a run stands in the queue from now on."""
        self._queued_s[run] = self._clock.monotonic()

    def see_start(self, run: str, at_us: int) -> None:
        """Judge a start that was decided at an instant, by the wall clock."""
        ago_s = (to_microseconds(self._clock.now()) - at_us) / 1e6
        decided_s = self._clock.monotonic() - ago_s
        if any(step_s > decided_s - 1.0 for step_s, _ in self.world.steps):
            return  # when that was can't be told
        columns = "trigger, job, origin, rank, attempt, expires_at, trace, created_at"
        trigger, job, origin, rank, attempt, expires_at, trace, created_at = self._row(
            f"select {columns} from runs where id = ?", run
        )
        steps = json.loads(f"[{trace}]")
        bypass = steps[0][4] if len(steps[0]) > 4 else ()
        said = f"run {run} of {trigger} was started at {from_microseconds(at_us)}"
        rule = self._rules[trigger]
        first = sum(step[1] == "running" for step in steps) == 1
        if first and expires_at is not None and at_us >= expires_at:
            self._find(f"{said}, and had expired at {from_microseconds(expires_at)}")
        if len(steps) > 1 and steps[-2][2] == "held_by_hand":
            self._find(f"{said}, and was held by hand")
        if "maintenance" not in bypass and at_us > created_at:
            for window in self._open(rule, from_microseconds(at_us), decided_s):
                self._find(f"{said}, and window {window} is open for it")
        if "conditions" not in bypass and at_us > created_at:
            for name in (*self._config.engine.conditions, *rule.trigger.conditions):
                if self._passes(name, decided_s) is False:
                    self._find(f"{said}, and condition {name} does not let it pass")
        if "pause" not in bypass and attempt == 1 and origin in _BY_ITSELF and at_us > created_at:
            self._see_pause(said, from_microseconds(at_us), decided_s)
        if not self._gated and len(steps) > 1 and steps[-2][1] == "queued":
            self._see_order(said, run, job, origin, rank, decided_s)

    def _see_pause(self, said: str, at: datetime, decided_s: float) -> None:
        """While the engine is paused nothing that waits is started."""
        value = self._remembered(PAUSES_SOURCE, "engine:", decided_s)
        if value is not None and (value.get("until") is None or at < _instant(value["until"])):
            self._find(f"{said}, and the engine is paused: {value}")

    def _see_order(self, said: str, run: str, job: str, origin: str, rank: int, decided_s: float) -> None:
        """Nothing of its job that comes before it in its lane has stood in the queue for long."""
        lane = origin if origin in ("manual", "backfill") else "live"
        limits = self._config.jobs[job]
        if lane == "backfill" or limits.pools or limits.concurrency_key is not None:
            return
        of_lane = "origin = 'manual'" if lane == "manual" else "origin not in ('manual', 'backfill')"
        rows = self._disk.reader.execute(
            f"select id, rank, expires_at from runs where job = ? and state = 'queued' and rank < ? and {of_lane}",
            (job, rank),
        )
        for other, before, expires_at in rows:
            if self._queued_s.get(other, decided_s) < decided_s - KNOWN_AFTER_S and expires_at is None:
                self._find(f"{said} with rank {rank}, before run {other} of its job, which has {before}")

    # Windows

    def _open(self, rule: Rule, at: datetime, decided_s: float) -> Iterator[str]:
        """Yield the windows that hold runs of a trigger at an instant, as far as the engine must know of them."""
        for name, window in self._config.maintenance.items():
            if window.scope.holds(rule) and spell_at(window.pattern, at).is_open:
                yield from self._unless_overridden(name, at, decided_s)
        rows = self._disk.reader.execute(
            "select key from memory where source = ? and key not like ':%'", (MAINTENANCE_SOURCE,)
        )
        for (name,) in rows.fetchall():
            stored = self._remembered(MAINTENANCE_SOURCE, name, decided_s)
            settings = None if stored is None else stored["settings"]
            if settings is None or "from" not in settings or not _meant(rule, settings.get("scope", {})):
                continue
            if _instant(settings["from"]) <= at < _instant(settings["to"]):
                yield from self._unless_overridden(name, at, decided_s)

    def _unless_overridden(self, name: str, at: datetime, decided_s: float) -> Iterator[str]:
        key = (MAINTENANCE_SOURCE, f":{name}")
        if decided_s - self._changed_s.get(key, -1e9) < KNOWN_AFTER_S:
            return
        override = self._remembered(*key, decided_s)
        if override is None or at >= _instant(override["until"]):
            yield name

    # Conditions

    def _passes(self, name: str, at_s: float) -> bool | None:
        """Tell whether a condition lets pass at a moment, as the engine was told; None where that can't be said."""
        one = self._config.conditions[name]
        if at_s - self._changed_s.get((CONDITIONS_SOURCE, name), -1e9) < KNOWN_AFTER_S:
            return None
        override = self._remembered(CONDITIONS_SOURCE, name, at_s) or {}
        enabled, shadow = override.get("enabled"), override.get("shadow")
        if not (one.enabled if enabled is None else enabled) or (one.shadow if shadow is None else shadow):
            return True
        if one.joins is not None:
            return self._joined(one, at_s)
        if not isinstance(one.check, SkyCheck):
            return None
        if any(since_s <= at_s <= until_s for since_s, until_s in self.world.stuck.get(name, ())):
            return one.on_error is OnError.OPEN  # there is no other look for as long, and no answer
        looks = [look for look in self.world.looks.get(name, ()) if look[0] <= at_s + 0.01]
        if not looks or looks[-1][0] < at_s - max(one.every_s, 0.1) - 1.0:
            return False  # nothing is known, or it is known no more
        found = looks[-1][1]
        if found is None:
            return one.on_error is OnError.OPEN
        least: int = override.get("thresholds", {}).get("least", one.check.least)
        return found >= least

    def _joined(self, one: Named, at_s: float) -> bool | None:
        found = [self._passes(member, at_s) for member in one.of]
        if one.joins is Joins.NOT:
            return None  # what is disabled is left out, and no answer stays none
        if one.joins is Joins.ANY:
            return True if True in found else None if None in found else False
        return False if False in found else None if None in found else True

    # What is stored

    def _remembered(self, source: str, key: str, decided_s: float) -> Any:
        """Return what is remembered, where it has been for so long that the engine must know of it; else None."""
        if decided_s - self._changed_s.get((source, key), -1e9) < KNOWN_AFTER_S:
            return None
        row = self._disk.reader.execute(
            "select value from memory where source = ? and key = ?", (source, key)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def _row(self, query: str, *values: Any) -> Any:
        return self._disk.reader.execute(query, values).fetchone()


def _meant(rule: Rule, scope: Any) -> bool:
    tags = {*rule.trigger.tags, *rule.job.tags}
    return not scope or bool(
        rule.trigger.name in scope.get("triggers", ())
        or rule.job.name in scope.get("jobs", ())
        or tags & set(scope.get("tags", ()))
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
