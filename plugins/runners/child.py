"""A started program: waited for without a thread, ended with all of its process group."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import threading
from contextlib import suppress
from typing import ClassVar

from engine.plugin import Clock
from plugins.runners.family import Family

EXIT_UNKNOWN = 1 << 16
"""In place of an exit status that something else collected."""

ROUGHLY_KIB = 1024
"""So exact is what the kernel counts of memory."""

SETTLE_S = 0.05
"""How long killed processes may take to leave their group before the run goes on without looking again."""


class Ends:
    """Tells the children of one event loop that they have ended.

    Their pidfds are in an epoll of their own, which the loop watches while there are any: to have it watch each costs
    20 µs a run.
    """

    __slots__ = ("_children", "_loop", "_poll")
    _of: ClassVar[dict[asyncio.AbstractEventLoop, Ends]] = {}
    """Of each loop that has children."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._children: dict[int, Child] = {}
        self._loop = loop
        self._poll = select.epoll()

    @staticmethod
    def watch(child: Child, loop: asyncio.AbstractEventLoop) -> tuple[Ends, int]:
        """Call the child's `reap` when it has ended; return by what it is forgotten.

        Raises OSError where there are no descriptors left, and AttributeError where the kernel has no pidfd.
        """
        pidfd = os.pidfd_open(child.pid)
        try:
            ends = Ends._of.get(loop) or Ends(loop)
            ends._poll.register(pidfd, select.EPOLLIN)
        except BaseException:
            os.close(pidfd)
            raise
        if not ends._children:
            Ends._of[loop] = ends
            loop.add_reader(ends._poll.fileno(), ends._tell)
        ends._children[pidfd] = child
        return ends, pidfd

    def forget(self, pidfd: int) -> None:
        """Watch it no more, and close its descriptor.

        A fork of this process may hold that open, and would keep it in the epoll: so it is taken out first.
        """
        del self._children[pidfd]
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if not self._children:
            del Ends._of[self._loop]
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()

    def _tell(self) -> None:
        for pidfd, _ in self._poll.poll(0):
            child = self._children.get(pidfd)
            if child is not None:
                child.reap()


class Child:
    """A started program, the leader of its own session and process group; reaped as soon as it has ended."""

    engine_kib: ClassVar[int] = 0
    """The most memory that the engine is known to have had at once."""

    __slots__ = ("_ends", "_loop", "_pidfd", "_popen", "cpu_s", "ended", "exit_code", "peak_bytes", "pid")

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.ended = asyncio.Event()
        self.exit_code = EXIT_UNKNOWN
        """The exit status, or the negative number of the signal that ended it."""
        self.cpu_s: float | None = None
        """The processor time that it took, with all that it waited for; None where that is not known."""
        self.peak_bytes: int | None = None
        """The most memory that it, or one that it waited for, had at once; None where that is not known."""
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        try:
            self._ends, self._pidfd = Ends.watch(self, self._loop)
        except (AttributeError, OSError):
            threading.Thread(target=self._watch, name=f"wait-{self.pid}", daemon=True).start()

    def _watch(self) -> None:
        """Wait in a thread, where the kernel has no pidfd or there are no descriptors left."""
        with suppress(ChildProcessError):  # something else has reaped it: it has ended as well
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.reap)

    def reap(self) -> None:
        """Take its exit status, where it has ended."""
        try:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid == 0:
                return
            self.exit_code = os.waitstatus_to_exitcode(status)
            self.cpu_s = used.ru_utime + used.ru_stime
            self.peak_bytes = self._peak_of(used.ru_maxrss)
        except ChildProcessError:
            pass
        if self._popen is not None:
            # It would wait for it once more, and take an unknown status for 0.
            self._popen.returncode = self.exit_code
        self.let_go()
        self.ended.set()

    @staticmethod
    def _peak_of(used_kib: int) -> int | None:
        """Return what the program had; None where it may have been what the engine has.

        The kernel counts what a process had before it became the program, which is what the engine had by then.
        """
        if used_kib > Child.engine_kib + ROUGHLY_KIB:
            Child.engine_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used_kib * 1024 if used_kib > Child.engine_kib + ROUGHLY_KIB else None

    def let_go(self) -> None:
        """Wait for its end no more."""
        if self._pidfd >= 0:
            self._ends.forget(self._pidfd)
            self._pidfd = -1

    def group_lives(self) -> bool:
        """Tell whether the group has members; its number can't be used anew before all of them are gone."""
        try:
            os.killpg(self.pid, 0)
            if self.ended.is_set():
                # Where this process is the reaper of orphans, as pid 1 is, they are members until it does so.
                while os.waitpid(-self.pid, os.WNOHANG)[0]:
                    pass
                os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except (ChildProcessError, PermissionError):
            return True
        return True

    def signal_group(self, number: signal.Signals) -> None:
        """Signal all members; those that run as another user may be out of reach."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    async def end(self, clock: Clock, grace_s: float) -> None:
        """End the group, and what descends from it: SIGTERM, after `grace_s` SIGKILL.

        Returns when the program itself has ended.
        """
        family = Family(self.pid)
        try:
            self.signal_group(signal.SIGTERM)
            self.signal_group(signal.SIGCONT)  # what is stopped can't act on SIGTERM
            family.signal(signal.SIGTERM, signal.SIGCONT)
            if not await self._gone(family, clock, grace_s):
                family.look()
                self.signal_group(signal.SIGKILL)
                family.signal(signal.SIGKILL)
                await self._gone(family, clock, SETTLE_S)
            await self.ended.wait()
        except BaseException:
            self.signal_group(signal.SIGKILL)
            family.signal(signal.SIGKILL)
            raise
        finally:
            family.close()

    async def _gone(self, family: Family, clock: Clock, within_s: float) -> bool:
        deadline_s, pause_s = clock.monotonic() + within_s, 0.001
        while self.group_lives() or family.lives():
            left_s = deadline_s - clock.monotonic()
            if left_s <= 0:
                return False
            await clock.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 2, 0.1)
        return True
