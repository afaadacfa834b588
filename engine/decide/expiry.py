"""Expiry: a run that has not begun in time is ended, as it would come too late."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.runs import Run, RunState, Step
from engine.units import format_span


def is_over(run: Run, now: datetime) -> bool:
    """Tell whether a run has waited too long."""
    return run.expires_at is not None and run.expires_at <= now


def expired(run: Run, now: datetime) -> Step:
    """Return the end of a run that has waited too long."""
    late = now - (run.expires_at or now)
    waited = now - run.created_at - max(late, timedelta())
    text = f"expired: it had not begun {format_span(waited.total_seconds())} after its event"
    return Step(at=now, state=RunState.EXPIRED, code="expired", reason=text)
