"""What is told of files: from a change to an event, and from a mark to what is remembered of it."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from engine.plugin import Event
from plugins.watching.names import shown, valid_text
from plugins.watching.opening import Mark

Kind = Literal["created", "modified", "deleted", "moved"]
KINDS: tuple[Kind, ...] = ("created", "modified", "deleted", "moved")

LONGEST_SUBJECT = 1024
LONGEST_KEY = 512
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Change(Struct, frozen=True, kw_only=True):
    """One change of one file; `path` and `origin` (from where it moved) are relative to the directory.

    `place` is where the file lies now, if that is not its path, as it was claimed.
    """

    kind: Kind
    path: str
    mark: Mark
    origin: str | None = None
    place: str = ""

    @property
    def key(self) -> str:
        """Its identity.

        Beside device, inode, size, mtime and change it holds the time of the inode's last change and a digest of
        the path: a file may have two names, come back to one that it had, or be copied with its times.
        """
        where = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return "-".join([*map(str, self.mark), where, self.kind])


def event_of(change: Change, root: Path) -> Event:
    """Return the event that tells of a change below `root`."""
    path = os.path.join(root, change.path)
    place = os.path.join(root, change.place) if change.place else path
    data: dict[str, Any] = {
        "path": valid_text(place),
        "name": valid_text(os.path.basename(path)),
        "size": change.mark.size,
        "mtime": _time_text(change.mark.mtime_ns),
    }
    if data["path"] != place:
        # Text can't hold such a name, so the path above is for people alone.
        data["uri"] = "file://" + quote(os.fsencode(place))
    if change.origin is not None:
        data["from"] = valid_text(os.path.join(root, change.origin))
    return Event(type=f"file.{change.kind}", subject=_subject(path), key=change.key, data=data)


def remembered_as(path: str) -> tuple[str, list[Any]]:
    """Return the key under which a path is remembered, and what the value must hold to tell the path again."""
    if len(path) <= LONGEST_KEY and valid_text(path) == path:
        return path, []
    raw = os.fsencode(path)
    # No relative path begins with slashes.
    return "//" + hashlib.sha256(raw).hexdigest(), [base64.b64encode(raw).decode()]


def remembered_path(key: str, value: list[Any]) -> str:
    """Return the path of a remembered key; see `remembered_as`."""
    return os.fsdecode(base64.b64decode(value[-1])) if key.startswith("//") else key


def _subject(path: str) -> str:
    text = shown(path)
    return text if len(text) <= LONGEST_SUBJECT else "…" + text[1 - LONGEST_SUBJECT :]


def _time_text(time_ns: int) -> str | None:
    """Return a file's time by RFC 3339, to the microsecond; None for one beyond the year 9999 or before 1."""
    try:
        time = _EPOCH + timedelta(microseconds=time_ns // 1000)
    except OverflowError:
        return None
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
