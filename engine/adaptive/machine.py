"""The machine: how busy it is. Sampled now and then, and only while somebody asks for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from msgspec import Struct

log = logging.getLogger("engine.adaptive")

WEIGHT = 0.3
"""Of the latest sample in the averages of CPU and memory: the last six samples make nine tenths of them."""


class Reading(Struct, frozen=True, kw_only=True):
    """How busy the machine is: CPU and memory as parts of all, the load average of one minute for each CPU."""

    cpu: float
    memory: float
    load: float


def read_machine() -> Callable[[], Reading]:
    """Return a function that reads the whole machine, whatever part of it a container may use.

    Its CPU is the average since the call before. A call takes a fifth of a millisecond.
    """
    import psutil  # takes 20 ms to import, which engines without such limits are spared

    cpus = os.cpu_count() or 1
    psutil.cpu_percent(interval=None)

    def read() -> Reading:
        return Reading(
            cpu=psutil.cpu_percent(interval=None) / 100,
            memory=psutil.virtual_memory().percent / 100,
            load=psutil.getloadavg()[0] / cpus,
        )

    return read


class Machine:
    """Keeps a smoothed reading; None before the first sample, and where there is none to be had.

    `open` is called at the first sample, and returns what reads the machine.
    """

    def __init__(self, open: Callable[[], Callable[[], Reading]] = read_machine) -> None:
        self._open = open
        self._read: Callable[[], Reading] | None = None
        self._failed = False
        self.reading: Reading | None = None

    def sample(self) -> None:
        """Read the machine once more."""
        try:
            if self._read is None:
                # CPU is counted between two calls: the next one has something to say.
                self._read = self._open()
                return
            found = self._read()
        except Exception:  # a library's, on a system that hides what it reads
            self.reading = None
            if not self._failed:
                self._failed = True
                log.exception("How busy the machine is can't be read", extra={"action": "machine_unreadable"})
            return
        self._failed = False
        before = self.reading or found
        self.reading = Reading(
            cpu=before.cpu + WEIGHT * (found.cpu - before.cpu),
            memory=before.memory + WEIGHT * (found.memory - before.memory),
            load=found.load,  # the kernel has smoothed it
        )
