"""The reaper: kills programs that the engine runs, at random, as an operator or a machine without memory does."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

from tests.crash.site import Site

EARLIEST_S, LATEST_S = 0.1, 1.0


class Reaper(threading.Thread):
    """Kills the whole process group of a random attempt now and then, of jobs whose policy tries that again.

    `killed` are the attempts that it killed: run ids with the numbers of attempts.
    """

    def __init__(self, site: Site, *, seed: int) -> None:
        super().__init__(name="reaper", daemon=True)
        self.killed: frozenset[tuple[str, int]] = frozenset()
        self._site = site
        self._random = random.Random(f"{seed}/reaper")
        self._enough = threading.Event()
        self._jobs = {name for name, job in site.jobs.items() if "signal" in job.retry}

    def run(self) -> None:
        while not self._enough.wait(self._random.uniform(EARLIEST_S, LATEST_S)):
            self._kill_one()

    def finish(self) -> None:
        """Kill nothing more."""
        self._enough.set()
        if self.is_alive():
            self.join()

    def _kill_one(self) -> None:
        recent = [line for line in self._site.witnessed(last=40) if line.what == "start" and line.job in self._jobs]
        self._random.shuffle(recent)
        for line in recent:
            # The process id may be another process's by now: its mark tells. Noted first, so that none is unknown.
            before = self.killed
            self.killed = before | {(line.run, line.attempt)}
            if _carries(line.pid, line.run):
                try:
                    os.killpg(line.pid, signal.SIGKILL)
                    return
                except ProcessLookupError:
                    pass
            self.killed = before


def _carries(pid: int, run: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"ENGINE_RUN_ID={run}".encode() in environment.split(b"\0")
