"""Processes that a crash left running: found in /proc, and ended before anything is started in their place.

Every process of a run carries a mark in its environment (such as `ENGINE_RUN_ID=<id>`), which fork, setsid
and exec pass on; and the run's record holds the process id of its session leader with the time the kernel
started it. A pid alone proves nothing, as it may belong to another process by now. See proc(5) and setsid(2).
Linux only.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from engine.clock import Clock

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.5
_EXEC_PAUSE_S = 0.05
"""Longer than an exec takes: until the new program is in place, /proc shows another environment (after vfork
that of the parent) or none."""

_LAST_WAIT_S = 5.0
"""How long what was killed may take to go; a kernel call that hangs can hold it for ever."""

MOST_SAMPLED = 64
"""So many processes of a run are looked at for what they use."""

VICTIM_SCORE = 300
"""By so much is a run's process more likely to be ended than the engine where memory runs out; 1000 is all memory."""

_PEAK = re.compile(rb"VmHWM:\s*(\d+) kB")

_GONE = frozenset("ZXx")
"""States of processes that have ended: zombies, which only wait to be reaped, and the dead."""

_EXITING = 0x4
"""PF_EXITING of the kernel, in a process's flags: it executes nothing of its program any more."""


class _Process(NamedTuple):
    pid: int
    state: str
    parent: int
    group: int
    session: int
    flags: int
    started: int

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started


def kernel_start(pid: int) -> int | None:
    """Return when the kernel started process `pid`, in clock ticks since boot; None where there is none.

    With the pid it names a process for certain: a reused pid has another start.
    """
    process = _read_process(pid)
    return process.started if process else None


def is_at_work(pid: int, started: int) -> bool:
    """Tell whether the process that the kernel started then can still do anything.

    One that was killed can't, though it may take its time to go, and is a zombie until its parent looks: under a
    first process that reaps none, as in many containers, for ever.
    """
    process = _read_process(pid)
    return (
        process is not None and process.started == started
        and process.state not in _GONE and not process.flags & _EXITING
    )  # fmt: skip


def family_of(pid: int) -> list[int]:
    """Return the ids of a process and of its descendants, as far as their parents live, at most `MOST_SAMPLED`."""
    found = [pid]
    for parent in found:
        if len(found) >= MOST_SAMPLED:
            break
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as file:
                    found.extend(map(int, (file.readall() or b"").split()))
        except OSError:
            continue
    return found[:MOST_SAMPLED]


def peak_memory(pids: Iterable[int]) -> int | None:
    """Return the most memory in bytes that one of the processes has had at once; None where none is there."""
    peak = None
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
                found = _PEAK.search(file.readall() or b"")
        except OSError:
            continue
        if found is not None:
            peak = max(peak or 0, int(found[1]) * 1024)
    return peak


def make_likely_victims(pids: Iterable[int]) -> None:
    """Let the kernel end these processes before this one where memory runs out, unless they say otherwise."""
    own = _oom_score(os.getpid())
    for pid in pids:
        if own is not None and _oom_score(pid) == own:
            try:
                with open(f"/proc/{pid}/oom_score_adj", "w") as file:
                    file.write(str(min(own + VICTIM_SCORE, 1000)))
            except OSError:
                continue


def _oom_score(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/oom_score_adj") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def age_s(started: int) -> float:
    """Return how long ago the kernel started a process whose `kernel_start` is this, in seconds."""
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) - started / os.sysconf("SC_CLK_TCK")


def find_marked(name: str, values: Collection[str] | None) -> dict[str, set[int]]:
    """Find the living processes that were started with the environment variable `name`.

    Returns pids by the variable's value, for those of `values`, or for every value where that is None.
    Processes whose environment may not be read (those of other users) are left out.
    """
    prefix = os.fsencode(name) + b"="
    wanted = None if values is None else {os.fsencode(value) for value in values}
    found: dict[str, set[int]] = defaultdict(set)
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                environment = file.readall()
        except OSError:
            continue
        if not environment or prefix not in environment:
            continue
        for entry in environment.split(b"\0"):
            if entry.startswith(prefix):
                value = entry[len(prefix) :]
                if wanted is None or value in wanted:
                    found[os.fsdecode(value)].add(pid)
                break
    return dict(found)


async def end_leftovers(
    runs: Mapping[str, tuple[int | None, int | None]], *, mark: str, clock: Clock, grace_s: float = 10.0
) -> dict[str, list[int]]:
    """End what is left of the processes of `runs`, and return the pids that it ended, sorted, for each run.

    - `runs`: for each run id the pid of its session leader and that one's `kernel_start`, where they are
      known.
    - `mark`: the environment variable whose value is the run id.
    - `grace_s`: seconds between SIGTERM and SIGKILL.

    A run's processes are those that carry its mark, its leader where the start time is still the recorded
    one, and all of the sessions and groups that one of these leads, or that have one of these in them and the
    recorded leader's id. When it returns they are gone (a zombie is), but for those that can't be ended (a
    system call that never returns, another user's process): they are logged and not in the result. The
    engine's own process, its group, its ancestors and pid 1 are never signalled. Races with processes that
    end by themselves raise nothing.
    """
    ended: dict[str, set[int]] = defaultdict(set)
    left = await _look(runs, mark, {}, clock)
    steps = (((signal.SIGTERM, signal.SIGCONT), grace_s), ((signal.SIGKILL,), _LAST_WAIT_S))
    for signals, wait_s in steps:
        deadline_s, pause_s = clock.monotonic() + wait_s, _FIRST_PAUSE_S
        signalled: set[tuple[int, int]] = set()
        while left:
            targets = [process for members in left.values() for process in members]
            # What was forked since the last look has not had the signal yet.
            _send([target for target in targets if target.identity not in signalled], signals)
            signalled.update(target.identity for target in targets)
            for run, members in left.items():
                ended[run].update(process.pid for process in members)
            if clock.monotonic() >= deadline_s:
                break
            await clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            left = await _look(runs, mark, left, clock)
    _report_survivors(left, ended)
    return {run: sorted(pids) for run, pids in ended.items() if pids}


def _report_survivors(left: Mapping[str, list[_Process]], ended: Mapping[str, set[int]]) -> None:
    for run, members in left.items():
        survivors = sorted(process.pid for process in members)
        ended[run].difference_update(survivors)
        _log.error(
            "run %s: its processes %s could not be ended; end them by hand",
            run,
            ", ".join(map(str, survivors)),
            extra={"action": "leftovers_survive", "run": run},
        )


async def _look(
    runs: Mapping[str, tuple[int | None, int | None]],
    mark: str,
    before: Mapping[str, Collection[_Process]],
    clock: Clock,
) -> dict[str, list[_Process]]:
    """Look for leftovers, and once more before it is said that there are none."""
    left = _leftovers(runs, mark, before)
    if runs and not left:
        await clock.sleep(_EXEC_PAUSE_S)
        left = _leftovers(runs, mark, before)
    return left


def _leftovers(
    runs: Mapping[str, tuple[int | None, int | None]], mark: str, before: Mapping[str, Collection[_Process]]
) -> dict[str, list[_Process]]:
    """Return each run's living processes, if any; those found `before` stay its own while they live."""
    if not runs:
        return {}
    marked = find_marked(mark, runs.keys())
    living = {process.pid: process for process in _processes() if process.state not in _GONE}
    spared = _spared(living)
    result: dict[str, list[_Process]] = {}
    for run, (leader, started) in runs.items():
        known = {pid for pid in marked.get(run, ()) if pid in living}
        known.update(old.pid for old in before.get(run, ()) if _is_same(old, living.get(old.pid)))
        if leader in living and started is not None and living[leader].started == started:
            known.add(leader)
        if not known:
            continue
        # A session or group whose leader is gone keeps the leader's number from being used again; but only a
        # marked member proves that the number is not one from before the machine was started anew.
        ours = known | {leader} if _led_by_us(leader, started, living) else known
        sessions = {living[pid].session for pid in known} & ours
        groups = {living[pid].group for pid in known} & ours
        members = [
            process
            for process in living.values()
            if (process.pid in known or process.session in sessions or process.group in groups)
            and process.pid not in spared
        ]
        if members:
            result[run] = members
    return result


def _led_by_us(leader: int | None, started: int | None, living: Mapping[int, _Process]) -> bool:
    return leader is not None and (leader not in living or living[leader].started == started)


def _spared(living: Mapping[int, _Process]) -> set[int]:
    """Return what must not be signalled: pid 1, the engine, its ancestors and its group."""
    own_group = os.getpgrp()
    spared = {0, 1, *(process.pid for process in living.values() if process.group == own_group)}
    pid = os.getpid()
    while pid > 1:
        spared.add(pid)
        pid = living[pid].parent if pid in living else 0
    return spared


def _send(targets: Collection[_Process], signals: Iterable[signal.Signals]) -> None:
    """Signal whole groups where all members are targets, so that no fork is missed, else single processes."""
    groups: dict[int, set[int]] = defaultdict(set)
    for process in _processes():
        if process.state not in _GONE:
            groups[process.group].add(process.pid)
    pids = {target.pid for target in targets}
    whole = {target.group for target in targets if target.group > 1 and groups[target.group] <= pids}
    for number in signals:
        for group in whole:
            if groups[group] and group != os.getpgrp():
                _signal_group(group, number)
        for target in targets:
            if target.group not in whole:
                _signal_one(target, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _signal_one(target: _Process, number: signal.Signals) -> None:
    try:
        descriptor = os.pidfd_open(target.pid)
    except OSError:
        return
    try:
        # The descriptor holds on to a process, so that its pid can't pass to another between look and signal.
        if kernel_start(target.pid) == target.started:
            signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(descriptor)


def _is_same(old: _Process, new: _Process | None) -> bool:
    return new is not None and new.identity == old.identity


def _processes() -> Iterator[_Process]:
    for pid in _pids():
        if process := _read_process(pid):
            yield process


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read_process(pid: int) -> _Process | None:
    """Read /proc/PID/stat; its second field, the program's name, may itself hold blanks and brackets."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.readall() or b""
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20:
        return None
    state, (parent, group, session) = fields[0].decode(), map(int, fields[1:4])
    return _Process(pid, state, parent, group, session, int(fields[6]), int(fields[19]))
