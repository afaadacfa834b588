"""Keeping logs of runs small: the beginning and the end stay, whatever a program writes in between.

Programs write straight to their files, through nothing of ours; so a log can only be looked at now and then, by a
thread of its own: also while the event loop is busy. From one that is too large the middle is taken out by punching a
hole, which takes nothing from whoever appends meanwhile, frees the disk at once, and makes the writer wait while it is
done. When the attempt has ended, the log is written anew without the hole. See fallocate(2) and lseek(2).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from engine.units import format_size

log = logging.getLogger("engine.run")

DEFAULT_LOG_BYTES = 10 * 1024 * 1024
LEAST_LOG_BYTES = 64 * 1024

LOOK_S, LOOK_AGAIN_S = 0.1, 0.005
"""How often the open logs are looked at; and how soon again where one was too large."""

LINGER_S = 5.0
"""So long does the thread stay that does it, when there is nothing to look at."""

MOST_PIECES = 1000
"""A log that its program has made of more pieces is read as if it had no more holes."""

_BLOCK = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_COPY_BYTES = 256 * 1024
_NO_HOLES = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return libc


def pieces(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield where a file holds something, from and to, without the holes in it."""
    position, count = 0, 0
    while True:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing more
            start, end = position, os.fstat(descriptor).st_size
        count += 1
        if count >= MOST_PIECES:
            end = os.fstat(descriptor).st_size
        if end <= start:
            return
        yield start, end
        position = end


def marker(left_out: int) -> bytes:
    """Return the line that stands for what was taken out."""
    return f"\n[… {format_size(left_out)} left out: the log would be too large …]\n".encode()


def trim(path: str, most_bytes: int) -> bool:
    """Take the middle out of a log that is larger than `most_bytes`; tell whether it was. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_blocks * 512 <= most_bytes or found.st_size <= most_bytes:
            return False
        half = most_bytes // 2
        start = -(-half // _BLOCK) * _BLOCK
        end = (found.st_size - half) // _BLOCK * _BLOCK
        if end <= start:
            return False
        if _libc().fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, start, end - start) != 0:
            number = ctypes.get_errno()
            if number not in _NO_HOLES:
                raise OSError(number, os.strerror(number), path)
            _cut(descriptor, start, end, found.st_size)
        return True
    finally:
        os.close(descriptor)


def _cut(descriptor: int, start: int, end: int, size: int) -> None:
    """Take the middle out where the file system has no holes: what is appended while it is done is lost."""
    kept = os.pread(descriptor, size - end, end)
    os.ftruncate(descriptor, start)
    os.lseek(descriptor, 0, os.SEEK_END)
    os.write(descriptor, marker(end - start) + kept)


def compact(path: str, most_bytes: int) -> bool:
    """Write a log anew that is larger than `most_bytes`, without its hole: nobody appends to it any more.

    Tells whether it was. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_size <= most_bytes:
            return False
        half = most_bytes // 2
        head_to = _line_end_before(descriptor, next(pieces(descriptor), (0, 0))[1], half)
        tail_from = _line_start_after(descriptor, max(found.st_size - half, head_to))
        fresh = f"{path}.new"
        target = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _copy(descriptor, target, 0, head_to)
            os.write(target, marker(tail_from - head_to))
            _copy(descriptor, target, tail_from, found.st_size)
            os.replace(fresh, path)
        except OSError:
            with suppress(OSError):
                os.unlink(fresh)
            raise
        finally:
            os.close(target)
        return True
    finally:
        os.close(descriptor)


def _line_end_before(descriptor: int, end: int, most: int) -> int:
    """Return where the last line ends that ends before `end` and `most`, if it does so nearby."""
    end = min(end, most)
    start = max(end - _BLOCK, 0)
    index = os.pread(descriptor, end - start, start).rfind(b"\n")
    return end if index < 0 else start + index


def _line_start_after(descriptor: int, start: int) -> int:
    index = os.pread(descriptor, _BLOCK, start).find(b"\n")
    return start if index < 0 else start + index + 1


def _copy(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        chunk = os.pread(source, min(_COPY_BYTES, end - start), start)
        if not chunk:
            return
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        start += len(chunk)


class LogCap:
    """Looks at the logs of attempts that run, in a thread of its own, which is there while there are any."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._over: deque[tuple[str, int]] = deque()
        self._changing = threading.Lock()
        self._rewriting = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    def begin(self, path: str, most_bytes: int, *, new: bool) -> None:
        """Keep a log small from now on; `new`: nobody can be rewriting it."""
        with self._changing:
            self._open[path] = most_bytes
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="run logs", daemon=True)
                self._thread.start()
        if not self._wanted.is_set():
            self._wanted.set()
        if not new:
            with self._rewriting:  # whoever opens it now opens what is there afterwards
                pass

    def end(self, path: str, size_bytes: int) -> None:
        """Take note that nothing more is written to a log, which is so large."""
        most_bytes = self._open.pop(path, None)
        if most_bytes is not None and size_bytes > most_bytes:
            self._over.append((path, most_bytes))

    def look(self) -> bool:
        """Look at all of them once; tell whether one was too large."""
        found = False
        for path, most_bytes in list(self._open.items()):
            found |= self._try(trim, path, most_bytes)
        while self._over:
            path, most_bytes = self._over.popleft()
            with self._rewriting:
                if path not in self._open:
                    self._try(compact, path, most_bytes)
        return found

    def _try(self, function: Callable[[str, int], bool], path: str, most_bytes: int) -> bool:
        try:
            if os.stat(path).st_size <= most_bytes:
                return False
            return function(path, most_bytes)
        except FileNotFoundError:
            return False  # it was empty, and is another run's by now
        except OSError as error:
            if path not in self._told:
                self._told.add(path)
                log.warning(
                    "The log %s is too large, and can't be made smaller: %s", path, error.strerror,
                    extra={"action": "log_not_trimmed"},
                )  # fmt: skip
            return False

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            if not self._wanted.wait(LINGER_S):
                with self._changing:
                    if not self._open and not self._over:
                        self._thread = None
                        return
            again_s = LOOK_AGAIN_S if self.look() else LOOK_S
            if not self._open and not self._over:
                self._wanted.clear()
                self._told.clear()
                if self._open or self._over:  # one came between the two
                    self._wanted.set()
            pause.wait(again_s)
