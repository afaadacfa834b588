"""Looking: for whom the rule of an alert holds now. Nothing here costs more the more has run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from engine.alerts.facts import Facts
from engine.clock import EPOCH
from engine.decide.alerts import Alert, By, Finding, What
from engine.decide.breakers import SOURCE
from engine.decide.deadlines import promise_of
from engine.decide.ends import Count, Ends, Window
from engine.decide.rules import Rule
from engine.deliveries import named_target
from engine.plugin import Timer
from engine.runs import Lane, RunState
from engine.spans import SpanKind
from engine.store.base import RunFilter, Store
from engine.units import format_size, format_span

LOOKED_AT = 50
"""So many of those that stand first in the queue are looked at for the oldest."""

SHORTEST_SLOW_S = 60.0
"""What takes less is never called slow: what usually takes a second takes four now and then."""

IN_STORE = frozenset({What.DEADLINE, What.DURATION, What.SLOWER, What.QUEUE_AGE, What.QUEUE_DEPTH})
"""What is read from the store, when it is looked for."""

MOST_ON_IT = 3
"""So many triggers on a source that is in trouble are named."""

ENGINE = "engine"
_TIMER = "timer:"


class Look:
    """Looks for one alert after the other. `undelivered` counts what could not be told, as ends are counted."""

    def __init__(self, store: Store, facts: Facts, ends: Ends) -> None:
        self._store = store
        self._facts = facts
        self._ends = ends
        self._known_since: dict[str, datetime] = {}
        self.undelivered: dict[float, Window] = {}
        self.given_up: dict[str, str] = {}
        """Of each target the last message that it was not told, and why."""

    async def findings(self, alert: Alert, now: datetime) -> dict[str, Finding]:
        """Return for whom it holds; raise StoreUnavailable, and what timers raise."""
        found = self._looks[alert.what](self, alert, now)
        return {one.subject: one async for one in found}

    # Of runs that ended

    async def _failure_rate(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for subject, count in self._counted(alert, self._ends.windows, now):
            rate = count.failed / count.judged if count.judged else 0.0
            if count.judged >= alert.least and rate >= alert.limit:
                said = f"{count.failed} of {_runs(count.judged)} failed in {format_span(alert.over_s)} ({rate:.0%})"
                yield Finding(subject=subject, value=rate, text=said)

    async def _misfire_rate(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for subject, count in self._counted(alert, self._ends.windows, now):
            total = count.judged + count.missed
            rate = count.missed / total if total else 0.0
            if total >= alert.least and rate >= alert.limit:
                said = f"{count.missed} of {_runs(total)} were missed in {format_span(alert.over_s)} ({rate:.0%})"
                yield Finding(subject=subject, value=rate, text=said)

    async def _missed(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for subject, count in self._counted(alert, self._ends.misses, now):
            if count.missed >= alert.limit:
                was = "due instant was" if count.missed == 1 else "due instants were"
                said = f"{count.missed} {was} missed in {format_span(alert.over_s)}"
                yield Finding(subject=subject, value=count.missed, text=said)

    def _counted(self, alert: Alert, windows: Mapping[float, Window], now: datetime) -> Iterable[tuple[str, Count]]:
        """Return what was counted in the time of an alert, for each of whom it is counted."""
        window = windows.get(alert.over_s)
        sums: dict[str, Count] = {}
        for trigger, job, count in () if window is None else window.counts(now):
            rule = self._facts.rules.get(trigger)
            if rule is None or not alert.scope.holds(rule):
                continue
            subject = {By.TRIGGER: f"trigger {trigger}", By.JOB: f"job {job}", By.ALL: "all runs"}[alert.by]
            sums.setdefault(subject, Count()).take(count)
        return sums.items()

    async def _failures(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for trigger, streak in list(self._ends.streaks.items()):
            rule = self._facts.rules.get(trigger)
            if rule is not None and streak.count >= alert.limit and alert.scope.holds(rule):
                said = f"{_runs(streak.count)} failed in a row, since {_instant(streak.since)}"
                yield Finding(subject=f"trigger {trigger}", value=streak.count, text=said)

    async def _deadline(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        promised = [item for item in self._facts.rules.items() if item[1].trigger.deadline is not None]
        for name, rule in promised:
            trigger = rule.trigger
            if trigger.deadline is None or rule.disabled is not None or self._facts.is_paused(name):
                continue
            if not alert.scope.holds(rule):
                continue
            zone = trigger.on.timezone if isinstance(trigger.on, Timer) else None
            promise = promise_of(trigger.deadline, self._facts.schedule_of(name), zone or self._facts.zone, now)
            if promise is None or promise.since < await self._since(name, now):
                continue
            last_at = await self._last_success(name)
            if last_at < promise.since:
                last = "it never did" if last_at == EPOCH else f"the last time it did was {_instant(last_at)}"
                said = f"did not succeed by {_instant(promise.by)}, for {_instant(promise.since)}; {last}"
                yield Finding(subject=f"trigger {name}", value=(now - promise.by).total_seconds(), text=said)

    async def _since(self, trigger: str, now: datetime) -> datetime:
        """Return since when there is a trigger: nothing was to succeed before."""
        known = self._known_since.get(trigger)
        if known is None:
            span = await self._store.first_span(SpanKind.TRIGGER, trigger)
            if span is None:  # it is about to be noted
                return now
            known = self._known_since[trigger] = span.began_at
        return known

    async def _last_success(self, trigger: str) -> datetime:
        if trigger not in self._ends.successes:
            self._ends.successes[trigger] = EPOCH  # from now on its successes are noted
            which = RunFilter(states=frozenset({RunState.SUCCEEDED}), triggers=frozenset({trigger}))
            try:
                found = await self._store.runs(which, limit=1)
            except BaseException:
                del self._ends.successes[trigger]
                raise
            if found and (at := found[0].finished_at) is not None:
                self._ends.successes[trigger] = max(at, self._ends.successes[trigger])
        return self._ends.successes[trigger]

    # Of runs that run

    async def _duration(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for trigger, (run_id, job, for_s) in (await self._running(alert, now)).items():
            if for_s >= alert.limit:
                said = f"run {run_id} of job {job} has been running for {format_span(for_s)}"
                yield Finding(subject=f"trigger {trigger}", value=for_s, text=said)

    async def _slower(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for trigger, (run_id, job, for_s) in (await self._running(alert, now)).items():
            usual_s = await self._facts.usual_s(job) if for_s >= SHORTEST_SLOW_S else None
            if usual_s is not None and for_s >= alert.limit * usual_s:
                usually = f"half of them take {format_span(usual_s)} at most"
                said = f"run {run_id} of job {job} has been running for {format_span(for_s)}; {usually}"
                yield Finding(subject=f"trigger {trigger}", value=for_s / max(usual_s, 0.001), text=said)

    async def _running(self, alert: Alert, now: datetime) -> dict[str, tuple[str, str, float]]:
        """Return the run of each trigger that has been running for the longest time."""
        longest: dict[str, tuple[str, str, float]] = {}
        for run in await self._store.running():
            rule = self._facts.rules.get(run.trigger)
            if rule is None or run.started_at is None or not alert.scope.holds(rule):
                continue
            for_s = (now - run.started_at).total_seconds()
            if run.trigger not in longest or for_s > longest[run.trigger][2]:
                longest[run.trigger] = (run.id, run.job, for_s)
        return longest

    # Of triggers, sources and conditions

    async def _trigger_state(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for name, state, why in self._facts.in_state(alert.states):
            rule = self._facts.rules.get(name)
            # One that is invalid has no rule: it is known by its name alone.
            holds = alert.scope.is_all or name in alert.scope.triggers if rule is None else alert.scope.holds(rule)
            if holds:
                own = f"trigger {name} is "
                said = f"is {why.removeprefix(own)}" if why and why.startswith(own) else f"is {state}"
                yield Finding(
                    subject=f"trigger {name}", value=1.0, text=f"{said}: {why}" if why and own not in why else said
                )

    async def _silent(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for (kind, name), text in self._facts.silent():
            rules = self._on(name) if kind == SOURCE else [rule for rule in (self._facts.rules.get(name),) if rule]
            if alert.scope.holds_source(_names(name, rules) if kind == SOURCE else [], rules):
                shown = _names(name, rules)[-1] if kind == SOURCE else name
                subject = f"{'source' if kind == SOURCE else 'trigger'} {shown}"
                yield Finding(subject=subject, value=1.0, text=text.removeprefix(f"{subject} "))

    async def _source_unhealthy(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for source, (text, since) in self._facts.troubles().items():
            rules = self._on(source)
            names = _names(source, rules)
            if alert.scope.holds_source(names, rules):
                for_s = 0.0 if since is None else max((now - since).total_seconds(), 0.0)
                is_timer = source.startswith(_TIMER)
                subject = f"timer of {source.removeprefix(_TIMER)}" if is_timer else f"source {names[-1]}"
                yield Finding(subject=subject, value=for_s, text=text if is_timer else text + _on_it(rules))

    async def _condition_unhealthy(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for name, text in self._facts.unchecked():
            yield Finding(subject=f"condition {name}", value=1.0, text=text)

    def _on(self, source: str) -> list[Rule]:
        """Return the triggers on a source."""
        if source.startswith(_TIMER):
            rule = self._facts.rules.get(source.removeprefix(_TIMER).partition("/")[0])
            return [] if rule is None else [rule]
        return [rule for rule in self._facts.rules.values() if any(one == source for one, _ in rule.trigger.feeds)]

    # Of the engine

    async def _queue_age(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        if not self._facts.waiting():
            return
        runs = await self._store.line(lanes=frozenset(Lane), limit=LOOKED_AT)
        ready = [(run.trace[-1].at if run.trace else run.created_at, run.id, run.job) for run in runs]
        if not ready:
            return
        since, run_id, job = min(ready)
        for_s = (now - since).total_seconds()
        if for_s >= alert.limit:
            said = f"run {run_id} of job {job} has been ready for {format_span(for_s)}"
            yield Finding(subject=ENGINE, value=for_s, text=said)

    async def _queue_depth(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        depth = (await self._store.counts()).get(RunState.QUEUED, 0)
        if depth >= alert.limit:
            yield Finding(subject=ENGINE, value=depth, text=f"{_runs(depth)} are ready and wait")

    async def _disk_free(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for place, free, _ in _disks(self._facts.disks):
            if free < alert.limit:
                said = f"only {format_size(free)} are free{self._refuses(free)}"
                yield Finding(subject=f"disk {place}", value=free, text=said)

    async def _disk_share(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        for place, free, share in _disks(self._facts.disks):
            if share < alert.limit:
                said = f"only {share:.1%} are free ({format_size(free)}){self._refuses(free)}"
                yield Finding(subject=f"disk {place}", value=share, text=said)

    def _refuses(self, free: int) -> str:
        """Say what the engine does about it."""
        least = self._facts.least_free_bytes
        if not least:
            return ""
        less = format_size(least)
        return f"; no event is taken until {less} are" if free < least else f"; with less than {less} no event is taken"

    async def _lease_age(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        age_s = self._facts.lease_age_s()
        if age_s is not None and age_s >= alert.limit:
            said = f"the store could not be written for {format_span(age_s)}: the engine's lease of it was not renewed"
            yield Finding(subject=ENGINE, value=age_s, text=said)

    async def _loop_lag(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        held_up = self._facts.held_up()
        if held_up is not None and held_up[0] >= alert.limit:
            yield Finding(subject=ENGINE, value=held_up[0], text=held_up[1])

    async def _undelivered(self, alert: Alert, now: datetime) -> AsyncIterator[Finding]:
        window = self.undelivered.get(alert.over_s)
        for target, _, count in () if window is None else window.counts(now):
            if count.failed >= alert.limit:
                what = "message was" if count.failed == 1 else "messages were"
                said = f"{count.failed} {what} given up in {format_span(alert.over_s)}"
                if (last := self.given_up.get(target)) is not None:
                    said += f"; the last one, of {last}"
                yield Finding(subject=named_target(target), value=count.failed, text=said)

    _looks: Mapping[What, Callable[[Look, Alert, datetime], AsyncIterator[Finding]]] = {
        What.FAILURE_RATE: _failure_rate,
        What.FAILURES: _failures,
        What.MISSED: _missed,
        What.MISFIRE_RATE: _misfire_rate,
        What.DURATION: _duration,
        What.SLOWER: _slower,
        What.DEADLINE: _deadline,
        What.SILENT: _silent,
        What.SOURCE_UNHEALTHY: _source_unhealthy,
        What.CONDITION_UNHEALTHY: _condition_unhealthy,
        What.TRIGGER_STATE: _trigger_state,
        What.QUEUE_AGE: _queue_age,
        What.QUEUE_DEPTH: _queue_depth,
        What.DISK_FREE: _disk_free,
        What.DISK_SHARE: _disk_share,
        What.LEASE_AGE: _lease_age,
        What.LOOP_LAG: _loop_lag,
        What.UNDELIVERED: _undelivered,
    }


def _on_it(rules: Sequence[Rule]) -> str:
    """Say which triggers hear nothing of a source."""
    names = [rule.trigger.name for rule in rules[:MOST_ON_IT]]
    if not names:
        return ""
    more = f" and {len(rules) - len(names)} more" if len(rules) > len(names) else ""
    return f"; on it: {', '.join(names)}{more}"


def _names(source: str, rules: Iterable[Rule]) -> list[str]:
    """Return the names of a source: its id, and the one that it has in the configuration, where it has one."""
    shared = (rule.trigger.shared for rule in rules)
    return [source, *dict.fromkeys(one.name for one in shared if one is not None and one.id == source)]


def _disks(places: Iterable[Path]) -> Iterator[tuple[Path, int, float]]:
    """Yield each disk once, by its directory: how much is free there, and what part of it."""
    seen: set[int] = set()
    for place in places:
        there = next((each for each in (place, *place.parents) if each.exists()), place)
        try:
            stat, device = os.statvfs(there), there.stat().st_dev
        except OSError:
            continue
        if device not in seen and stat.f_blocks:
            seen.add(device)
            # What only root may use is neither free nor in use.
            usable = stat.f_blocks - stat.f_bfree + stat.f_bavail
            yield place, stat.f_bavail * stat.f_frsize, stat.f_bavail / max(usable, 1)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _instant(at: datetime) -> str:
    seconds = timedelta(microseconds=at.microsecond)
    return f"{at - seconds:%Y-%m-%d %H:%M:%S} UTC"
