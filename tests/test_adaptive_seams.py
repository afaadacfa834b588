"""What adaptive intervals need of others: timers, sources, the configuration, the API and the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, load
from engine.decide.pacing import first_by, paced
from engine.decide.schedule import Schedule
from engine.embedding import Engine
from engine.errors import ConfigError, ConfigProblem
from engine.plugin import Outcome, SourceContext
from engine.sources import SourceState
from engine.testing import MemoryContext, VirtualClock
from engine.triggers import Adaptive, Mode
from plugins.sources.files import Files
from plugins.timers.interval import Interval
from tests.fake_operations import FakeOperations, serving
from tests.http_client import Client, asking

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOURLY = Schedule(trigger="sync", timer=Interval(every=3600.0))


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


# The grid of a timer


def test_another_interval_begins_one_interval_after_the_last_instant() -> None:
    first = first_by(HOURLY, 5400.0, last=at(0), upcoming=at(1), now=at(0.1))
    assert first == at(1.5)
    schedule = paced(HOURLY, 5400.0, first)
    assert [schedule.next(at(0)), schedule.next(at(1.5)), schedule.next(at(3.2))] == [at(1.5), at(3), at(4.5)]
    assert [schedule.previous(at(3)), schedule.previous(at(1.5))] == [at(1.5), None]


def test_where_that_has_passed_the_instant_that_was_next_stays() -> None:
    assert first_by(HOURLY, 1800.0, last=at(0), upcoming=at(1), now=at(0.7)) == at(1)
    assert first_by(HOURLY, 1800.0, last=at(0), upcoming=None, now=at(0.7)) == at(1.2)


@pytest.mark.parametrize(("last_h", "now_h", "first_h"), [(0.4, 0.45, 1), (0.6, 0.65, 2), (-3, 0.5, 1), (-3, 0, 1)])
def test_the_configured_interval_comes_back_on_its_own_grid(last_h: float, now_h: float, first_h: float) -> None:
    first = first_by(HOURLY, None, last=at(last_h), upcoming=at(9), now=at(now_h))
    assert first == at(first_h)
    schedule = paced(HOURLY, None, first)
    assert schedule.next(at(last_h)) == at(first_h)
    assert schedule.next(at(first_h)) == at(first_h + 1)


def test_other_settings_of_the_timer_stay() -> None:
    timer = Interval(every=3600.0, offset=60.0, end=at(10), jitter=30.0)
    schedule = paced(Schedule(trigger="sync", timer=timer), 7200.0, at(1))
    assert (schedule.timer.end, schedule.timer.jitter) == (at(10), 30.0)
    assert schedule.next(at(9.5)) is None
    own = paced(Schedule(trigger="sync", timer=timer), None, at(1))
    assert own.next(at(1)) == at(1) + timedelta(seconds=60)


@given(
    seconds=st.floats(1, 1e6), every=st.floats(1, 1e6), last_s=st.floats(0, 1e7), late=st.floats(0, 5),
)  # fmt: skip
def test_nothing_is_due_twice_in_a_burst_or_put_off_by_a_shorter_interval(
    seconds: float, every: float, last_s: float, late: float
) -> None:
    configured = Schedule(trigger="sync", timer=Interval(every=every))
    last = configured.next(NOON + timedelta(seconds=last_s))
    assert last is not None
    upcoming = configured.next(last)
    assert upcoming is not None
    now = min(last + timedelta(seconds=late * every), upcoming - timedelta(microseconds=1))
    first = first_by(configured, seconds, last=last, upcoming=upcoming, now=now)
    schedule = paced(configured, seconds, first)
    tick = timedelta(microseconds=2)
    following = schedule.next(last)
    assert following is not None
    assert abs(following - first) <= tick
    assert following > now
    assert abs((schedule.next(following) or now) - following - timedelta(seconds=seconds)) <= tick
    assert following - last >= min(timedelta(seconds=seconds), upcoming - last) - tick
    if seconds <= every:
        assert following <= upcoming + tick


# The pace of a source


async def beats(context: SourceContext, times: list[float], round_s: float = 0.0) -> None:
    async for _ in context.every(10):
        times.append(context.clock.monotonic())
        await context.clock.sleep(round_s)


class Paced:
    """A context whose pace a test changes as the supervisor does."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.context = MemoryContext(clock=self.clock)

    @property
    def state(self) -> SourceState:
        return self.context.state

    def set_factor(self, factor: float) -> None:
        self.state.factor = factor
        self.state.paced.set()
        self.state.paced = anyio.Event()


async def test_rounds_follow_the_pace_at_once_and_from_start_to_start() -> None:
    work, times = Paced(), list[float]()
    async with anyio.create_task_group() as group:
        group.start_soon(beats, work.context, times, 2.0)
        await work.clock.advance(25)
        work.set_factor(3.0)  # the round that is waited for comes at 50
        await work.clock.advance(60)
        work.set_factor(0.5)  # at 85: five seconds after 80 are over
        await work.clock.advance(11)
        group.cancel_scope.cancel()
    assert times == [0, 10, 20, 50, 80, 85, 90, 95]


async def test_a_pause_is_longer_by_the_factor_also_one_that_goes_on() -> None:
    work, times = Paced(), list[float]()

    async def pauses() -> None:
        for since_s in (None, 12.0):
            await work.context.pause(10, since_s=since_s)
            times.append(work.clock.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(pauses)
        await work.clock.advance(5)
        work.set_factor(2.0)
        await work.clock.advance(20)
        assert times == [20]
        work.set_factor(1.0)
        await work.clock.advance(1)
    assert times == [20, 25]
    assert work.context.paced(30) == 30


def test_the_sources_that_poll_say_how_often() -> None:
    assert Files(path=Path("inbox")).base_interval() == 30.0
    assert Files(path=Path("inbox"), poll="always", poll_every=5.0).base_interval() == 5.0


# The configuration

ADAPTIVE = 'adaptive = { min = "30m", max = "4h", success_rate_min = 0.95 }\n'


def read(folder: Path, on: str, adaptive: str = ADAPTIVE) -> Config:
    file = folder / "config.toml"
    file.write_text(f'[jobs.j]\nrun.exec = ["true"]\n[triggers.sync]\njob = "j"\n{on}\n{adaptive}')
    return load([file], environment={})


def refused(folder: Path, on: str, adaptive: str = ADAPTIVE) -> ConfigProblem:
    with pytest.raises(ConfigError) as caught:
        read(folder, on, adaptive)
    [problem] = caught.value.problems
    return problem


def test_all_of_its_keys_are_read(tmp_path: Path) -> None:
    table = (
        'adaptive = { min = "30m", max = "4h", success_rate_min = 0.95, duration_max = "45m", cpu_max = 0.85, '
        'memory_max = 0.9, load_max = 1.5, volume = "rows", volume_target = 500, step = 1.2, hold = 5, '
        'mode = "shadow" }\n'
    )
    assert read(tmp_path, 'on.interval = "60m"', table).triggers["sync"].adaptive == Adaptive(
        min_s=1800, max_s=14400, success_rate_min=0.95, duration_max_s=2700, cpu_max=0.85, memory_max=0.9, load_max=1.5,
        volume="rows", volume_target=500, step=1.2, hold=5, mode=Mode.SHADOW,
    )  # fmt: skip


@pytest.mark.parametrize(
    "on",
    [
        'on.interval = "60m"',
        'on.http = { url = "https://example.org/feed", every = "1h" }',
        'on.database = { url = "sqlite+aiosqlite:///a.db", query = "select id from t where id > :cursor order by id", '
        'cursor = "id", every = "1h" }',
        'on.files = { path = "inbox", every = "1h" }',
    ],
    ids=["interval", "http", "database", "files"],
)
def test_what_polls_can_be_adaptive(tmp_path: Path, on: str) -> None:
    adaptive = read(tmp_path, on).triggers["sync"].adaptive
    assert adaptive is not None
    assert adaptive.mode is Mode.ON


@pytest.mark.parametrize(
    ("on", "adaptive", "path", "message"),
    [
        ('on.cron = "0 2 * * *"', ADAPTIVE, "adaptive", "cron has no interval that could be adapted"),
        ("on.manual = true", ADAPTIVE, "adaptive", "manual has no interval that could be adapted"),
        ('on.interval = "10m"', ADAPTIVE, "adaptive", "the interval, 10m, is not between min and max"),
        ('on.interval = { every = "1h", every_nth = 2 }', ADAPTIVE, "adaptive", "stands beside every_nth"),
        (
            'on.interval = "1h"', 'adaptive = { min = "500ms", max = "4h", cpu_max = 0.8 }\n', "adaptive.min",
            "interval can't have it: every is shorter than a second",
        ),
        ('on.interval = "1h"', 'adaptive = { min = "4h", max = "1h", cpu_max = 0.8 }\n', "adaptive.max", "is shorter"),
        ('on.interval = "1h"', 'adaptive = { min = "1m", max = "4h" }\n', "adaptive", "everything else to go by"),
        (
            'on.interval = "1h"', 'adaptive = { min = "1m", max = "4h", volume = "rows" }\n', "adaptive",
            "is missing beside volume",
        ),
        ('on.interval = "1h"', 'adaptive = { min = "1m", max = "4h", cpu_max = 85 }\n', "adaptive.cpu_max", "85"),
        ('on.interval = "1h"', 'adaptive = { min = "1m", max = "4h", load_max = 1, step = 3 }\n', "adaptive.step", "3"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused_with_its_place(
    tmp_path: Path, on: str, adaptive: str, path: str, message: str
) -> None:
    problem = refused(tmp_path, on, adaptive)
    assert problem.path.startswith(f"triggers.sync.{path}")
    assert message in problem.message
    assert problem.line is not None


async def test_a_program_can_have_adaptive_triggers_and_add_them_while_it_runs(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path / "data", clock=clock)
    done = anyio.Event()

    @engine.job
    async def sync(run: Any) -> Outcome:
        done.set()
        raise RuntimeError("no")

    async with engine:
        engine.add_trigger(
            "often", job=sync, on={"interval": "1m"},
            adaptive={"min": "30s", "max": "5m", "success_rate_min": 0.9, "hold": 1},
        )  # fmt: skip
        with anyio.fail_after(20):
            while not (view := _view(engine))["changes"]:
                await clock.advance(10)
                await anyio.sleep(0.01)
        assert (view["interval_s"], view["in_force_s"]) == (90.0, 90.0)
        await engine.remove("often")
        engine.add_trigger(
            "often", job=sync, on={"interval": "1m"}, adaptive={"min": "30s", "max": "5m", "success_rate_min": 0.9}
        )
        assert _view(engine)["interval_s"] == 60.0
    assert done.is_set()


def _view(engine: Engine) -> dict[str, Any]:
    operations = engine._running()
    assert operations is not None
    return operations.adaptive_view("often")


# The API


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[tuple[FakeOperations, Client]]:
    operations = FakeOperations(tmp_path)
    async with serving(operations) as server, asking(server) as client:
        yield operations, client


async def test_what_is_asked_for_by_hand_is_checked_and_done(asked: tuple[FakeOperations, Client]) -> None:
    operations, client = asked
    path = "/api/v1/triggers/nightly/adaptive"
    done = await client.ask("POST", path, body={"action": "freeze", "reason": "the audit"})
    assert (done.status, done.json) == (200, operations.adaptive["nightly"])
    assert operations.adapted == [("nightly", "freeze", "the audit")]
    for body in ({}, {"action": "melt"}, {"action": "freeze", "why": "x"}, {"action": 1}):
        assert (await client.ask("POST", path, body=body)).status == 422
    assert (await client.ask("POST", "/api/v1/triggers/unknown/adaptive", body={"action": "reset"})).status == 404
    operations.adaptive.clear()
    refused = await client.ask("POST", path, body={"action": "reset"})
    assert (refused.status, refused.json["detail"]) == (409, "the interval of trigger nightly is not adaptive")
    assert (await client.ask("POST", "/api/v1/triggers/nightly/reset")).status == 200
    assert operations.adapted[1:] == [("nightly", "reset", "")]
