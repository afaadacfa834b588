"""Debounce: when the window of a run that gathers events closes."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.triggers import Debounce


def open_window(rule: Debounce, at: datetime) -> tuple[datetime, datetime | None]:
    """Return, for a window opened by an event at `at`, when its run is due and when it closes for good."""
    closes_at = None if rule.max_wait_s is None else at + timedelta(seconds=rule.max_wait_s)
    return extend_window(rule, at, closes_at), closes_at


def extend_window(rule: Debounce, at: datetime, closes_at: datetime | None) -> datetime:
    """Return when a run is due after one more event at `at`: `wait` later, but not past `closes_at`."""
    due_at = at + timedelta(seconds=rule.wait_s)
    return due_at if closes_at is None else min(due_at, closes_at)
