"""The files of runs: what their processes print, and what they leave as outputs."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from engine.clock import EPOCH

_DAY_MS = 86_400_000


class RunLogs:
    """Log files below one directory, a folder for each day (UTC) on which runs were made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, run_id: str) -> Path:
        """Return the path of a run's log file, which may not be there; it follows from the id alone."""
        return Path(self._place(run_id, "log"))

    def output_path(self, run_id: str) -> Path:
        """Return the path of the file in which a run's attempt may leave its outputs."""
        return Path(self._place(run_id, "out"))

    def open(self, run_id: str) -> int:
        """Open a run's log file to append to it, and return the descriptor."""
        path = self._place(run_id, "log")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _place(self, run_id: str, kind: str) -> str:
        return f"{self._directory}/{_day(run_id)}/{run_id}.{kind}"


def _day(run_id: str) -> str:
    """Return the day on which an id was made: a UUIDv7 begins with milliseconds since 1970."""
    return _date(int(run_id[:8] + run_id[9:13], 16) // _DAY_MS)


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).strftime("%Y-%m-%d")
