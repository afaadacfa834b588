"""Housekeeping and backups by the API, by commands, and in a program; and what is said of what is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine import Engine, RunContext, mounts
from engine.decide.schedule import Schedule
from engine.errors import StoreUnavailable
from engine.hindsight.account import Account
from engine.hindsight.periods import Noted, periods_of
from engine.http import housekeeping_routes
from engine.ids import new_id
from engine.runs import RunState
from engine.store import place
from engine.store.base import Purged
from engine.store.sqlite import SqliteStore
from plugins.timers.interval import Interval
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.test_cli import VARIABLES, Running, ask
from tests.test_hindsight import at

V1 = "/api/v1"
GONE = Purged(events=7, runs=5, last_event="f" * 36, last_run="f" * 36, before=datetime(2026, 10, 1, tzinfo=UTC))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path) as running:
        yield running


# The API


async def test_housekeeping_is_shown_tried_and_asked_for(
    operations: FakeOperations, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations.memory.gone = GONE
    got = await client.ask("GET", f"{V1}/housekeeping")
    assert got.status == 200
    assert got.json["keep"] == {"events": "30d", "runs": "90d", "logs": "30d", "disk": None}
    assert got.json["purged"] == {"events": 7, "runs": 5, "before": "2026-10-01T00:00:00Z"}
    assert (got.json["running"], got.json["last"]) == (None, None)
    operations.add_run(events=3)
    operations.memory.purging = True
    tried = await client.ask("POST", f"{V1}/housekeeping", body={"dry_run": True})
    assert (tried.status, tried.json["would_remove"]["events"]) == (200, 3)
    monkeypatch.setattr(housekeeping_routes, "PATIENCE_S", 0.01)
    assert (await client.ask("POST", f"{V1}/housekeeping")).status == 202
    assert operations.housekeeping._asked.is_set()
    assert (await client.ask("POST", f"{V1}/housekeeping", body={"dry_run": "yes"})).status == 422
    assert (await client.ask("POST", f"{V1}/housekeeping", body={"wet_run": True})).status == 422


async def test_a_backup_has_a_name_and_nothing_else_to_choose(operations: FakeOperations, client: Client) -> None:
    for wrong in ({"name": "../../etc/passwd"}, {"name": "a/b"}, {"path": "/tmp/x"}, {"name": ".hidden"}):
        assert (await client.ask("POST", f"{V1}/backup", body=wrong)).status == 422
    got = await client.ask("POST", f"{V1}/backup", body={"name": "one"})
    assert (got.status, got.json["code"]) == (503, "store_unavailable")
    store = SqliteStore(operations.config.store.path)
    await store.open()
    got = await client.ask("POST", f"{V1}/backup", body={"name": "one"})
    assert (got.status, got.json["name"]) == (201, "one.db")
    assert (await client.ask("POST", f"{V1}/backup", body={"name": "one"})).status == 409
    timed = await client.ask("POST", f"{V1}/backup")
    assert timed.json["name"].startswith("engine-2")
    listed = await client.ask("GET", f"{V1}/backups")
    assert {one["name"] for one in listed.json["items"]} == {"one.db", timed.json["name"]}
    assert [path.name for path in operations.config.store.backups.iterdir() if ".part" in path.name] == []
    await store.close()
    copy = SqliteStore(operations.config.store.backups / "one.db")
    await copy.open()
    assert await copy.check() == []
    await copy.close()


@pytest.mark.parametrize("what", ["runs", "events"])
async def test_what_may_have_been_removed_is_gone_and_what_never_was_is_not_found(
    operations: FakeOperations, client: Client, what: str
) -> None:
    assert (await client.ask("GET", f"{V1}/{what}/{new_id()}")).status == 404
    operations.memory.gone = GONE
    got = await client.ask("GET", f"{V1}/{what}/{new_id()}")
    assert (got.status, got.json["code"]) == (410, "gone")
    assert ("kept 90d after its end" if what == "runs" else "kept 30d") in got.json["detail"]
    if what == "runs":
        assert (await client.ask("GET", f"{V1}/runs/{new_id()}/log")).status == 410


async def test_a_source_that_is_not_there_yet_or_any_more_asks_to_come_again(
    operations: FakeOperations, client: Client
) -> None:
    assert (await client.ask("POST", "/hooks/none", body={})).status == 404
    operations.unready = ["the store is away"]
    assert (await client.ask("POST", "/hooks/none", body={})).status == 404
    operations.unready, operations.to_come = [], {"/hooks/none"}
    got = await client.ask("POST", "/hooks/none", body={})
    assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "not_ready", "2")


# Commands


def test_the_command_says_what_would_go_and_what_went(engine: Running) -> None:
    engine.operations.memory.gone = GONE
    result = ask(engine, "housekeeping", "--show")
    assert result.exit_code == 0, result.output
    assert "Kept: events 30d, runs 90d, logs 30d" in result.output
    assert "Removed ever: 7 events, 5 runs" in result.output
    engine.operations.add_run(events=2)
    engine.operations.memory.purging = True
    result = ask(engine, "housekeeping", "--dry-run")
    assert "It would remove 2 events, 0 runs, 0 files (0B)" in result.output
    assert ask(engine, "housekeeping", "--dry-run", "--show").exit_code == 2
    assert json.loads(ask(engine, "housekeeping", "--dry-run", "--json").output)["would_remove"]["events"] == 2


def test_why_says_of_what_is_gone_that_it_was_kept_long_enough(engine: Running) -> None:
    unknown = new_id()
    assert f"there is no run and no event {unknown}" in ask(engine, "why", unknown).output
    run = engine.operations.add_run(state=RunState.SUCCEEDED)
    del engine.operations.memory.stored[run.event]
    engine.operations.memory.gone = GONE
    result = ask(engine, "why", unknown)
    assert result.exit_code == 1
    assert f"event {unknown} is gone, or never was; kept 30d" in result.output
    result = ask(engine, "why", run.id)
    assert result.exit_code == 0, result.output
    assert f"Event {run.event} is gone" in result.output


# A program


async def test_a_program_has_its_store_kept_in_bounds_and_copied(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", store={"keep": {"runs": "7d"}, "backups": str(tmp_path / "copies")})

    @engine.job(name="work")
    async def work(run: RunContext) -> None: ...

    engine.add_trigger("by-hand", on={"manual": {}}, job="work")
    async with engine:
        await engine.wait(await engine.fire("by-hand"))
        assert await engine.housekeeping.begin(patience_s=20.0)
        view = await engine.housekeeping.view()
        assert (view["keep"]["runs"], view["last"]["runs"], view["last"]["problem"]) == ("7d", 0, None)
        made = await engine.housekeeping.backups.make("before")
        assert Path(made["path"]) == tmp_path / "copies" / "before.db"


# Hindsight


def test_instants_whose_records_were_removed_are_not_unexplained() -> None:
    periods = periods_of(Noted(purged_before=at(5)), trigger="t", on="x", alive=True)
    account = Account(
        schedule=Schedule(trigger="t", timer=Interval(every=60.0)), periods=periods, dealt=at(7), now=at(8)
    )  # fmt: skip
    lines = list(account.lines(at(3), at(8), []))
    assert [(line.verdict, line.code, line.at, line.count) for line in lines] == [
        ("unknown", "purged", at(3), 2), ("not_run", "unexplained", at(5), 3),
    ]  # fmt: skip
    assert (
        lines[0].reason == f"what was recorded before {'2026-07-01T12:05:00Z'} was removed, as it was kept long enough"
    )
    assert account.because(at(3), at(3)) == []
    assert at(5) - at(3) == timedelta(minutes=2)


# Network file systems


async def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "mountinfo"
    told.write_text(f"21 1 0:1 / / rw - ext4 /dev/a rw\n22 21 0:2 / {tmp_path}/shared rw - nfs4 server:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTS", told)
    (tmp_path / "shared").mkdir()
    with pytest.raises(StoreUnavailable, match=r"network file system \(nfs4\)"):
        await SqliteStore(tmp_path / "shared" / "engine.db").open()
    assert list((tmp_path / "shared").iterdir()) == []
    store = SqliteStore(tmp_path / "engine.db")
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("kind", "refused"),
    [("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("fuse.sshfs", True), ("ceph", True),
     ("ext4", False), ("xfs", False), ("btrfs", False), ("tmpfs", False), ("overlay", False), ("zfs", False)],
)  # fmt: skip
def test_local_file_systems_are_told_from_those_of_networks(kind: str, refused: bool) -> None:
    found = mounts.mounted_at(f"1 0 0:1 / / rw - {kind} x rw", Path("/srv/data"))
    assert bool(place.NETWORK.match(found)) is refused
