"""Files that came in forms: kept in a directory of their own for each request, beside the event.

`files/<id>/1`, `2`, …, and `event`, which holds the event's id from when it is durable: by that they are removed with
it. No path is made of what a sender wrote. A directory without `event` was left by a crash: nobody was told that it was
taken, or its event was stored in that very moment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
from msgspec import Struct

from plugins.sources.webhook.multipart import Part

MARK = "event"
_NO_FILE = {"path": ""}


class Kept(Struct, frozen=True, kw_only=True):
    """Files on disk; `members` describes them for the event's data, in their order."""

    directory: Path
    members: list[dict[str, Any]]

    async def settle(self, event_id: str) -> None:
        """Take note of the event that they belong to."""
        await anyio.to_thread.run_sync(_write, self.directory / MARK, event_id.encode())

    async def remove(self) -> None:
        """Remove them."""
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.directory, ignore_errors=True))


async def keep(files: Path, parts: Sequence[Part]) -> Kept:
    """Make files durable; raise OSError where the disk takes none."""
    directory = files / uuid.uuid4().hex
    try:
        await anyio.to_thread.run_sync(_keep, directory, [part.content for part in parts])
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(directory, ignore_errors=True))
        raise
    members = [
        {
            "filename": part.filename,
            "content_type": part.content_type,
            "size": len(part.content),
            "sha256": hashlib.sha256(part.content).hexdigest(),
            "path": str(directory / str(number)),
        }
        for number, part in enumerate(parts, 1)
    ]
    return Kept(directory=directory, members=members)


def without_paths(data: Any) -> Any:
    """Return a form's data without the places of its files, which are others for each request."""
    if not isinstance(data, dict):
        return data
    return {
        name: [_bare(one) for one in value] if isinstance(value, list) else _bare(value) for name, value in data.items()
    }


def _bare(value: Any) -> Any:
    return value | _NO_FILE if isinstance(value, dict) and "sha256" in value else value


def _keep(directory: Path, contents: Sequence[bytes]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.mkdir(mode=0o700)
    for number, content in enumerate(contents, 1):
        _write(directory / str(number), content)
    for place in (directory, directory.parent):
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
