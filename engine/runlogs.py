"""The files of runs: what their processes print, and what they leave as outputs."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from engine.clock import EPOCH
from engine.logcap import DEFAULT_LOG_BYTES, LogCap

MOST_SPARE = 64
"""So many empty log files are kept for other runs."""

_DAY_MS = 86_400_000
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class RunLogs:
    """Log files below one directory, a folder for each day (UTC) on which runs were made.

    Most programs print nothing, and making a file costs as much as starting a program: so a log that was left
    empty is handed on to another run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self._spare: dict[str, None] = {}
        self._cap = LogCap()

    def path(self, run_id: str) -> Path:
        """Return the path of a run's log file, which may not be there; it follows from the id alone."""
        return Path(self._place(run_id, "log"))

    def output_path(self, run_id: str) -> str:
        """Return the path of the file in which a run's attempt may leave its outputs."""
        return self._place(run_id, "out")

    def keep_path(self, run_id: str) -> str:
        """Return the path of the file by which an attempt is taken up that outlives the engine."""
        return self._place(run_id, "kept")

    def forget_kept(self, run_id: str) -> None:
        """Remove what an attempt was to be taken up by, and what it left as outputs."""
        path = self.keep_path(run_id)
        for name in (path, f"{path}.new", f"{path}.end", self.output_path(run_id)):
            with suppress(OSError):
                os.unlink(name)

    def open(self, run_id: str, *, new: bool = False, most_bytes: int = DEFAULT_LOG_BYTES) -> int:
        """Open a run's log file to append to it, and return the descriptor. `new`: there is none yet.

        Of what is more than `most_bytes` the beginning and the end are kept.
        """
        path = self._place(run_id, "log")
        self._cap.begin(path, most_bytes, new=new)
        return self._open(path, new=new)

    def watch(self, run_id: str, *, most_bytes: int) -> None:
        """Keep the log of a run small that has it open already."""
        self._cap.begin(self._place(run_id, "log"), most_bytes, new=True)

    def _open(self, path: str, *, new: bool) -> int:
        self._spare.pop(path, None)
        if self._spare and (new or not os.path.exists(path)) and (descriptor := self._take_spare(path)) >= 0:
            return descriptor
        try:
            return os.open(path, _FLAGS | os.O_CREAT, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, _FLAGS | os.O_CREAT, 0o600)

    def ended(self, run_id: str) -> None:
        """Take note that nothing more is written to a run's log: where it is empty, another run may have it."""
        path = self._place(run_id, "log")
        try:
            size_bytes = os.stat(path).st_size
        except OSError:
            size_bytes = -1
        self._cap.end(path, size_bytes)
        if size_bytes == 0 and len(self._spare) < MOST_SPARE:
            self._spare[path] = None

    def _take_spare(self, path: str) -> int:
        """Make an empty log that of another run, and open it; return -1 where that can't be.

        Under its new name nobody else can open it; that nobody still has it open (a process that got away from
        its run, a reader) is known by a lease to write, which is granted only then: see fcntl(2).
        """
        spare, _ = self._spare.popitem()
        try:
            os.rename(spare, path)
        except OSError:  # one is gone, or this is the first run of a day
            return -1
        descriptor = -1
        try:
            descriptor = os.open(path, _FLAGS)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            if os.lseek(descriptor, 0, os.SEEK_END) == 0:
                return descriptor
        except OSError:
            pass
        if descriptor >= 0:
            os.close(descriptor)
        with suppress(OSError):
            os.rename(path, spare)
        return -1

    def _place(self, run_id: str, kind: str) -> str:
        return f"{self._directory}/{_day(run_id)}/{run_id}.{kind}"


@lru_cache(maxsize=1024)
def _day(run_id: str) -> str:
    """Return the day on which an id was made: a UUIDv7 begins with milliseconds since 1970."""
    return _date(int(run_id[:8] + run_id[9:13], 16) // _DAY_MS)


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
