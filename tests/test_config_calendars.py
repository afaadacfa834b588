"""`[calendars.NAME]`: dates, weekdays and files of iCalendar, who names them, and what can't be."""

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path

import pytest

from engine import Engine
from engine.config import Config, load
from engine.decide.calendars import Calendar
from engine.errors import ConfigError
from engine.http.views import shown
from engine.registry import Registry
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval

REGISTRY = Registry.discover()
JOB = '[jobs.j]\nrun.exec = ["true"]\n'


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def read(directory: Path, text: str, **environment: str) -> Config:
    file = directory / "config.toml"
    file.write_text(text, "utf-8")
    return load([file], environment=environment, registry=REGISTRY)


def days_of(calendar: Calendar, year: int = 2026) -> list[str]:
    bits, first = calendar.year(year), date(year, 1, 1).toordinal()
    return [date.fromordinal(first + place).strftime("%m-%d") for place in range(366) if bits >> place & 1]


def problems_of(directory: Path, text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigError) as refused:
        read(directory, text)
    return [(problem.line, problem.path, str(problem)) for problem in refused.value.problems]


def ics(*events: str) -> bytes:
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//tests//EN"]
    for number, event in enumerate(events):
        body = event if "UID:" in event else f"UID:{number}\n{event}"
        lines += ["BEGIN:VEVENT", "DTSTAMP:20250101T000000Z", *body.split("\n"), "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""]).encode()


def ical(directory: Path, *events: str) -> Calendar:
    (directory / "holidays.ics").write_bytes(ics(*events))
    return read(directory, '[calendars.h]\nical = "holidays.ics"\n').calendars["h"]


# Dates and weekdays


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        ('["2026-12-25"]', ["12-25"]),
        ("[2026-12-25]", ["12-25"]),
        ('["2026-12-30/2027-01-02"]', ["12-30", "12-31"]),
        ('["2025-12-30/2026-01-02"]', ["01-01", "01-02"]),
        ('["2026-12-25", "2026-12-24/2026-12-25", "2026-12-26"]', ["12-24", "12-25", "12-26"]),
        ('["05-01", "2026-05-03"]', ["05-01", "05-03"]),
        ('["12-31/01-01"]', ["01-01", "12-31"]),
        ('["02-29"]', []),
        ('["02-28/02-29", "02-29/03-01"]', ["02-28", "03-01"]),
    ],
)
def test_dates_are_single_or_ranges_or_of_every_year(dates: str, days: list[str], tmp_path: Path) -> None:
    assert days_of(read(tmp_path, f"[calendars.h]\ndates = {dates}\n").calendars["h"]) == days


def test_all_that_a_calendar_says_counts_together(tmp_path: Path) -> None:
    (tmp_path / "h.ics").write_bytes(ics("DTSTART;VALUE=DATE:20260102"))
    text = '[calendars.h]\ndates = ["01-01"]\nweekdays = ["monday"]\nical = "h.ics"\ndescription = "d"\ntags = ["t"]\n'
    calendar = read(tmp_path, text).calendars["h"]
    assert days_of(calendar)[:4] == ["01-01", "01-02", "01-05", "01-12"]
    assert (calendar.description, calendar.tags, calendar.enabled) == ("d", ("t",), True)
    assert calendar.defined_in == f"{tmp_path}/config.toml:1"


@pytest.mark.parametrize(
    ("table", "path", "said"),
    [
        ('dates = ["2026-02-30"]', "calendars.h.dates[0]", "a date that there is not: 2026-02-30"),
        ('dates = ["2026-12-24", "2026-12-2"]', "calendars.h.dates[1]", "which is no date"),
        ('dates = ["02-30"]', "calendars.h.dates[0]", "a date that there is not"),
        ('dates = ["2026-12-25/2026-12-24"]', "calendars.h.dates[0]", "ends before it begins"),
        ("dates = [2026-12-25T10:00:00]", "calendars.h.dates[0]", "expected"),
        ('dates = "12-25"', "calendars.h.dates", "a list"),
        ('weekdays = ["sunday", "mon"]', "calendars.h.weekdays[1]", 'did you mean "monday"?'),
        ("", "calendars.h.dates", "holds no day"),
        ('date = ["12-25"]', "calendars.h.date", 'did you mean "dates"?'),
    ],
)
def test_what_is_no_calendar_is_told_with_its_place(table: str, path: str, said: str, tmp_path: Path) -> None:
    found = problems_of(tmp_path, f"[calendars.h]\n{table}\n")
    assert [(place, said in text) for _, place, text in found][:1] == [(path, True)]


# iCalendar


@pytest.mark.parametrize(
    ("event", "days"),
    [
        ("DTSTART;VALUE=DATE:20261225", ["12-25"]),
        ("DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227", ["12-24", "12-25", "12-26"]),
        ("DTSTART;VALUE=DATE:20261224\nDURATION:P2D", ["12-24", "12-25"]),
        ("DTSTART;TZID=Europe/Berlin:20261224T230000\nDTEND;TZID=Europe/Berlin:20261225T010000", ["12-24", "12-25"]),
        ("DTSTART;TZID=Europe/Berlin:20261224T230000\nDTEND;TZID=Europe/Berlin:20261225T000000", ["12-24"]),
        # Late in New York it is the next day in UTC: the date is that of the event's own zone.
        ("DTSTART;TZID=America/New_York:20261224T230000\nDURATION:PT10M", ["12-24"]),
        ("DTSTART:20261224T120000", ["12-24"]),
        ("DTSTART;VALUE=DATE:20261225\nSTATUS:CANCELLED", []),
        ("DTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY", ["12-25"]),
        ("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=MONTHLY;BYDAY=1MO;COUNT=3", ["01-05", "02-02", "03-02"]),
        ("DTSTART;VALUE=DATE:20201126\nRRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=4TH", ["11-26"]),
        (
            "DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;COUNT=4\nEXDATE;VALUE=DATE:20260103",
            ["01-01", "01-02", "01-04"],
        ),
        ("DTSTART;VALUE=DATE:20260101\nRDATE;VALUE=DATE:20260301", ["01-01", "03-01"]),
        (
            "DTSTART;TZID=America/New_York:20260105T233000\nDURATION:PT10M\nRRULE:FREQ=WEEKLY;COUNT=2",
            ["01-05", "01-12"],
        ),
        ("DTSTART;VALUE=DATE:20251231\nDTEND;VALUE=DATE:20260103\nRRULE:FREQ=YEARLY", ["01-01", "01-02", "12-31"]),
    ],
)
def test_the_days_of_events_are_days_of_the_calendar(event: str, days: list[str], tmp_path: Path) -> None:
    assert days_of(ical(tmp_path, event)) == days


def test_one_instance_of_a_recurring_event_may_be_moved_or_cancelled(tmp_path: Path) -> None:
    calendar = ical(
        tmp_path,
        "UID:a\nDTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;COUNT=4",
        "UID:a\nRECURRENCE-ID;VALUE=DATE:20260112\nDTSTART;VALUE=DATE:20260113",
        "UID:a\nRECURRENCE-ID;VALUE=DATE:20260119\nDTSTART;VALUE=DATE:20260119\nSTATUS:CANCELLED",
        "UID:b\nDTSTART;VALUE=DATE:20260601",
    )
    assert days_of(calendar) == ["01-05", "01-13", "01-26", "06-01"]


def test_events_without_an_identity_are_events_of_their_own(tmp_path: Path) -> None:
    content = ics(
        "UID:x\nDTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;COUNT=2",
        "UID:x\nDTSTART;VALUE=DATE:20260201",
        "UID:x\nDTSTART;VALUE=DATE:20260301\nRRULE:FREQ=WEEKLY;COUNT=2",
    )
    (tmp_path / "h.ics").write_bytes(content.replace(b"UID:x\r\n", b""))
    calendar = read(tmp_path, '[calendars.h]\nical = "h.ics"\n').calendars["h"]
    assert days_of(calendar) == ["01-05", "01-12", "02-01", "03-01", "03-08"]


def test_a_recurring_event_goes_on_through_the_years(tmp_path: Path) -> None:
    calendar = ical(tmp_path, "DTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY")
    assert [days_of(calendar, year) for year in (2019, 2020, 2057, 2100, 2101)] == [[], *[["12-25"]] * 3, []]


def test_a_calendar_with_a_zone_of_its_own_has_its_dates_there(tmp_path: Path) -> None:
    content = ics("DTSTART:20261224T230000Z\nDURATION:PT10M").replace(
        b"VERSION", b"X-WR-TIMEZONE:Europe/Berlin\r\nVERSION"
    )
    (tmp_path / "h.ics").write_bytes(content)
    assert days_of(read(tmp_path, '[calendars.h]\nical = "h.ics"\n').calendars["h"]) == ["12-25"]


def test_equal_files_are_equal_calendars(tmp_path: Path) -> None:
    event = "DTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY"
    one = ical(tmp_path, event)
    days_of(one)
    assert one == ical(tmp_path, event)
    assert one != ical(tmp_path, "DTSTART;VALUE=DATE:20201226\nRRULE:FREQ=YEARLY")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no event"),
        (b"hello\n", "is no iCalendar"),
        (b"\xff\xfe\x00rubbish", "is no iCalendar"),
        (b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "holds no event"),
        (ics("SUMMARY:x"), "the event 'x' has no DTSTART"),
        (ics("SUMMARY:x\nDTSTART:soon"), "the event 'x' has a bad DTSTART"),
        (ics("DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=NEVER"), "has a bad RRULE"),
        (ics("DTSTART;VALUE=DATE:20260101\nRRULE:BYDAY=MO"), "can't be followed"),
        (ics("DTSTART:20260101T000000\nRRULE:FREQ=SECONDLY"), "recurs within a day; a calendar holds days"),
        (ics("DTSTART;VALUE=DATE:20260110\nDTEND:20260105T000000Z"), "is wrong"),
        (ics("DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;BYHOUR=1,2"), "recurs within a day"),
        (ics("DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;INTERVAL=0"), "recurs with INTERVAL=0"),
        (ics(*["DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=YEARLY"] * 501), "has 501 recurring events, more than 500"),
        (b"x" * 1_048_577, "is larger than"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_with_its_problem(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "h.ics").write_bytes(content)
    ((line, path, text),) = problems_of(tmp_path, '[calendars.h]\nical = "h.ics"\n')
    assert (line, path) == (2, "calendars.h.ical")
    assert f"the file {tmp_path}/h.ics {said}" in text or said in text


def test_a_file_that_is_not_there_or_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.ics")
    for name, said in (("none.ics", "No such file"), (".", "Is a directory"), ("fifo.ics", "is no regular file")):
        ((_, path, text),) = problems_of(tmp_path, f'[calendars.h]\nical = "{name}"\n')
        assert path == "calendars.h.ical"
        assert said in text


# Who names them


def test_timers_name_calendars_wherever_they_stand(tmp_path: Path) -> None:
    text = (
        'engine.timezone = "Europe/Berlin"\n'
        '[sources.nightly]\ncron = { expression = "0 2 * * *", except = ["holidays"] }\n'
        '[triggers.t]\njob = "j"\non.source = "nightly"\n'
        '[triggers.u]\njob = "j"\non.interval = { every = "1d", only = ["holidays"] }\n'
        '[calendars.holidays]\ndates = ["12-25"]\n'
    )
    triggers = read(tmp_path, text + JOB).triggers
    assert triggers["t"].schedule.next(instant("2026-12-24T12:00Z")) == instant("2026-12-26T01:00Z")
    # Midnight in UTC is one o'clock in Berlin.
    assert triggers["u"].schedule.next(instant("2026-01-01T00:00Z")) == instant("2026-12-25T00:00Z")


@pytest.mark.parametrize(
    ("on", "path", "said"),
    [
        ('cron = { expression = "0 2 * * *", except = ["holidya"] }', "cron.except[0]", 'did you mean "holidays"?'),
        ('interval = { every = "1h", only = ["x"] }', "interval.only[0]", "there is no such calendar"),
        ('cron = { expression = "0 2 * * *", except = "holidays" }', "cron.except", 'write ["holidays"]'),
        ('cron = { expression = "0 2 1 1 *", only = ["holidays"] }', "cron.only", "is never due"),
        ('interval = { every = "1h", start = "2026-02-01 00:00", end = "2026-01-01 00:00" }', "interval.end", "before"),
        ('interval = { every = "1h", every_nth = 1 }', "interval.every_nth", "at least 2"),
        ('interval = { every = "1h", jitter = 5 }', "interval.jitter", 'durations have a unit: "5s"'),
        ('interval = { every = "1h", start = "soon" }', "interval.start", "no date with a time"),
        ('interval = { every = "1h", start = "2026-01-01 00:00", offset = "1m" }', "interval.offset", "beside start"),
        ('at = { times = "2026-01-01 00:00", start = "2026-02-01 00:00" }', "at.start", "is never due"),
    ],
)
def test_what_a_timer_can_not_be_is_told_with_its_place(on: str, path: str, said: str, tmp_path: Path) -> None:
    text = f'[calendars.holidays]\ndates = ["12-25"]\n[triggers.t]\njob = "j"\non.{on}\n{JOB}'
    ((line, place, told),) = problems_of(tmp_path, text)
    assert (line, place) == (5, f"triggers.t.on.{path}")
    assert said in told


def test_a_shared_timer_that_is_never_due_is_told_once_and_where_it_stands(tmp_path: Path) -> None:
    text = (
        '[sources.s]\ncron = { expression = "0 2 1 1 *", only = ["one"] }\n[calendars.one]\ndates = ["12-25"]\n'
        '[triggers.t]\njob = "j"\non.source = "s"\n[triggers.u]\njob = "j"\non.source = "s"\n'
    )
    ((line, path, _),) = problems_of(tmp_path, text + JOB)
    assert (line, path) == (2, "sources.s.cron.only")


def test_a_calendar_that_is_wrong_is_told_once_and_not_again_where_it_is_named(tmp_path: Path) -> None:
    text = (
        '[calendars.h]\nical = "none.ics"\n'
        '[triggers.t]\njob = "j"\non.cron = { expression = "0 2 * * *", except = ["h"] }\n'
    )
    assert [path for _, path, _ in problems_of(tmp_path, text + JOB)] == ["calendars.h.ical"]


def test_where_there_are_no_calendars_the_hint_says_how_one_is_made(tmp_path: Path) -> None:
    text = '[triggers.t]\njob = "j"\non.cron = { expression = "0 2 * * *", except = ["h"] }\n'
    ((_, _, told),) = problems_of(tmp_path, text + JOB)
    assert "there are no calendars: a calendar is a table [calendars.NAME]" in told


def test_the_environment_may_set_a_bound(tmp_path: Path) -> None:
    text = '[triggers.t]\njob = "j"\non.interval = { every = "1h", end = "2026-01-01T00:00:00Z" }\n'
    config = read(tmp_path, text + JOB, ENGINE__TRIGGERS__T__ON__INTERVAL__END="2027-01-01T00:00:00Z")
    assert config.triggers["t"].schedule.previous(instant("2030-01-01T00:00Z")) == instant("2027-01-01T00:00Z")


# In a program


def test_code_names_the_calendars_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('engine.timezone = "Europe/Berlin"\n[calendars.h]\ndates = ["12-25"]\n')
    engine = Engine(tmp_path / "data", config=tmp_path / "config.toml")

    @engine.trigger("written", cron={"expression": "0 2 * * *", "except": ["h"]})
    @engine.trigger("made", on=Cron(expression="0 2 * * *", except_=("h",)))
    @engine.trigger("started", interval={"every": "1h", "start": "2026-12-01 00:30", "jitter": "5m"})
    @engine.job
    def nothing(run: object) -> None: ...

    triggers = engine._definitions.triggers
    for name in ("written", "made"):
        assert triggers[name].schedule.next(instant("2026-12-24T12:00Z")) == instant("2026-12-26T01:00Z")
    assert triggers["started"].schedule.next(instant("2026-01-01T00:00Z")) == instant("2026-11-30T23:30Z")


def test_code_that_names_none_is_told(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data")

    @engine.job
    def nothing(run: object) -> None: ...

    with pytest.raises(ConfigError, match="there are no calendars"):
        engine.add_trigger("a", job=nothing, cron={"expression": "0 2 * * *", "except": ["h"]})
    with pytest.raises(ConfigError, match=r'except\[0\]: found "h", but there is no such calendar'):
        engine.add_trigger("b", job=nothing, on=Cron(expression="0 2 * * *", except_=("h",)))
    with pytest.raises(ConfigError, match="every_nth"):
        engine.add_trigger("c", job=nothing, on=Interval(every=60.0, every_nth=1))


def test_settings_that_were_not_made_are_not_shown() -> None:
    assert shown(Interval(every=60.0)) == {"every": 60.0, "offset": 0.0}
    made = Cron(expression="0 2 * * *", timezone="UTC", except_=("h",), every_nth=2)
    assert shown(made) == {"timezone": "UTC", "every_nth": 2, "except": ["h"], "expression": "0 2 * * *"}
