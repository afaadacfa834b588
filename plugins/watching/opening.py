"""Files and directories by descriptor: never by a joined path, never through a link. All of it blocks.

Whoever writes into a watched directory is not trusted: what lies under a name may be swapped at any moment.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from plugins.watching.names import variant

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Mark(NamedTuple):
    """What changes when something else lies under a name, or the same thing in another state."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def mark_of(found: os.stat_result) -> Mark:
    """Return the mark of what a stat found."""
    return Mark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def kind_of(mode: int) -> str:
    """Say what a file is that is no regular one."""
    kinds = {
        stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def open_for_writing(file: int) -> bool | None:
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


def hold(path: Path) -> int:
    """Open a directory and return its descriptor: as long as it is open, `is_held` can tell it."""
    return os.open(path, DIRECTORY_FLAGS)


def is_held(root: int, path: Path) -> bool:
    """Tell whether the directory that was opened still stands at the path."""
    try:
        # An inode number that is held open is not given to another directory.
        return os.path.samestat(os.fstat(root), os.stat(path))
    except OSError:
        return False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a directory by its path; the path itself may lead through links."""
    root = hold(path)
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def below(root: int, names: Sequence[str], *, mode: int | None = None, follow: bool = False) -> Iterator[int]:
    """Open a directory below another, name by name.

    With a `mode` those that are missing are made. Links are not followed, unless `follow`.
    """
    flags = DIRECTORY_FLAGS if follow else DIRECTORY_FLAGS | os.O_NOFOLLOW
    directory = os.dup(root)
    try:
        for name in names:
            if mode is not None:
                with suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=directory)
            inner = os.open(name, flags, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


def exists(directory: int, name: str) -> bool:
    """Tell whether anything has this name."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def free_name(directory: int, name: str, *, room_bytes: int) -> str:
    """Return the first variant of `name` that is not taken; `room_bytes` more fit behind it."""
    variants = (variant(name, number, room_bytes=room_bytes) for number in count())
    return next(candidate for candidate in variants if not exists(directory, candidate))


def write_text(directory: int, name: str, text: str) -> None:
    """Write a file, in place of what has this name; not through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o666, dir_fd=directory), "w", encoding="utf-8") as file:
        file.write(text)


def move(source: int, name: str, target: int, wanted: str, *, room_bytes: int = 0) -> str | None:
    """Move a file to another directory, as `wanted` or a variant of it, and return what it is called there.

    Nothing that lies there is replaced. Returns None where the file is gone.
    """
    while True:
        free = free_name(target, wanted, room_bytes=room_bytes)
        try:
            # A link, unlike a rename, never replaces what came in this moment.
            os.link(name, free, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        except OSError:  # links are not allowed here
            os.rename(name, free, src_dir_fd=source, dst_dir_fd=target)
            return free
        os.unlink(name, dir_fd=source)
        return free
