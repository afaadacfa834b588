"""The directory itself: listing, reading, removing and rejecting files. All of it blocks: call it in threads.

Whoever writes into the directory is not trusted: names are never joined to paths but used relative to an open
directory, links are not followed, and only regular files are opened for reading.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import count
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, structs

SUFFIXES = (".trigger", ".json")
REJECTED = "rejected"
ASIDE = ".taken"
"""Where a file is moved for the moment in which it is made sure that it is still the one that was read."""

LONGEST_NAME_BYTES = 255
MOST_LISTED = 10_000
MOST_READ_BYTES = 4 * 1024 * 1024
"""What one round of reading holds in memory, beyond one file."""

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FS_IOC_GETVERSION = 0x80087601  # linux/fs.h, _IOR('v', 1, long) where long has 64 bits


class Mark(NamedTuple):
    """What changes when something else lies under a name, or the same thing in another state."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


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

    def hold(self) -> int:
        """Open the directory and return its descriptor: as long as it is open, `is_held` can tell it."""
        return os.open(self.path, _DIRECTORY_FLAGS)

    def is_held(self, root: int) -> bool:
        """Tell whether the directory that was opened still stands at the path."""
        try:
            # An inode number that is held open is not given to another directory.
            return os.path.samestat(os.fstat(root), os.stat(self.path))
        except OSError:
            return False

    def listing(self, known: Mapping[str, Mark]) -> Listing:
        """Return the names that trigger files have; those in `known` with the same mark are not fresh."""
        fresh: list[tuple[int, str, Mark]] = []
        same: set[str] = set()
        more = False
        with self._open() as root, os.scandir(root) as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(SUFFIXES) or name.startswith("."):
                    continue
                try:
                    mark = _mark(entry.stat(follow_symlinks=False))
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
        with self._open() as root:
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

        def move(root: int, aside: int, look: Look) -> None:
            with _subdirectory(root, REJECTED, 0o777) as rejected:
                name = _free(rejected, look.name, room_bytes=len(".error"))
                _write(rejected, f"{name}.error", text)
                os.rename(look.name, name, src_dir_fd=aside, dst_dir_fd=rejected)

        return self._finish([look], move).get(look.name)

    def restore(self) -> OSError | None:
        """Put back what a crash left aside. Returns what failed."""
        try:
            with self._open() as root:
                if _exists(root, ASIDE):
                    with _subdirectory(root, ASIDE, 0o700) as aside:
                        for name in os.listdir(aside):
                            _put_back(root, aside, name)
        except OSError as error:
            return error
        return None

    def _finish(self, looks: Sequence[Look], end: Callable[[int, int, Look], None]) -> dict[str, OSError]:
        """Move each file aside, where nobody finds it by its name, and end it if it is still the same."""
        failed: dict[str, OSError] = {}
        try:
            with self._open() as root, _subdirectory(root, ASIDE, 0o700) as aside:
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
        if _exists(aside, look.name):
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

    @contextmanager
    def _open(self) -> Iterator[int]:
        root = self.hold()
        try:
            yield root
        finally:
            os.close(root)


def shown(name: str) -> str:
    """Return a file name as valid Unicode without control characters, those being escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _mark(found: os.stat_result) -> Mark:
    return Mark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _look(root: int, name: str, max_bytes: int) -> Look:
    mark = NO_MARK
    try:
        found = os.stat(name, dir_fd=root, follow_symlinks=False)
        mark = _mark(found)
        # Asked before opening: to open a device can have effects.
        if not stat.S_ISREG(found.st_mode):
            return Look(name=name, state=State.ODD, mark=mark, reason=_kind(found.st_mode))
        file = os.open(name, _READ_FLAGS, dir_fd=root)
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
    mark = _mark(found)
    if not stat.S_ISREG(found.st_mode):
        return Look(name=name, state=State.CHANGING, mark=mark)
    writing = _open_for_writing(file)
    identity = f"{mark.device}-{mark.inode}-{_generation(file)}-{mark.mtime_ns}-{mark.size}"
    if mark.size > max_bytes:
        return Look(name=name, state=State.TOO_LARGE, mark=mark, key=identity, writing=writing)
    parts: list[bytes] = []
    left_bytes = mark.size + 1
    while left_bytes > 0 and (part := os.read(file, left_bytes)):
        parts.append(part)
        left_bytes -= len(part)
    body = b"".join(parts)
    if left_bytes != 1 or _mark(os.fstat(file)) != mark:
        return Look(name=name, state=State.CHANGING, mark=mark, writing=writing)
    key = f"{identity}-{hashlib.sha256(body).hexdigest()[:32]}"
    return Look(name=name, state=State.WHOLE, mark=mark, key=key, body=body, writing=writing)


def _open_for_writing(file: int) -> bool | None:
    """Tell whether some process has the file open for writing; None where the system doesn't say.

    Linux grants a read lease only on a file that nobody has open for writing (fcntl(2), F_SETLEASE), to its
    owner and to who may take leases. It is given back at once.
    """
    if sys.platform != "linux":
        return None
    try:
        # Who opens it for writing while the lease is held has us told by a signal: the usual one, SIGIO,
        # would end the process; this one is ignored.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


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


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "no regular file")


@contextmanager
def _subdirectory(root: int, name: str, mode: int) -> Iterator[int]:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=root)
    directory = os.open(name, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=root)
    try:
        yield directory
    finally:
        os.close(directory)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _variant(name: str, number: int, room_bytes: int) -> str:
    """Return the name with a number before its suffix (0: none), cut so that `room_bytes` more fit."""
    stem, suffix = os.path.splitext(os.fsencode(name))
    ending = (b"~%d" % number if number else b"") + suffix
    return os.fsdecode(stem[: LONGEST_NAME_BYTES - room_bytes - len(ending)] + ending)


def _free(directory: int, name: str, *, room_bytes: int) -> str:
    """Return the first variant of `name` that is not taken."""
    variants = (_variant(name, number, room_bytes) for number in count())
    return next(variant for variant in variants if not _exists(directory, variant))


def _write(directory: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o666, dir_fd=directory), "w", encoding="utf-8") as file:
        file.write(text)


def _put_back(root: int, aside: int, name: str) -> None:
    """Move a file back under its name, or, where there is a new one by now, under a variant of it."""
    while True:
        target = _free(root, name, room_bytes=0)
        try:
            # A link, unlike a rename, never replaces what came in this moment.
            os.link(name, target, src_dir_fd=aside, dst_dir_fd=root, follow_symlinks=False)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return
        except OSError:  # links are not allowed here
            os.rename(name, target, src_dir_fd=aside, dst_dir_fd=root)
            return
        os.unlink(name, dir_fd=aside)
        return
