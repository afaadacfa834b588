"""Leftover processes of runs are found again and ended, and nothing else is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from engine import processes
from engine.clock import SystemClock
from engine.ids import new_id
from engine.processes import (
    VICTIM_SCORE,
    age_s,
    end_leftovers,
    family_of,
    find_marked,
    kernel_start,
    make_likely_victims,
    peak_memory,
)

MARK = "TEST_RUN_ID"
CLOCK = SystemClock()


class Started:
    """Processes that a test started; all of them are ended with it."""

    def __init__(self) -> None:
        self._popens: list[subprocess.Popen[bytes]] = []

    def __call__(
        self, *command: str, run: str | None = None, session: bool = True, **env: str
    ) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], **({MARK: run} if run else {}), **env}
        popen = subprocess.Popen(command, env=environment, start_new_session=session)
        self._popens.append(popen)
        return popen

    def close(self) -> None:
        for popen in self._popens:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(popen.pid, signal.SIGKILL)
            if popen.pid != os.getpgrp():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(10)


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    started.close()


def state(pid: int) -> str:
    """Return the letter of proc(5) for a process's state; Z too where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
    return text.rpartition(")")[2].split()[0]


def lives(pid: int) -> bool:
    return state(pid) != "Z"


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what other processes do makes no event
            await anyio.sleep(0.005)


async def written(path: Path, lines: int = 1) -> list[int]:
    """Wait until processes wrote their pids to `path`, one a line."""
    await until(lambda: path.exists() and path.read_text().count("\n") >= lines)
    return pids_in(path)


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


async def test_the_start_time_is_read_past_a_name_with_blanks_and_brackets(start: Started, tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep") or "", odd)
    process = start(str(odd), "1000")
    plain = start("sleep", "1000")
    started, later = kernel_start(process.pid), kernel_start(plain.pid)
    assert started is not None
    assert later is not None
    assert 0 <= later - started < 6000


def test_a_process_that_is_gone_has_no_start_time(start: Started) -> None:
    process = start("true")
    process.wait(10)
    assert kernel_start(process.pid) is None


async def test_marked_processes_are_found_by_the_exact_name_and_value(start: Started) -> None:
    one, two = new_id(), new_id()
    first, second, third = (start("sleep", "1000", run=run) for run in (one, one, two))
    start("env", f"X{MARK}={one}", f"OTHER={MARK}={one}", "sleep", "1000")
    await until(lambda: one in find_marked(f"X{MARK}", None))
    expected = {one: {first.pid, second.pid}, two: {third.pid}}
    # Right after an exec, /proc shows no environment for a moment.
    await until(lambda: find_marked(MARK, {one, two}) == expected)
    assert find_marked(MARK, {two}) == {two: {third.pid}}
    assert find_marked(MARK, None).keys() >= {one, two}
    assert find_marked(MARK, ()) == {}


async def test_no_run_has_two_living_processes_after_its_leftovers_were_ended(start: Started, tmp_path: Path) -> None:
    run, log = new_id(), tmp_path / "log"
    script = f'trap "echo stop >> {log}; exit" TERM; echo $$ >> {log}; while :; do sleep 0.01; done'
    process = start("sh", "-c", script, run=run)
    await written(log)
    started = kernel_start(process.pid)
    ended = await end_leftovers({run: (process.pid, started)}, mark=MARK, clock=CLOCK)
    assert process.pid in ended[run]
    assert not lives(process.pid)
    assert find_marked(MARK, {run}) == {}
    assert log.read_text().split() == [str(process.pid), "stop"], "it got SIGTERM, and time to stop"


async def test_a_daemon_with_a_session_of_its_own_is_found_by_its_mark(start: Started, tmp_path: Path) -> None:
    run, log = new_id(), tmp_path / "pid"
    leader = start("sh", "-c", f"setsid sh -c 'sleep 1000 & echo $! >> {log}' & wait", run=run)
    (daemon,) = await written(log)
    leader.wait(10)
    assert await end_leftovers({run: (None, None)}, mark=MARK, clock=CLOCK) == {run: [daemon]}
    assert not lives(daemon)


async def test_what_ignores_sigterm_is_killed_after_the_grace(start: Started, tmp_path: Path) -> None:
    run, log = new_id(), tmp_path / "pid"
    process = start("sh", "-c", f'trap "" TERM; echo $$ >> {log}; while :; do sleep 1000; done', run=run)
    await written(log)
    ended = await end_leftovers({run: (process.pid, None)}, mark=MARK, clock=CLOCK, grace_s=0.1)
    assert process.pid in ended[run]
    assert process.wait(10) == -signal.SIGKILL


async def test_what_is_stopped_gets_to_act_on_sigterm(start: Started) -> None:
    run = new_id()
    process = start("sleep", "1000", run=run)
    os.kill(process.pid, signal.SIGSTOP)
    await until(lambda: state(process.pid) == "T")
    with anyio.fail_after(5):
        assert await end_leftovers({run: (None, None)}, mark=MARK, clock=CLOCK) == {run: [process.pid]}
    assert process.wait(10) == -signal.SIGTERM


async def test_a_pid_that_belongs_to_another_process_by_now_is_left_alone(start: Started) -> None:
    other = start("sleep", "1000")
    started = kernel_start(other.pid)
    assert started is not None
    runs = {new_id(): (other.pid, started - 1), new_id(): (other.pid, None)}
    assert await end_leftovers(runs, mark=MARK, clock=CLOCK) == {}
    assert other.poll() is None


async def test_the_recorded_leader_and_its_session_are_ended_without_any_mark(start: Started, tmp_path: Path) -> None:
    run, log = new_id(), tmp_path / "pids"
    leader = start("bash", "-c", f"set -m; sleep 1000 & echo $! >> {log}; sleep 1000 & echo $! >> {log}; wait")
    children = await written(log, 2)
    assert len({os.getpgid(pid) for pid in (leader.pid, *children)}) == 3, "three groups in one session"
    ended = await end_leftovers({run: (leader.pid, kernel_start(leader.pid))}, mark=MARK, clock=CLOCK)
    assert ended == {run: sorted([leader.pid, *children])}
    assert not any(map(lives, (leader.pid, *children)))


async def test_unmarked_members_of_a_dead_leaders_session_go_with_the_marked_ones(
    start: Started, tmp_path: Path
) -> None:
    run, log = new_id(), tmp_path / "pids"
    script = f"sleep 1000 & echo $! >> {log}; env -u {MARK} sleep 1000 & echo $! >> {log}"
    leader = start("sh", "-c", script, run=run)
    marked, unmarked = await written(log, 2)
    started = kernel_start(leader.pid)
    leader.wait(10)
    await until(lambda: find_marked(MARK, {run}) == {run: {marked}})
    ended = await end_leftovers({run: (leader.pid, started)}, mark=MARK, clock=CLOCK)
    assert ended == {run: sorted([marked, unmarked])}
    assert not lives(unmarked)


async def test_an_unmarked_survivor_of_sigterm_is_still_known_when_its_leader_is_gone(
    start: Started, tmp_path: Path
) -> None:
    run, log = new_id(), tmp_path / "pids"
    stubborn = f"trap '' TERM; echo $$ >> {log}; while :; do sleep 1000; done"
    leader = start("sh", "-c", f'env -u {MARK} sh -c "{stubborn.replace("$", chr(92) + "$")}" & wait', run=run)
    (survivor,) = await written(log)
    runs = {run: (leader.pid, kernel_start(leader.pid))}
    ended = await end_leftovers(runs, mark=MARK, clock=CLOCK, grace_s=0.1)
    assert {leader.pid, survivor} <= set(ended[run])
    assert not lives(survivor)


async def test_a_process_whose_program_is_only_being_loaded_is_found_at_the_second_look(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_id()
    process = start("sleep", "1000", run=run)
    looks: list[object] = []

    def find(name: str, values: Collection[str] | None) -> dict[str, set[int]]:
        looks.append(values)
        return {} if len(looks) == 1 else find_marked(name, values)

    monkeypatch.setattr(processes, "find_marked", find)
    assert await end_leftovers({run: (None, None)}, mark=MARK, clock=CLOCK) == {run: [process.pid]}
    assert process.wait(10) == -signal.SIGTERM


async def test_a_zombie_is_gone(start: Started) -> None:
    run = new_id()
    process = start("true", run=run)
    started = kernel_start(process.pid)
    await until(lambda: not lives(process.pid))
    assert await end_leftovers({run: (process.pid, started)}, mark=MARK, clock=CLOCK) == {}


async def test_an_engine_that_carries_the_mark_itself_ends_neither_itself_nor_its_group(
    start: Started,
) -> None:
    run = new_id()
    script = """
import asyncio, os, subprocess, sys, time
from engine.clock import SystemClock
from engine.processes import end_leftovers
mark, run = sys.argv[1:]
near = subprocess.Popen(["sleep", "1000"])
far = subprocess.Popen(["sleep", "1000"], start_new_session=True)
while mark.encode() not in open(f"/proc/{far.pid}/environ", "rb").read():
    time.sleep(0.001)
runs = {run: (os.getpid(), None)}
begun = time.monotonic()
ended = asyncio.run(end_leftovers(runs, mark=mark, clock=SystemClock(), grace_s=0.1))
assert ended == {run: [far.pid]}, (ended, os.getpid(), near.pid, far.pid)
assert far.wait(10) == -15
assert time.monotonic() - begun < 4, "nothing was waited for in vain"
assert near.poll() is None
near.kill()
near.wait()
"""
    process = start(sys.executable, "-c", script, MARK, run, run=run, PYTHONPATH=str(Path(__file__).parents[1]))
    await until(lambda: process.poll() is not None)
    assert process.returncode == 0


async def test_what_a_process_and_its_descendants_use_is_seen_while_they_live(start: Started, tmp_path: Path) -> None:
    hog = f"b = b'x' * 200_000_000; open({str(tmp_path / 'pids')!r}, 'a').write('1\\n'); import time; time.sleep(1000)"
    process = start("sh", "-c", f'"{sys.executable}" -c "{hog}"; true', run=new_id())
    await written(tmp_path / "pids")
    family = family_of(process.pid)
    assert len(family) == 2
    peak = peak_memory(family)
    assert peak is not None
    assert 200_000_000 < peak < 400_000_000
    started = kernel_start(process.pid)
    assert started is not None
    assert 0 <= age_s(started) < 60
    assert peak_memory([2**22 + 1]) is None
    assert family_of(2**22 + 1) == [2**22 + 1]


def test_a_program_is_taken_before_the_engine_where_memory_runs_out_unless_it_says_otherwise(
    start: Started,
) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    plain, says = start("sleep", "1000", run=new_id()), start("sleep", "1000", run=new_id())
    Path(f"/proc/{says.pid}/oom_score_adj").write_text(str(own + 7))
    make_likely_victims([plain.pid, says.pid, 2**22 + 1])
    scores = [int(Path(f"/proc/{one.pid}/oom_score_adj").read_text()) for one in (plain, says)]
    assert scores == [min(own + VICTIM_SCORE, 1000), own + 7]
