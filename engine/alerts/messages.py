"""What is told of alerts: in words for people, and as data for programs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from engine.clock import rfc3339
from engine.decide.alerts import Alert, Round, Severity, Standing
from engine.plugin.channels import Mood
from engine.units import format_span

MOST_NAMED = 20
"""So many subjects are named in one message."""

LONGEST_TEXT = 4_000

TOLD_FOR_S = 60.0
"""What has held for less just began: nobody has to be told for how long."""

OPENED, RECOVERED, REPEATED, TEST = "opened", "recovered", "repeated", "test"
"""What a delivery tells of an alert."""

TYPE_PREFIX = "engine.alert."

_MOODS = {Severity.INFO: Mood.INFO, Severity.WARNING: Mood.WARNING, Severity.CRITICAL: Mood.FAILURE}


def event_of(told: Round) -> str:
    """Return what a round tells, in a word."""
    if told.began:
        return OPENED
    return RECOVERED if told.over else REPEATED


def told_of(alert: Alert, told: Round, now: datetime) -> dict[str, Any]:
    """Return the message of a round; see `engine.plugin.Message`."""
    event = event_of(told)
    lines: list[str] = [*_section("", told.began, now)]
    if told.over:
        lines += _section("Over:" if told.began else "", told.over, now, over=True)
    if told.still:
        lines += _section("Still open:" if told.began or told.over else "", told.still, now)
    if alert.description and event != RECOVERED:  # it says what is wrong
        lines += ["", alert.description]
    first = told.began or told.over or told.still
    what = f"{first[0].subject}: {first[0].text}" if len(first) == 1 else f"{len(first)} of them"
    left = f"; {len(told.still)} still open" if told.still else ""
    titles = {
        OPENED: f"[{alert.severity}] {alert.name}: {what}",
        RECOVERED: f"[over] {alert.name}: {first[0].subject if len(first) == 1 else f'{len(first)} of them'}{left}",
        REPEATED: f"[{alert.severity}, still] {alert.name}: {what}",
    }
    mood = Mood.SUCCESS if event == RECOVERED and not left else _MOODS[alert.severity]
    return {
        "type": f"{TYPE_PREFIX}{event}", "title": titles[event][:500], "text": "\n".join(lines)[:LONGEST_TEXT],
        "mood": mood.value, "data": {
            "alert": alert.name, "severity": alert.severity.value, "event": event,
            "began": _data(told.began), "over": _data(told.over), "still": _data(told.still),
        },
    }  # fmt: skip


def test_of(alert: Alert, who: str) -> dict[str, Any]:
    """Return the message by which it is tried whether somebody is reached."""
    by = f" by {who}" if who else ""
    return {
        "type": f"{TYPE_PREFIX}{TEST}", "title": f"[test] {alert.name}: nothing is wrong",
        "text": f"This is a test of alert {alert.name}, asked for{by}.\n{alert.description}".strip(),
        "mood": Mood.INFO.value, "data": {"alert": alert.name, "severity": alert.severity.value, "event": TEST},
    }  # fmt: skip


def _section(title: str, standings: Iterable[Standing], now: datetime, *, over: bool = False) -> list[str]:
    shown = list(standings)
    lines = ([title] if title else []) + [
        f"{one.subject}: {one.text}{_for(one, now)}"
        if not over
        else f"{one.subject}: over after {format_span(max((now - one.since).total_seconds(), 0.0))}; it was: {one.text}"
        for one in shown[:MOST_NAMED]
    ]
    return lines + ([f"and {len(shown) - MOST_NAMED} more"] if len(shown) > MOST_NAMED else [])


def _for(one: Standing, now: datetime) -> str:
    for_s = (now - one.since).total_seconds()
    return f" (for {format_span(for_s)})" if for_s >= TOLD_FOR_S else ""


def _data(standings: Iterable[Standing]) -> list[dict[str, Any]]:
    return [
        {"subject": one.subject, "text": one.text, "value": one.value, "since": rfc3339(one.since)}
        for one in list(standings)[:MOST_NAMED]
    ]
