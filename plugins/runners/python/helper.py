"""The helper: a process without threads that has imported what functions need, and forks a worker from itself.

It does what the engine tells it over a socket, reaps the workers, and ends with all of them when the engine is gone.
Started by `plugins.runners.python.processes`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import NoReturn

from plugins.runners.python import wire
from plugins.runners.python.describe import NoFunction, import_module
from plugins.runners.python.kernel import Mark, adopt_orphans, children, end_with_parent
from plugins.runners.python.worker import Worker

GIVE_UP_S = 2.0
"""How long what is killed at the end may take to go."""

_BLOCKED = {signal.SIGTERM, signal.SIGCHLD}


class Helper:
    """The process itself."""

    def __init__(self, connection: socket.socket, parent: int) -> None:
        self._connection = connection
        self._mark = Mark()
        self._pids: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._own: set[int] = set()
        self._ended, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        adopt_orphans()
        end_with_parent(parent, signal.SIGTERM)
        gc.freeze()  # so that the collector of a worker leaves shared pages alone

    def serve(self) -> NoReturn:
        """Do what the engine says until it is gone."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._ended:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._ended, 4096)
                    self._reap()
                else:
                    self._obey()

    def _obey(self) -> None:
        try:
            body, descriptors, _, _ = socket.recv_fds(self._connection, wire.LARGEST_MESSAGE_BYTES, 1)
        except OSError:
            body, descriptors = b"", []
        if not body:
            self._end_all()
        order = wire.read_order(body)
        if isinstance(order, wire.Load):
            self._load(order.module)
        elif isinstance(order, wire.Fork):
            self._fork(order.number, descriptors[0])
        elif order.number in self._pids:
            _signal_group(self._pids[order.number], order.signal)

    def _load(self, module: str) -> None:
        """Import a module, for all workers to come; one that can't be is imported, and told, by them."""
        try:
            import_module(module)
        except NoFunction as error:
            self._tell(wire.Noted(text=f"{str(error)[:2000]}; each worker tries it anew"))
            return
        if threading.active_count() > 1:
            names = ", ".join(thread.name for thread in threading.enumerate()[1:])
            text = (
                f"importing {module} starts threads ({names[:500]}), which workers will not have: say preload = false"
            )
            self._tell(wire.Noted(text=text))
        # What modules started is not an orphan of a worker.
        self._own = children() - self._numbers.keys()
        gc.freeze()

    def _fork(self, number: int, descriptor: int) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_worker(descriptor, parent)
        except OSError as error:
            self._tell(wire.Noted(text=f"no worker can be forked: {error.strerror}"))
            self._tell(wire.Ended(number=number, status=-1))
            return
        finally:
            if os.getpid() == parent:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
                os.close(descriptor)
        self._pids[number], self._numbers[pid] = pid, number
        self._tell(wire.Forked(number=number, pid=pid))

    def _be_worker(self, descriptor: int, parent: int) -> NoReturn:
        try:
            os.setsid()
            end_with_parent(parent, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._connection.close()
            os.close(self._ended)
            os.close(self._wake)
            worker = Worker(socket.socket(fileno=descriptor), self._mark)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
            worker.serve()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Reap what has ended. A worker's group goes with it: until it is reaped, the number is still its own."""
        ended: list[wire.Ended] = []
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                break
            if found is None:
                break
            pid = found.si_pid
            number = self._numbers.pop(pid, None)
            if number is not None:
                _signal_group(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if number is not None:
                del self._pids[number]
                ended.append(wire.Ended(number=number, status=status))
        if ended:
            self._end_orphans()
        for report in ended:
            self._tell(report)

    def _end_orphans(self) -> None:
        """Kill what workers that ended had started in sessions of their own."""
        for pid in children() - self._numbers.keys() - self._own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _tell(self, report: wire.Report) -> None:
        try:
            self._connection.send(wire.encode(report))
        except OSError:
            self._end_all()

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        """The engine is gone, or says so."""
        self._end_all()

    def _end_all(self) -> NoReturn:
        for pid in self._numbers:
            _signal_group(pid, signal.SIGKILL)
        deadline_s = time.monotonic() + GIVE_UP_S
        while (left := children()) and time.monotonic() < deadline_s:
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.001)
        os._exit(0)


def _signal_group(pid: int, number: int) -> None:
    """Signal a worker's group, or the worker alone where it has none yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    except PermissionError:
        return


def main() -> None:
    """Serve the connection whose descriptor, with the engine's process id, stands in the arguments."""
    descriptor, parent = map(int, sys.argv[1:3])
    sys.argv[:] = [""]
    Helper(socket.socket(fileno=descriptor), parent).serve()
