"""The files of runs on the disk: how much room they take, which are old, and removing them. Blocking; for threads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_FILE = re.compile(r"(?P<run>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.")
_BLOCK_BYTES = 512
SUFFIXES = ("log", "out", "kept")


class Found(Struct, frozen=True, kw_only=True):
    """A file of a run, and what it takes of the disk."""

    run: str
    path: str
    size_bytes: int


class Removed(Struct, frozen=True, kw_only=True):
    """How many files were removed, and what they took of the disk."""

    files: int = 0
    size_bytes: int = 0


class RunFiles:
    """The files below the directory of run logs, a folder for each day (UTC) on which runs were made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def days(self) -> list[str]:
        """Return the folders of days, the oldest first."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if _DAY.match(name))

    def days_before(self, before: datetime) -> list[str]:
        """Return the folders of days that were over at an instant."""
        return [day for day in self.days() if (ended_at := _end_of(day)) is not None and ended_at <= before]

    def files_of(self, day: str) -> list[Found]:
        """Return the files of runs in a day's folder."""
        return list(self._files_of(day))

    def _files_of(self, day: str) -> Iterator[Found]:
        try:
            entries = os.scandir(self._directory / day)
        except OSError:  # it was removed this moment, or is no folder
            return
        with entries:
            for entry in entries:
                match = _FILE.match(entry.name)
                if match is None:
                    continue
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    yield Found(run=match["run"], path=entry.path, size_bytes=found.st_blocks * _BLOCK_BYTES)

    def used_bytes(self) -> int:
        """Return what all files of runs take of the disk."""
        return sum(found.size_bytes for day in self.days() for found in self._files_of(day))

    def remove_of(self, paths: Sequence[Path]) -> Removed:
        """Remove those of the files that are there."""
        files = size_bytes = 0
        for path in paths:
            try:
                size = os.lstat(path).st_blocks * _BLOCK_BYTES
                os.unlink(path)
            except OSError:
                continue
            files, size_bytes = files + 1, size_bytes + size
        return Removed(files=files, size_bytes=size_bytes)

    def tidy(self, day: str) -> None:
        """Remove a day's folder where nothing is left in it."""
        with suppress(OSError):
            os.rmdir(self._directory / day)


def _end_of(day: str) -> datetime | None:
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError:
        return None
