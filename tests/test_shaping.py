"""Debounce windows: when they are due, when they close, and how they come back after a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.shaping import Window, Windows, first_due, next_due, of_debounce
from engine.runs import Run, RunState
from engine.testing.store_contract.material import a_run, an_event
from engine.triggers import Debounce

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def window(run: str = "run-1", *, key: str = "", trigger: str = "orders", due_s: float = 10.0) -> Window:
    return Window(run=run, trigger=trigger, key=key, due_at=at(due_s), closes_at=None, priority=5)


def pending(**fields: Any) -> Run:
    return a_run(an_event(), state=RunState.PENDING, **fields)


# When


def test_a_window_is_due_a_wait_after_its_latest_event() -> None:
    rule = of_debounce(Debounce(wait_s=2.0))
    due_at, closes_at = first_due(rule, at(0))
    assert (due_at, closes_at) == (at(2), None)
    assert next_due(rule, at(1.5), closes_at) == at(3.5)


def test_events_put_a_window_off_up_to_max_wait_after_the_first_and_no_further() -> None:
    rule = of_debounce(Debounce(wait_s=2.0, max_wait_s=5.0))
    due_at, closes_at = first_due(rule, at(0))
    assert (due_at, closes_at) == (at(2), at(5))
    assert next_due(rule, at(2.5), closes_at) == at(4.5)
    assert next_due(rule, at(4.0), closes_at) == at(5)
    assert next_due(rule, at(5.0), closes_at) == at(5)


def test_a_max_wait_shorter_than_the_wait_bounds_the_first_event_too() -> None:
    assert first_due(of_debounce(Debounce(wait_s=10.0, max_wait_s=3.0)), at(0)) == (at(3), at(3))


def test_no_wait_at_all_is_due_at_once() -> None:
    assert first_due(of_debounce(Debounce(wait_s=0.0)), at(7)) == (at(7), None)


GAPS = st.lists(st.floats(0.0, 20.0, allow_nan=False), max_size=30)


@given(gaps=GAPS, wait_s=st.floats(0.1, 10.0), max_wait_s=st.none() | st.floats(0.1, 30.0))
def test_runs_and_their_events_are_those_of_the_obvious_rule(
    gaps: list[float], wait_s: float, max_wait_s: float | None
) -> None:
    rule = of_debounce(Debounce(wait_s=wait_s, max_wait_s=max_wait_s))
    times, now = [], NOON
    for gap in gaps:
        now += timedelta(seconds=gap)
        times.append(now)

    # As intake and dispatch do it: one window at a time, closed when its time has come.
    found: list[tuple[datetime, int]] = []
    windows = Windows()
    for number, time in enumerate(times):
        open_one = windows.find("orders", "")
        if open_one is not None and open_one.due_at <= time:
            found.append((open_one.due_at, open_one.count))
            windows.close(open_one)
            open_one = None
        if open_one is None:
            due_at, closes_at = first_due(rule, time)
            windows.open(Window(run=str(number), trigger="orders", key="", due_at=due_at, closes_at=closes_at,
                                priority=5))  # fmt: skip
        else:
            open_one.due_at = next_due(rule, time, open_one.closes_at)
            open_one.count += 1
    last = windows.find("orders", "")
    if last is not None:
        found.append((last.due_at, last.count))

    # As one would say it: a group ends with the first silence of `wait`, or `max_wait` after its first event.
    expected: list[tuple[datetime, int]] = []
    wait = timedelta(seconds=wait_s)
    rest = list(times)
    while rest:
        limit = None if max_wait_s is None else rest[0] + timedelta(seconds=max_wait_s)
        size = 1
        end = rest[0] + wait if limit is None else min(rest[0] + wait, limit)
        while size < len(rest) and rest[size] < end:
            end = rest[size] + wait if limit is None else min(rest[size] + wait, limit)
            size += 1
        expected.append((end, size))
        rest = rest[size:]
    assert found == expected
    assert sum(count for _, count in found) == len(times)


# Which


def test_events_with_different_keys_and_triggers_are_gathered_apart() -> None:
    windows = Windows()
    first, second, third = window("1", key="a"), window("2", key="b"), window("3", key="a", trigger="others")
    for each in (first, second, third):
        windows.open(each)
    assert windows.find("orders", "a") is first
    assert windows.find("orders", "b") is second
    assert windows.find("others", "a") is third
    assert windows.find("orders", "c") is None
    assert len(windows) == 3


def test_a_window_is_known_by_its_run_until_it_is_closed() -> None:
    windows = Windows()
    one = window("run-1")
    windows.open(one)
    assert windows.of_run("run-1") is one
    windows.close(one)
    assert windows.of_run("run-1") is None
    assert windows.find("orders", "") is None
    assert len(windows) == 0
    windows.close(one)


def test_closing_an_old_window_leaves_the_newer_one_of_the_same_key_open() -> None:
    windows = Windows()
    old, new = window("old"), window("new")
    windows.open(old)
    windows.open(new)
    windows.close(old)
    assert windows.find("orders", "") is new
    assert windows.of_run("old") is None


# After a restart


def test_pending_runs_bring_their_windows_back_with_their_deadlines_counts_and_priorities() -> None:
    run = pending(trigger="orders", window="north", due_at=at(6), closes_at=at(30), event_count=5, priority=8)
    windows = Windows([run])
    found = windows.find("orders", "north")
    assert found == Window(
        run=run.id, trigger="orders", key="north", due_at=at(6), closes_at=at(30), priority=8, count=5
    )
    assert windows.of_run(run.id) is found


def test_runs_without_a_window_or_a_time_bring_none_back() -> None:
    assert len(Windows([pending(), a_run(an_event(), window="north")])) == 0


def test_a_window_without_a_key_is_restored_too() -> None:
    windows = Windows([pending(trigger="orders", window="", due_at=at(1))])
    assert windows.find("orders", "") is not None
