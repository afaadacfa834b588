"""The directory itself: listing, reading, removing and rejecting files. All of it blocks: call it in threads.

Whoever writes into the directory is not trusted: names are never joined to paths but used relative to an open
directory, links are not followed, and only regular files are opened for reading.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path

from msgspec import Struct, structs

from plugins.watching.opening import (
    READ_FLAGS,
    Mark,
    below,
    exists,
    free_name,
    kind_of,
    mark_of,
    move,
    open_for_writing,
    opened,
    write_text,
)

SUFFIXES = (".trigger", ".json")
REJECTED = "rejected"
ASIDE = ".taken"
"""Where a file is moved for the moment in which it is made sure that it is still the one that was read."""

MOST_LISTED = 10_000
MOST_READ_BYTES = 4 * 1024 * 1024
"""What one round of reading holds in memory, beyond one file."""

_FS_IOC_GETVERSION = 0x80087601  # linux/fs.h, _IOR('v', 1, long) where long has 64 bits

NO_MARK = Mark(0, 0, 0, 0, 0)
"""The mark of what was gone before it could be marked."""


class State(Enum):
    """What a look at a name found."""

    WHOLE = "a regular file, read without a change to it"
    TOO_LARGE = "a regular file, larger than allowed and not read"
    CHANGING = "a regular file that changed while it was read"
    ODD = "something else than a regular file"
    UNREADABLE = "a regular file that can't be read"
    GONE = "nothing"


class Look(Struct, frozen=True, kw_only=True):
    """What lay under a name at one moment.

    - `key`: the identity of file and content, the same after a restart.
    - `writing`: whether some process has it open for writing; None where the system doesn't tell.
    - `reason`: why it is odd or unreadable, in words.
    """

    name: str
    state: State
    mark: Mark = NO_MARK
    key: str = ""
    body: bytes = b""
    writing: bool | None = None
    reason: str = ""

    def without_body(self) -> Look:
        return structs.replace(self, body=b"")


class Listing(Struct, frozen=True, kw_only=True):
    """Names in a directory: the `fresh` ones, oldest first, and the `known`; `more`: not all are listed."""

    fresh: tuple[tuple[str, Mark], ...]
    known: frozenset[str]
    more: bool


class Folder:
    """A directory into which others put trigger files."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def make(self) -> bool:
        """Make the directory where it is missing; tell whether it was."""
        if self.path.is_dir():
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        return True

    def listing(self, known: Mapping[str, Mark]) -> Listing:
        """Return the names that trigger files have; those in `known` with the same mark are not fresh."""
        fresh: list[tuple[int, str, Mark]] = []
        same: set[str] = set()
        more = False
        with opened(self.path) as root, os.scandir(root) as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(SUFFIXES) or name.startswith("."):
                    continue
                try:
                    mark = mark_of(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                if known.get(name) == mark:
                    same.add(name)
                elif len(fresh) < MOST_LISTED:
                    fresh.append((mark.mtime_ns, name, mark))
                else:
                    more = True
        fresh.sort()
        return Listing(fresh=tuple((name, mark) for _, name, mark in fresh), known=frozenset(same), more=more)

    def look(self, names: Sequence[str]) -> list[Look]:
        """Look at names in their order, and at the first at least; stop when a few megabytes were read."""
        looks: list[Look] = []
        read_bytes = 0
        with opened(self.path) as root:
            for name in names:
                look = _look(root, name, self._max_bytes)
                looks.append(look)
                read_bytes += len(look.body)
                if read_bytes >= MOST_READ_BYTES:
                    break
        return looks

    def remove(self, looks: Sequence[Look]) -> dict[str, OSError]:
        """Remove the files that were looked at, and no others; return what failed, by name."""
        return self._finish(looks, lambda root, aside, look: os.unlink(look.name, dir_fd=aside))

    def reject(self, look: Look, text: str) -> OSError | None:
        """Move the file that was looked at to `rejected/`, beside `text` in an `.error` file.

        Nothing that lies there is overwritten. Returns what failed.
        """

        def end(root: int, aside: int, look: Look) -> None:
            with below(root, [REJECTED], mode=0o777) as rejected:
                name = free_name(rejected, look.name, room_bytes=len(".error"))
                write_text(rejected, f"{name}.error", text)
                os.rename(look.name, name, src_dir_fd=aside, dst_dir_fd=rejected)

        return self._finish([look], end).get(look.name)

    def restore(self) -> OSError | None:
        """Put back what a crash left aside. Returns what failed."""
        try:
            with opened(self.path) as root:
                if exists(root, ASIDE):
                    with below(root, [ASIDE], mode=0o700) as aside:
                        for name in os.listdir(aside):
                            _put_back(root, aside, name)
        except OSError as error:
            return error
        return None

    def _finish(self, looks: Sequence[Look], end: Callable[[int, int, Look], None]) -> dict[str, OSError]:
        """Move each file aside, where nobody finds it by its name, and end it if it is still the same."""
        failed: dict[str, OSError] = {}
        try:
            with opened(self.path) as root, below(root, [ASIDE], mode=0o700) as aside:
                for look in looks:
                    try:
                        if self._move_aside(root, aside, look):
                            end(root, aside, look)
                    except OSError as error:
                        failed[look.name] = error
        except OSError as error:
            return {look.name: error for look in looks}
        return failed

    def _move_aside(self, root: int, aside: int, look: Look) -> bool:
        """Move aside what was looked at; put it back, and return False, when it is something else by now."""
        if exists(aside, look.name):
            _put_back(root, aside, look.name)
        try:
            os.rename(look.name, look.name, src_dir_fd=root, dst_dir_fd=aside)
        except FileNotFoundError:
            return False
        again = _look(aside, look.name, self._max_bytes)
        # A writer that came in between may not have written yet; one that was there before was waited for.
        if again.key == look.key and (look.writing or not again.writing):
            return True
        _put_back(root, aside, look.name)
        return False


def _look(root: int, name: str, max_bytes: int) -> Look:
    mark = NO_MARK
    try:
        found = os.stat(name, dir_fd=root, follow_symlinks=False)
        mark = mark_of(found)
        # Asked before opening: to open a device can have effects.
        if not stat.S_ISREG(found.st_mode):
            return Look(name=name, state=State.ODD, mark=mark, reason=kind_of(found.st_mode))
        file = os.open(name, READ_FLAGS, dir_fd=root)
        try:
            return _read(file, name, max_bytes)
        finally:
            os.close(file)
    except FileNotFoundError:
        return Look(name=name, state=State.GONE)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link came in its place
            return Look(name=name, state=State.CHANGING)
        return Look(name=name, state=State.UNREADABLE, mark=mark, reason=error.strerror or str(error))


def _read(file: int, name: str, max_bytes: int) -> Look:
    found = os.fstat(file)
    mark = mark_of(found)
    if not stat.S_ISREG(found.st_mode):
        return Look(name=name, state=State.CHANGING, mark=mark)
    writing = open_for_writing(file)
    identity = f"{mark.device}-{mark.inode}-{_generation(file)}-{mark.mtime_ns}-{mark.size}"
    if mark.size > max_bytes:
        return Look(name=name, state=State.TOO_LARGE, mark=mark, key=identity, writing=writing)
    parts: list[bytes] = []
    left_bytes = mark.size + 1
    while left_bytes > 0 and (part := os.read(file, left_bytes)):
        parts.append(part)
        left_bytes -= len(part)
    body = b"".join(parts)
    if left_bytes != 1 or mark_of(os.fstat(file)) != mark:
        return Look(name=name, state=State.CHANGING, mark=mark, writing=writing)
    key = f"{identity}-{hashlib.sha256(body).hexdigest()[:32]}"
    return Look(name=name, state=State.WHOLE, mark=mark, key=key, body=body, writing=writing)


def _generation(file: int) -> int:
    """Return what tells a file from an earlier one of the same inode number; 0 where that is not known.

    ext4 gives a number out again at once: a copy that keeps its time (`cp -p`), dropped again and again,
    would otherwise be the same file each time.
    """
    if sys.platform != "linux":
        return 0
    try:
        answer = fcntl.ioctl(file, _FS_IOC_GETVERSION, bytes(8))
    except OSError:
        return 0
    return int.from_bytes(answer[:4], sys.byteorder)


def _put_back(root: int, aside: int, name: str) -> None:
    """Move a file back under its name, or, where there is a new one by now, under a variant of it."""
    move(aside, name, root, name)
