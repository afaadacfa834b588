"""The plan: what another configuration would change, and which due instants appear, vanish or move by it."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.config import Config
from engine.config.schema import written
from engine.config.shapes import Shape, fields_of
from engine.decide.conditions import Named
from engine.decide.schedule import schedule_of
from engine.jobs import Job
from engine.plugin import Plugin
from engine.triggers import Trigger
from engine.units import format_duration

log = logging.getLogger("engine.foresight")

MOST_INSTANTS = 10_000
"""So many instants of one trigger are compared, on each side; beyond it, the time that is looked at is shorter."""

_TICK = timedelta(microseconds=1)
_NOT_COMPARED = frozenset({"name", "source", "schedule", "shared", "defined_in", "pattern"})
_RENAMED = {"runner": "run", "hold_s": "otherwise.hold"}

Show = Callable[[Any], Any]
"""Returns a setting as JSON, with every secret masked."""


class Horizon(Struct, frozen=True, kw_only=True):
    """How far the plan looks: from `start` until before `end`; of each trigger it tells of `count` instants."""

    start: datetime
    end: datetime
    count: int


def plan(old: Config, new: Config, horizon: Horizon, *, show: Show, secrets_known: bool) -> dict[str, Any]:
    """Return what `new` would change of `old`, as JSON.

    Where not all secrets are known, those that may be the same are taken to be.
    """
    compare = _Comparison(show, secrets_known)
    triggers = [
        view
        for name in sorted(old.triggers.keys() | new.triggers.keys())
        if (view := _trigger(name, old, new, horizon, compare)) is not None
    ]
    jobs = [
        view
        for name in sorted(old.jobs.keys() | new.jobs.keys())
        if (view := _named(name, old.jobs, new.jobs, compare)) is not None
    ]
    maintenance = [
        view
        for name in sorted(old.maintenance.keys() | new.maintenance.keys())
        if (view := _window(name, old, new, compare)) is not None
    ]
    settings = [
        change
        for table in ("engine", "store", "http")
        for change in compare.changes(getattr(old, table), getattr(new, table), table)
    ]
    for name in sorted(old.conditions.keys() | new.conditions.keys()):
        before, after = (_written(side.conditions.get(name)) for side in (old, new))
        settings += compare.changes(before, after, f"conditions.{name}")
    settings += compare.changes(old.pools, new.pools, "pools")
    return {
        "from": rfc3339(horizon.start),
        "to": rfc3339(horizon.end),
        "timezone": new.engine.timezone,
        "changes": bool(triggers or jobs or maintenance or settings),
        "triggers": triggers,
        "jobs": jobs,
        "maintenance": maintenance,
        "settings": settings,
    }


class _Comparison:
    """Tells what differs between settings, key by key."""

    def __init__(self, show: Show, secrets_known: bool) -> None:
        self._show = show
        self._secrets_known = secrets_known

    def changes(self, old: Any, new: Any, key: str = "") -> Iterator[dict[str, Any]]:
        """Yield what differs: the key as the configuration writes it, and both values."""
        if isinstance(old, Struct) and type(old) is type(new):
            name = f"{key}.{old.name}" if isinstance(old, Plugin) else key
            fields = zip(old.__struct_fields__, old.__struct_encode_fields__, strict=True)
            shapes = {field.name: field.shape for field in fields_of(type(old))} if isinstance(old, Plugin) else {}
            for field, key_of in fields:
                if key or field not in _NOT_COMPARED:
                    below = _RENAMED.get(field, key_of).removesuffix("_s")
                    shape = shapes.get(field)
                    before, after = (_in_words(field, getattr(side, field), shape) for side in (old, new))
                    yield from self.changes(before, after, f"{name}.{below}" if name else below)
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            for each in [*old, *(other for other in new if other not in old)]:
                yield from self.changes(old.get(each), new.get(each), f"{key}.{each}")
        elif old != new:
            before, after = self._named(old), self._named(new)
            if self._secrets_known or before != after:
                yield {"key": key, "from": before, "to": after}

    def _named(self, value: Any) -> Any:
        return {value.name: self._show(value)} if isinstance(value, Plugin) else self._show(value)


def _in_words(field: str, value: Any, shape: Shape | None) -> Any:
    """Return durations and sizes as the configuration writes them: plugins say in `shape` what is one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if shape is not None:
        return written(value, shape)
    return format_duration(value) if field.endswith("_s") else value


def _written(one: Named | None) -> Mapping[str, Any]:
    """Return a condition as the configuration writes it; of one that is not there, nothing."""
    if one is None:
        return {}
    what = {"check": one.check} if one.joins is None else {one.joins.value: list(one.of)}
    return {
        **what, "every": format_duration(one.every_s), "timeout": format_duration(one.timeout_s),
        "on_error": one.on_error.value, "shadow": one.shadow, "description": one.description, "tags": list(one.tags),
        "enabled": one.enabled,
    }  # fmt: skip


def _named(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], compare: _Comparison
) -> dict[str, Any] | None:  # fmt: skip
    """Return what became of a job or trigger, None where that is nothing."""
    if name not in old or name not in new:
        return {"name": name, "change": "removed" if name in old else "added", "keys": []}
    keys = list(compare.changes(old[name], new[name]))
    return {"name": name, "change": "changed", "keys": keys} if keys else None


def _window(name: str, old: Config, new: Config, compare: _Comparison) -> dict[str, Any] | None:
    """Return what became of a maintenance window, None where that is nothing."""
    view = _named(name, old.maintenance, new.maintenance, compare)
    if view is None and old.maintenance[name].pattern != new.maintenance[name].pattern:
        # Its openings are others, though it says them in the same words: a calendar is another.
        return {"name": name, "change": "changed", "keys": []}
    return view


def _trigger(name: str, old: Config, new: Config, horizon: Horizon, compare: _Comparison) -> dict[str, Any] | None:
    view = _named(name, old.triggers, new.triggers, compare)
    before, after = _Fires.of(name, old), _Fires.of(name, new)
    if before == after:
        return None if view is None else {**view, "fires": None}
    fires = _compare(before, after, horizon)
    if view is None:
        if not fires["changes"]:
            return None
        # Its own keys are the same: a job that is disabled, a calendar or a source that it shares is another.
        view = {"name": name, "change": "changed", "keys": []}
    return {**view, "fires": fires}


class _Fires(Struct, frozen=True):
    """When a trigger fires: its schedule, None where it has none or does not work."""

    schedule: Any

    @classmethod
    def of(cls, name: str, config: Config) -> _Fires:
        trigger: Trigger | None = config.triggers.get(name)
        if trigger is None or not trigger.works:
            return cls(None)
        job: Job = config.jobs[trigger.job]
        return cls(schedule_of(trigger) if job.enabled else None)

    def within(self, horizon: Horizon) -> tuple[list[datetime], datetime]:
        """Return when it fires, the first `MOST_INSTANTS`, and until when these are all."""
        found: list[datetime] = []
        if self.schedule is None:
            return found, horizon.end
        due = self.schedule.next(horizon.start - _TICK)
        while due is not None and due < horizon.end:
            if len(found) == MOST_INSTANTS:
                return found, due
            found.append(self.schedule.fires_at(due))
            due = self.schedule.next(due)
        return found, horizon.end


def _compare(before: _Fires, after: _Fires, horizon: Horizon) -> dict[str, Any]:
    """Return which instants appear, vanish and move, and the first of them."""
    try:
        (old, old_until), (new, new_until) = before.within(horizon), after.within(horizon)
    except Exception as error:  # plugin code
        log.warning("A timer raised", exc_info=True, extra={"action": "timer_raised"})
        return {"changes": True, "problem": f"a timer raised {type(error).__name__}: {error}"}
    until = min(old_until, new_until)
    old, new = [at for at in old if at < until], [at for at in new if at < until]
    gone, come = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    moved = _pairs(gone, come)
    left, taken = {a for a, _ in moved}, {b for _, b in moved}
    events: list[dict[str, Any]] = [
        *({"change": "moves", "from": rfc3339(a), "to": rfc3339(b), "by_s": (b - a).total_seconds()} for a, b in moved),
        *({"change": "vanishes", "from": rfc3339(at), "to": None} for at in gone if at not in left),
        *({"change": "appears", "from": None, "to": rfc3339(at)} for at in come if at not in taken),
    ]  # fmt: skip
    events.sort(key=lambda event: datetime.fromisoformat(event["from"] or event["to"]))
    return {
        "changes": bool(events),
        "until": rfc3339(until),
        "before": len(old),
        "after": len(new),
        "appear": len(come) - len(moved),
        "vanish": len(gone) - len(moved),
        "move": len(moved),
        "first": events[: horizon.count],
        "problem": None,
    }


def _pairs(gone: Sequence[datetime], come: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Return what moved, and where to: those that are the nearest to each other.

    Of two that are as near, what is gone takes the later one, and what is new the earlier one: so a daily trigger that
    moves by twelve hours moves to the same day's evening.
    """
    pairs = []
    for at in gone:
        to = _nearest(at, come, later=True)
        if to is not None and _nearest(to, gone, later=False) == at:
            pairs.append((at, to))
    return pairs


def _nearest(at: datetime, among: Sequence[datetime], *, later: bool) -> datetime | None:
    place = bisect_left(among, at)
    before, after = among[place - 1 : place], among[place : place + 1]
    if not before or not after:
        return (*before, *after, None)[0]
    ahead, behind = after[0] - at, at - before[0]
    return after[0] if ahead < behind or (ahead == behind and later) else before[0]
