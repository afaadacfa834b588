"""Schedules: bounds, each nth instant, calendars and jitter, beside a slow and obvious reading of the same rules."""

from __future__ import annotations

import tracemalloc
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.decide.calendars import Calendar
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import PluginError
from engine.plugin import BadSetting, Timer
from engine.plugin.timers import MOST_STEPS
from plugins.timers.at import At
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import trigger

TICK = timedelta(microseconds=1)
YEAR = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ordinal(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def spans(*texts: str) -> tuple[tuple[int, int], ...]:
    return tuple((ordinal(first), ordinal(last)) for first, last in (text.split("/") for text in texts))


CALENDARS: Mapping[str, Calendar] = {
    calendar.name: calendar
    for calendar in (
        Calendar(name="weekend", weekdays=frozenset({5, 6})),
        Calendar(name="holidays", yearly=(((1, 1), (1, 1)), ((12, 24), (12, 26)))),
        Calendar(name="turn", yearly=(((12, 20), (1, 6)),)),
        Calendar(name="closed", spans=spans("2026-03-28/2026-03-30", "2026-07-01/2026-08-15", "2026-10-25/2026-10-25")),
        Calendar(name="switched-off", weekdays=frozenset(range(7)), enabled=False),
        Calendar(name="always", weekdays=frozenset(range(7))),
        Calendar(name="one-day", spans=spans("2026-12-25/2026-12-25")),
    )
}


def scheduled(timer: Timer, name: str = "nightly") -> Schedule:
    return Schedule(trigger=name, timer=timer, calendars=CALENDARS)


# A slow and obvious model: all instants of a year, those before the start left out, each nth, those on days that
# calendars take away left out.


def covers(calendar: Calendar, day: date) -> bool:
    if any(first <= day.toordinal() <= last for first, last in calendar.spans) or day.weekday() in calendar.weekdays:
        return True
    here = (day.month, day.day)
    return any(
        first <= here <= last if first <= last else here >= first or here <= last for first, last in calendar.yearly
    )


@cache
def all_instants(timer: Timer) -> list[datetime]:
    """Return the bare timer's instants of the year."""
    found = []
    due = timer.next(YEAR[0] - TICK)
    while due is not None and due < YEAR[1]:
        found.append(due)
        due = timer.next(due)
    return found


def expected_of(timer: Timer) -> list[datetime]:
    bare = replace(timer, start=None, end=None, every_nth=None, except_=(), only=())
    instants = all_instants(bare)
    if timer.start is not None:
        instants = [due for due in instants if due >= timer.start]
    if timer.every_nth is not None:
        instants = instants[:: timer.every_nth]
    if timer.end is not None:
        instants = [due for due in instants if due <= timer.end]
    zone = ZoneInfo(timer.timezone or "UTC")
    only = [CALENDARS[name] for name in timer.only if CALENDARS[name].enabled]
    excepted = [CALENDARS[name] for name in timer.except_ if CALENDARS[name].enabled]
    kept = []
    for due in instants:
        day = due.astimezone(zone).date()
        if not any(covers(one, day) for one in excepted) and (not only or any(covers(one, day) for one in only)):
            kept.append(due)
    return kept


moments = st.datetimes(local("2026-01-01"), local("2026-12-31"), timezones=st.just(UTC))
names = st.lists(st.sampled_from(["weekend", "holidays", "turn", "closed", "switched-off"]), max_size=2).map(tuple)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/Santiago", "Pacific/Apia", "Africa/Cairo"])


@st.composite
def timers(draw: st.DrawFn) -> Timer:
    settings: dict[str, Any] = {
        "timezone": draw(zones),
        "start": draw(moments),
        "every_nth": draw(st.none() | st.integers(2, 5) | st.sampled_from([40, 100])),
        "except_": draw(names),
        "only": draw(names),
    }
    settings["end"] = draw(st.none() | moments.filter(lambda end: end >= settings["start"]))
    expression = draw(st.sampled_from(["0 2 * * *", "30 0,12 * * 1-5", "0 0 1,15 * *", "0 */6 * * *", "15 3 * * 6"]))
    return Cron(expression=expression, **settings)


@settings(max_examples=150, deadline=None)
@given(timers(), st.lists(moments, min_size=1, max_size=5))
def test_next_and_previous_are_those_of_a_slow_and_obvious_list(timer: Timer, asked: list[datetime]) -> None:
    expected, schedule = expected_of(timer), scheduled(timer)
    for at in [*asked, *expected[:2], *expected[-2:]]:
        after = bisect_right(expected, at)
        following = schedule.next(at)
        if after < len(expected):
            assert following == expected[after]
        else:
            assert following is None or following >= YEAR[1]
        before = bisect_left(expected, at)
        assert schedule.previous(at) == (expected[before - 1] if before else None)


@settings(max_examples=60, deadline=None)
@given(timers(), moments, st.timedeltas(timedelta(0), timedelta(days=60)))
def test_what_is_excluded_and_what_is_due_are_together_what_would_be_due(
    timer: Timer, after: datetime, span: timedelta
) -> None:
    before = min(after + span, YEAR[1])
    free = expected_of(replace(timer, except_=(), only=()))
    kept = set(expected_of(timer))
    excluded = list(scheduled(timer).excluded(after, before))
    assert [due for due, _ in excluded] == [due for due in free if after < due < before and due not in kept]
    assert all(reason.startswith("excluded") for _, reason in excluded)


@settings(max_examples=60, deadline=None)
@given(timers(), moments)
def test_where_one_begins_to_ask_changes_nothing(timer: Timer, at: datetime) -> None:
    """An engine that was started again counts on as one that ran all the time."""
    asked_before = scheduled(timer)
    walked: datetime | None = YEAR[0]
    while walked is not None and walked <= at:
        walked = asked_before.next(walked)
    assert scheduled(timer).next(at) == walked


# Bounds


def test_start_and_end_belong_to_what_is_due() -> None:
    timer = Cron(expression="0 2 * * *", start=instant("2026-01-01T02:00"), end=instant("2026-01-03T02:00"))
    schedule = scheduled(timer)
    assert schedule.next(instant("1999-01-01")) == instant("2026-01-01T02:00")
    assert schedule.next(instant("2026-01-02T02:00")) == instant("2026-01-03T02:00")
    assert schedule.next(instant("2026-01-03T02:00")) is None
    assert schedule.previous(instant("2030-01-01")) == instant("2026-01-03T02:00")
    assert schedule.previous(instant("2026-01-01T02:00")) is None
    assert schedule.why_over(instant("2026-01-03T02:00")) == "nothing of it is due after its end, 2026-01-03T02:00:00Z"


def test_local_bounds_are_those_of_the_zone_of_the_timer() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", timezone="Europe/Berlin", start=local("2026-07-01T02:00")))
    assert schedule.next(instant("2026-01-01")) == instant("2026-07-01T00:00")


def test_a_local_start_that_the_clock_skips_is_when_it_does() -> None:
    interval = Interval(every=3600.0, timezone="Europe/Berlin", start=local("2026-03-29T02:30"))
    assert scheduled(interval).next(instant("2026-01-01")) == instant("2026-03-29T01:00")


def test_an_interval_is_due_at_its_start_and_from_there_on() -> None:
    schedule = scheduled(Interval(every=3600.0, start=instant("2026-01-01T00:07:30")))
    assert schedule.next(instant("2025-06-01")) == instant("2026-01-01T00:07:30")
    assert schedule.next(instant("2026-01-01T00:07:30")) == instant("2026-01-01T01:07:30")
    assert schedule.previous(instant("2026-01-01T00:07:30")) is None


def test_an_offset_beside_a_start_is_refused() -> None:
    with pytest.raises(BadSetting, match="beside start") as refused:
        Interval(every=60.0, offset=5.0, start=instant("2026-01-01"))
    assert refused.value.field == "offset"


def test_a_timer_without_such_settings_is_asked_itself() -> None:
    timer = Cron(expression="0 2 * * *", jitter=60.0)
    assert scheduled(timer).thinned is None
    assert scheduled(timer).next(instant("2026-01-01")) == instant("2026-01-01T02:00")


# Each nth


def test_each_nth_is_counted_from_the_start_which_is_due_itself() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", start=instant("2026-01-01"), every_nth=3))
    due, found = instant("2026-01-01"), []
    for _ in range(3):
        following = schedule.next(due)
        assert following is not None
        due = following
        found.append(due.day)
    assert found == [1, 4, 7]


def test_without_a_start_it_is_counted_from_1970_on() -> None:
    schedule = scheduled(Interval(every=86400.0, every_nth=2))
    assert schedule.next(instant("1960-01-01")) == instant("1970-01-01")
    assert schedule.next(instant("1970-01-01")) == instant("1970-01-03")
    due = schedule.next(instant("2026-11-26"))
    assert due is not None
    assert (due - instant("1970-01-01")).days % 2 == 0


def test_a_holiday_moves_no_other_instant() -> None:
    every_other_day = Cron(expression="0 2 * * *", start=instant("2026-12-01"), every_nth=2)
    free, kept = scheduled(every_other_day), scheduled(replace(every_other_day, except_=("holidays",)))
    assert free.next(instant("2026-12-24")) == instant("2026-12-25T02:00")
    assert kept.next(instant("2026-12-24")) == free.next(instant("2026-12-26")) == instant("2026-12-27T02:00")


@pytest.mark.parametrize(
    ("timer", "every"),
    [
        (Interval(every=1.0, every_nth=86_400), timedelta(days=1)),
        (Cron(expression="* * * * *", every_nth=10_080), timedelta(days=7)),
        (Cron(expression="* * * * * *", every_nth=86_400), timedelta(days=1)),
    ],
)
def test_millions_of_instants_are_counted_and_not_stepped_through(timer: Timer, every: timedelta) -> None:
    schedule = scheduled(timer)
    due = schedule.next(instant("2026-11-26"))
    assert due is not None
    assert (due - instant("1970-01-01")) % every == timedelta(0)
    assert schedule.next(due) == due + every
    assert schedule.previous(due) == due - every
    assert steps_of(timer, due) < 400


@pytest.mark.parametrize("every_s", [1.0, 60.0, 86_400.0])
def test_a_far_way_is_gone_both_ways_from_a_start_of_long_ago(every_s: float) -> None:
    start = instant("0002-06-01")
    schedule = scheduled(Interval(every=every_s, start=start, every_nth=10_000))
    step = timedelta(seconds=every_s * 10_000)
    assert schedule.next(start) == start + step
    assert schedule.previous(start + step) == start
    assert schedule.previous(start) is None


def test_each_nth_of_instants_that_come_to_an_end_comes_to_one_too() -> None:
    times = tuple(instant("2026-01-01") + timedelta(hours=n) for n in range(100))
    schedule = scheduled(At(times=times, every_nth=60))
    assert schedule.next(instant("2026-01-01T01:00")) == times[60]
    assert schedule.next(times[60]) is None
    assert schedule.previous(instant("2030-01-01")) == times[60]


def steps_of(timer: Timer, due: datetime) -> int:
    """Return how often the timer is asked for the instant after one, when it was not asked before."""
    asked = 0

    class Asked(type(timer), frozen=True, kw_only=True):  # type: ignore[misc, call-arg]
        def next(self, after: datetime) -> datetime | None:
            nonlocal asked
            asked += 1
            answer: datetime | None = super().next(after)
            return answer

    settings = {name: getattr(timer, name) for name in timer.__struct_fields__}
    scheduled(Asked(**settings)).next(due)
    return asked


class Beat(Timer, frozen=True, kw_only=True):
    """Due each minute; it can't count by itself."""

    name = "beat"

    def next(self, after: datetime) -> datetime | None:
        return YEAR[0] + ((after - YEAR[0]) // timedelta(minutes=1) + 1) * timedelta(minutes=1)

    def previous(self, before: datetime) -> datetime | None:
        return YEAR[0] - ((YEAR[0] - before) // timedelta(minutes=1) + 1) * timedelta(minutes=1)


def test_a_timer_that_can_not_count_is_counted_by_steps_and_refused_where_they_are_too_many() -> None:
    assert Beat().count(YEAR[0], YEAR[0] + timedelta(hours=1)) == 60
    with pytest.raises(PluginError, match=f"more than {MOST_STEPS:,} due instants of the timer beat"):
        scheduled(Beat(every_nth=2)).check()
    with pytest.raises(PluginError, match="a later start, or a timer with a count"):
        scheduled(Beat(every_nth=2, start=YEAR[0])).check()


# Calendars


def test_the_date_is_that_of_the_zone_of_the_timer() -> None:
    # At 23:30 in UTC it is the next day in Berlin already: the 25th of December is a holiday there.
    utc = scheduled(Cron(expression="30 23 * * *", except_=("one-day",)))
    berlin = scheduled(Cron(expression="30 0 * * *", timezone="Europe/Berlin", except_=("one-day",)))
    assert utc.next(instant("2026-12-24T12:00")) == instant("2026-12-24T23:30")
    assert berlin.next(instant("2026-12-24T12:00")) == instant("2026-12-25T23:30")
    assert list(berlin.excluded(instant("2026-12-24T12:00"), instant("2026-12-25T12:00"))) == [
        (instant("2026-12-24T23:30"), "excluded by calendar one-day")
    ]


def test_what_is_in_none_of_the_calendars_of_only_says_so() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", only=("one-day", "closed")))
    told = list(schedule.excluded(instant("2026-12-24"), instant("2026-12-25")))
    assert told == [(instant("2026-12-24T02:00"), "excluded: 2026-12-24 is no day of calendar one-day or closed")]


def test_no_more_is_told_than_is_asked_for() -> None:
    schedule = scheduled(Cron(expression="* * * * *", except_=("weekend",)))
    assert len(list(schedule.excluded(*YEAR, limit=7))) == 7
    assert len(list(schedule.excluded(*YEAR))) == 10_000
    assert list(scheduled(Cron(expression="* * * * *")).excluded(*YEAR)) == []


def test_a_calendar_that_is_switched_off_is_as_if_it_were_not_named() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", except_=("switched-off",), only=("switched-off",)))
    assert schedule.next(instant("2026-01-01")) == instant("2026-01-01T02:00")


def test_a_leap_day_of_every_year_is_one_of_leap_years_alone() -> None:
    calendar = Calendar(name="leap", yearly=(((2, 29), (2, 29)),))
    assert [year for year in range(2020, 2030) if calendar.year(year)] == [2020, 2024, 2028]
    until = Calendar(name="february", yearly=(((2, 1), (2, 29)),))
    assert [until.year(year).bit_count() for year in (2027, 2028)] == [28, 29]


def test_calendars_are_worked_out_once_for_all_schedules() -> None:
    one, other = (scheduled(Cron(expression=f"{m} 2 * * *", except_=("holidays", "weekend"))) for m in range(2))
    assert one.thinned is not None
    assert other.thinned is not None
    assert one.thinned.days is other.thinned.days


# What can never be due


@pytest.mark.parametrize(
    ("timer", "field"),
    [
        (Cron(expression="0 0 * * 6", except_=("weekend",)), "except_"),
        (Cron(expression="* * * * * *", except_=("always",)), "except_"),
        (Cron(expression="0 0 29 2 *", only=("one-day",)), "only"),
        (Cron(expression="0 0 1 * *", only=("one-day",), except_=("holidays",)), "only"),
        (Cron(expression="* * * * *", only=("one-day",), except_=("holidays",), every_nth=7), "only"),
        (At(times=instant("2026-01-01"), start=instant("2026-02-01")), "start"),
        (Cron(expression="0 0 1 1 *", start=instant("2026-02-01"), end=instant("2026-12-01")), "end"),
    ],
)
def test_what_can_never_be_due_is_refused_and_found_in_no_time(timer: Timer, field: str) -> None:
    schedule = scheduled(timer)
    with pytest.raises(BadSetting, match="is never due") as refused:
        schedule.check()
    assert refused.value.field == field
    assert schedule.next(instant("2026-01-01")) is None
    assert schedule.previous(instant("2030-01-01")) is None


def test_a_search_in_vain_asks_the_timer_so_often_and_no_more() -> None:
    timer = Cron(expression="0 0 * * 6", except_=("weekend",))
    assert steps_of(timer, instant("2026-01-01")) <= 501


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(BadSetting, match="before its start") as refused:
        scheduled(Interval(every=60.0, start=instant("2026-02-01"), end=instant("2026-01-01")))
    assert refused.value.field == "end"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"every_nth": 1}, "every_nth"),
        ({"jitter": -1.0}, "jitter"),
        ({"except_": ("weekend", "holidya")}, "except_[1]"),
        ({"only": ("holidya",)}, "only[0]"),
        ({"start": instant("2026-01-01"), "timezone": "Mars/Base"}, "timezone"),
        ({"end": local("0001-01-01"), "timezone": "Asia/Tokyo"}, "end"),
    ],
)
def test_settings_that_code_got_wrong_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        scheduled(Beat(**settings))
    assert refused.value.field == field


def test_calendars_that_have_come_to_their_end_are_the_reason_that_is_given() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", only=("one-day",)))
    schedule.check()
    assert schedule.next(instant("2026-12-26")) is None
    said = "its calendars (only one-day) leave none of its timer's further instants"
    assert schedule.why_over(instant("2026-12-26")) == said
    assert scheduled(At(times=instant("2026-01-01"))).why_over(YEAR[1]) == "its timer has no further due instant"


# Jitter


@given(st.text(min_size=1, max_size=20), moments, st.floats(0.001, 7200.0))
def test_it_fires_a_little_later_and_before_the_next_is_due(name: str, at: datetime, jitter: float) -> None:
    schedule = scheduled(Cron(expression="*/10 * * * *", jitter=jitter), name)
    due = schedule.next(at)
    assert due is not None
    following = schedule.next(due)
    assert following is not None
    fires_at = schedule.fires_at(due)
    assert due <= fires_at < due + timedelta(seconds=jitter) + TICK
    assert fires_at < following <= schedule.fires_at(following)
    assert scheduled(Cron(expression="*/10 * * * *", jitter=jitter), name).fires_at(due) == fires_at


def test_jitter_is_the_same_on_every_machine() -> None:
    schedule = scheduled(Cron(expression="0 2 * * *", jitter=600.0))
    assert schedule.fires_at(instant("2026-12-01T02:00")) == instant("2026-12-01T02:06:34.783419")


def test_jitter_spreads_triggers_and_instants() -> None:
    timer = Cron(expression="0 2 * * *", jitter=600.0)
    due = instant("2026-12-01T02:00")
    lates = sorted((scheduled(timer, f"t{n}").fires_at(due) - due).total_seconds() for n in range(1000))
    assert len(set(lates)) > 990
    for tenth in range(10):
        assert 60 <= sum(60 * tenth <= late < 60 * (tenth + 1) for late in lates) <= 145
    again = [scheduled(timer).fires_at(due + timedelta(days=n)).time() for n in range(100)]
    assert len(set(again)) == 100


def test_the_last_instant_has_all_of_its_jitter_and_none_without() -> None:
    schedule = scheduled(At(times=instant("2026-12-01"), jitter=3600.0))
    assert instant("2026-12-01") < schedule.fires_at(instant("2026-12-01")) < instant("2026-12-01T01:00")
    assert scheduled(At(times=instant("2026-12-01"))).fires_at(instant("2026-12-01")) == instant("2026-12-01")


# Many


def test_a_hundred_thousand_schedules_are_small() -> None:
    plain = Cron(expression="0 2 * * *")
    thinned = replace(plain, except_=("holidays",), start=YEAR[0], every_nth=2)
    for timer, most_bytes in ((plain, 100), (thinned, 400)):
        tracemalloc.start()
        made = [scheduled(timer) for _ in range(10_000)]
        used_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used_bytes / len(made) < most_bytes


def test_equal_schedules_are_equal_whatever_they_were_asked() -> None:
    timer = Cron(expression="0 2 * * *", except_=("holidays",), every_nth=2)
    one, other = scheduled(timer), scheduled(timer)
    one.next(YEAR[0])
    assert one == other
    assert hash(one) == hash(other)
    assert one != scheduled(replace(timer, every_nth=3))
    changed = {**CALENDARS, "holidays": Calendar(name="holidays", weekdays=frozenset({1}))}
    assert one != Schedule(trigger="nightly", timer=timer, calendars=changed)


def test_another_timer_in_a_schedule_goes_by_its_own_settings() -> None:
    plain, ended = Cron(expression="0 2 * * *"), Cron(expression="0 3 * * *", end=instant("2026-01-01T12:00"))
    one, other = scheduled(plain), scheduled(ended)
    assert replace(one, timer=ended) == other
    assert replace(one, timer=ended).next(instant("2026-01-02")) is None
    assert replace(other, timer=plain).next(instant("2026-01-02")) == instant("2026-01-02T02:00")


def test_a_trigger_without_one_gets_one_of_its_timer() -> None:
    on = Cron(expression="0 2 * * *", end=instant("2026-01-01T12:00"))
    schedule = schedule_of(trigger("nightly", on=on, source="timer:nightly"))
    assert schedule is not None
    assert schedule.next(instant("2026-01-02")) is None
