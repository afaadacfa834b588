"""The course of an alert, decided: when it opens and is over, and when that is told."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.alerts import Alert, Course, Finding, Round, What
from engine.decide.deadlines import promise_of
from engine.decide.ends import Ends, Window
from engine.decide.schedule import Schedule
from engine.runs import RunState
from engine.triggers import Deadline
from plugins.timers.cron import Cron

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def alert(**fields: Any) -> Alert:
    settings = {"for_s": 0.0, "clear_s": 60.0, "gather_s": 10.0, "repeat_s": 3600.0, **fields}
    return Alert(name="failing", what=What.FAILURES, limit=3, **settings)


class Case:
    """A course under a clock of its own."""

    def __init__(self, rule: Alert) -> None:
        self.rule, self.course, self.s = rule, Course(), 0.0
        self.told: list[tuple[float, str, list[str]]] = []

    def at(self, seconds: float, *subjects: str, muted: bool = False, acknowledged: bool = False) -> None:
        """Look at an instant at which the rule holds for these subjects."""
        self.s = seconds
        now = AT + timedelta(seconds=seconds)
        found = {name: Finding(subject=name, value=3, text="3 failed") for name in subjects}
        self.course.look(self.rule, found, now, seconds)
        told = self.course.due(self.rule, seconds, muted=muted, acknowledged=acknowledged)
        if told is not None:
            self.told += [(seconds, kind, names) for kind, names in _named(told)] if not muted else []
            self.course.told(told, now, seconds)


def _named(told: Round) -> list[tuple[str, list[str]]]:
    parts = (("began", told.began), ("over", told.over)) if told.began or told.over else (("still", told.still),)
    return [(kind, [one.subject for one in some]) for kind, some in parts if some]


def test_what_opens_close_together_is_told_in_one_message() -> None:
    case = Case(alert())
    case.at(0, "a")
    case.at(5, "a", "b")
    assert case.told == []
    case.at(10, "a", "b", "c")
    assert case.told == [(10, "began", ["a", "b", "c"])]


def test_it_opens_only_when_it_has_held_for_as_long_as_is_said() -> None:
    case = Case(alert(for_s=30.0, gather_s=0.0))
    case.at(0, "a")
    case.at(20)
    case.at(25, "a")
    case.at(50, "a")
    assert case.told == []
    case.at(55, "a")
    assert case.told == [(55, "began", ["a"])]


def test_what_comes_and_goes_is_told_once_and_its_end_once() -> None:
    case = Case(alert(gather_s=0.0))
    for seconds in range(0, 600, 20):
        case.at(seconds, *(["a"] if seconds % 40 == 0 else []))
    assert case.told == [(0, "began", ["a"])]
    for seconds in range(600, 700, 20):
        case.at(seconds)
    assert case.told == [(0, "began", ["a"]), (640, "over", ["a"])]
    assert not case.course.standings


def test_what_stays_open_is_told_again_unless_somebody_took_it_on() -> None:
    case = Case(alert(gather_s=0.0))
    case.at(0, "a")
    case.at(3599, "a")
    case.at(3600, "a")
    case.at(3700, "a")
    assert case.told == [(0, "began", ["a"]), (3600, "still", ["a"])]
    case.at(7300, "a", acknowledged=True)
    assert len(case.told) == 2
    case.at(7400, "a", "b", acknowledged=True)
    assert case.told[2] == (7400, "began", ["b"])


def test_while_it_is_muted_nothing_is_told_and_afterwards_what_is_open_is() -> None:
    case = Case(alert(gather_s=0.0, clear_s=0.0))
    case.at(0, "before", muted=False)
    case.at(10, "before", "short", "long", muted=True)
    case.at(20, "long", muted=True)
    assert case.told == [(0, "began", ["before"])]
    case.at(30, "long")
    assert case.told[1:] == [(30, "began", ["long"])]
    case.at(40)
    assert case.told[2:] == [(40, "over", ["long"])]


def test_what_came_back_before_its_end_was_told_was_never_over() -> None:
    case = Case(alert(clear_s=0.0))
    case.at(0, "a")
    case.at(10, "a")
    case.at(20)
    case.at(25, "a")
    case.at(40, "a")
    assert case.told == [(10, "began", ["a"])]
    assert case.course.open


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 90)), max_size=60))
def test_beginnings_and_ends_alternate_whatever_happens(steps: list[tuple[str, bool, float]]) -> None:
    case, holding, seconds = Case(alert(for_s=15.0)), set[str](), 0.0
    for name, holds, later_s in steps:
        (holding.add if holds else holding.discard)(name)
        seconds += later_s
        case.at(seconds, *sorted(holding))
    for _ in range(20):
        seconds += 30
        case.at(seconds)
    for name in "abc":
        kinds = [kind for _, kind, names in case.told if name in names and kind != "still"]
        assert kinds == ["began", "over"] * (len(kinds) // 2)


# What is counted


def test_a_window_forgets_what_is_too_old_and_is_small_however_much_ended() -> None:
    window = Window(600)
    for second in range(0, 3600, 1):
        state = RunState.FAILED if second % 4 == 0 else RunState.SUCCEEDED
        window.add("t", "j", state, AT + timedelta(seconds=second), 1)
    assert len(window._parts["t", "j"]) > 60  # nobody has looked yet
    ((_, _, count),) = window.counts(AT + timedelta(seconds=3600))
    assert 600 <= count.judged <= 610
    assert count.failed == pytest.approx(count.judged / 4, abs=2)
    assert len(window._parts["t", "j"]) <= 61
    assert not list(window.counts(AT + timedelta(seconds=4300)))


def test_what_ended_before_the_clock_was_set_back_is_forgotten_in_time() -> None:
    window = Window(600)
    window.add("t", "j", RunState.FAILED, AT + timedelta(hours=5), 1)
    assert [count.failed for _, _, count in window.counts(AT)] == [1]
    window.add("t", "j", RunState.FAILED, AT, 1)
    assert [count.failed for _, _, count in window.counts(AT)] == [2]
    assert not list(window.counts(AT + timedelta(seconds=640)))


def test_failures_in_a_row_end_with_a_success_and_with_nothing_else() -> None:
    ends = Ends()
    states = (RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT, RunState.SKIPPED)
    for minute, state in enumerate(states):
        ends.add("t", "j", state, AT + timedelta(minutes=minute))
    assert (ends.streaks["t"].count, ends.streaks["t"].since) == (2, AT)
    ends.add("t", "j", RunState.SUCCEEDED, AT)
    assert not ends.streaks
    assert ends.changed == {"t"}


# Deadlines


def cron(expression: str) -> Schedule:
    return Schedule(trigger="nightly", timer=Cron(expression=expression, timezone="Europe/Berlin"))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-21T04:59:00+01:00", ("2026-11-20T02:00:00+01:00", "2026-11-20T05:00:00+01:00")),
        ("2026-11-21T05:00:00+01:00", ("2026-11-21T02:00:00+01:00", "2026-11-21T05:00:00+01:00")),
        # The night in which the clocks go back has 25 hours.
        ("2026-10-25T06:00:00+01:00", ("2026-10-25T02:00:00+02:00", "2026-10-25T05:00:00+01:00")),
    ],
)
def test_a_time_of_the_day_is_by_when_the_last_due_instant_has_to_have_run(now: str, expected: tuple[str, str]) -> None:
    found = promise_of(Deadline(at=time(5), after_s=None), cron("0 2 * * *"), "Europe/Berlin", at(now))
    assert found is not None
    assert (found.since, found.by) == (at(expected[0]), at(expected[1]))


def test_on_a_day_without_a_due_instant_nothing_is_late() -> None:
    deadline = Deadline(at=time(5), after_s=None)
    assert promise_of(deadline, cron("0 2 * * 1"), "Europe/Berlin", at("2026-11-22T12:00:00+01:00")) is None
    without = promise_of(deadline, None, "Europe/Berlin", at("2026-11-22T12:00:00+01:00"))
    assert without is not None
    assert without.since == at("2026-11-21T05:00:00+01:00")


def test_after_a_due_instant_it_is_the_last_one_that_was_so_long_ago() -> None:
    deadline = Deadline(at=None, after_s=7200)
    for now, since in (("T03:59:59", "20T02:00"), ("T04:00:00", "21T02:00")):
        found = promise_of(deadline, cron("0 2 * * *"), "Europe/Berlin", at(f"2026-11-21{now}+01:00"))
        assert found is not None
        assert found.since == at(f"2026-11-{since}:00+01:00")
