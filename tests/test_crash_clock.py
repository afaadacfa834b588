"""Real engines whose wall clock is stepped, that are stopped for days, stand still, or die again and again.

Each trigger does what its misfire rule says, and no due instant is run twice.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.crash.fakedtime import FakedTime, library
from tests.crash.process import EngineProcess, started, wait_for
from tests.crash.site import Job, Site

needs_faketime = pytest.mark.skipif(
    library() is None, reason="libfaketime is not installed: it sets the clock of a living engine"
)

RULES = """
[triggers.latest]
on.cron = "0 * * * *"
job = "work"
[triggers.all]
on.cron = "0 * * * *"
misfire = { catch_up = "all", max = 5, rate = "50/s" }
job = "work"
[triggers.none]
on.cron = "0 * * * *"
misfire = { catch_up = "none" }
job = "work"
[triggers.graced]
on.cron = "0 * * * *"
misfire = { grace = "90m", catch_up = "all" }
job = "work"
"""
BEAT = """
[triggers.beat]
on.cron = "* * * * * *"
misfire = { catch_up = "none", grace = "1s" }
job = "work"
"""
"""It wakes the timers each second, so that a test need not wait half a minute until they look at the clock."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site", jobs={"work": Job(seconds=0)}, triggers=RULES + BEAT)


def instants(site: Site, trigger: str, *states: str) -> list[datetime]:
    """Return the due instants of a trigger's runs that are in one of the states."""
    marks = ", ".join("?" * len(states))
    query = f"select scheduled_for from runs where trigger = ? and state in ({marks}) order by 1"
    return [datetime.fromtimestamp(at / 1e6, UTC) for (at,) in site.rows(query, [trigger, *states])]


def ran(site: Site, trigger: str) -> list[datetime]:
    return instants(site, trigger, "queued", "running", "succeeded")


def missed(site: Site, trigger: str) -> int:
    """Return how many due instants of a trigger were told of as missed."""
    instants = "sum(coalesce(json_extract(outputs, '$.instants'), 1))"
    ((count,),) = site.rows(f"select {instants} from runs where trigger = ? and state = 'missed'", [trigger])
    return count or 0


def wait_logged(engine: EngineProcess, action: str) -> None:
    """Wait until something is said; a clock that was set back is looked at within half a minute."""
    what = f"action={action}"
    wait_for(lambda: what in engine.logged(), lambda: f"{action} is logged:\n{engine.logged()}", 35.0, 0.05)


def have_it_look(site: Site) -> None:
    """Have the timers look at the clock sooner: as who pauses a trigger, or resumes it, does."""
    for what in ("pause", "resume"):
        assert site.post(f"/api/v1/triggers/beat/{what}", {}).status == 200


def nothing_was_run_twice(site: Site) -> None:
    """Check that each due instant is one event, and at most one run."""
    for query in (
        "select source, key, count(*) from events group by 1, 2 having count(*) > 1",
        "select trigger, scheduled_for, count(*) from runs where state <> 'missed' group by 1, 2 having count(*) > 1",
    ):
        assert site.rows(query) == []


def hours(start: datetime, *numbers: float) -> list[datetime]:
    return [start.replace(minute=0) + timedelta(hours=number) for number in numbers]


@needs_faketime
def test_a_clock_that_is_set_forward_and_back_on_a_living_engine(site: Site) -> None:
    noon = datetime(2026, 7, 1, 12, 10, tzinfo=UTC)
    clock = FakedTime(site.path / "clock", noon)
    with started(site, more=clock.environment) as engine:
        clock.set(noon + timedelta(hours=2))
        wait_logged(engine, "clock_stepped")
        wait_for(lambda: len(ran(site, "all")) == 2 == len(ran(site, "graced")), "all are caught up on")
        wait_for(lambda: missed(site, "none") == 2 and ran(site, "latest"), "none are caught up on, or the latest")
        assert ran(site, "latest") == hours(noon, 2)
        assert ran(site, "all") == hours(noon, 1, 2)
        assert ran(site, "none") == []
        assert ran(site, "graced") == hours(noon, 1, 2)
        # Back by two hours: what was run is not run again.
        clock.set(noon)
        have_it_look(site)
        wait_logged(engine, "clock_behind")
        for hour in (1, 2):
            clock.set(hours(noon, hour)[0] - timedelta(seconds=2))
            have_it_look(site)
            time.sleep(4)
            assert ran(site, "latest") == hours(noon, 2)
            assert ran(site, "all") == hours(noon, 1, 2)
        clock.set(hours(noon, 3)[0] + timedelta(seconds=-2))
        have_it_look(site)
        wait_for(lambda: len(ran(site, "none")) == 1, "the next hour is run", 40.0)
        for trigger in ("latest", "all", "none", "graced"):
            wait_for(lambda: ran(site, trigger)[-1:] == hours(noon, 3), "so is that of the others")  # noqa: B023
        nothing_was_run_twice(site)
        assert engine.stop() == 0


@needs_faketime
def test_a_clock_that_jumps_by_400_days_and_is_corrected(site: Site) -> None:
    noon = datetime(2026, 7, 1, 12, 10, tzinfo=UTC)
    clock = FakedTime(site.path / "clock", noon)
    with started(site, more=clock.environment) as engine:
        clock.set(noon + timedelta(days=400))
        wait_for(lambda: len(ran(site, "all")) == 5, "the newest are caught up on")
        wait_for(lambda: missed(site, "none") == 9600, "the rest is told of")
        wait_for(lambda: len(ran(site, "graced")) == 2 and len(ran(site, "latest")) == 1, "the others are run")
        assert ran(site, "latest") == hours(noon, 9600)
        assert ran(site, "all") == hours(noon, *range(9596, 9601))
        assert (missed(site, "latest"), missed(site, "all")) == (9599, 9595)
        assert len(ran(site, "graced")) == 2
        clock.set(hours(noon, 1)[0] - timedelta(seconds=4))
        wait_logged(engine, "clock_corrected")
        wait_for(lambda: len(ran(site, "none")) == 1, "what the wrong clock only missed is run")
        for trigger in ("latest", "all", "none", "graced"):
            wait_for(lambda: ran(site, trigger)[0] == hours(noon, 1)[0], "so it is for the others")  # noqa: B023
        nothing_was_run_twice(site)
        assert engine.stop() == 0


@needs_faketime
def test_a_stop_of_three_days_is_followed_by_what_each_rule_says_once(site: Site) -> None:
    noon = datetime(2026, 7, 1, 12, 10, tzinfo=UTC)
    clock = FakedTime(site.path / "clock", noon)
    with started(site, more=clock.environment) as engine:
        assert engine.stop() == 0
    clock.set(noon + timedelta(days=3))
    for _ in range(2):
        with started(site, more=clock.environment) as engine:
            wait_for(lambda: len(ran(site, "all")) == 5, "the newest are caught up on")
            wait_for(lambda: len(ran(site, "graced")) == 2, "what has its grace is")
            wait_for(lambda: len(ran(site, "latest")) == 1, "the latest is run")
            wait_for(lambda: missed(site, "none") == 72, "the rest is told of")
            assert engine.stop() == 0
        assert ran(site, "latest") == hours(noon, 72)
        assert ran(site, "all") == hours(noon, *range(68, 73))
        assert ran(site, "graced") == hours(noon, 71, 72)
        assert (ran(site, "none"), missed(site, "latest"), missed(site, "all")) == ([], 71, 67)
        nothing_was_run_twice(site)


@needs_faketime
def test_a_stop_and_a_start_within_the_repeated_hour_repeat_nothing(tmp_path: Path) -> None:
    triggers = """
        [triggers.fixed]
        on.cron = { expression = "30 2 * * *", timezone = "Europe/Berlin" }
        job = "work"
        [triggers.star]
        on.cron = { expression = "30 * * * *", timezone = "Europe/Berlin" }
        job = "work"
    """
    site = Site(tmp_path / "site", jobs={"work": Job(seconds=0)}, triggers=triggers)
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))
    clock = FakedTime(site.path / "clock", first - timedelta(seconds=4))
    with started(site, more=clock.environment) as engine:
        wait_for(lambda: ran(site, "fixed") == [first], "half past two is run")
        assert engine.stop() == 0
    clock.set(second - timedelta(seconds=4))
    with started(site, more=clock.environment) as engine:
        wait_for(lambda: ran(site, "star") == [first, second], "half past two is there again")
        assert ran(site, "fixed") == [first]
        assert engine.stop() == 0
    clock.set(second + timedelta(minutes=20))
    with started(site, more=clock.environment) as engine:
        time.sleep(1)
        assert engine.stop() == 0
    assert ran(site, "fixed") == [first]
    assert missed(site, "fixed") == 0
    nothing_was_run_twice(site)


def test_an_engine_that_was_stopped_by_a_signal_goes_on_and_says_so(site: Site) -> None:
    with started(site) as engine:
        # In the rest of a second in which one was run the timers sleep until the next.
        wait_for(lambda: instants(site, "beat", "succeeded"), "a second is run")
        os.kill(engine.pid, signal.SIGSTOP)
        time.sleep(7)
        before = ran(site, "beat")
        os.kill(engine.pid, signal.SIGCONT)
        wait_logged(engine, "stood_still")
        wait_for(lambda: len(ran(site, "beat")) > len(before), "seconds are run again")
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        assert engine.stop() == 0
    _each_second_once(site)
    nothing_was_run_twice(site)


def _each_second_once(site: Site) -> None:
    told = Counter(instants(site, "beat", "queued", "running", "succeeded", "missed"))
    at, end = min(told), max(told)
    while at <= end:
        assert told[at] == 1, at
        at += timedelta(seconds=1)


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(900)])])
def test_each_second_is_run_although_the_engine_is_killed_again_and_again(tmp_path: Path, kills: int) -> None:
    triggers = BEAT.replace('"none", grace = "1s"', '"all", max = 1000, rate = "7/s"')
    site = Site(tmp_path / "site", jobs={"work": Job(seconds=0)}, triggers=triggers)
    moments = random.Random(20261126)
    for _ in range(kills):
        with started(site) as engine:
            time.sleep(moments.uniform(0.05, 1.5))
            engine.kill()
        time.sleep(moments.uniform(0.0, 2.0))
    with started(site) as engine:

        def caught_up() -> bool:
            found = ran(site, "beat")
            return bool(found) and found[-1] > datetime.now(UTC) - timedelta(seconds=2)

        wait_for(caught_up, "all seconds are caught up on", 60.0)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        assert engine.stop() == 0
    _each_second_once(site)
    assert missed(site, "beat") == 0
    nothing_was_run_twice(site)
