"""What is over goes after its time, and only that; all that was ever accepted still adds up."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from engine.config import StoreSettings
from engine.config.keeping import KeepTable
from engine.errors import StoreDamaged, StoreUnavailable
from engine.housekeeping import Housekeeping
from engine.housekeeping import room as room_module
from engine.ids import new_id
from engine.journal import Journal
from engine.plugin.settings import BadSetting
from engine.runlogs import RunLogs
from engine.runs import Origin, Run, RunState
from engine.store.changes import Accept, BeginBackfill
from engine.testing import VirtualClock
from engine.testing.store_contract.material import (
    a_run,
    accept,
    an_entry,
    an_event,
    make,
)
from tests.organs import InlineStore
from tests.test_store_queries import BACKFILL

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC) + 100 * DAY
"""Logs lie in folders by the day on which the id of their run was made: they are old by then."""


class Home:
    """A store with what a test puts into it, and its housekeeping."""

    def __init__(self, path: Path, keep: KeepTable) -> None:
        self.clock = VirtualClock(NOW)
        self.store = InlineStore(path / "engine.db", self.clock)
        self.journal = Journal(self.store, self.clock)
        self.logs = path / "logs"
        self.received = path / "files"
        self.run_logs = RunLogs(self.logs)
        self.settings = StoreSettings(url="", path=path / "engine.db", keep=keep, backups=path / "backups")
        self.keeping = self.anew()

    def anew(self, **settings: Any) -> Housekeeping:
        return Housekeeping(
            clock=self.clock, journal=self.journal, store=self.store, run_logs=self.run_logs, logs=self.logs,
            received=self.received, settings=replace(self.settings, **settings),
        )  # fmt: skip

    async def run(
        self, age: timedelta, *, state: RunState = RunState.SUCCEEDED, key: str | None = None, size: int = 10,
        **fields: Any,
    ) -> Run:  # fmt: skip
        """Store an event that came so long ago, with a run that ended at once (or did not)."""
        event = replace(an_event(key=key, data="x" * size), received_at=NOW - age)
        over = {"finished_at": NOW - age} if state is RunState.SUCCEEDED else {}
        run = a_run(event, state=state, **{"created_at": NOW - age, **over, **fields})
        await make(self.store, accept(an_entry(event, run)))
        return run

    def log(self, run_id: str, text: str = "said") -> Path:
        os.write(descriptor := self.run_logs.open(run_id), text.encode())
        os.close(descriptor)
        return self.run_logs.path(run_id)

    async def round(self) -> dict[str, Any]:
        """Have a round done, and return how it went."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.keeping._do_round)
            with anyio.fail_after(30):
                while not self.keeping._done:
                    await self.clock.advance(1)
        self.keeping._done = 0
        last = self.keeping.status()["last"]
        assert isinstance(last, dict)
        return last

    async def are_there(self, *runs: Run) -> list[bool]:
        return [await self.store.run(run.id) is not None for run in runs]

    async def adds_up(self) -> bool:
        ledger = await self.store.ledger()
        return not ledger.missing and ledger.accepted == ledger.ended + ledger.waiting + ledger.purged


@asynccontextmanager
async def at_home(path: Path, **keep: Any) -> AsyncIterator[Home]:
    home = Home(path, KeepTable(**keep))
    await home.store.open()
    async with anyio.create_task_group() as group:
        group.start_soon(home.journal.run)
        yield home
        home.journal.close()
    await home.store.close()


async def test_runs_events_and_logs_go_when_their_time_is_over(tmp_path: Path) -> None:
    async with at_home(tmp_path, events=10 * 86400.0, runs=20 * 86400.0, logs=5 * 86400.0) as home:
        ages = (30 * DAY, 15 * DAY, 7 * DAY, DAY)
        runs = [await home.run(age, key=f"k{number}") for number, age in enumerate(ages)]
        await home.run(HOUR)
        logs = [home.log(run.id) for run in runs]
        before = await home.store.ledger()
        last = await home.round()
        assert (last["runs"], last["events"], last["files"], last["problem"]) == (1, 2, 3, None)
        assert await home.are_there(*runs) == [False, True, True, True]
        assert [await home.store.event(run.event) is not None for run in runs] == [False, False, True, True]
        assert [log.exists() for log in logs] == [False, False, False, True]
        ledger = await home.store.ledger()
        assert (ledger.accepted, ledger.purged, ledger.missing) == (before.accepted, 2, ())
        assert await home.adds_up()
        view = await home.keeping.view()
        assert (view["purged"]["events"], view["purged"]["runs"]) == (2, 1)
        last = await home.round()
        assert (last["runs"], last["events"], last["files"]) == (0, 0, 0)


async def test_what_is_open_stays_whatever_its_age(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        states = (RunState.PENDING, RunState.QUEUED, RunState.HELD, RunState.RUNNING, RunState.RETRYING)
        runs = [await home.run(400 * DAY, state=state) for state in states]
        logs = [home.log(run.id) for run in runs]
        joined = replace(an_event(), received_at=NOW - 399 * DAY)
        await make(home.store, accept(an_entry(joined)))
        for _ in range(2):
            await home.run(HOUR)
        await home.round()
        assert all(await home.are_there(*runs))
        assert all([await home.store.event(run.event) is not None for run in runs])
        assert all(log.exists() for log in logs)
        assert await home.store.event(joined.id) is None
        assert await home.adds_up()


async def test_how_a_job_ended_last_is_known_for_ever(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        older, newer = [await home.run(age * DAY, job="yearly") for age in (500, 300)]
        failed = replace(await home.run(400 * DAY, job="yearly", state=RunState.QUEUED), state=RunState.FAILED)
        await home.run(HOUR)
        await home.round()
        assert await home.are_there(older, newer, failed) == [False, True, True]


async def test_runs_of_a_backfill_that_goes_on_are_kept_until_they_are_counted(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        begun = replace(BACKFILL, total=1)
        await make(home.store, Accept(entries=(), backfill=BeginBackfill(backfill=begun, instants=(NOW,))))
        run = await home.run(200 * DAY, origin=Origin.BACKFILL, trigger=begun.trigger)
        await home.run(100 * DAY)
        await home.run(HOUR)
        await home.round()
        assert await home.are_there(run) == [True]


async def test_files_that_a_crash_left_go_with_their_day(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        orphan = home.log(new_id())
        output = home.run_logs.path(new_id()).with_suffix(".out")
        output.touch()
        kept = orphan.with_name("notes.txt")
        kept.write_text("no run's")
        await home.run(HOUR)
        last = await home.round()
        assert (last["files"], orphan.exists(), output.exists(), kept.exists()) == (2, False, False, True)
        kept.unlink()
        await home.round()
        assert not orphan.parent.exists()


async def test_files_that_came_with_events_go_with_them_and_those_of_no_event_in_their_time(tmp_path: Path) -> None:
    def received(event: str | None, age: timedelta) -> Path:
        directory = home.received / uuid.uuid4().hex
        directory.mkdir(parents=True)
        (directory / "1").write_text("a file")
        if event is not None:
            (directory / "event").write_text(event)
        os.utime(directory, ((NOW - age).timestamp(),) * 2)
        return directory

    async with at_home(tmp_path) as home:
        old, new = await home.run(200 * DAY), await home.run(HOUR)
        still_open = await home.run(200 * DAY, state=RunState.QUEUED)
        gone = [received(old.event, 200 * DAY), received(None, 200 * DAY)]
        kept = [received(still_open.event, 200 * DAY), received(new.event, HOUR), received(None, HOUR)]
        notes = home.received / "notes"
        notes.mkdir()
        os.utime(notes, ((NOW - 200 * DAY).timestamp(),) * 2)
        assert (await home.keeping.rehearse())["files"] == 1, "the event of the other one is there still"
        assert (await home.round())["files"] == 2
        assert [path.exists() for path in (*gone, *kept, notes)] == [False] * 2 + [True] * 4


async def test_a_rehearsal_says_what_would_go_and_leaves_it(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        runs = [await home.run(age * DAY) for age in (200, 150, 40)]
        home.log(runs[0].id)
        await home.run(HOUR)
        tried = await home.keeping.rehearse()
        assert (tried["dry_run"], tried["runs"], tried["events"]) == (True, 2, 3)
        assert all(await home.are_there(*runs))
        last = await home.round()
        assert [last[name] for name in ("runs", "events", "files")] == [
            tried[name] for name in ("runs", "events", "files")
        ]


async def test_a_store_that_is_away_puts_a_round_off_and_loses_nothing(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        for number in range(120):
            await home.run((200 + number) * DAY)
        await home.run(HOUR)
        home.store.write_error = StoreUnavailable("the disk is away")
        last = await home.round()
        assert "away" in last["problem"]
        assert home.keeping.checks()[1]["ok"] is False
        home.store.write_error = None
        await home.clock.advance(10)
        last = await home.round()
        assert (last["problem"], last["runs"], last["events"]) == (None, 120, 120)
        assert home.keeping.checks()[1]["ok"] is True
        assert await home.adds_up()


async def test_batches_are_small_changes_in_the_journal(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        for number in range(1000):
            await home.run(200 * DAY + number * HOUR)
        await home.run(HOUR)
        await home.round()
        purges = [change.purge for change in home.store.changes if isinstance(change, Accept) and change.purge]
        assert len(purges) > 4
        assert max(len(purge.events) + len(purge.runs) for purge in purges) <= 400
        assert sum(len(purge.runs) for purge in purges) == 1000


async def test_over_its_budget_the_oldest_goes_first_until_there_is_room(tmp_path: Path) -> None:
    async with at_home(tmp_path, disk=16 * 2**20) as home:
        runs = [await home.run(timedelta(days=20, hours=-number), size=100_000) for number in range(250)]
        keyed = await home.run(DAY, size=100_000, key="a sender's")
        await home.run(HOUR)
        last = await home.round()
        there = await home.are_there(*runs)
        assert there == sorted(there)
        assert 0 < there.count(False) < 200
        assert last["used_bytes"] < 16 * 2**20
        assert (last["over_bytes"], last["shrunk_bytes"] > 0) == (0, True)
        assert (await home.store.size()).total < 40 * 2**20
        assert await home.store.event(keyed.event) is not None
        assert await home.adds_up()


async def test_a_budget_that_can_not_be_kept_is_told_of_and_keys_of_senders_stay(tmp_path: Path) -> None:
    async with at_home(tmp_path, disk=16 * 2**20) as home:
        for number in range(180):
            await home.run(2 * DAY, size=100_000, key=str(number))
        await home.run(HOUR)
        last = await home.round()
        assert (last["events"], last["runs"]) == (0, 180)
        assert last["over_bytes"] > 0
        check = home.keeping.checks()[1]
        assert (check["ok"], "nothing is left that may be removed" in check["detail"]) == (False, True)


def test_keys_of_senders_are_known_for_three_days_at_least() -> None:
    with pytest.raises(BadSetting, match="72h"):
        KeepTable(events=3600.0)


# The disk


async def test_with_little_room_events_are_refused_and_everything_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [100 * 2**20]
    monkeypatch.setattr(room_module.Room, "_measure", lambda self: (free[0], tmp_path))
    async with at_home(tmp_path) as home:
        room = home.anew(min_free_bytes=64 * 2**20).room

        async def refused() -> bool:
            room.look()
            try:
                await home.journal.submit(accept(an_entry(an_event())))
            except StoreUnavailable as error:
                return "64MiB of [store] min_free" in str(error)
            return False

        assert not await refused()
        free[0] = 63 * 2**20
        assert await refused()
        assert (room.check()["ok"], "63MiB are free" in room.check()["detail"]) == (False, True)
        # What runs ends, and purging goes on: it is what makes room.
        run = await home.run(200 * DAY)
        await home.run(HOUR)
        await home.round()
        assert await home.are_there(run) == [False]
        free[0] = 65 * 2**20
        assert await refused(), "it does not go on and off at the mark"
        assert "65MiB are free" in room.check()["detail"]
        free[0] = 80 * 2**20
        assert not await refused()
        assert room.check()["ok"]


async def test_what_is_free_is_told_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int | None] = [100 * 2**20]
    monkeypatch.setattr(room_module.Room, "_measure", lambda self: None if free[0] is None else (free[0], tmp_path))
    async with at_home(tmp_path) as home:
        for least in (64 * 2**20, 0):  # 0: it is never looked at by itself
            room = home.anew(min_free_bytes=least).room
            room.look()
            told = []
            for found in (90 * 2**20, None, 100 * 2**20):
                free[0] = found
                told.append(room.check()["detail"])
            assert told == ["90MiB free", "what is free can't be told", "100MiB free"]


async def test_the_disk_is_looked_at_more_often_where_little_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, looks = [10**12], []

    def measure(room: room_module.Room) -> tuple[int, Path]:
        looks.append(room)
        return free[0], tmp_path

    monkeypatch.setattr(room_module.Room, "_measure", measure)
    async with at_home(tmp_path) as home, anyio.create_task_group() as group:
        group.start_soon(home.keeping.room.run)
        await home.clock.advance(121)
        assert len(looks) == 2
        free[0] = 100 * 2**20
        await home.clock.advance(60)
        looks.clear()
        await home.clock.advance(15)
        assert len(looks) >= 29
        group.cancel_scope.cancel()


async def test_a_store_that_is_moved_away_is_not_written_any_more(tmp_path: Path) -> None:
    async with at_home(tmp_path) as home:
        run = await home.run(HOUR)
        os.rename(tmp_path / "engine.db", tmp_path / "elsewhere.db")
        with pytest.raises(StoreDamaged, match=r"moved away while the engine ran; nothing more is written"):
            await home.journal.submit(accept(an_entry(an_event())))
        assert isinstance(home.journal.failure, StoreDamaged)
        with pytest.raises(StoreDamaged):
            await home.journal.submit(accept(an_entry(an_event())))
        assert run.id
