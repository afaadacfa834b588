"""Periods: from when until when something kept a trigger from running, made of the spans that were noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.spans import Span

AWAY = "engine_away"
STANDSTILL = "standstill"
DISABLED = "disabled"
NOT_THERE = "not_there"
OTHER = "other_schedule"
PAUSED = "paused"
PURGED = "purged"
TROUBLE = "source_trouble"
"""What kept it: no engine ran; one stood still; the trigger was disabled, not there, or on something else; a pause
held; its source was in trouble. `PURGED` kept nothing from running: what was recorded of that time is gone."""


class Period(Struct, frozen=True, kw_only=True):
    """From `start`, where that is known, to before `end`, where it has one, something was so; see the codes above."""

    code: str
    start: datetime | None
    end: datetime | None
    said: str

    def holds(self, at: datetime) -> bool:
        """Tell whether it held at that instant."""
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)

    def meets(self, first: datetime, last: datetime) -> bool:
        """Tell whether some of it lies between two instants, both included."""
        return (self.start is None or self.start <= last) and (self.end is None or self.end > first)

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "code": self.code,
            "from": None if self.start is None else rfc3339(self.start),
            "to": None if self.end is None else rfc3339(self.end),
            "reason": self.said,
        }


class Noted(Struct, frozen=True, kw_only=True):
    """The spans that concern one trigger, each kind by its beginnings; `first` is the first of the trigger's own.

    What was recorded before `purged_before` may have been removed since.
    """

    lives: Sequence[Span] = ()
    standstills: Sequence[Span] = ()
    trigger: Sequence[Span] = ()
    first: Span | None = None
    pauses: Sequence[Span] = ()
    troubles: Sequence[Span] = ()
    purged_before: datetime | None = None


def periods_of(noted: Noted, *, trigger: str, on: str, alive: bool) -> list[Period]:
    """Return the periods by their beginnings.

    `on` is what the trigger is on now, and `alive` tells whether an engine runs now.
    """
    found = [
        *_away(noted.lives, alive=alive),
        *_own(noted, trigger, on),
        *_purged(noted.purged_before),
        *[
            Period(
                code=STANDSTILL, start=span.began_at, end=span.ended_at,
                said=f"the engine did nothing from {rfc3339(span.began_at)} to {_at(span.ended_at)}: it or the machine "
                "stood still, or the clock was set",
            )
            for span in noted.standstills
        ],
        *[
            Period(code=PAUSED, start=span.began_at, end=span.ended_at, said=_said_of_pause(span))
            for span in noted.pauses
        ],
        *[
            Period(
                code=TROUBLE, start=span.began_at, end=span.ended_at,
                said=f"its source was in trouble from {rfc3339(span.began_at)} to {_at(span.ended_at)}: "
                f"{span.detail['problem']}",
            )
            for span in noted.troubles
        ],
    ]  # fmt: skip
    return sorted(found, key=lambda period: (period.start is not None, period.start, period.code))


def _away(lives: Sequence[Span], *, alive: bool) -> Iterator[Period]:
    """Yield when no engine ran, between those that did and, where none runs now, after the last one."""
    for place, life in enumerate(lives):
        following = lives[place + 1] if place + 1 < len(lives) else None
        ended_at = life.ended_at or life.began_at
        if following is None and alive:
            return
        if following is not None and following.began_at <= ended_at:
            continue
        how = {
            "stopped": f"it was stopped at {rfc3339(ended_at)}",
            "failed": f"it ended at {rfc3339(ended_at)}, as something failed: its log says what",
        }.get(life.detail.get("end", ""))
        killed = "it was killed (as by a second Ctrl-C), or its machine went down"
        how = how or f"{killed}, and was seen last at {rfc3339(ended_at)}"
        again = "has not been started since" if following is None else f"was started at {rfc3339(following.began_at)}"
        yield Period(
            code=AWAY, start=ended_at, end=None if following is None else following.began_at,
            said=f"the engine was not running: {how}, and {again}",
        )  # fmt: skip


def _own(noted: Noted, trigger: str, on: str) -> Iterator[Period]:
    """Yield when the trigger was not there, was disabled, or had another schedule."""
    first = noted.first
    if first is not None:
        yield Period(
            code=NOT_THERE, start=None, end=first.began_at,
            said=f"trigger {trigger} was first seen at {rfc3339(first.began_at)}",
        )  # fmt: skip
    for place, span in enumerate(noted.trigger):
        following = noted.trigger[place + 1] if place + 1 < len(noted.trigger) else None
        if span.ended_at is not None and following is not None and following.began_at > span.ended_at:
            yield Period(
                code=NOT_THERE, start=span.ended_at, end=following.began_at,
                said=f"trigger {trigger} was not there from {rfc3339(span.ended_at)} to {rfc3339(following.began_at)}",
            )  # fmt: skip
        between = f"from {rfc3339(span.began_at)} to {_at(span.ended_at)}"
        if (why := span.detail.get("disabled")) is not None:
            said = f"{why.replace(' is disabled', ' was disabled', 1)} {between}"
            yield Period(code=DISABLED, start=span.began_at, end=span.ended_at, said=said)
        elif span.detail.get("on") != on:
            said = f"trigger {trigger} was on {span.detail.get('on')} {between}"
            yield Period(code=OTHER, start=span.began_at, end=span.ended_at, said=said)


def _purged(before: datetime | None) -> Iterator[Period]:
    """Yield the time of which records may have been removed."""
    if before is not None:
        said = f"what was recorded before {rfc3339(before)} was removed, as it was kept long enough"
        yield Period(code=PURGED, start=None, end=before, said=said)


def _said_of_pause(span: Span) -> str:
    said = str(span.detail.get("said", "it is paused")).replace(" is paused", " was paused", 1)
    by = f", by {span.detail['who']}" if span.detail.get("who") else ""
    resumed = f"; {span.detail['resumed_by']} resumed it" if span.detail.get("resumed_by") else ""
    return f"{said} (from {rfc3339(span.began_at)} to {_at(span.ended_at)}{by}{resumed})"


def _at(at: datetime | None) -> str:
    return "now" if at is None else rfc3339(at)
