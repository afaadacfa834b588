"""The helper and the workers as the engine sees them: processes at the other ends of sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from anyio import CancelScope

from engine.plugin import Clock
from plugins.runners.child import Child
from plugins.runners.python import wire
from plugins.runners.python.kernel import NO_RUN, RUN_ID
from plugins.runners.python.probe import Surroundings

STOP_S = 5.0
"""How long the helper may take to end with its workers when it is hung up on."""

_BOOT = """\
import json, sys
place, paths = json.loads(sys.argv.pop())
sys.path[:] = [place, *paths]
from plugins.runners.python.helper import main
sys.path[:] = paths
main()
"""
_PLACE = str(Path(__file__).resolve().parents[3])
"""Where this package lies: a folder of the same name that comes first on the path must not hide it."""

_RECEIVED_BYTES = 64 * 1024

log = logging.getLogger("engine.run.python")


class Worker:
    """One worker process, as the engine sees it."""

    def __init__(self, number: int, connection: socket.socket, helper: Helper) -> None:
        self.number = number
        self.helper = helper
        self.pid = 0
        self.status: int | None = None
        self.ended = False
        self.calls = 0
        self.idle_since_s = 0.0
        self.is_killed = False
        self.answer: wire.Answer | None = None
        self.never_read = False
        """Whether it ended without having read its task in whole."""
        self.changed = asyncio.Event()
        """Set when it was forked, answered, or ended."""
        self._connection = connection
        self._received = bytearray()
        self._is_open = True
        self._is_broken = False
        connection.setblocking(False)
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)

    async def send(self, task: bytes, log: int) -> None:
        """Send a task with the descriptor of its log; raise OSError where the worker is gone."""
        self.answer = None
        loop = asyncio.get_running_loop()
        sent = socket.send_fds(self._connection, [task[:65536]], [log])
        if sent < len(task):
            await loop.sock_sendall(self._connection, memoryview(task)[sent:])

    def signal(self, number: signal.Signals) -> None:
        """Signal its group."""
        self.is_killed = self.is_killed or number == signal.SIGKILL
        self.helper.tell(wire.Kill(number=self.number, signal=int(number)))

    def end(self, status: int | None) -> None:
        """Take note that it has ended; what it had answered before counts."""
        if self._is_open:
            self._readable()
        self.close()
        self.ended, self.status = True, wire.LOST << 8 if self._is_broken else status
        self.changed.set()

    def close(self) -> None:
        """Close the connection: an idle worker ends by that."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()

    def _readable(self) -> None:
        while True:
            try:
                part = self._connection.recv(_RECEIVED_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # See unix_release_sock in the kernel: there was something left to read when it closed.
                self.never_read = True
                part = b""
            except OSError:
                part = b""
            if not part:
                # It ended, or closed what it should not have; how, its helper tells.
                self.close()
                return
            self._received += part
            if not self._read():
                self._is_broken = True
                self.signal(signal.SIGKILL)
                self.close()
                return

    def _read(self) -> bool:
        """Take an answer from what was received; False where it is none: functions may write here, too."""
        if len(self._received) < wire.HEAD.size:
            return True
        size = wire.HEAD.unpack_from(self._received)[0] + wire.HEAD.size
        if size > wire.LARGEST_ANSWER_BYTES or len(self._received) > size or self.answer is not None:
            return False
        if len(self._received) == size:
            body, self._received = bytes(self._received[wire.HEAD.size :]), bytearray()
            try:
                self.answer = wire.read_answer(body)
            except msgspec.MsgspecError:
                return False
            self.changed.set()
        return True

    @property
    def is_open(self) -> bool:
        """Whether it can be given a task."""
        return self._is_open and not self.ended


class Helper:
    """The helper process, as the engine sees it."""

    def __init__(self, surroundings: Surroundings) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            popen = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), str(os.getpid()),
                 json.dumps([_PLACE, surroundings.search_path()])],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env={**surroundings.environment(), RUN_ID: NO_RUN},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.child = Child(popen.pid, popen)
        self.is_open = True
        self._workers: dict[int, Worker] = {}
        self._orders: list[tuple[bytes, int | None]] = []
        self._connection = ours
        self._number = 0
        self._owes_since_s: float | None = None
        ours.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._readable)

    def fork(self) -> Worker:
        """Ask for a worker, of a helper that is open; the worker can be given a task at once. Raises OSError."""
        self._number += 1
        ours, theirs = socket.socketpair()
        worker = self._workers[self._number] = Worker(self._number, ours, self)
        self._order(wire.encode(wire.Fork(number=self._number)), theirs.detach())
        return worker

    def owes_since_s(self, now_s: float) -> float:
        """Return since when it was seen to owe something, by the clock of the caller, who asks again and again."""
        if not self.is_open or all(worker.pid and not worker.is_killed for worker in self._workers.values()):
            self._owes_since_s = None
            return now_s
        if self._owes_since_s is None:
            self._owes_since_s = now_s
        return self._owes_since_s

    def tell(self, order: wire.Order) -> None:
        """Give the helper an order."""
        self._order(wire.encode(order), None)

    def _order(self, order: bytes, descriptor: int | None) -> None:
        if not self.is_open:
            return
        self._orders.append((order, descriptor))
        if len(self._orders) == 1:
            self._send()

    def _send(self) -> None:
        """Send what waits; the rest when there is room."""
        while self._orders and self.is_open:
            order, descriptor = self._orders[0]
            try:
                socket.send_fds(self._connection, [order], [] if descriptor is None else [descriptor])
            except BlockingIOError:
                self._loop.add_writer(self._connection.fileno(), self._send)
                return
            except OSError:
                self.close()
                return
            self._orders.pop(0)
            if descriptor is not None:
                os.close(descriptor)
        if self.is_open:
            self._loop.remove_writer(self._connection.fileno())

    def _readable(self) -> None:
        while self.is_open:
            try:
                body = self._connection.recv(wire.LARGEST_MESSAGE_BYTES)
                report = wire.read_report(body) if body else None
            except BlockingIOError:
                return
            except (OSError, msgspec.MsgspecError):
                report = None
            if report is None:
                self.close()
                return
            self._take(report)

    def _take(self, report: wire.Report) -> None:
        if isinstance(report, wire.Noted):
            log.warning("%s", report.text, extra={"action": "python_helper"})
            return
        worker = self._workers.get(report.number)
        if worker is None:
            return
        if isinstance(report, wire.Forked):
            worker.pid = report.pid
            worker.changed.set()
        else:
            del self._workers[report.number]
            worker.end(report.status)

    def close(self) -> None:
        """Hang up: the helper kills its workers, and ends. They count as ended, as they get SIGKILL with it."""
        if not self.is_open:
            return
        self.is_open = False
        descriptor = self._connection.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._connection.close()
        for _, given in self._orders:
            if given is not None:
                os.close(given)
        workers, self._workers, self._orders = self._workers, {}, []
        for worker in workers.values():
            worker.end(None)

    async def end(self, clock: Clock) -> None:
        """Hang up and wait for the end of the process."""
        self.close()
        with CancelScope(shield=True):
            if not await within(self.child.ended.is_set, STOP_S, clock):
                await self.child.end(clock, 0.0)


async def within(condition: Callable[[], bool], seconds: float, clock: Clock) -> bool:
    """Wait until a condition holds, or for so long; tell whether it does."""
    deadline_s, pause_s = clock.monotonic() + seconds, 0.001
    while not condition():
        left_s = deadline_s - clock.monotonic()
        if left_s <= 0:
            return False
        await clock.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 2, 0.1)
    return True
