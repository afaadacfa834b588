"""As the first process of a container: the engine runs as a child of one that passes signals on, and reaps orphans.

The first process of a PID namespace is the parent of all orphans in it, and who never asks how they ended keeps each
as a zombie, until there is no process id left: see pid_namespaces(7). The engine itself asks of its own children alone,
as it would take exit statuses from other code in its process.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import NoReturn

_OWN = frozenset(
    {
        signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE,
        signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS,
    }
)  # fmt: skip
"""What is not passed on: what can't be, and what is about the process that gets it."""


def stand_beside() -> None:
    """Return at once where this is not the first process; else in a child of it, whose end is its end.

    Call it before there are threads. A signal that ends the child becomes the exit status 128 and its number.
    """
    if os.getpid() != 1:
        return
    waited_for = set(signal.valid_signals()) - _OWN
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    child = os.fork()
    if child:
        _reap_until_end_of(child, waited_for)
    os.setpgid(0, 0)  # else what a terminal sends would come twice
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap_until_end_of(child: int, waited_for: set[signal.Signals]) -> NoReturn:
    while True:
        number = signal.sigwait(waited_for)
        if number != signal.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        for pid, status in iter(_ended, None):
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def _ended() -> tuple[int, int] | None:
    """Return a child that has ended, with its status, or None."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
