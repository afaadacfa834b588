"""Announcing: who looks at alerts now hears at once when one changes; people who are away are told by messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from engine.clock import rfc3339
from engine.decide.alerts import Alert, Standing, Turn

OPENED, OVER, MUTED, UNMUTED, ACKNOWLEDGED, GONE = "opened", "over", "muted", "unmuted", "acknowledged", "gone"

_TRIGGER, _JOB = "trigger ", "job "


class Announce(Protocol):
    """Takes what is announced, and the job and the triggers that it is about."""

    def __call__(self, data: dict[str, Any], *, job: str | None = None, triggers: tuple[str, ...] = ()) -> None: ...


def to_nobody(data: dict[str, Any], *, job: str | None = None, triggers: tuple[str, ...] = ()) -> None:
    """Announce nothing: nobody can listen yet."""


def announce_turn(announce: Announce, alert: Alert, turn: Turn, now: datetime) -> None:
    """Announce that an alert opened for a subject, or is over for it."""
    one: Standing = turn.standing
    subject = one.subject
    announce(
        {**_about(alert.name, OPENED if turn.opened else OVER, now), "severity": alert.severity.value,
         "subject": subject, "text": one.text},
        job=subject.removeprefix(_JOB) if subject.startswith(_JOB) else None,
        triggers=(subject.removeprefix(_TRIGGER),) if subject.startswith(_TRIGGER) else (),
    )  # fmt: skip


def announce_change(announce: Announce, name: str, changed: str, now: datetime) -> None:
    """Announce that an alert was muted, taken on, or is not there any more."""
    announce({**_about(name, changed, now), "severity": None, "subject": None, "text": None})


def _about(name: str, changed: str, now: datetime) -> dict[str, Any]:
    return {"name": name, "changed": changed, "at": rfc3339(now)}
