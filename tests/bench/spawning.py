"""The baseline of `spawn`: /bin/true, some at a time, started by Popen and waited for by pidfd, without an engine."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec


async def spawn(folder: Path, number: int) -> None:
    """Start one, with its output in a file of its own, and wait for its end."""
    log = os.open(folder / f"{number}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        popen = subprocess.Popen(  # noqa: ASYNC220 - a thread for each would be slower
            ["/bin/true"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
    finally:
        os.close(log)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    pidfd = os.pidfd_open(popen.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    if popen.wait() != 0:
        raise RuntimeError(f"/bin/true ended with {popen.returncode}")


async def spawn_all(folder: Path, runs: int, at_once: int) -> float:
    """Start `runs`, at most `at_once` at a time; return the seconds that they took."""
    numbers: Iterator[int] = iter(range(runs))

    async def work() -> None:
        for number in numbers:
            await spawn(folder, number)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return time.perf_counter() - begun_s


def main() -> None:
    """Spawn as the arguments say: runs, how many at once, folder; print the fields of a `tests.bench.spawn.Turn`."""
    runs, at_once, folder = sys.argv[1:]
    seconds = asyncio.run(spawn_all(Path(folder), int(runs), int(at_once)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"runs": int(runs), "seconds": seconds, "cpu_s": used.ru_utime + used.ru_stime}
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
