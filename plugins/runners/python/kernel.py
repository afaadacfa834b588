"""What Linux offers processes that belong to others: see prctl(2) and proc(5)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

RUN_ID = "ENGINE_RUN_ID"
"""The variable by which the processes of a run are found, also after a crash of the engine."""

NO_RUN = "-" * 36
"""Its value while there is no run; as long as the id of one."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.getenv.restype = ctypes.c_void_p


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Get a signal when the parent ends; end at once where it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """Return the ids of this process's children, also those that have ended and are not reaped."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                found.update(map(int, file.read().split()))
        except OSError:
            continue  # a thread that ended
    return found


class Mark:
    """The place of RUN_ID's value in the environment that /proc shows of this process.

    A process that was forked shows the environment with which its ancestor was executed: so that ancestor must have
    had the variable, and its value is overwritten where it stands. What is forked or executed from here then shows
    the run, too.
    """

    def __init__(self) -> None:
        self._address: int | None = None
        if os.environ.get(RUN_ID) == NO_RUN:
            self._address = _libc.getenv(RUN_ID.encode())

    def show(self, run_id: str) -> None:
        """Show a run, or NO_RUN."""
        value = run_id.encode()
        if self._address is not None and len(value) == len(NO_RUN):
            ctypes.memmove(self._address, value, len(value))
