"""An alert as the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.alerts.kept import Acknowledgement, Mute
from engine.clock import rfc3339
from engine.decide.alerts import COUNTED, Alert, By, Course, Standing, What
from engine.units import format_duration, format_size


def alert_view(
    alert: Alert, course: Course | None, *, mute: Mute | None, acknowledged: Acknowledgement | None,
    problem: str | None, looked_at: datetime | None,
) -> dict[str, Any]:  # fmt: skip
    """Return an alert: what it looks at, and for whom it is open."""
    standings = [] if course is None else sorted(course.standings.values(), key=lambda one: one.since)
    open_now = sum(one.is_open for one in standings)
    return {
        "name": alert.name,
        "state": "disabled" if not alert.enabled else "open" if open_now else "pending" if standings else "ok",
        "open": open_now,
        "severity": alert.severity.value,
        "when": said_of(alert),
        "what": alert.what.value,
        "for": format_duration(alert.for_s),
        "clear_for": format_duration(alert.clear_s),
        "gather": format_duration(alert.gather_s),
        "repeat": "never" if alert.repeat_s is None else format_duration(alert.repeat_s),
        "recovery": alert.recovery,
        "scope": {
            "tags": sorted(alert.scope.tags), "triggers": sorted(alert.scope.triggers),
            "jobs": sorted(alert.scope.jobs), "sources": sorted(alert.scope.sources),
        },
        "notify": list(alert.notify),
        "subjects": [_standing_view(one) for one in standings],
        "muted": mute and {
            "since": rfc3339(mute.since), "until": rfc3339(mute.until), "who": mute.who, "reason": mute.reason
        },
        "acknowledged": acknowledged and {
            "at": rfc3339(acknowledged.at), "who": acknowledged.who, "reason": acknowledged.reason
        },
        "problem": problem,
        "looked_at": None if looked_at is None else rfc3339(looked_at),
        "builtin": alert.builtin,
        "description": alert.description,
        "tags": list(alert.tags),
        "enabled": alert.enabled,
        "defined_in": alert.defined_in,
    }  # fmt: skip


def _standing_view(one: Standing) -> dict[str, Any]:
    state = "over" if one.over_at is not None else "open" if one.opened_at is not None else "pending"
    return {
        "subject": one.subject, "state": state, "text": one.text, "value": one.value, "since": rfc3339(one.since),
        "opened_at": None if one.opened_at is None else rfc3339(one.opened_at),
        "told_at": None if one.told_at is None else rfc3339(one.told_at),
    }  # fmt: skip


def said_of(alert: Alert) -> str:
    """Say when an alert opens."""
    limit, over = alert.limit, format_duration(alert.over_s)
    whose = {By.TRIGGER: "of a trigger", By.JOB: "of a job", By.ALL: "in all"}[alert.by]
    was, are, wait = ("was", "is", "waits") if limit == 1 else ("were", "are", "wait")
    said = {
        What.FAILURE_RATE: f"{limit:.0%} of the runs {whose} failed in {over}",
        What.FAILURES: f"{_counted(limit, 'run')} of a trigger failed in a row",
        What.MISSED: f"{_counted(limit, 'due instant')} {whose} {was} missed in {over}",
        What.MISFIRE_RATE: f"{limit:.0%} of what was to run {whose} was missed in {over}",
        What.DURATION: f"a run has been running for {format_duration(limit)}",
        What.SLOWER: f"a run has been running for {limit:g} times as long as usually",
        What.DEADLINE: "a trigger did not succeed by its deadline",
        What.SILENT: "events that are expected do not come",
        What.SOURCE_UNHEALTHY: "a source or timer is in trouble",
        What.CONDITION_UNHEALTHY: "a condition can't be checked",
        What.TRIGGER_STATE: f"a trigger is {' or '.join(sorted(alert.states))}",
        What.QUEUE_AGE: f"a run has been ready for {format_duration(limit)}",
        What.QUEUE_DEPTH: f"{_counted(limit, 'run')} {are} ready and {wait}",
        What.DISK_FREE: f"less than {format_size(int(limit))} are free on a disk",
        What.DISK_SHARE: f"less than {limit:.0%} of a disk is free",
        What.LEASE_AGE: f"the lease was not renewed for {format_duration(limit)}",
        What.LOOP_LAG: f"the event loop was held up for {format_duration(limit)}",
        What.UNDELIVERED: f"{_counted(limit, 'message')} to somebody {was} given up in {over}",
    }[alert.what]
    least = f", of {alert.least} at least" if alert.what in COUNTED and alert.least > 1 else ""
    held = f", for {format_duration(alert.for_s)}" if alert.for_s else ""
    return f"{said}{least}{held}"


def _counted(count: float, what: str) -> str:
    return f"{count:g} {what}" if count == 1 else f"{count:g} {what}s"
