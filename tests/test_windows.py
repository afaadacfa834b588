"""Maintenance windows, as pure decisions: when they are open, and whom they hold."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.decide.windows import (
    Once,
    Opening,
    Overridden,
    Pattern,
    Scope,
    Timed,
    Weekly,
    check_pattern,
    next_change,
    open_at,
    spell_at,
)
from engine.plugin import BadSetting
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import job, trigger

BERLIN = "Europe/Berlin"
SUNDAY = frozenset({6})
MINUTE = timedelta(minutes=1)


def weekly(days: frozenset[int] = SUNDAY, start: str = "02:00", end: str = "04:00", zone: str = BERLIN) -> Weekly:
    return Weekly(days=days, start=time.fromisoformat(start), end=time.fromisoformat(end), timezone=zone)


def timed(expression: str, hours: float, zone: str = "UTC") -> Timed:
    schedule = Schedule(trigger="w", timer=Cron(expression=expression, timezone=zone))
    return Timed(schedule=schedule, duration=timedelta(hours=hours))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opening(pattern: Pattern, text: str) -> tuple[str, str] | None:
    found = open_at(pattern, utc(text))
    return None if found is None else (f"{found.start:%m-%d %H:%M}", f"{found.end:%m-%d %H:%M}")


def test_a_weekly_window_is_open_from_its_start_until_before_its_end_by_the_clock_of_its_zone() -> None:
    window = weekly()
    assert opening(window, "2026-11-22 00:59:59") is None
    assert opening(window, "2026-11-22 01:00") == ("11-22 01:00", "11-22 03:00")
    assert opening(window, "2026-11-22 02:59:59") == ("11-22 01:00", "11-22 03:00")
    assert opening(window, "2026-11-22 03:00") is None
    assert next_change(window, utc("2026-11-22 03:00")) == utc("2026-11-29 01:00")


def test_a_window_that_passes_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    window = weekly(start="22:00", end="06:00", zone="UTC")
    assert opening(window, "2026-11-22 05:00") is None  # it would be Saturday's
    assert opening(window, "2026-11-23 05:59") == ("11-22 22:00", "11-23 06:00")


def test_from_midnight_to_midnight_is_a_whole_day_and_days_that_touch_are_one_opening() -> None:
    window = weekly(frozenset({5, 6}), "00:00", "00:00", "UTC")
    assert opening(window, "2026-11-22 12:00") == ("11-21 00:00", "11-23 00:00")
    assert opening(window, "2026-11-21 00:00") == ("11-21 00:00", "11-23 00:00")


def test_in_the_spring_gap_it_opens_when_the_clock_skips_its_start() -> None:
    # 2026-03-29: from 02:00 the clock skips to 03:00, at 01:00 UTC.
    assert opening(weekly(), "2026-03-29 01:00") == ("03-29 01:00", "03-29 02:00")
    assert opening(weekly(start="01:00", end="02:30"), "2026-03-29 00:30") == ("03-29 00:00", "03-29 01:00")


def test_what_lies_within_the_gap_is_not_open_that_day_but_a_week_later() -> None:
    window = weekly(start="02:10", end="02:50")
    assert next_change(window, utc("2026-03-25 12:00")) == utc("2026-04-05 00:10")


def test_in_the_autumn_repeat_it_is_open_from_the_first_start_to_the_last_end() -> None:
    # 2026-10-25: at 03:00 the clock goes back to 02:00, at 01:00 UTC.
    assert opening(weekly(), "2026-10-25 02:30") == ("10-25 00:00", "10-25 03:00")
    assert opening(weekly(start="02:10", end="02:20"), "2026-10-25 01:00") == ("10-25 00:10", "10-25 01:20")


def test_a_single_window_opens_once() -> None:
    window = Once(opening=Opening(start=utc("2026-12-24 18:00"), end=utc("2026-12-27 06:00")))
    assert opening(window, "2026-12-24 17:59") is None
    assert opening(window, "2026-12-26 00:00") == ("12-24 18:00", "12-27 06:00")
    assert next_change(window, utc("2026-12-27 06:00")) is None


def test_a_window_on_a_timer_opens_when_that_is_due_and_lasts_its_duration() -> None:
    window = timed("0 2 * * 0", 2)
    assert opening(window, "2026-11-22 03:59") == ("11-22 02:00", "11-22 04:00")
    assert opening(window, "2026-11-22 04:00") is None
    # Openings that overlap are one.
    assert opening(timed("0 2,3 * * 0", 1.5), "2026-11-22 04:00") == ("11-22 02:00", "11-22 04:30")


def test_a_window_that_is_always_open_or_never_is_refused() -> None:
    with pytest.raises(BadSetting, match="no time between"):
        check_pattern(weekly(frozenset(range(7)), "00:00", "00:00"))
    every = Timed(schedule=Schedule(trigger="w", timer=Interval(every=3600)), duration=timedelta(hours=1))
    with pytest.raises(BadSetting, match="no time between"):
        check_pattern(every, "interval")
    check_pattern(weekly(frozenset(range(7)), "00:00", "23:59"))


def test_a_scope_holds_what_it_names_and_one_that_names_nothing_holds_all() -> None:
    rule = Rule(trigger("nightly", tags=("import",)), job(tags=("heavy",)))
    assert Scope().holds(rule)
    assert Scope(tags=frozenset({"import"})).holds(rule)
    assert Scope(tags=frozenset({"heavy"})).holds(rule)
    assert Scope(jobs=frozenset({"bake"}), tags=frozenset({"else"})).holds(rule)
    assert Scope(triggers=frozenset({"nightly"})).holds(rule)
    assert not Scope(tags=frozenset({"else"}), triggers=frozenset({"hourly"})).holds(rule)


INSTANTS = st.integers(1262304000, 1830297599).map(lambda second: datetime.fromtimestamp(second, UTC))

PATTERNS = st.one_of(
    st.builds(
        weekly,
        st.frozensets(st.integers(0, 6), min_size=1, max_size=6),
        st.times().map(lambda at: at.isoformat("minutes")),
        st.times().map(lambda at: at.isoformat("minutes")),
        st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
    ),
    st.builds(timed, st.sampled_from(["0 2 * * 0", "30 1 * * *", "40 */3 * * *", "15 2,3 1 * *"]),
              st.floats(0.25, 2.5), st.sampled_from([BERLIN, "UTC"])),
)  # fmt: skip


@given(PATTERNS, INSTANTS)
def test_spells_hold_their_instants_take_turns_and_follow_each_other(pattern: Pattern, at: datetime) -> None:
    spell = spell_at(pattern, at)
    assert spell.holds(at)
    if spell.until is None or (spell.is_open and spell.since is not None and spell.until - spell.since > 900 * MINUTE):
        return  # it may be open always, which the configuration refuses
    following = spell_at(pattern, spell.until)
    assert following.is_open is not spell.is_open
    assert following.since == spell.until
    assert spell_at(pattern, spell.until - timedelta(microseconds=1)) == spell


@given(
    st.frozensets(st.integers(0, 6), min_size=1, max_size=6), st.times(), st.times(),
    INSTANTS,
)  # fmt: skip
def test_a_weekly_window_is_open_when_a_look_at_the_clock_says_so(
    days: frozenset[int], start: time, end: time, at: datetime
) -> None:
    start, end = start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    window = Weekly(days=days, start=start, end=end, timezone=BERLIN)
    wall = at.astimezone(ZoneInfo(BERLIN)).replace(tzinfo=None)
    offsets = {(at + timedelta(days=days)).astimezone(ZoneInfo(BERLIN)).utcoffset() for days in (-2, 2)}
    assume(len(offsets) == 1)
    today, shown = wall.weekday(), wall.time()
    if start < end:
        expected = today in days and start <= shown < end
    else:
        expected = (today in days and shown >= start) or ((today - 1) % 7 in days and shown < end)
    assert (open_at(window, at) is not None) == expected


def test_an_override_takes_away_what_lies_before_its_end() -> None:
    override = Overridden(pattern=timed("0 2 * * *", 2), until=utc("2026-11-22 03:00"))
    assert opening(override, "2026-11-22 02:30") is None
    assert opening(override, "2026-11-22 03:00") == ("11-22 03:00", "11-22 04:00")
    assert next_change(override, utc("2026-11-21 12:00")) == utc("2026-11-22 03:00")
    assert opening(override, "2026-11-23 02:30") == ("11-23 02:00", "11-23 04:00")
