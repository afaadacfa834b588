"""The files that came with events: removed with the events. Blocking; for threads.

Each request has a directory of its own, in which a file `event` names the event that it belongs to, once that is
durable. One without it was left by a crash.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from engine.housekeeping.files import Removed

MARK = "event"
_DIRECTORY = re.compile(r"[0-9a-f]{32}\Z")
_BLOCK_BYTES = 512
_LONGEST_ID = 64


class Received(Struct, frozen=True, kw_only=True):
    """The files of one request; `event` is None where they belong to none."""

    event: str | None
    path: str
    files: int
    size_bytes: int


class ReceivedFiles:
    """The directories of requests below `directory`, which need not be there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def before(self, instant: datetime) -> list[Received]:
        """Return what was received before an instant, in no order."""
        return [one for path, at in self._directories() if at < instant.timestamp() and (one := _look(path))]

    def used_bytes(self) -> int:
        """Return what all of them take of the disk."""
        return sum(one.size_bytes for path, _ in self._directories() if (one := _look(path)))

    def remove(self, one: Received) -> Removed:
        """Remove the files of a request."""
        shutil.rmtree(one.path, ignore_errors=True)
        return Removed(files=0, size_bytes=0) if os.path.exists(one.path) else removed(one)

    def _directories(self) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if _DIRECTORY.match(entry.name):
                    with suppress(OSError):
                        found.append((entry.path, entry.stat(follow_symlinks=False).st_mtime))
        return found


def removed(one: Received) -> Removed:
    """Return what is counted where the files of a request are removed."""
    return Removed(files=one.files, size_bytes=one.size_bytes)


def _look(path: str) -> Received | None:
    event, files, size = None, 0, 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                if entry.name == MARK:
                    event = Path(entry.path).read_text("ascii", "replace")[:_LONGEST_ID]
                else:
                    files += 1
    except OSError:  # it is gone, or no directory
        return None
    return Received(event=event or None, path=path, files=files, size_bytes=size)
