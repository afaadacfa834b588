"""The sink: it writes lines of the log without ever waiting for who reads them.

A line is written at once where that does not block: into a file, or a pipe or terminal that takes it. Else it waits for
a thread that writes, so that a reader who has stopped (a full pipe, a paused terminal) does not stop the engine. What
is too much is left out, and counted in a line of its own; a log that is closed or full loses lines, and nothing else.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable

from engine.logids import add_ids

MOST_WAITING_BYTES = 8 * 2**20
"""So much may wait for a reader who has stopped; what comes more is left out."""

AT_ONCE_BYTES = 4096
"""A pipe that may be written to takes so much at least without blocking (POSIX: PIPE_BUF)."""

FLUSH_S = 2.0
RETRY_S = 0.2


class Sink(logging.Handler):
    """Writes records to a file descriptor. `line_of` makes a record a line, without the line break."""

    def __init__(self, descriptor: int, line_of: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._line_of = line_of
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._left_out = 0
        self._poll = select.poll()
        try:
            self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            self._poll.register(descriptor, select.POLLOUT)
        except OSError:  # it is closed already
            self._is_file = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or have it written; never raises, and never waits."""
        add_ids(record)
        try:
            line = self._line_of(record)
        except Exception as error:  # arguments that do not fit, a `__str__` that raises: anybody's code
            line = f"A record of {record.name} can't be shown: {type(error).__name__}"
        self._put(line.encode("utf-8", "backslashreplace") + b"\n")

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the reader."""
        return self._waiting_bytes

    def flush(self) -> None:
        """Wait for what waits to be written, for two seconds at most."""
        until_s = time.monotonic() + FLUSH_S
        with self._wake:
            while self._waiting and (left_s := until_s - time.monotonic()) > 0:
                self._wake.wait(left_s)

    def _put(self, line: bytes) -> None:
        with self._wake:
            if not self._waiting and self._write_now(line):
                return
            if self._waiting_bytes + len(line) > MOST_WAITING_BYTES:
                self._left_out += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            self._start()

    def _write_now(self, line: bytes) -> bool:
        """Write a line where that does not block; return whether that is done."""
        if not self._is_file and (len(line) > AT_ONCE_BYTES or not self._takes_more()):
            return False
        try:
            written = os.write(self._descriptor, line)
        except BlockingIOError:
            return False
        except OSError:  # the disk is full, the terminal is gone: the engine goes on
            return True
        if written < len(line):
            self._waiting.append(line[written:])
            self._waiting_bytes += len(line) - written
            self._start()
        return True

    def _takes_more(self) -> bool:
        try:
            found = self._poll.poll(0)
        except OSError:
            return True
        return bool(found)  # also where it is broken: writing tells then

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="log", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _work(self) -> None:
        """Write what waits, in its order, for as long as the process lives; runs in the thread."""
        while True:
            with self._wake:
                while not self._waiting:
                    if self._left_out:
                        self._tell_left_out()
                        break
                    self._wake.wait()
                line = self._waiting[0]
            self._write_all(line)
            with self._wake:
                self._waiting.popleft()
                self._waiting_bytes -= len(line)
                self._wake.notify_all()

    def _tell_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        record = logging.LogRecord(
            "engine.logs", logging.WARNING, __file__, 0,
            "%d records are left out: who reads the log was too slow", (count,), None,
        )  # fmt: skip
        record.__dict__["action"] = "log_left_out"
        line = self._line_of(record).encode("utf-8", "backslashreplace") + b"\n"
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _write_all(self, line: bytes) -> None:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # others have made it non-blocking
                time.sleep(RETRY_S)
            except OSError:
                return
