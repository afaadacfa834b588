"""Copies of the store that the engine makes when it is asked, in the one directory that is configured for them."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from engine.clock import Clock, rfc3339
from engine.errors import Conflict, InvalidRequest
from engine.ids import is_slug
from engine.store.copying import copy_store
from engine.units import format_size, format_span

log = logging.getLogger("engine.housekeeping")

SUFFIX = ".db"


class Backups:
    """Copies of the store at `path`, in `directory`, which is made where it is missing."""

    def __init__(self, *, clock: Clock, path: Path, directory: Path) -> None:
        self.directory = directory
        self._clock = clock
        self._path = path
        self._turn = anyio.Lock()

    async def make(self, name: str | None = None) -> dict[str, Any]:
        """Copy the store as it is now; return the copy as the API shows it, once it is durable and checked.

        By default its name is the time. Raises InvalidRequest for what is no name, Conflict where there is one of that
        name, StoreUnavailable where it can't be written, and StoreDamaged.
        """
        made_at = self._clock.now()
        if name is None:
            name = f"engine-{made_at:%Y%m%dT%H%M%S}.{made_at.microsecond // 1000:03d}Z"
        if not is_slug(name):
            raise InvalidRequest(f"{name!r} is no name: letters, digits, '_', '.' and '-', at most 128")
        if self._turn.locked():
            raise Conflict("a backup is being made already")
        async with self._turn:
            to = self.directory / (name if name.endswith(SUFFIX) else name + SUFFIX)
            copied = await run_sync(copy_store, self._path, to)
        log.info(
            "Copied the store to %s (%s) in %s", copied.path, format_size(copied.size_bytes),
            format_span(copied.took_s),
            extra={"action": "backed_up", "path": str(copied.path)},
        )  # fmt: skip
        return {
            "name": to.name, "path": str(copied.path), "bytes": copied.size_bytes, "made_at": rfc3339(made_at),
            "took_s": round(copied.took_s, 3),
        }  # fmt: skip

    async def copies(self) -> list[dict[str, Any]]:
        """Return the copies that are there, the newest first."""
        return await run_sync(self._look)

    def _look(self) -> list[dict[str, Any]]:
        found = []
        try:
            entries = sorted(os.scandir(self.directory), key=lambda entry: entry.name)
        except OSError:
            return []
        for entry in entries:
            if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                made_at = datetime.fromtimestamp(stat.st_mtime, tz=self._clock.now().tzinfo)
                found.append((stat.st_mtime, {
                    "name": entry.name, "path": entry.path, "bytes": stat.st_size, "made_at": rfc3339(made_at),
                }))  # fmt: skip
        return [view for _, view in sorted(found, key=lambda one: one[0], reverse=True)]
