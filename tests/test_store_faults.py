"""Faults of the disk under a real engine: it refuses, says why, loses nothing, and goes on by itself."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest

from tests.crash.feeders import Feeder, Offer
from tests.crash.process import ROOT, EngineProcess, end_marked, started, wait_for
from tests.crash.site import TOKEN, Job, Site
from tests.crash.steps import strace_is_there
from tests.store_files import copy_files
from tests.test_store_sqlite import fill

TRIGGERS = """
[triggers.fed]
on.webhook = {{ path = "feed", verify = "none" }}
job = "work"
[triggers.dropped]
on.trigger_dir = "inbox"
job = "work"
[store]
min_free = "{min_free}"
"""

needs_strace = pytest.mark.skipif(not strace_is_there(), reason="strace is not installed: it makes system calls fail")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A directory for a site, of whose processes none is left."""
    yield tmp_path / "site"
    for database in tmp_path.rglob("engine.db"):
        with closing(sqlite3.connect(database)) as raw:
            end_marked({run for (run,) in raw.execute("select id from runs")})


@pytest.fixture
def small_disk(path: Path) -> Iterator[Path]:
    """The data directory of the site, on a disk of 2 MB."""
    place = path / "data"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield place
    finally:
        kept = path / "kept"
        kept.mkdir()
        for name in ("engine.db", "engine.db-wal"):
            if (place / name).exists():
                shutil.copy(place / name, kept)
        subprocess.run(["umount", "--lazy", place], check=True)


def a_site(path: Path, *, min_free: str = "0B", seconds: float = 0.0) -> Site:
    return Site(path, jobs={"work": Job(seconds=seconds)}, triggers=TRIGGERS.format(min_free=min_free))


def an_offer(number: int) -> Offer:
    body = {"feeder": "feed", "n": number, "more": "x" * 500}
    return Offer(path="/hooks/feed", body=body, headers={"Idempotency-Key": f"feed-{number}"})


def fed(site: Site) -> Feeder:
    """Begin to send 20 events per second."""
    feeder = Feeder("feed", site, an_offer, per_second=20.0)
    feeder.start()
    return feeder


def more(feeder: Feeder, count: int = 10) -> None:
    """Return when so many further events were acknowledged."""
    before = len(feeder.receipts)
    wait_for(lambda: len(feeder.receipts) >= before + count, f"{count} further events are acknowledged")


def end(feeder: Feeder) -> None:
    feeder.enough()
    feeder.finish()
    assert feeder.problems == []


def send(site: Site, number: int) -> tuple[int, str]:
    """Send one event; return the status, and what was said."""
    offer = an_offer(number)
    answer = site.ask("POST", offer.path, offer.body, offer.headers)
    return answer.status, str((answer.body or {}).get("detail", ""))


def unhealthy(site: Site) -> dict[str, str]:
    """Return the checks that are not ok."""
    return {check["name"]: check["detail"] for check in site.ask("GET", "/health").body["checks"] if not check["ok"]}


def check(site: Site, acknowledged: set[str]) -> None:
    """Check that what was acknowledged is stored, once, and that all adds up."""
    stored = [event for (event,) in site.rows("select id from events")]
    assert acknowledged <= set(stored)
    keys = site.rows("select source, key, count(*) from events where key is not null group by 1, 2 having count(*) > 1")
    assert keys == []
    assert site.rows("pragma integrity_check") == [("ok",)]
    doctor = site.ask("GET", "/api/v1/doctor").body
    assert (doctor["ledger"]["missing"], doctor["broken"]) == (0, [])


def acknowledged(feeder: Feeder) -> set[str]:
    return {receipt.event for receipt in list(feeder.receipts.values())}


@pytest.mark.parametrize("min_free", ["256KiB", "0B"], ids=["little room", "no room"])
def test_a_disk_without_room_refuses_events_lets_runs_end_and_goes_on_by_itself(
    path: Path, small_disk: Path, min_free: str
) -> None:
    site = a_site(path, min_free=min_free, seconds=0.5)
    with started(site) as engine:
        feeder = fed(site)
        more(feeder)
        filler = fill(small_disk)
        number = 10**6

        def refused() -> bool:
            nonlocal number
            number += 1
            status, said = send(site, number)
            assert status in (202, 503), said
            return status == 503

        wait_for(refused, "events are refused", pause_s=0.05)
        wait_for(lambda: unhealthy(site).keys() & {"disk", "store"}, "health is red and says so")
        assert site.ask("GET", "/health").status == 503
        assert site.ask("GET", "/ready").status == 503
        waiting = site.inbox / "one.trigger"
        waiting.with_suffix(".new").write_text(json.dumps({"trigger_type": "t", "parameters": {}}))
        waiting.with_suffix(".new").rename(waiting)
        wait_for(lambda: site.ask("GET", "/api/v1/sources").body, "it answers")
        taken = len(feeder.receipts)
        time.sleep(1.0)
        assert waiting.exists()
        assert len(feeder.receipts) <= taken + 1
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        filler.unlink()
        more(feeder)
        wait_for(lambda: not unhealthy(site), lambda: f"health is green again: {unhealthy(site)}")
        wait_for(lambda: not waiting.exists(), "the file that waited is taken")
        end(feeder)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        check(site, acknowledged(feeder))
        assert engine.stop() == 0


def test_a_store_that_another_process_locks_refuses_events_and_stays_answerable(path: Path) -> None:
    site = a_site(path)
    with started(site) as engine:
        feeder = fed(site)
        more(feeder)
        with closing(sqlite3.connect(site.database, isolation_level=None, timeout=10)) as other:
            other.execute("begin exclusive")
            wait_for(lambda: "store" in unhealthy(site), "health is red", pause_s=0.05)
            assert send(site, 10**6)[0] == 503
            before = len(feeder.receipts)
            answered = [site.ask("GET", "/health").status for _ in range(20)]
            assert answered == [503] * 20
            assert len(feeder.receipts) == before
            other.execute("rollback")
        more(feeder)
        wait_for(lambda: not unhealthy(site), "health is green again")
        end(feeder)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        check(site, acknowledged(feeder))
        assert engine.stop() == 0


@needs_strace
@pytest.mark.parametrize(
    "error",
    [
        "pwrite64:error=EIO",
        pytest.param("fdatasync:error=EIO", marks=pytest.mark.full),
        pytest.param("pwrite64:error=EROFS", marks=pytest.mark.full),
    ],
)
def test_a_write_that_fails_acknowledges_nothing_and_writing_goes_on_when_it_can(path: Path, error: str) -> None:
    site = a_site(path)
    with started(site) as engine:  # the tables are there: what fails is the work
        assert engine.stop() == 0
    first, last = (40, 43) if error.startswith("pwrite64") else (12, 15)
    strace = ["-f", "-e", f"trace={error.partition(':')[0]}", "-e", f"inject={error}:when={first}..{last}"]
    with started(site, strace=strace) as engine:
        feeder = fed(site)
        wait_for(lambda: "action=store_away" in engine.logged(), "a write fails", 30.0)
        wait_for(lambda: "action=store_back" in engine.logged(), "it writes again", 30.0)
        more(feeder)
        end(feeder)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        check(site, acknowledged(feeder))
        assert engine.stop() == 0


@pytest.mark.parametrize("fault", ["moved", "replaced", "log removed"])
def test_a_file_that_is_not_the_same_any_more_stops_the_engine_and_no_acknowledged_event_is_lost(
    path: Path, fault: str
) -> None:
    site = a_site(path)
    aside, log = site.database.with_name("aside.db"), site.database.with_name("engine.db-wal")
    with started(site) as engine:
        feeder = fed(site)
        more(feeder)
        if fault == "log removed":
            log.unlink()
        else:
            site.database.rename(aside)
        if fault == "replaced":
            with closing(sqlite3.connect(site.database)) as raw:
                raw.execute("create table other (x)")
        assert engine.wait(30.0) == 1
        assert "nothing more is written" in engine.logged()
        events = acknowledged(feeder)
        if fault == "moved":
            # It is never silently made anew: the next start misses the file whose log is there.
            with EngineProcess(site) as again:
                assert again.wait(30.0) == 1
                assert "Put the file back" in again.logged()
    if fault != "log removed":
        aside.rename(site.database)
    with started(site) as engine:
        end(feeder)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        check(site, events | acknowledged(feeder))
        assert engine.stop() == 0


def test_after_a_power_cut_whatever_was_acknowledged_before_is_there(path: Path, tmp_path: Path) -> None:
    site = a_site(path, seconds=0.05)
    chance = random.Random(6)
    log = site.database.with_name("engine.db-wal")
    with started(site):
        feeder = fed(site)
        copies = []
        for number in range(6):
            more(feeder, 4)
            before, written = acknowledged(feeder), log.stat().st_size
            more(feeder, 2)
            copies.append((copy_files(site.database, tmp_path / f"cut{number}"), before, written))
        feeder.enough()
    for number, (copy, before, written) in enumerate(copies):
        # What was written after the last sync may be there in part, and be rubbish.
        torn = copy.with_name("engine.db-wal")
        os.truncate(torn, chance.randint(written, torn.stat().st_size))
        with torn.open("ab") as file:
            file.write(chance.randbytes(chance.randrange(1, 9000)))
        if number == 0:
            other = a_site(tmp_path / f"site{number}", seconds=0.05)
            shutil.copytree(copy.parent, other.database.parent)
            with started(other) as engine:
                wait_for(lambda other=other: other.unfinished() == 0, "all runs end")  # type: ignore[misc]
                check(other, before)
                assert engine.stop() == 0
        else:
            with closing(sqlite3.connect(copy)) as raw:
                stored = {event for (event,) in raw.execute("select id from events")}
                assert before <= stored
                assert raw.execute("pragma integrity_check").fetchall() == [("ok",)]


def command(site: Site, *arguments: str) -> Any:
    """Run a command of the engine on a site, and return the JSON that it prints."""
    environment = {**os.environ, "ENGINE_ADMIN_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments, "--json"], cwd=site.path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_backup_of_a_working_engine_starts_and_holds_what_was_acknowledged_before(path: Path) -> None:
    site = a_site(path, seconds=0.05)
    with started(site) as engine:
        feeder = fed(site)
        more(feeder, 20)
        before = acknowledged(feeder)
        made = command(site, "backup", "copy.db")
        by_engine = command(site, "backup", "--name", "nightly")
        assert Path(by_engine["path"]) == site.path / "data" / "backups" / "nightly.db"
        assert [one["name"] for one in site.ask("GET", "/api/v1/backups").body["items"]] == ["nightly.db"]
        assert site.ask("POST", "/api/v1/backup", {"name": "nightly"}).status == 409
        more(feeder)
        end(feeder)
        assert engine.stop() == 0
    offline = command(site, "backup", "offline.db")
    for copy in (made, by_engine, offline):
        with closing(sqlite3.connect(copy["path"])) as raw:
            assert raw.execute("pragma quick_check").fetchall() == [("ok",)]
            assert before <= {event for (event,) in raw.execute("select id from events")}
    restored = a_site(path.with_name("restored"), seconds=0.05)
    restored.database.parent.mkdir()
    shutil.copy(made["path"], restored.database)
    with started(restored) as engine:
        wait_for(lambda: restored.unfinished() == 0, "all runs end")
        check(restored, before)
        assert command(restored, "doctor")["ok"]
        assert engine.stop() == 0


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_idle_connections_do_not_take_the_descriptors_of_store_and_runs(path: Path) -> None:
    site = a_site(path)
    with started(site) as engine:
        assert send(site, 1)[0] == 202
        wait_for(lambda: site.unfinished() == 0, "the run ends")
        resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, (64, 64))
        base = descriptors(engine.pid)
        idle = [create_connection(("127.0.0.1", site.port), timeout=10) for _ in range(200)]
        try:
            for number in range(2, 8):
                assert send(site, number)[0] == 202
            wait_for(lambda: site.unfinished() == 0, "the runs end")
            assert {state for (state,) in site.rows("select distinct state from runs")} == {"succeeded"}
            assert descriptors(engine.pid) < 64
            began, used = time.monotonic(), cpu_s(engine.pid)
            time.sleep(1.5)
            assert (cpu_s(engine.pid) - used) / (time.monotonic() - began) < 0.5, "it turns in circles"
        finally:
            for connection in idle:
                connection.close()
        wait_for(lambda: descriptors(engine.pid) <= base + 3, "all descriptors are given back")
        kept = HTTPConnection("127.0.0.1", site.port, timeout=10)
        for _ in range(3):
            kept.request("GET", "/live")
            assert kept.getresponse().read()
        kept.close()
        check(site, set())
        assert engine.stop() == 0
