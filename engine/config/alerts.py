"""Alerts in the configuration: what is looked at, when it is too much, and who is told; and those that are built in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from engine.config.telling import NotifyName
from engine.decide.alerts import COUNTED, OF_RUNS, OF_SOURCES, Alert, AlertScope, By, Severity, What
from engine.plugin.settings import BadSetting, Duration, JobName, Size, TriggerName
from engine.triggers import Deadline
from engine.units import parse_duration

SourceName = Annotated[str, Meta(extra={"kind": "source_name"})]
"""The name of a shared source; unknown ones are refused."""

StateName = Literal["paused", "disabled", "completed", "quarantined", "invalid"]

_WHAT = tuple(what.value for what in What)
_LONGEST_S = 86_400.0
_COUNTS_OVER = COUNTED | {What.UNDELIVERED}
_RATES = frozenset({What.FAILURE_RATE, What.MISFIRE_RATE})


class WhenTable(Struct, frozen=True, kw_only=True):
    """What an alert looks at: exactly one of these, and for those that count, over which time and for whom."""

    failure_rate: Annotated[
        float | None,
        Meta(gt=0, le=1, description="So large a part of the runs that were judged failed or was timed out, or more."),
    ] = None
    failures: Annotated[int | None, Meta(ge=1, description="So many runs of a trigger failed in a row, or more.")] = (
        None
    )
    missed: Annotated[int | None, Meta(ge=1, description="So many due instants were missed, or more.")] = None
    misfire_rate: Annotated[
        float | None, Meta(gt=0, le=1, description="So large a part of all that was to run was missed, or more.")
    ] = None
    duration: Annotated[Duration | None, Meta(gt=0, description="A run has been running for longer.")] = None
    slower: Annotated[
        float | None,
        Meta(
            gt=1,
            description="A run has been running for so many times as long as half of its job's runs took in a week, "
            "and for a minute at least.",
        ),
    ] = None
    deadline: Annotated[bool, Meta(description="A trigger with a `deadline` did not succeed by then.")] = False
    silent: Annotated[
        bool, Meta(description="From a source or at a trigger with `expect` no event came for so long.")
    ] = False
    source_unhealthy: Annotated[bool, Meta(description="A source or timer is in trouble.")] = False
    condition_unhealthy: Annotated[bool, Meta(description="A condition can't be checked.")] = False
    trigger_state: Annotated[tuple[StateName, ...], Meta(description="A trigger is in one of these states.")] = ()
    queue_age: Annotated[
        Duration | None, Meta(gt=0, description="What stands first in the queue has been ready for longer.")
    ] = None
    queue_depth: Annotated[int | None, Meta(ge=1, description="So many runs are ready and wait, or more.")] = None
    disk_free: Annotated[
        Size | None, Meta(ge=1, description="Less is free on the disk of the store or of the logs.")
    ] = None
    disk_share: Annotated[float | None, Meta(gt=0, lt=1, description="A smaller part of such a disk is free.")] = None
    lease_age: Annotated[
        Duration | None, Meta(gt=0, description="The engine's lease of the store was not renewed for longer.")
    ] = None
    loop_lag: Annotated[
        Duration | None,
        Meta(ge=1, description="The event loop was held up for longer at once, in the last five minutes."),
    ] = None
    undelivered: Annotated[
        int | None, Meta(ge=1, description="So many notifications and callbacks were given up, or more.")
    ] = None
    over: Annotated[
        Duration | None,
        Meta(ge=10, le=_LONGEST_S, description="The time up to now in which is counted. Default: 1h."),
    ] = None
    min_runs: Annotated[
        int | None, Meta(ge=1, description="Of a rate: fewer runs than these say nothing. Default: 1.")
    ] = None
    by: Annotated[By | None, Meta(description="For whom is counted. Default: `trigger`.")] = None

    def __post_init__(self) -> None:
        given = self.given
        if not given:
            raise BadSetting("failure_rate", "is missing, and so is everything else to look at", f"one of {_listed()}")
        if len(given) > 1:
            found = f"stands beside {given[0]}, and an alert looks at one thing"
            raise BadSetting(given[1], found, "make another alert for it")
        what = What(given[0])
        for name, holds in (("over", _COUNTS_OVER), ("min_runs", _RATES), ("by", COUNTED)):
            if getattr(self, name) is not None and what not in holds:
                raise BadSetting(name, f"has no effect beside {what.value}", "leave it out")

    @property
    def given(self) -> list[str]:
        """Return what it looks at."""
        return [name for name in _WHAT if getattr(self, name) not in (None, False, ())]

    def limit(self) -> float:
        """Return the bound."""
        value = getattr(self, self.given[0])
        return float(value) if isinstance(value, (int, float)) else 0.0


class AlertScopeTable(Struct, frozen=True, kw_only=True):
    """Whom an alert is about: all that is named here together. Where nothing is, everything."""

    tags: Annotated[
        tuple[str, ...], Meta(description="Triggers with one of these tags, their own or their job's.")
    ] = ()
    triggers: Annotated[tuple[TriggerName, ...], Meta(description="These triggers.")] = ()
    jobs: Annotated[tuple[JobName, ...], Meta(description="The triggers of these jobs.")] = ()
    sources: Annotated[tuple[SourceName, ...], Meta(description="These sources, and the triggers on them.")] = ()

    def scope(self) -> AlertScope:
        """Return it as the engine knows it."""
        return AlertScope(
            tags=frozenset(self.tags), triggers=frozenset(self.triggers), jobs=frozenset(self.jobs),
            sources=frozenset(self.sources),
        )  # fmt: skip


class AlertTable(Struct, frozen=True, kw_only=True):
    """When people are told that something is wrong, and when that is over; see docs/alerts.md."""

    when: Annotated[
        WhenTable | None,
        Meta(description="What is looked at, and when it is too much. One that is built in has it already."),
    ] = None
    notify: Annotated[
        tuple[NotifyName, ...], Meta(description="Who is told. Default: nobody, but the log and the API show it.")
    ] = ()
    scope: Annotated[AlertScopeTable, Meta(description="Whom it is about. Default: everything.")] = AlertScopeTable()
    severity: Annotated[
        Severity | None, Meta(description="How bad it is. Default: `warning`, or that of the one that is built in.")
    ] = None
    for_: Annotated[
        Duration | None, Meta(ge=0, description="It begins when it has held for so long. Default: at once.")
    ] = field(default=None, name="for")
    clear_for: Annotated[Duration, Meta(ge=0, description="It is over when it has not held for so long.")] = 60.0
    gather: Annotated[Duration, Meta(ge=0, description="What changes within so long is told in one message.")] = 10.0
    repeat: Annotated[
        Duration | Literal["never"], Meta(ge=60, description="What stays open is told again after so long.")
    ] = 4 * 3600.0
    recovery: Annotated[bool, Meta(description="Whether it is told that it is over.")] = True
    description: Annotated[str, Meta(description="For people; it stands in what is told.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it is looked at.")] = True

    def alert(self, name: str, defined_in: str) -> Alert:
        """Return it as the engine knows it; raise BadSetting."""
        standard = STANDARD.get(name)
        if self.when is None and standard is None:
            found = "is missing, and no alert of that name is built in"
            raise BadSetting("when", found, 'such as when = { failure_rate = 0.1, over = "5m" }')
        # With a rule of its own it is another alert, of which nothing is built in.
        base = standard if self.when is None else None
        made = _alert_of(name, self.when, defined_in) if base is None and self.when is not None else base
        assert made is not None  # noqa: S101 - there is one of the two
        scope = self.scope.scope()
        if not scope.is_all and made.what not in OF_RUNS | OF_SOURCES:
            raise BadSetting(
                "scope", f"has no effect on {made.what.value}, which is of the whole engine", "leave it out"
            )
        values = {key: getattr(made, key) for key in made.__struct_fields__}
        return Alert(**{
            **values, "scope": scope, "notify": tuple(dict.fromkeys(self.notify)),
            "severity": self.severity or made.severity, "for_s": made.for_s if self.for_ is None else self.for_,
            "clear_s": self.clear_for, "gather_s": self.gather,
            "repeat_s": None if isinstance(self.repeat, str) else self.repeat, "recovery": self.recovery,
            "description": self.description or made.description, "tags": self.tags, "enabled": self.enabled,
            "defined_in": defined_in,
        })  # fmt: skip


def _alert_of(name: str, when: WhenTable, defined_in: str) -> Alert:
    return Alert(
        name=name, what=What(when.given[0]), limit=when.limit(), states=frozenset(when.trigger_state),
        over_s=3600.0 if when.over is None else when.over, least=when.min_runs or 1, by=when.by or By.TRIGGER,
        defined_in=defined_in,
    )  # fmt: skip


def _standard(name: str, what: What, description: str, **fields: object) -> Alert:
    return Alert(name=name, what=what, description=description, builtin=True, **fields)  # type: ignore[arg-type]


STANDARD: Mapping[str, Alert] = {
    alert.name: alert
    for alert in (
        _standard("failing", What.FAILURES, "runs of a trigger fail again and again", limit=3),
        _standard("missed", What.MISSED, "due instants were missed", limit=1),
        _standard("late", What.DEADLINE, "what has a deadline did not succeed by then", severity=Severity.CRITICAL),
        _standard("silent", What.SILENT, "events that are expected do not come"),
        _standard("source", What.SOURCE_UNHEALTHY, "a source or timer does not work", for_s=300.0),
        _standard("condition", What.CONDITION_UNHEALTHY, "a condition can't be checked", for_s=600.0),
        _standard(
            "trigger", What.TRIGGER_STATE, "a trigger does not run any more",
            states=frozenset({"quarantined", "invalid"}),
        ),
        _standard("queue", What.QUEUE_AGE, "runs wait for very long", limit=3600.0),
        _standard("disk", What.DISK_SHARE, "a disk is nearly full", limit=0.05, severity=Severity.CRITICAL),
        _standard(
            "lease", What.LEASE_AGE, "the store can't be written", limit=60.0, severity=Severity.CRITICAL
        ),
        _standard("loop", What.LOOP_LAG, "something holds up the engine", limit=5.0),
        _standard("undelivered", What.UNDELIVERED, "somebody could not be told", limit=1),
    )
}  # fmt: skip
"""The alerts that are there without configuration: nobody is told, but the log and the API show them."""


def deadline_of(text: str) -> Deadline:
    """Read a deadline: a time of the day, or how long after the due instant; raise BadSetting."""
    try:
        if ":" in text:
            return Deadline(at=time.fromisoformat(text), after_s=None)
        after_s = parse_duration(text)
    except ValueError:
        after_s = 0.0
    if after_s <= 0:
        hint = 'a time of the day, such as "05:00", or how long after the due instant, such as "2h"'
        raise BadSetting("deadline", f'found "{text}", which is none', hint)
    return Deadline(at=None, after_s=after_s)


def _listed() -> str:
    return ", ".join(_WHAT)
