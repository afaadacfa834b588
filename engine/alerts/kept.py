"""What the store remembers of alerts: what was told to be open, who has muted or acknowledged what, and counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from engine.decide.alerts import Standing
from engine.decide.ends import Streak

ALERTS_SOURCE = "engine:alerts"
"""Under this id it is remembered."""

OPEN, MUTE, ACKNOWLEDGED, FAILURES, UNTIL = "open:", "mute:", "ack:", "row:", "until"
LONGEST_KEY = 700


class Kept(Struct, frozen=True, kw_only=True):
    """An alert that was told to be open, for one subject."""

    alert: str
    subject: str
    value: float
    text: str
    since: datetime
    opened_at: datetime
    told_at: datetime

    def standing(self, now_s: float) -> Standing:
        """Return how it stands, as far as is known before anything is looked at."""
        return Standing(
            subject=self.subject, value=self.value, text=self.text, since=self.since, since_s=now_s,
            opened_at=self.opened_at, told_at=self.told_at,
        )  # fmt: skip


class Mute(Struct, frozen=True, kw_only=True):
    """That nobody is told of an alert until an instant."""

    since: datetime
    until: datetime
    who: str
    reason: str


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """That somebody has taken on what is open of an alert: it is not told again."""

    at: datetime
    who: str
    reason: str


def open_key(alert: str, subject: str) -> str:
    """Return the key of an alert that is open for a subject; long ones are made short."""
    key = f"{OPEN}{alert}:{subject}"
    if len(key) <= LONGEST_KEY:
        return key
    return f"{key[:LONGEST_KEY]} {blake2b(key.encode(), digest_size=8).hexdigest()}"


def open_value(alert: str, one: Standing, now: datetime) -> Any:
    """Return what is remembered of one that is told to be open now."""
    return msgspec.to_builtins(
        Kept(
            alert=alert, subject=one.subject, value=one.value, text=one.text, since=one.since,
            opened_at=one.opened_at or now, told_at=now,
        )
    )  # fmt: skip


def streak_values(streaks: Mapping[str, Streak], triggers: set[str]) -> dict[str, Any]:
    """Return what is remembered of failures in a row of triggers."""
    return {
        f"{FAILURES}{name}": None if name not in streaks else msgspec.to_builtins(streaks[name]) for name in triggers
    }  # fmt: skip
