"""Debounce and batch: events that come close together become one run.

A window opens with the first event and belongs to a pending run. Each further event of the same trigger and
key joins that run. A debounce is put off by it, but not past `max_wait` after the first; a batch is due `wait` after
its first event, whatever comes. When the time has come, or the window is full, it closes, and the next event opens a
new one. (The rule is that of lodash's `debounce` with `maxWait`; the batch is a debounce whose `wait` and `maxWait` are
equal.)

With the edge `leading` or `both` the first event runs at once, and a *mark* takes the place of the window: until its
time is over events are dropped (`leading`), or gathered for a run of their own (`both`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.events import Cause, Event
from engine.runs import Run, RunState, Step
from engine.triggers import Batch, Debounce, Edge, Take, Trigger
from engine.units import format_duration


class Window(Struct):
    """An open window: its run, when that is due, and the last instant to which it can be put off.

    `cause` is that of its events with the longest chain.
    """

    run: str
    trigger: str
    key: str
    due_at: datetime
    closes_at: datetime | None
    priority: int
    count: int = 1
    size_bytes: int = 0
    cause: Cause | None = None

    @property
    def is_settled(self) -> bool:
        """Whether its run may become ready: what it has does not hang on what may not be stored."""
        return True

    def close(self, now: datetime) -> Step | None:
        """Take note that its time is over; return how its run ends, or None: it becomes ready."""
        return None


def after_window(run: Run, window: Window) -> Run:
    """Return a run, known as it was at some time while its window was open, as it is when that is over."""
    expires_at = run.expires_at
    if expires_at is not None and run.due_at is not None:
        expires_at += window.due_at - run.due_at
    return replace(
        run, event_count=window.count, event_bytes=window.size_bytes, priority=window.priority, window=None,
        due_at=window.due_at, expires_at=expires_at, cause=window.cause,
    )  # fmt: skip


def taken(events: Sequence[Event], take: Take) -> Event:
    """Return the event of a run that has several, oldest first, with the data that the run gets."""
    last = events[-1]
    if take is Take.FIRST:
        return events[0]
    if take is Take.ALL:
        return replace(last, data=[event.data for event in events])
    if take is Take.MERGE:
        merged: dict[str, Any] = {}
        for event in events:
            if event.data is not None:
                merged.update(event.data if isinstance(event.data, dict) else {"value": event.data})
        return replace(last, data=merged)
    return last


def said_of_turn(run: Run) -> tuple[str, str]:
    """Return the code and sentence of a run whose time has come, by what it waited for."""
    if run.state is RunState.RETRYING:
        code, text = "retry", "retry is due"
    elif run.code == "throttle":
        code, text = "throttled", "its time has come"
    elif run.code == "batch":
        code, text = "batched", "the batch is full, or its time is over"
    elif run.code == "join_waits":
        code, text = "join_complete", "all inputs of the join have come"
    else:
        code, text = "debounced", "window closed"
    return code, text


class Gathering(Struct, frozen=True, kw_only=True):
    """How events are gathered: what a debounce and a batch come to. `gate` names which of the two it is."""

    gate: str
    wait_s: float
    max_wait_s: float | None = None
    max_events: int | None = None
    max_bytes: int | None = None
    edge: Edge = Edge.TRAILING
    take: Take = Take.LAST

    def is_full(self, count: int, size_bytes: int) -> bool:
        """Tell whether so many events, with data of so many bytes in all, are enough to start."""
        return (self.max_events is not None and count >= self.max_events) or (
            self.max_bytes is not None and size_bytes >= self.max_bytes
        )

    @property
    def said(self) -> str:
        """What a run waits for, in words."""
        if self.gate == "batch":
            return f"gathers up to {self.max_events} events for {format_duration(self.wait_s)} (batch)"
        return f"gathers events for {format_duration(self.wait_s)} (debounce)"


def gathering_of(trigger: Trigger) -> Gathering | None:
    """Return how the events of a trigger are gathered, None where each runs for itself."""
    if trigger.debounce is not None:
        return of_debounce(trigger.debounce)
    return None if trigger.batch is None else of_batch(trigger.batch)


def of_debounce(rule: Debounce) -> Gathering:
    """Return how a debounce gathers."""
    return Gathering(
        gate="debounce", wait_s=rule.wait_s, max_wait_s=rule.max_wait_s, max_events=rule.max_events, edge=rule.edge,
        take=rule.take,
    )  # fmt: skip


def of_batch(rule: Batch) -> Gathering:
    """Return how a batch gathers: it is due `wait` after the first event, whatever follows."""
    return Gathering(
        gate="batch", wait_s=rule.wait_s, max_wait_s=rule.wait_s, max_events=rule.size, max_bytes=rule.size_bytes,
        take=rule.take,
    )  # fmt: skip


def first_due(rule: Gathering, at: datetime) -> tuple[datetime, datetime | None]:
    """Return, for a window opened by an event at `at`, when its run is due and when it closes for good."""
    closes_at = None if rule.max_wait_s is None else at + timedelta(seconds=rule.max_wait_s)
    return next_due(rule, at, closes_at), closes_at


def next_due(rule: Gathering, at: datetime, closes_at: datetime | None) -> datetime:
    """Return when a run is due after one more event at `at`: `wait` later, but not past `closes_at`."""
    due_at = at + timedelta(seconds=rule.wait_s)
    return due_at if closes_at is None else min(due_at, closes_at)


class Windows:
    """All open windows, by trigger and key and by run.

    A full one is *sealed*: it is known by its run until that is made ready, and nothing joins it any more.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Take up the windows of pending runs, with their original deadlines."""
        self._by_key: dict[tuple[str, str], Window] = {}
        self._by_run: dict[str, Window] = {}
        self._of: dict[str, dict[str, Window]] = {}
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
                        size_bytes=run.event_bytes,
                        cause=run.cause,
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

    def of_trigger(self, trigger: str) -> Collection[Window]:
        """Return the windows of a trigger that events may join, as they were opened."""
        return self._of.get(trigger, {}).values()

    def open(self, window: Window) -> None:
        """Add a window; it is the one that further events of its trigger and key join."""
        before = self._by_key.get((window.trigger, window.key))
        if before is not None:
            self.seal(before)
        self._by_key[window.trigger, window.key] = window
        self._by_run[window.run] = window
        self._of.setdefault(window.trigger, {})[window.run] = window

    def seal(self, window: Window) -> None:
        """Let nothing join a window any more; it is still known by its run."""
        if self._by_key.get((window.trigger, window.key)) is window:
            del self._by_key[window.trigger, window.key]
            mine = self._of[window.trigger]
            del mine[window.run]
            if not mine:
                del self._of[window.trigger]

    def unseal(self, window: Window) -> None:
        """Let events join a window again, where it is not closed and none has taken its place."""
        place = (window.trigger, window.key)
        if window.run in self._by_run and place not in self._by_key:
            self._by_key[place] = window
            self._of.setdefault(window.trigger, {})[window.run] = window

    def close(self, window: Window) -> None:
        """Remove a window; what comes later opens another."""
        self._by_run.pop(window.run, None)
        self.seal(window)
