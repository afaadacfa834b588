"""Functions of Python jobs that watch themselves, as job.sh does; each site has a copy, which its engine imports.

A lock belongs to an open file: the kernel gives it back when the function closes that, or when its process has
ended. For one on the event loop that process is the engine itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.plugin import FunctionContext

WITNESS = Path(__file__).resolve().parents[1] / "witness"

Say = Callable[[str], None]


class NotThisTime(Exception):
    """What an attempt raises that has to fail."""


def work(run: FunctionContext, limit: int, in_all: int, seconds: float, failing: int) -> None:
    """Be there for a while, and tell of it."""
    with watched(run, limit, in_all) as say:
        time.sleep(seconds)
        end(run, failing, say)


async def work_on_loop(run: FunctionContext, limit: int, in_all: int, seconds: float, failing: int) -> None:
    """Do the same on the event loop."""
    with watched(run, limit, in_all) as say:
        await asyncio.sleep(seconds)
        end(run, failing, say)


@contextmanager
def watched(run: FunctionContext, limit: int, in_all: int) -> Iterator[Say]:
    """Take the locks of a run and of its slots, and tell where they are taken already."""

    def say(what: str) -> None:
        up_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        line = f"{what} {run.job} {run.run_id} {run.attempt} {os.getpid()} {up_s:.2f}\n"
        log = os.open(WITNESS / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(log, line.encode())
        finally:
            os.close(log)

    with ExitStack() as locks:
        if not lock(f"run.{run.run_id}", locks):
            say("overlap")
        if not take_slot(f"slot.{run.job}", limit, locks):
            say("over_limit")
        if not take_slot("slot", in_all, locks):
            say("over_limit_in_all")
        say("start")
        yield say


def end(run: FunctionContext, failing: int, say: Say) -> None:
    """Tell of the end, or fail."""
    if run.attempt <= failing:
        say("fail")
        raise NotThisTime
    say("stop")


def take_slot(name: str, limit: int, locks: ExitStack) -> bool:
    """Lock the first slot that is free; return false where the limit is reached."""
    return any(lock(f"{name}.{number}", locks) for number in range(1, limit + 1))


def lock(name: str, locks: ExitStack) -> bool:
    """Lock a file for as long as `locks` are held; return false where another has it."""
    file = os.open(WITNESS / name, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    # A program that the engine starts just now has all its files for a moment more, after exec let the engine go on:
    # closing alone would leave the lock to that.
    locks.callback(os.close, file)
    locks.callback(fcntl.flock, file, fcntl.LOCK_UN)
    return True
