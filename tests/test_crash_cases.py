"""Single moments at which an engine dies, is stopped, or is refused; each with a real engine as a process."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from engine.clock import rfc3339
from tests.crash.audit import StoredRun, add_up, read_runs
from tests.crash.folders import drop, left_in
from tests.crash.process import EngineProcess, end_marked, marked, started, wait_for
from tests.crash.site import Job, Site
from tests.crash.steps import strace_is_there

needs_strace = pytest.mark.skipif(
    not strace_is_there(), reason="strace is not installed: it kills the engine at its Nth system call"
)

HOOK = '[triggers.hook]\non.webhook = { path = "hook", verify = "none" }\njob = "work"\n'
BY_HAND = '[triggers.by-hand]\non.manual = true\njob = "work"\n'
LONG_S = 30.0


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Any]:
    """Make sites with one job, and leave none of its processes."""
    made: list[Site] = []

    def make(job: Job, triggers: str, **settings: Any) -> Site:
        made.append(Site(tmp_path / f"site{len(made)}", jobs={"work": job}, triggers=triggers, **settings))
        return made[-1]

    yield make
    for site in made:
        if site.database.exists():
            with contextlib.suppress(sqlite3.DatabaseError):
                end_marked({run for (run,) in site.rows("select id from runs")})


def fire(site: Site) -> str:
    """Fire the trigger by-hand and return the id of its run."""
    answer = site.post("/api/v1/triggers/by-hand/fire", {})
    assert answer.status == 202
    return str(answer.body["runs"][0])


def run_of(site: Site, run: str) -> StoredRun:
    return read_runs(site)[run]


def starts(site: Site, run: str) -> list[int]:
    """Return the process ids with which a run was started so far."""
    return [line.pid for line in site.witnessed() if line.what == "start" and line.run == run]


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended: a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def settled(site: Site) -> None:
    """Wait until all runs have ended."""
    wait_for(lambda: site.unfinished() == 0, "all runs end")


def sums_up(site: Site) -> None:
    """Check that nothing was lost, done twice without a reason, or left."""
    assert add_up(site).findings == []


@needs_strace
def test_an_event_that_was_stored_but_not_answered_is_the_same_event_when_it_is_sent_again(
    sites: Any,
) -> None:
    site = sites(Job(), HOOK)
    # Only the main thread is traced: what it sends first is the answer, and by then the event is durable.
    with EngineProcess(site, strace=["-e", "trace=sendto", "-e", "inject=sendto:signal=SIGKILL:when=1"]) as traced:
        assert traced.wait_ready()
        with pytest.raises((OSError, HTTPException)):
            site.post("/hooks/hook", {"n": 1}, key="delivery-1")
        assert traced.wait() < 0
    ((event,),) = site.rows("select id from events")
    ((run,),) = site.rows("select run from outcomes")
    with started(site) as engine:
        again = site.post("/hooks/hook", {"n": 1}, key="delivery-1")
        assert (again.status, again.body) == (202, {"event": event, "runs": [run], "duplicate": True})
        settled(site)
        assert engine.stop() == 0
    assert site.rows("select count(*) from events") == [(1,)]
    sums_up(site)


@needs_strace
@pytest.mark.parametrize("call", [pytest.param("renameat", marks=pytest.mark.full), "unlinkat"])
def test_a_trigger_file_whose_event_was_stored_but_that_was_not_removed_is_one_event(sites: Any, call: str) -> None:
    site = sites(Job(), '[triggers.dropped]\non.trigger_dir = "inbox"\njob = "work"\n')
    drop(site, "order.json", {"n": 1})
    with EngineProcess(
        site, strace=["-f", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when=1"]
    ) as traced:
        assert traced.wait() < 0
    assert site.rows("select count(*) from events") == [(1,)]
    assert len(left_in(site)) == 1
    with started(site) as engine:
        wait_for(lambda: not left_in(site), "the file is removed")
        settled(site)
        assert engine.stop() == 0
    assert site.rows("select count(*) from events") == [(1,)]
    sums_up(site)


def test_due_instants_of_the_time_in_which_the_engine_was_dead_are_told_of(sites: Any) -> None:
    site = sites(Job(), '[triggers.tick]\non.cron = "* * * * * *"\njob = "work"\n')
    with started(site) as engine:
        wait_for(lambda: site.rows("select 1 from runs where state = 'succeeded'"), "a due second was run")
        engine.kill()
    away = rfc3339(datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=250))
    with contextlib.closing(sqlite3.connect(site.database)) as raw, raw:
        raw.execute("delete from outcomes")
        raw.execute("delete from runs")
        raw.execute("delete from events")
        raw.execute("update cursors set value = ?", (f'"{away}"',))
    (site.path / "witness" / "log").unlink()
    with started(site) as engine:
        wait_for(lambda: site.rows("select 1 from runs where state = 'succeeded'"), "the latest is run")
        settled(site)
        engine.stop()
    missed = [run for run in read_runs(site).values() if run.state == "missed"]
    first = min(run.scheduled_for for run in missed if run.scheduled_for is not None)
    assert datetime.fromtimestamp(first / 1e6, UTC) == datetime.fromisoformat(away) + timedelta(seconds=1)
    assert len(missed) == 101
    sums_up(site)


def test_a_debounce_window_keeps_its_events_and_its_deadlines_over_a_kill(sites: Any) -> None:
    site = sites(Job(), HOOK + 'debounce = { wait = "6s", max_wait = "9s" }\n')
    with started(site) as engine:
        for number in range(3):
            assert site.post("/hooks/hook", {"n": number}).status == 202
        ((run, before, closes_at),) = site.rows("select id, due_at, closes_at from runs")
        engine.kill()
    with started(site) as engine:
        assert site.rows("select due_at, closes_at from runs") == [(before, closes_at)]
        for number in range(3, 5):
            assert site.post("/hooks/hook", {"n": number}).body["runs"] == [run]
        ((last,),) = site.rows("select max(received_at) from events")
        settled(site)
        assert engine.stop() == 0
    ((count, started_at),) = site.rows("select event_count, started_at from runs")
    assert count == 5
    late_s = (started_at - min(last + 6_000_000, closes_at)) / 1e6
    assert 0 <= late_s < 3.0
    sums_up(site)


def test_the_queue_keeps_its_order_over_a_kill(sites: Any) -> None:
    site = sites(Job(limit=1, seconds=0.02), '[triggers.heard]\non.event = "*"\njob = "work"\n')
    priorities = [number * 7 % 9 for number in range(40)]
    events = [{"type": "x", "priority": priority} for priority in priorities]
    with started(site) as engine:
        answer = site.post("/api/v1/events", events)
        engine.kill()
    runs = [item["runs"][0] for item in answer.body["items"]]
    ended = {run.id for run in read_runs(site).values() if run.state == "succeeded"}
    before = len([line for line in site.witnessed() if line.what == "start"])
    with started(site) as engine:
        settled(site)
        assert engine.stop() == 0
    after = [line.run for line in site.witnessed() if line.what == "start"][before:]
    # What the first engine had just started may have told of its start after the engine's end.
    after = after[1:] if after.count(after[0]) > 1 else after
    wanted = [run for _, run in sorted(zip([-priority for priority in priorities], runs, strict=True))]
    assert len(after) >= 10  # else the kill came too late to show anything
    assert after == [run for run in wanted if run not in ended]
    sums_up(site)


@needs_strace
def test_a_run_whose_program_was_never_started_loses_no_attempt(sites: Any) -> None:
    site = sites(Job(), BY_HAND)
    # The program's standard input is the last that is made before the program.
    strace = ["-e", "trace=memfd_create", "-e", "inject=memfd_create:signal=SIGKILL:when=1"]
    with EngineProcess(site, strace=strace) as traced:
        assert traced.wait_ready()
        with contextlib.suppress(HTTPException, OSError):  # what starts at once goes before the answer
            fire(site)
        assert traced.wait() < 0
    (run,) = read_runs(site)
    assert run_of(site, run).state == "running"
    assert starts(site, run) == []
    with started(site) as engine:
        settled(site)
        assert engine.stop() == 0
    told = [(attempt.number, attempt.code) for attempt in run_of(site, run).attempts]
    assert told == [(1, "engine_died"), (1, "succeeded")]
    sums_up(site)


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
def test_what_a_dead_engine_left_running_is_ended_before_anything_is_started_in_its_place(
    sites: Any, on_crash: str
) -> None:
    site = sites(Job(limit=1, seconds=LONG_S, daemon_s=LONG_S, on_crash=on_crash), BY_HAND)
    with started(site) as engine:
        run = fire(site)
        left = [*wait_for(lambda: starts(site, run), "it runs"), *wait_for(site.daemons, "its daemon runs")]
        engine.kill()
    assert not any(is_gone(pid) for pid in left)
    with started(site) as engine:
        assert all(is_gone(pid) for pid in left)
        if on_crash == "retry":
            wait_for(lambda: len(starts(site, run)) == 2, "it is started again")
        else:
            assert (run_of(site, run).state, run_of(site, run).code) == ("failed", "engine_died")
            assert len(starts(site, run)) == 1
            assert marked({run}) == {}
        assert [line.what for line in site.witnessed() if line.what != "start"] == []
        engine.kill()


def test_a_retry_that_waits_keeps_its_time_and_its_number_over_a_kill(sites: Any) -> None:
    site = sites(Job(seconds=0, failing=1, retry='{ attempts = 2, delay = "6s", jitter = 0.0 }'), BY_HAND)
    with started(site) as engine:
        run = fire(site)
        ((due_at,),) = wait_for(
            lambda: site.rows("select due_at from runs where state = 'retrying'"), "the first attempt failed"
        )
        engine.kill()
    with started(site) as engine:
        assert site.rows("select state, due_at, attempt from runs") == [("retrying", due_at, 1)]
        settled(site)
        assert engine.stop() == 0
    ended = run_of(site, run)
    assert [(attempt.number, attempt.code) for attempt in ended.attempts] == [
        (1, "exit_code"),
        (2, "succeeded"),
    ]
    assert 0 <= ended.attempts[1].started_s - due_at / 1e6 < 3.0
    sums_up(site)


@pytest.mark.parametrize("damage", ["page", "empty", "text"])
def test_a_damaged_store_is_refused_and_left_as_it_is(sites: Any, damage: str) -> None:
    site = sites(Job(seconds=0), BY_HAND)
    if damage == "page":
        with started(site) as engine:
            for _ in range(20):
                fire(site)
            settled(site)
            assert engine.stop() == 0
        content = bytearray(site.database.read_bytes())
        content[2 * 4096 : 3 * 4096] = os.urandom(4096)
    else:
        site.database.parent.mkdir()
        content = bytearray(b"" if damage == "empty" else b"This is no database.\n" * 500)
    site.database.write_bytes(content)
    with EngineProcess(site) as engine:
        assert engine.wait() == 1
        assert f"{site.database} is " in engine.logged()
        assert "put back a backup" in engine.logged()
    assert site.database.read_bytes() == content


def test_a_second_engine_on_the_same_data_is_refused_and_told_who_has_it(sites: Any) -> None:
    site = sites(Job(), BY_HAND)
    with started(site) as engine:
        with EngineProcess(site) as second:
            assert second.wait() == 1
            assert f"in use by process {engine.pid}" in second.logged()
        fire(site)
        settled(site)
        assert engine.stop() == 0
    sums_up(site)


def test_sigterm_lets_a_run_end_within_the_grace(sites: Any) -> None:
    site = sites(Job(seconds=0.5), BY_HAND)
    with started(site) as engine:
        run = fire(site)
        wait_for(lambda: starts(site, run), "it runs")
        assert engine.stop() == 0
    assert run_of(site, run).state == "succeeded"
    sums_up(site)


def test_sigterm_interrupts_a_run_that_takes_longer_and_the_next_start_takes_it_up(sites: Any) -> None:
    site = sites(Job(limit=1, seconds=LONG_S, daemon_s=LONG_S), BY_HAND, grace="200ms")
    with started(site) as engine:
        run = fire(site)
        left = [*wait_for(lambda: starts(site, run), "it runs"), *wait_for(site.daemons, "its daemon runs")]
        assert engine.stop() == 0
    assert all(is_gone(pid) for pid in left)
    stored = run_of(site, run)
    assert (stored.state, stored.code) == ("queued", "interrupted")
    with started(site) as engine:
        wait_for(lambda: len(starts(site, run)) == 2, "it is started again")
        assert {line.attempt for line in site.witnessed()} == {1}
        assert {line.what for line in site.witnessed()} == {"start"}
        engine.kill()


@pytest.mark.parametrize("why", ["timed out", "failed"])
def test_what_an_attempt_left_outside_of_its_group_is_ended_before_the_next_one(sites: Any, why: str) -> None:
    retry = '{ attempts = 2, delay = "100ms" }'
    job = Job(seconds=0.1, failing=1, daemon_s=LONG_S, retry=retry)
    if why == "timed out":
        job = Job(seconds=LONG_S, daemon_s=LONG_S, timeout="500ms", retry=retry)
    site = sites(job, BY_HAND)
    with started(site) as engine:
        run = fire(site)
        left = [*wait_for(lambda: starts(site, run), "it runs"), *wait_for(site.daemons, "its daemon runs")]
        wait_for(lambda: len(starts(site, run)) == 2, "it is started again")
        assert all(is_gone(pid) for pid in left[:2])
        assert {line.what for line in site.witnessed()} <= {"start", "fail", "stop"}
        engine.kill()


def test_a_second_signal_ends_the_engine_at_once_and_its_runs_with_it(sites: Any) -> None:
    site = sites(Job(limit=1, seconds=LONG_S), BY_HAND)
    with started(site) as engine:
        run = fire(site)
        (first,) = wait_for(lambda: starts(site, run), "it runs")
        engine.terminate()
        wait_for(lambda: "action=stopping" in engine.logged(), "it stops")
        engine.terminate()
        assert engine.wait(2.0) == 128 + 15
    wait_for(lambda: is_gone(first), "its program is ended")
    with started(site) as engine:
        wait_for(lambda: len(starts(site, run)) == 2, "it is started again")
        told = [(attempt.number, attempt.code) for attempt in run_of(site, run).attempts]
        assert told == [(1, "engine_died")]
        engine.kill()
