"""Alerts, decided: what begins, what is over, and what is told of it when. Pure: time and findings are handed in.

A finding is one subject (a trigger, a source, the disk) for which an alert's rule holds now. It opens when it has held
for `for_s`, and is over when it has not held for `clear_s`: what comes and goes in between is one alert. What opens and
ends within `gather_s` is told in one message; what stays open is told again after `repeat_s`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from engine.decide.rules import Rule


class Severity(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class What(StrEnum):
    """What an alert looks at."""

    FAILURE_RATE = "failure_rate"
    FAILURES = "failures"
    MISSED = "missed"
    MISFIRE_RATE = "misfire_rate"
    DURATION = "duration"
    SLOWER = "slower"
    DEADLINE = "deadline"
    SILENT = "silent"
    SOURCE_UNHEALTHY = "source_unhealthy"
    CONDITION_UNHEALTHY = "condition_unhealthy"
    TRIGGER_STATE = "trigger_state"
    QUEUE_AGE = "queue_age"
    QUEUE_DEPTH = "queue_depth"
    DISK_FREE = "disk_free"
    DISK_SHARE = "disk_share"
    LEASE_AGE = "lease_age"
    LOOP_LAG = "loop_lag"
    UNDELIVERED = "undelivered"


COUNTED = frozenset({What.FAILURE_RATE, What.MISSED, What.MISFIRE_RATE})
"""What is counted of ends of runs, over a time and by somebody."""

OF_RUNS = COUNTED | {What.FAILURES, What.DURATION, What.SLOWER, What.DEADLINE, What.TRIGGER_STATE}
"""What triggers, jobs and tags can be named for."""

OF_SOURCES = frozenset({What.SILENT, What.SOURCE_UNHEALTHY})


class By(StrEnum):
    """For whom ends are counted."""

    TRIGGER = "trigger"
    JOB = "job"
    ALL = "all"


class AlertScope(Struct, frozen=True, kw_only=True):
    """Whom an alert is about: these triggers and jobs, those with one of these tags, these sources; nothing: all."""

    tags: frozenset[str] = frozenset()
    triggers: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    @property
    def is_all(self) -> bool:
        """Whether it names nothing, and so holds everything."""
        return not (self.tags or self.triggers or self.jobs or self.sources)

    def holds(self, rule: Rule) -> bool:
        """Tell whether a trigger is among them."""
        if self.is_all or rule.trigger.name in self.triggers or rule.job.name in self.jobs:
            return True
        if self.tags and not self.tags.isdisjoint((*rule.trigger.tags, *rule.job.tags)):
            return True
        return bool(self.sources) and any(
            source in self.sources or (rule.trigger.shared is not None and rule.trigger.shared.name in self.sources)
            for source, _ in rule.trigger.feeds
        )

    def holds_source(self, names: Sequence[str], triggers: Sequence[Rule]) -> bool:
        """Tell whether a source is among them, by its names, or by one of the triggers on it."""
        return self.is_all or not self.sources.isdisjoint(names) or any(map(self.holds, triggers))


class Alert(Struct, frozen=True, kw_only=True):
    """One alert, as it is configured.

    - `what`: what it looks at; `limit`: the bound, a count, a part, seconds or bytes; `states`: those of a trigger.
    - `over_s`: the time in which is counted; `least`: so few runs say nothing of a rate; `by`: for whom is counted.
    - `for_s`: so long it must hold; `clear_s`: so long it must not hold any more to be over.
    - `gather_s`: what changes within this time is told together; `repeat_s`: what stays open is told again, None: not.
    - `recovery`: whether its end is told; `notify`: who is told, by names of `[notify.NAME]`.
    - `builtin`: whether it is there without configuration.
    """

    name: str
    what: What
    limit: float = 0.0
    states: frozenset[str] = frozenset()
    over_s: float = 3600.0
    least: int = 1
    by: By = By.TRIGGER
    scope: AlertScope = AlertScope()
    for_s: float = 0.0
    clear_s: float = 60.0
    gather_s: float = 10.0
    repeat_s: float | None = 4 * 3600.0
    recovery: bool = True
    severity: Severity = Severity.WARNING
    notify: tuple[str, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    builtin: bool = False
    defined_in: str = ""


class Finding(Struct, frozen=True, kw_only=True):
    """That the rule of an alert holds for a subject now: how much, and in words."""

    subject: str
    value: float
    text: str


class Standing(Struct, kw_only=True):
    """How an alert stands for one subject. Instants are for people; what is counted is counted by the monotonic clock.

    - `since`: since when it holds; `opened_at`: when it opened, None while it is pending.
    - `quiet_s`: since when it does not hold any more; `over_at`: when it was found to be over, which is yet to be told.
    - `told_at`: when it was told that it opened, None where it was not.
    """

    subject: str
    value: float
    text: str
    since: datetime
    since_s: float
    opened_at: datetime | None = None
    quiet_s: float | None = None
    over_at: datetime | None = None
    told_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open now."""
        return self.opened_at is not None and self.over_at is None


class Round(Struct, frozen=True, kw_only=True):
    """What is told of an alert in one message: what began, what is over, and what is open still."""

    began: tuple[Standing, ...] = ()
    over: tuple[Standing, ...] = ()
    still: tuple[Standing, ...] = ()


class Turn(Struct, frozen=True, kw_only=True):
    """That an alert opened for a subject, or is over."""

    standing: Standing
    opened: bool


class Course:
    """How one alert stands for each subject. `alert` is handed in each time: it is as it is configured then."""

    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}
        self._changed_s: float | None = None
        self._told_s: float | None = None

    @property
    def open(self) -> list[Standing]:
        """Return what is open, by when it began."""
        return sorted((one for one in self.standings.values() if one.is_open), key=lambda one: one.since)

    def restore(self, standing: Standing, *, told_ago_s: float) -> None:
        """Take up what an engine before this one told."""
        self.standings[standing.subject] = standing
        told_s = standing.since_s - told_ago_s
        self._told_s = told_s if self._told_s is None else max(self._told_s, told_s)

    def look(self, alert: Alert, findings: Mapping[str, Finding], now: datetime, now_s: float) -> list[Turn]:
        """Take in for whom the rule holds now, and return what opened and what is over."""
        turns: list[Turn] = []
        for found in findings.values():
            one = self.standings.get(found.subject)
            if one is None:
                one = self.standings[found.subject] = Standing(
                    subject=found.subject, value=found.value, text=found.text, since=now, since_s=now_s
                )
            one.value, one.text, one.quiet_s = found.value, found.text, None
            if one.over_at is not None:  # it came back before its end was told: it was never over
                one.over_at = None
            elif one.opened_at is None and now_s - one.since_s >= alert.for_s:
                one.opened_at = now
                turns.append(Turn(standing=one, opened=True))
        for one in [one for one in self.standings.values() if one.subject not in findings]:
            if one.opened_at is None:
                del self.standings[one.subject]
                continue
            if one.quiet_s is None:
                one.quiet_s = now_s
            if one.over_at is None and now_s - one.quiet_s >= alert.clear_s:
                one.over_at = now
                turns.append(Turn(standing=one, opened=False))
                if one.told_at is None:
                    del self.standings[one.subject]
        if self._changed_s is None and any(_untold(one) for one in self.standings.values()):
            self._changed_s = now_s
        return turns

    def due(self, alert: Alert, now_s: float, *, muted: bool, acknowledged: bool) -> Round | None:
        """Return what is to be told now; None where nothing is.

        While it is muted, what began waits, and what is over is told to nobody: it is returned alone, to be forgotten.
        What was acknowledged is not repeated.
        """
        began: list[Standing] = []
        over: list[Standing] = []
        still: list[Standing] = []
        for one in sorted(self.standings.values(), key=lambda one: one.since):
            if one.over_at is not None:
                over.append(one)
            elif one.opened_at is not None:
                (still if one.told_at is not None else began).append(one)
        if muted:
            return Round(over=tuple(over)) if over else None
        if began or over:
            changed_s = now_s if self._changed_s is None else self._changed_s
            if now_s - changed_s < alert.gather_s:
                return None
            return Round(began=tuple(began), over=tuple(over), still=tuple(still))
        self._changed_s = None
        if not still or alert.repeat_s is None or acknowledged:
            return None
        told_s = now_s if self._told_s is None else self._told_s
        return Round(still=tuple(still)) if now_s - told_s >= alert.repeat_s else None

    def due_in_s(self, alert: Alert, now_s: float) -> float | None:
        """Return in how many seconds what changed is to be told; None where nothing waits for that."""
        return None if self._changed_s is None else max(self._changed_s + alert.gather_s - now_s, 0.0)

    def told(self, told: Round, now: datetime, now_s: float) -> None:
        """Take note that a round was made durable."""
        for one in told.over:
            self.standings.pop(one.subject, None)
        for one in (*told.began, *told.still):
            one.told_at = now
        self._told_s, self._changed_s = now_s, None


def _untold(one: Standing) -> bool:
    return one.over_at is not None or (one.opened_at is not None and one.told_at is None)
