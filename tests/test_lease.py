"""The lease: renewed whatever holds up the event loop; and an engine that was succeeded while it stood still."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from engine.errors import StoreLost
from engine.ids import new_id
from engine.lease import Lease
from engine.store import boots
from engine.store.boots import this_process
from engine.store.sqlite import SqliteStore
from tests.crash.process import EngineProcess, end_marked, started, wait_for
from tests.crash.site import Job, Site
from tests.fakes import until

TRIGGERS = """
[triggers.by-hand]
on.manual = true
job = "work"
"""


async def test_it_is_renewed_while_the_event_loop_is_held_up(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "engine.db")
    await store.open()
    try:
        boot = this_process(new_id())
        await store.take_over(boot)
        lease = Lease(store, boot.id, every_s=0.01)
        lease.start()
        first, until_s = store.renewed_at(), time.monotonic() + 20
        while store.renewed_at() == first and time.monotonic() < until_s:
            time.sleep(0.01)  # noqa: ASYNC251 - nothing else on the loop goes on
        assert store.renewed_at() != first
        with sqlite3.connect(store.path) as raw:
            boots.take_over(raw, this_process(new_id()), store._clock)
        thread = lease._thread
        assert thread is not None
        await until(lambda: not thread.is_alive())
        with pytest.raises(StoreLost, match="another engine's"):
            store.renew()
        lease.stop()
    finally:
        await store.close()


def test_an_engine_that_stood_still_and_was_succeeded_writes_nothing_and_ends(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", jobs={"work": Job(seconds=60, on_crash="fail")}, triggers=TRIGGERS)
    elsewhere = {"ENGINE__HTTP__LISTEN": "127.0.0.1:0"}
    with started(site) as first:
        run = site.post("/api/v1/triggers/by-hand/fire", {}).body["runs"][0]
        try:
            wait_for(site.witnessed, "the run is there")
            os.kill(first.pid, signal.SIGSTOP)
            for lock in ("engine.lock", "engine.db.lock"):
                (site.path / "data" / lock).unlink()
            # The lock is gone, but its row tells that it lives: it is not succeeded, however long it stands still.
            with EngineProcess(site, more=elsewhere) as second:
                assert second.wait() == 1
                assert f"in use by process {first.pid}, whose lock is gone" in second.logged()
            # As from a machine that can't see the process.
            with sqlite3.connect(site.database) as raw:
                raw.execute("update boots set machine = 'elsewhere'")
            with started(site, more=elsewhere) as second:
                assert site.rows("select state, code from runs where id = ?", (run,)) == [("failed", "engine_died")]
                before = site.rows("select count(*) from events")
                os.kill(first.pid, signal.SIGCONT)
                assert first.wait() == 1
                assert "has taken over" in first.logged()
                assert site.rows("select state, code from runs where id = ?", (run,)) == [("failed", "engine_died")]
                assert site.rows("select count(*) from events") == before
                assert second.stop() == 0
        finally:
            os.kill(first.pid, signal.SIGCONT) if first.exit_code is None else None
            end_marked([run])
