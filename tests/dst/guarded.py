"""The judge of what guards triggers: schemas of their events, breakers, and how far runs may cause runs.

It goes through all events of a trigger in the order in which they became durable, with what was decided of each.
See docs/guards.md and docs/payloads.md, which it goes by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.config import Config
from engine.replays import REPLAY_KEY, RETRY_KEY
from engine.triggers import Trigger
from tests.dst.disk import Disk
from tests.dst.plan import Plan
from tests.dst.wider import MOST


class Met(Struct, frozen=True, kw_only=True):
    """An event at a trigger, and what was decided of it."""

    event: str
    at: int
    source: str
    key: str
    data: Any
    outcome: str
    code: str

    @property
    def is_again(self) -> bool:
        """Whether people had it run once more."""
        return self.key.startswith((REPLAY_KEY, RETRY_KEY)) or self.source.startswith("backfill:")


class Guarded:
    """Judges the guards of one simulation; `released` tells when somebody first asked for the end of a quarantine."""

    def __init__(self, plan: Plan, config: Config, disk: Disk, released: Mapping[str, int]) -> None:
        self._config = config
        self._disk = disk
        self._released = released
        self._bypass = {
            call.what["request"]: frozenset(call.what["bypass"]) for call in plan.calls if call.kind == "fire"
        }

    def findings(self, *, stepped: bool) -> Iterator[str]:
        """Yield what is wrong. Where the clock was set, what depends on distances is not looked at."""
        hops = self._hops()
        for trigger in self._config.triggers.values():
            most = self._config.engine.max_hops if trigger.max_hops is None else trigger.max_hops
            met = self._met(trigger.name)
            for one in met:
                if one.key.startswith(RETRY_KEY):
                    continue  # it goes straight to the queue
                if (hops.get(one.event, 0) > most) != (one.code == "loop"):
                    yield f"event {one.event} at {trigger.name} is {one.code}, after {hops.get(one.event, 0)} runs"
            if trigger.schema is not None:
                yield from self._fits(trigger, met)
            if trigger.breaker is not None and not stepped:
                yield from self._broken(trigger, met)

    def _met(self, trigger: str) -> Sequence[Met]:
        rows = self._disk.story.execute(
            "select e.id, e.received_at, e.source, e.key, e.data, o.outcome, o.code from outcomes o "
            "join events e on e.id = o.event where o.trigger = ? order by e.seq", (trigger,)
        )  # fmt: skip
        return [
            Met(event=event, at=at, source=source, key=key or "", data=json.loads(data), outcome=outcome, code=code)
            for event, at, source, key, data, outcome, code in rows
        ]

    def _fits(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """What does not fit the schema is turned away, and nothing else is."""
        for one in met:
            if one.code == "loop" or one.outcome == "quarantined" or one.key.startswith(RETRY_KEY):
                continue
            if _fits(one.data) == (one.code == "schema"):
                yield f"event {one.event} at {trigger.name} is {one.code}, its data is {one.data}"

    def _broken(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """The one that is too much opens the breaker, and nothing passes from then on."""
        breaker, is_open = trigger.breaker, False
        passed: list[int] = []
        assert breaker is not None
        for one in met:
            if one.is_again or one.code == "loop":
                continue
            if one.source == "manual" and "quarantine" in self._bypass.get(one.key, ()):
                continue
            if one.at >= self._released.get(trigger.name, one.at + 1):
                return
            close = [at for at in passed if one.at - at < breaker.per_s * 1_000_000]
            is_open = is_open or len(close) >= breaker.limit
            if is_open != (one.outcome == "quarantined"):
                yield f"event {one.event} at {trigger.name} is {one.code}; {len(close)} came before it, open: {is_open}"
                return
            passed = [*close, one.at]

    def _hops(self) -> Mapping[str, int]:
        """Return how many runs caused an event, one by the other."""
        hops: dict[str, int] = {}
        of_run: dict[str, int] = {}
        runs: dict[str, list[str]] = {}
        rows = self._disk.story.execute("select event, run from outcomes where outcome in ('run', 'joined')")
        for event, run in rows.fetchall():
            runs.setdefault(event, []).append(run)
        rows = self._disk.story.execute("select id, source, subject, key, cause from events order by seq")
        for event, source, subject, key, cause in rows.fetchall():
            if (key or "").startswith(RETRY_KEY):
                hops[event] = 0 if cause is None else json.loads(cause)["hops"]  # that of a run before
            elif source.startswith("job:") and not (key or "").startswith(REPLAY_KEY):
                hops[event] = of_run.get(subject, 0) + 1
            for run in runs.get(event, ()):
                of_run[run] = max(of_run.get(run, 0), hops.get(event, 0))
        return hops


def _fits(data: Any) -> bool:
    return isinstance(data, dict) and ("n" not in data or (type(data["n"]) is int and data["n"] <= MOST))
