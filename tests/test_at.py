"""The timer of single instants: local times and changes of clocks, and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load
from engine.errors import ConfigError
from engine.plugin import BadSetting
from engine.registry import Registry
from plugins.timers.at import At
from plugins.timers.cron import Cron

REGISTRY = Registry.discover()


def wall(text: str) -> datetime:
    """Return a local time."""
    return datetime.fromisoformat(text)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants_of(timer: At) -> list[datetime]:
    found: list[datetime] = []
    while (at := timer.next(found[-1] if found else datetime.min.replace(tzinfo=UTC))) is not None:
        found.append(at)
    return found


def written(on: str, tmp_path: Path, environment: dict[str, str] | None = None) -> At:
    """Return the timer of a trigger whose `on` is written so."""
    file = tmp_path / "config.toml"
    file.write_text(
        f'[engine]\ntimezone = "Europe/Berlin"\n[jobs.j]\nrun.exec = ["true"]\n[triggers.t]\n{on}\njob = "j"\n', "utf-8"
    )
    timer = load([file], environment=environment or {}, registry=REGISTRY).triggers["t"].on
    assert isinstance(timer, At)
    return timer


@pytest.mark.parametrize(
    ("on", "due"),
    [
        ('on.at = "2026-12-24T18:00:00+01:00"', ["2026-12-24T17:00"]),
        ("on.at = 2026-12-24T18:00:00+01:00", ["2026-12-24T17:00"]),
        ('on.at = "2026-12-24T18:00:00Z"', ["2026-12-24T18:00"]),
        ('on.at = "2026-12-24 18:00"', ["2026-12-24T17:00"]),
        ("on.at = 2026-12-24T18:00:00", ["2026-12-24T17:00"]),
        ("on.at = 2026-12-24 18:00:00.25", ["2026-12-24T17:00:00.250000"]),
        ('on.at = { times = "2026-12-24 18:00", timezone = "America/New_York" }', ["2026-12-24T23:00"]),
        ('on.at = { times = "2026-12-24T18:00:00Z", timezone = "America/New_York" }', ["2026-12-24T18:00"]),
        ('on.at = ["2026-12-31 12:00", 2026-12-24T18:00:00Z]', ["2026-12-24T18:00", "2026-12-31T11:00"]),
        ('on.at = ["2026-12-24T18:00:00Z", "2026-12-24 19:00"]', ["2026-12-24T18:00"]),
    ],
)
def test_instants_and_local_times_are_text_or_dates_of_toml(on: str, due: list[str], tmp_path: Path) -> None:
    assert instants_of(written(on, tmp_path)) == [instant(text) for text in due]


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "2027-01-01 01:00"])
def test_the_environment_may_set_an_instant(text: str, tmp_path: Path) -> None:
    timer = written('on.at = "2026-12-24 18:00"', tmp_path, {"ENGINE__TRIGGERS__T__ON__AT": text})
    assert instants_of(timer) == [instant("2027-01-01T00:00")]


@pytest.mark.parametrize(
    ("on", "path", "said"),
    [
        ('on.at = "2026-12-24"', "triggers.t.on.at", "no date with a time"),
        ("on.at = 2026-12-24", "triggers.t.on.at", "expected an instant"),
        ('on.at = "tomorrow"', "triggers.t.on.at", "no date with a time"),
        ('on.at = "2026-02-30 12:00"', "triggers.t.on.at", "no date with a time"),
        ('on.at = "20261224T180000"', "triggers.t.on.at", "no date with a time"),
        ('on.at = "2026-12-24 18:00:00\\n"', "triggers.t.on.at", "no date with a time"),
        ("on.at = 1798131600", "triggers.t.on.at", "expected an instant"),
        ("on.at = []", "triggers.t.on.at", "empty list"),
        ('on.at = ["2026-12-24 18:00", "soon"]', "triggers.t.on.at[1]", "no date with a time"),
        ('on.at = "9999-12-31T23:59:59-01:00"', "triggers.t.on.at", "out of range"),
        ("on.at = 9999-12-31T23:59:59-01:00", "triggers.t.on.at", "out of range"),
        ('on.at = { times = "2026-12-24 18:00", timezone = "Europe/Berln" }', "triggers.t.on.at.timezone", "Berlin"),
    ],
)
def test_what_is_no_instant_is_told_with_its_place(on: str, path: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        written(on, tmp_path)
    (problem,) = refused.value.problems
    assert (problem.line, problem.path) == (6, path)
    assert said in str(problem)


def test_a_local_time_without_a_date_in_utc_is_told_with_its_place() -> None:
    with pytest.raises(BadSetting, match="out of range") as refused:
        At(times=(wall("2026-01-01"), wall("0001-01-01")), timezone="Asia/Tokyo")
    assert refused.value.field == "times[1]"


@pytest.mark.parametrize(
    ("zone", "shown", "due"),
    [
        # Berlin skips from 02:00 to 03:00 at 01:00Z, and shows 02:00 to 03:00 twice around 01:00Z.
        ("Europe/Berlin", "2026-03-29 02:30", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29 02:59:59.999999", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-03-29 03:00", "2026-03-29T01:00"),
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25T00:30"),
        ("America/New_York", "2026-03-08 02:15:00.5", "2026-03-08T07:00"),
        ("America/New_York", "2026-11-01 01:30", "2026-11-01T05:30"),
        ("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03T15:30"),
    ],
)
def test_local_times_follow_the_rule_of_fixed_times_when_clocks_change(zone: str, shown: str, due: str) -> None:
    timer = At(times=wall(shown), timezone=zone)
    assert instants_of(timer) == [instant(due)]


@given(st.datetimes(wall("1980-01-01"), wall("2037-01-01")), st.sampled_from(["Europe/Berlin", "America/Santiago"]))
def test_it_is_due_when_cron_is_that_has_the_same_fixed_time(shown: datetime, zone: str) -> None:
    shown = shown.replace(second=0, microsecond=0)
    (due,) = instants_of(At(times=shown, timezone=zone))
    cron = Cron(expression=f"{shown.minute} {shown.hour} {shown.day} {shown.month} *", timezone=zone)
    assert cron.next(due - timedelta(microseconds=1)) == due


@given(
    st.lists(st.datetimes(wall("1990-01-01"), wall("2090-01-01"), timezones=st.just(UTC)), min_size=1, max_size=8),
    st.datetimes(wall("1990-01-01"), wall("2090-01-01"), timezones=st.just(UTC)),
)
def test_next_and_previous_are_the_neighbours_among_the_instants(times: list[datetime], at: datetime) -> None:
    timer = At(times=tuple(times))
    assert timer.next(at) == min((time for time in times if time > at), default=None)
    assert timer.previous(at) == max((time for time in times if time < at), default=None)
    for time in times:
        assert timer.next(time - timedelta(microseconds=1)) == time
        assert timer.previous(time + timedelta(microseconds=1)) == time


def test_other_time_zones_are_the_same_instants() -> None:
    timer = At(times=instant("2026-12-24T17:00"))
    berlin = datetime(2026, 12, 24, 18, 0, tzinfo=timezone(timedelta(hours=1)))
    assert timer.next(berlin) is None
    assert timer.previous(berlin) is None
    assert timer.next(berlin - timedelta(seconds=1)) == instant("2026-12-24T17:00")


def test_naive_times_are_no_question_to_ask() -> None:
    timer = At(times=instant("2026-12-24T17:00"))
    with pytest.raises(ValueError, match="no time zone"):
        timer.next(wall("2026-01-01"))
    with pytest.raises(ValueError, match="no time zone"):
        timer.previous(wall("2026-01-01"))


@pytest.mark.parametrize(
    ("time", "note"),
    [
        ("2027-03-28 02:30", "scheduled for 02:30, runs at 03:00: the clock skips from 02:00 to 03:00"),
        ("2027-10-31 02:30", "the clock shows 02:30 twice as it is set back: runs the first time only"),
        ("2027-03-28 03:00", None),
    ],
)
def test_a_note_says_what_a_change_of_the_clock_does_to_a_local_time(time: str, note: str | None) -> None:
    timer = At(times=(wall(time), instant("2027-03-28T01:30"), wall("2027-05-01 12:00")), timezone="Europe/Berlin")
    due = timer.next(wall(time).replace(tzinfo=UTC) - timedelta(hours=3))
    assert due is not None
    assert timer.note(due) == note
    assert timer.note(instant("2027-03-28T01:30")) is None
    assert timer.note(instant("2027-05-01T10:00")) is None
