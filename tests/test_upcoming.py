"""What is ahead of a trigger: its due instants in its own zone, with what is special about each."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine import Conflict, Engine, NotFound, RunContext
from engine.cli.output import local
from engine.cli.welcome import welcome
from engine.cli.why import sentences
from engine.clock import rfc3339
from engine.decide.schedule import Schedule
from engine.decide.upcoming import Upcoming, clock_changes, clock_notes, upcoming
from engine.errors import PluginError
from engine.http.page.now import coming
from engine.plugin import Timer
from engine.testing import VirtualClock
from engine.triggers import Pause, PauseScope, SharedSource, Trigger, merged
from engine.vitals import LATE_S
from plugins.sources.manual import Manual
from plugins.timers.at import At
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.fake_operations import FakeOperations
from tests.http_client import Client, asking
from tests.test_runtime import Gate, configured, operations, running

V1 = "/api/v1"
BERLIN = "Europe/Berlin"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def on(timer: Any, **settings: Any) -> Trigger:
    return Trigger(name="nightly", job="import", source="timer:nightly", on=timer, **settings)


def first(trigger: Trigger, after: str, count: int = 1, **settings: Any) -> list[Upcoming]:
    return list(islice(upcoming(trigger, instant(after), **settings), count))


# The instants


def test_an_instant_is_told_in_utc_and_in_the_zone_of_its_timer_with_the_note_on_it() -> None:
    before, moved, after = first(on(Cron(expression="30 2 * * *", timezone=BERLIN)), "2027-03-26T12:00", 3)
    assert before.view() == {
        "at": "2027-03-27T01:30:00Z",
        "local": "2027-03-27T02:30:00+01:00[Europe/Berlin]",
        "note": None,
        "fires_at": "2027-03-27T01:30:00Z",
    }
    assert (moved.at, moved.local.hour, moved.zone) == (instant("2027-03-28T01:00"), 3, BERLIN)
    assert moved.note == "scheduled for 02:30, runs at 03:00: the clock skips from 02:00 to 03:00"
    assert (after.at, after.note) == (instant("2027-03-29T00:30"), None)


def test_a_timer_without_a_zone_is_told_in_the_one_of_the_engine() -> None:
    (one,) = first(on(Interval(every=3600.0)), "2026-07-01T12:00", default_zone="Asia/Tokyo")
    assert one.view()["local"] == "2026-07-01T22:00:00+09:00[Asia/Tokyo]"


def test_instants_end_where_the_timer_ends() -> None:
    assert [one.at for one in first(on(At(times=instant("2026-12-24T18:00"))), "2026-12-01", 10)] == [
        instant("2026-12-24T18:00")
    ]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_instants_are_told_as_far_as_the_calendar_goes(zone: str) -> None:
    for timer in (Interval(every=3600.0, timezone=zone), Cron(expression="0 * * * *", timezone=zone)):
        assert len(first(on(timer), "0001-01-01", 5)) in (0, 5)
        assert len(first(on(timer), "0002-01-02", 5)) == 5
        assert len(first(on(timer), "9999-12-31T12:00", 20)) < 20


def test_the_schedule_of_a_trigger_is_asked_and_not_its_timer() -> None:
    class Late(Schedule, frozen=True, kw_only=True):
        def fires_at(self, due: datetime) -> datetime:
            return due + MINUTE

        def next(self, after: datetime) -> datetime | None:
            return after.replace(microsecond=0) + timedelta(days=1)

    trigger = on(Interval(every=60.0), schedule=Late(trigger="nightly", timer=Interval(every=60.0)))
    (one,) = first(trigger, "2026-07-01T12:00")
    assert (one.at, one.fires_at) == (instant("2026-07-02T12:00"), instant("2026-07-02T12:01"))
    (one,) = first(trigger, "2026-07-01T12:00", schedule=Schedule(trigger="nightly", timer=Interval(every=3600.0)))
    assert one.at == instant("2026-07-01T13:00")


def test_instants_in_a_pause_and_those_of_a_disabled_trigger_say_so() -> None:
    trigger = on(Interval(every=3600.0))
    since, two = instant("2026-07-01T11:00"), instant("2026-07-01T14:00")
    pause = Pause(reason="stock-taking", since=since, until=two, name="nightly")
    said = "trigger nightly is paused until 2026-07-01 14:00:00 UTC: stock-taking"
    assert [one.note for one in first(trigger, "2026-07-01T12:00", 3, pause=pause)] == [said, None, None]
    both = merged(
        [Pause(reason="flood", since=since, until=instant("2026-07-01T15:00"), scope=PauseScope.ENGINE), pause]
    )
    flood = "the engine is paused until 2026-07-01 15:00:00 UTC: flood"
    notes = [one.note for one in first(trigger, "2026-07-01T12:00", 3, pause=both)]
    assert notes == [f"{flood}; {said}", flood, None]
    endless = Pause(reason="", since=since, name="nightly")
    assert {one.note for one in first(trigger, "2036-07-01T12:00", 3, pause=endless)} == {"trigger nightly is paused"}
    (one,) = first(on(Interval(every=60.0), enabled=False), "2026-07-01T12:00")
    assert one.note == "trigger nightly is disabled"
    off = SharedSource(name="beat", id=None, on=Interval(every=60.0), enabled=False)
    (one,) = first(on(Interval(every=60.0), shared=off), "2026-07-01T12:00")
    assert one.note == "trigger nightly is disabled, as its source beat is"
    moved = on(Cron(expression="30 2 * * *", timezone=BERLIN), enabled=False)
    (one,) = first(moved, "2027-03-27T12:00")
    assert one.note == (
        "scheduled for 02:30, runs at 03:00: the clock skips from 02:00 to 03:00; trigger nightly is disabled"
    )


def test_a_trigger_on_no_timer_is_refused_at_once() -> None:
    with pytest.raises(Conflict, match="trigger nightly is on no timer but on manual: what happens there makes it due"):
        upcoming(on(Manual()), instant("2026-07-01"))


class Broken(Timer, frozen=True, kw_only=True):
    name = "broken"
    stuck: bool = False

    def next(self, after: datetime) -> datetime | None:
        if self.stuck:
            return after
        raise ZeroDivisionError("no such number")

    def previous(self, before: datetime) -> datetime | None:
        return None


def test_what_a_timer_raises_is_told_as_its_own() -> None:
    with pytest.raises(PluginError, match="the timer of trigger nightly raised ZeroDivisionError: no such number"):
        first(on(Broken()), "2026-07-01")
    with pytest.raises(PluginError, match=r"the next instant after 2026-07-01T00:00:00Z can't be 2026-07-01T00:00:00Z"):
        first(on(Broken(stuck=True)), "2026-07-01")


# Changes of the clock


@pytest.mark.parametrize("zone", [BERLIN, "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago", "Asia/Gaza"])
def test_changes_of_a_clock_are_found_to_the_second(zone: str) -> None:
    place = ZoneInfo(zone)
    found = list(clock_changes(zone, instant("2026-01-01"), instant("2029-01-01")))
    assert len(found) >= 5
    for at, twice in found:
        before, after = ((at - each).astimezone(place).utcoffset() for each in (timedelta(seconds=1), timedelta(0)))
        assert before is not None
        assert after is not None
        assert before != after
        assert twice == max(before - after, timedelta(0))
    # between them the offset is one
    hours = [instant("2026-01-01") + timedelta(hours=n) for n in range(3 * 365 * 24)]
    turns = sum(a.astimezone(place).utcoffset() != b.astimezone(place).utcoffset() for a, b in pairwise(hours))
    assert turns == len(found)


NOTED = [
    ("30 2 * * *", ["2027-03-28T01:00", "2027-10-31T00:30"]),
    ("* * * * *", ["2027-03-28T01:00", "2027-10-31T00:00"]),
    ("* * * * * *", ["2027-03-28T01:00", "2027-10-31T00:00"]),
    ("*/30 2 * * *", ["2027-03-29T00:00", "2027-10-31T00:00"]),
    ("*/30 2 * 3 *", ["2027-03-29T00:00"]),
    ("*/30 2 28 3 *", ["2028-03-28T00:00"]),
    ("0 14 * * *", []),
    ("0 0 29 2 *", []),
]


@pytest.mark.parametrize(("expression", "expected"), NOTED)
def test_each_change_that_touches_a_trigger_is_noted_once(expression: str, expected: list[str]) -> None:
    trigger = on(Cron(expression=expression, timezone=BERLIN))
    found = list(clock_notes(trigger, instant("2027-01-01"), instant("2028-01-01")))
    assert [one.at for one in found] == [instant(each) for each in expected]
    assert all(one.note for one in found)


def test_what_does_not_work_or_has_no_zone_that_changes_has_no_notes_on_clocks() -> None:
    span = instant("2027-01-01"), instant("2028-01-01")
    for trigger in (
        on(Cron(expression="30 2 * * *", timezone=BERLIN), enabled=False),
        on(Cron(expression="30 2 * * *")),
        on(Interval(every=3600.0)),
        on(Manual()),
    ):
        assert list(clock_notes(trigger, *span)) == []


# The API


async def test_the_api_tells_as_many_instants_as_are_asked_for(operations: FakeOperations, client: Client) -> None:
    path = f"{V1}/triggers/nightly/next"
    got = await client.ask("GET", f"{path}?count=2&after=2026-11-21T10:00:00%2B01:00")
    assert (got.status, [one["at"] for one in got.json]) == (200, ["2026-11-22T02:00:00Z", "2026-11-23T02:00:00Z"])
    assert got.json[0]["local"] == "2026-11-22T02:00:00+00:00[UTC]"
    assert len((await client.ask("GET", path)).json) == 10
    assert len((await client.ask("GET", f"{path}?count=1000")).json) == 1000
    await operations.pause(PauseScope.TRIGGER, "nightly", reason="stock-taking")
    got = await client.ask("GET", f"{path}?count=1")
    assert got.json[0]["note"] == "trigger nightly is paused: stock-taking"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("count=0", "count"),
        ("count=1001", "count"),
        ("count=x", "count"),
        ("after=2026-11-21T10:00:00", "after"),
        ("n=3", "n"),
    ],
)
async def test_the_api_refuses_what_it_does_not_know(client: Client, query: str, parameter: str) -> None:
    got = await client.ask("GET", f"{V1}/triggers/nightly/next?{query}")
    assert (got.status, got.json["errors"][0]["parameter"]) == (422, parameter)


async def test_the_api_says_of_a_trigger_without_a_timer_that_it_has_none(
    operations: FakeOperations, client: Client
) -> None:
    operations.config.triggers["dropped"] = on(Manual())
    got = await client.ask("GET", f"{V1}/triggers/dropped/next")
    assert (got.status, got.json["code"]) == (409, "conflict")
    assert "is on no timer but on manual" in got.json["detail"]
    assert (await client.ask("GET", f"{V1}/triggers/nighty/next")).status == 404


# In a program


async def test_a_program_asks_before_it_runs_and_while_it_does(tmp_path: Path) -> None:
    clock = VirtualClock(instant("2027-03-27T12:00"))
    engine = Engine(tmp_path / "data", timezone=BERLIN, clock=clock)

    @engine.trigger(cron="30 2 * * *")
    @engine.job
    async def nightly(run: RunContext) -> None: ...

    engine.add_trigger("orders", event="order.*", job="nightly")
    (before,) = engine.next("nightly")
    assert (before.at, before.zone) == (instant("2027-03-28T01:00"), BERLIN)
    assert engine.next("nightly", 3, after=instant("2030-01-01"))[-1].at == instant("2030-01-03T01:30")
    async with engine:
        assert engine.next("nightly") == (before,)
        await engine.pause("nightly", reason="stock-taking")
        (paused,) = engine.next("nightly")
        assert paused.note is not None
        assert paused.note.endswith("trigger nightly is paused: stock-taking")
        with pytest.raises(Conflict, match="on no timer"):
            engine.next("orders")
        with pytest.raises(NotFound):
            engine.next("nighty")
        with pytest.raises(Conflict, match="time zone"):
            engine.next("nightly", after=datetime(2027, 1, 1))  # noqa: DTZ001


# What is shown of a running engine

ADMIN = "t" * 43
PEOPLE = {"Accept": "text/html", "Accept-Encoding": "identity"}

SPREAD = """
[jobs.work]
run.gate = "open"
[triggers.spread]
on.cron = { expression = "0 9 * * *", jitter = "10m" }
job = "work"
[triggers.halted]
on.cron = "0 9 * * *"
job = "work"
"""


async def test_when_a_trigger_fires_next_is_shown_with_its_jitter_and_not_of_one_that_is_paused_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = VirtualClock()
    async with running(configured(tmp_path, SPREAD), clock=clock, listen=True) as engine:
        asked, now = operations(engine), clock.now()
        soonest = next(iter(asked.upcoming("spread", now)))
        assert soonest.fires_at > soonest.at
        view = asked.trigger_view("spread")
        assert (view["next_at"], view["next_fires_at"]) == (rfc3339(soonest.at), rfc3339(soonest.fires_at))
        assert f"fires {local(rfc3339(soonest.fires_at))}" in "\n".join(
            sentences({"trigger": view, "runs": [], "events": []})
        )
        (soon,) = [one for one in coming(asked, now) if one.trigger == "spread"]
        assert soon.at == soonest.fires_at
        assert soon.ticks[0] == pytest.approx((soonest.fires_at - now) / timedelta(days=1))

        await asked.pause(PauseScope.TRIGGER, "halted", reason="stock-taking")
        welcome(engine, [])
        due = capsys.readouterr().out.partition("By the clock it runs next\n")[2].partition("\n\n")[0]
        assert due.split("\n") == [f"  spread  {local(rfc3339(soonest.fires_at))}"]
        await asked.pause(PauseScope.TRIGGER, "halted", reason="stock-taking", until=now + timedelta(seconds=1))
        welcome(engine, [])
        assert f"  halted  {local(rfc3339(soonest.at))}\n" in capsys.readouterr().out

        assert engine.server is not None
        async with asking(engine.server) as client:
            page = (await client.ask("GET", "/triggers/spread", headers=PEOPLE, token=ADMIN)).body.decode()
            assert f'datetime="{rfc3339(soonest.fires_at)}"' in page
            assert re.search(r'<td data-label="Fires" class="tight">\d.* later</td>', page)
            page = (await client.ask("GET", "/triggers/halted", headers=PEOPLE, token=ADMIN)).body.decode()
            assert 'data-label="Fires"' not in page


async def test_a_trigger_is_not_late_while_its_jitter_lasts(tmp_path: Path) -> None:
    config = configured(tmp_path, SPREAD.partition("[triggers.halted]")[0].replace("10m", "3h"))
    soonest = next(upcoming(config.triggers["spread"], instant("2026-12-01T00:00:00")))
    assert (soonest.fires_at - soonest.at).total_seconds() > 2 * LATE_S
    clock = VirtualClock(soonest.at - SECOND)
    async with running(config, clock=clock) as engine:
        asked = operations(engine)
        await clock.advance(1.5 * LATE_S)
        view = asked.trigger_view("spread")
        assert (view["next_at"], view["next_fires_at"]) == (rfc3339(soonest.at), rfc3339(soonest.fires_at))
        assert asked.vitals is not None
        told = await asked.vitals.trigger("spread")
        assert not [said for said in told["troubles"] if "due" in said]


async def test_the_page_of_a_paused_trigger_says_why_once_and_the_word_at_each_instant(tmp_path: Path) -> None:
    async with running(configured(tmp_path, SPREAD), listen=True) as engine:
        await operations(engine).pause(PauseScope.TRIGGER, "halted", reason="stock-taking")
        assert engine.server is not None
        async with asking(engine.server) as client:
            page = (await client.ask("GET", "/triggers/halted", headers=PEOPLE, token=ADMIN)).body.decode()
    assert page.count("stock-taking") == 1
    assert page.count('<td><span class="tag">paused</span>') == 8


async def test_what_a_trigger_by_hand_is_on_is_told_without_a_stray_blank(tmp_path: Path) -> None:
    text = '[jobs.work]\nrun.gate = "open"\n[triggers.by-hand]\non.manual = {}\njob = "work"\n'
    async with running(configured(tmp_path, text), listen=True) as engine:
        assert engine.server is not None
        async with asking(engine.server) as client:
            page = (await client.ask("GET", "/triggers/by-hand", headers=PEOPLE, token=ADMIN)).body.decode()
    assert "on manual, run " in page


async def test_a_calendar_says_why_it_shows_less_than_a_week_and_names_no_quietest_of_equal_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.foresight.desk.MOST_INSTANTS", 2_000)
    monkeypatch.setattr(Gate, "open", {"open"})
    text = '[jobs.work]\nrun.gate = "open"\n[triggers.tick]\non.interval = "INTERVAL"\njob = "work"\n'
    pages = {}
    for interval in ("10m", "2m", "1s"):
        config = configured(tmp_path, text.replace("INTERVAL", interval))
        async with running(config, listen=True) as engine:
            assert engine.server is not None
            async with asking(engine.server) as client:
                got = await client.ask("GET", "/calendar?foreseen=1", headers=PEOPLE, token=ADMIN)
        pages[interval] = got.body.decode()
    assert "The week to come" in pages["10m"]
    assert "too many to foresee" not in pages["10m"]
    assert "none: all are about equal" in pages["10m"]
    assert "The two days to come" in pages["2m"]
    assert re.search("About 5.04[0-9] instants come due in the week: too many to foresee all", pages["2m"])
    assert "More comes due within twelve hours than can be foreseen here" in pages["1s"]
    assert "data-later" not in pages["1s"]
