"""One trigger whose interval is adapted: what it is, what was seen of it, and what of that outlives the engine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.decide.adaptive import Decision, Pace, Sample, Seen
from engine.decide.attempts import AttemptEnd
from engine.events import Event
from engine.runs import RunState
from engine.triggers import Adaptive, Mode, Trigger

ADAPTIVE_SOURCE = "engine:adaptive"
"""The source of the events that tell of changes; under this id the store remembers them, by trigger."""

CHANGED, PROPOSED = "engine.interval.changed", "engine.interval.proposed"
FROZEN, UNFROZEN = "engine.interval.frozen", "engine.interval.unfrozen"

LARGEST = 1e15
"""A volume beyond is none; and nothing that is averaged comes near to what a float can't hold."""

MOST_CHANGES = 10
"""So many of the latest changes are remembered with a trigger; all of them are events."""

UNDECIDED = "nothing was decided yet"


class Change(Struct, frozen=True, kw_only=True):
    """One change of an interval, or in shadow mode one that would have been made."""

    at: datetime
    old_s: float
    new_s: float
    rule: str
    why: str


class Freeze(Struct, frozen=True, kw_only=True):
    """Since when an interval is left as it is, and why."""

    since: datetime
    reason: str


class Kept(Struct, frozen=True, kw_only=True):
    """What of an adaptive trigger outlives the engine. `first` begins the grid of its timer, where that was moved.

    It holds for the configured interval `base_s` alone: with another one the adapting begins anew.
    """

    base_s: float
    pace: Pace
    first: datetime | None = None
    frozen: Freeze | None = None
    changes: tuple[Change, ...] = ()


def kept_interval_s(kept: Kept, settings: Adaptive, base_s: float | None) -> float | None:
    """Return the interval with which a trigger goes on after a start; None where the configured one, or the mode, was
    changed since."""
    if kept.base_s != base_s or settings.mode is not Mode.ON:
        return None
    return min(max(kept.pace.interval_s, settings.min_s), settings.max_s)


def said_of_kept(kept: Kept) -> str:
    """Say what is known of a trigger's interval until something is decided again."""
    if kept.frozen is not None:
        return said_of_freeze("frozen", kept.frozen.reason)
    if kept.changes:
        return f"nothing was decided since the trigger was loaded; before that: {kept.changes[-1].why}"
    return UNDECIDED


def said_of_freeze(word: str, reason: str) -> str:
    """Say that a trigger's interval is `frozen` or `adapted again`, and why."""
    return f"it is {word}{reason and ': '}{reason}"


class Case(Struct):
    """One adaptive trigger. `since_s` is when its interval changed last, by the monotonic clock, or when it came.

    `heard_s` is when a run of it ended last; `why` says what was decided last; `proposed_s` is what was proposed last,
    in shadow mode.
    """

    trigger: Trigger
    settings: Adaptive
    base_s: float
    on_timer: bool
    pace: Pace
    since_s: float
    heard_s: float
    first: datetime | None = None
    frozen: Freeze | None = None
    changes: tuple[Change, ...] = ()
    seen: Seen = Seen()
    why: str = UNDECIDED
    proposed_s: float | None = None

    @property
    def name(self) -> str:
        return self.trigger.name

    def kept(self) -> Kept:
        """Return what is to be remembered of it."""
        return Kept(base_s=self.base_s, pace=self.pace, first=self.first, frozen=self.frozen, changes=self.changes)

    def begin(self, now_s: float) -> None:
        """Begin to learn anew, as after each change."""
        self.seen, self.since_s = Seen(), now_s

    def inputs(self) -> dict[str, Any]:
        """Return what was seen since the last change, each with its limit."""
        settings, seen = self.settings, self.seen
        found: dict[str, Any] = {"runs": seen.runs}
        for name, mean, limit in (
            ("success_rate", seen.failures, settings.success_rate_min),
            ("duration_s", seen.duration_s, settings.duration_max_s),
            ("cpu", seen.cpu, settings.cpu_max),
            ("memory", seen.memory, settings.memory_max),
            ("load", seen.load, settings.load_max),
            ("volume", seen.volume, settings.volume_target),
        ):
            if limit is not None:
                value = round(1 - mean.value if name == "success_rate" else mean.value, 6) if mean.count else None
                found[name] = {"value": value, "limit": limit}
        return found

    def view(self, in_force_s: float) -> dict[str, Any]:
        """Return it as the API shows it with its trigger; `in_force_s` is the interval that its source has."""
        latest = self.changes[-1] if self.changes else None
        return {
            "interval_s": self.pace.interval_s,
            "in_force_s": in_force_s,
            "base_s": self.base_s,
            "min_s": self.settings.min_s,
            "max_s": self.settings.max_s,
            "mode": self.settings.mode.value,
            "frozen": None if self.frozen is None else freeze_view(self.frozen),
            "last_change": None if latest is None else change_view(latest),
            "why": self.why,
        }

    def event(self, kind: str, decision: Decision) -> Event:
        """Return the event that tells of a change, or of one that is only proposed: that is its kind."""
        data = {
            "old_s": self.pace.interval_s,
            "new_s": decision.pace.interval_s,
            "base_s": self.base_s,
            "rule": decision.rule,
            "reason": decision.why,
            "inputs": self.inputs(),
        }
        return Event(type=kind, subject=self.name, data=data)


def sample_of(end: AttemptEnd, settings: Adaptive) -> Sample | None:
    """Return what the end of a run shows of it; None where it tells nothing, as it was cut off or is not over."""
    state = end.step.state
    if state not in (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT):
        return None
    took_s = (end.attempt.finished_at - end.attempt.started_at).total_seconds()
    return Sample(
        failed=state is not RunState.SUCCEEDED,
        # One that failed at once would tell of quick runs.
        duration_s=None if state is RunState.FAILED else max(took_s, 0.0),
        volume=_number(end.outputs, settings.volume),
    )


def _number(outputs: Mapping[str, Any] | None, name: str | None) -> float | None:
    """Return an output as a number, also where it is the text of one, as from a program; None where it is none."""
    value = None if outputs is None or name is None else outputs.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= LARGEST else None


def change_view(change: Change) -> dict[str, Any]:
    """Return a change as the API shows it."""
    return {
        "at": rfc3339(change.at), "old_s": change.old_s, "new_s": change.new_s, "rule": change.rule,
        "reason": change.why,
    }  # fmt: skip


def freeze_view(freeze: Freeze) -> dict[str, Any]:
    """Return a freeze as the API shows it."""
    return {"since": rfc3339(freeze.since), "reason": freeze.reason}
