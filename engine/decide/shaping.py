"""Debounce: events that come close together become one run.

A window opens with the first event and belongs to a pending run. Each further event of the same trigger and
key joins that run and puts it off, but not past `max_wait` after the first. When the time has come the window
closes, and the next event opens a new one. (The rule is that of lodash's `debounce` with `maxWait`, trailing
edge.)
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from engine.runs import Run
from engine.triggers import Debounce


class Window(Struct):
    """An open debounce window: its run, when that is due, and the last instant to which it can be put off."""

    run: str
    trigger: str
    key: str
    due_at: datetime
    closes_at: datetime | None
    priority: int
    count: int = 1


def first_due(rule: Debounce, at: datetime) -> tuple[datetime, datetime | None]:
    """Return, for a window opened by an event at `at`, when its run is due and when it closes for good."""
    closes_at = None if rule.max_wait_s is None else at + timedelta(seconds=rule.max_wait_s)
    return next_due(rule, at, closes_at), closes_at


def next_due(rule: Debounce, at: datetime, closes_at: datetime | None) -> datetime:
    """Return when a run is due after one more event at `at`: `wait` later, but not past `closes_at`."""
    due_at = at + timedelta(seconds=rule.wait_s)
    return due_at if closes_at is None else min(due_at, closes_at)


class Windows:
    """All open windows, by trigger and key and by run."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Take up the windows of pending runs, with their original deadlines."""
        self._by_key: dict[tuple[str, str], Window] = {}
        self._by_run: dict[str, Window] = {}
        for run in runs:
            if run.window is not None and run.due_at is not None:
                self.open(
                    Window(
                        run=run.id,
                        trigger=run.trigger,
                        key=run.window,
                        due_at=run.due_at,
                        closes_at=run.closes_at,
                        priority=run.priority,
                        count=run.event_count,
                    )
                )

    def __len__(self) -> int:
        return len(self._by_run)

    def find(self, trigger: str, key: str) -> Window | None:
        """Return the open window of a trigger and key."""
        return self._by_key.get((trigger, key))

    def of_run(self, run_id: str) -> Window | None:
        """Return the window that a run keeps open."""
        return self._by_run.get(run_id)

    def open(self, window: Window) -> None:
        """Add a window; it is the one that further events of its trigger and key join."""
        self._by_key[window.trigger, window.key] = window
        self._by_run[window.run] = window

    def close(self, window: Window) -> None:
        """Remove a window; what comes later opens another."""
        self._by_run.pop(window.run, None)
        if self._by_key.get((window.trigger, window.key)) is window:
            del self._by_key[window.trigger, window.key]
