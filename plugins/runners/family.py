"""The descendants of a program that have left its process group, held on to while they are ended."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress

MOST = 256
"""So many are looked for; the others are found by their mark."""


def descendants(pid: int) -> Iterator[int]:
    """Yield the ids of all processes that descend from one and whose parents live; see proc(5) for `children`."""
    waiting, found = [pid], 0
    while waiting and found < MOST:
        parent = waiting.pop()
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError), open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    for child in map(int, file.read().split()):
                        found += 1
                        waiting.append(child)
                        yield child


class Family:
    """Those that descend from a program and are in other groups, by descriptors that no other process can take over."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: dict[int, int] = {}
        self.look()

    def look(self) -> None:
        """Find those that came since."""
        for pid in [self._pid, *self._held]:
            for child in descendants(pid):
                with suppress(OSError, AttributeError):
                    if child not in self._held and os.getpgid(child) != self._pid:
                        self._held[child] = os.pidfd_open(child)

    def signal(self, *numbers: signal.Signals) -> None:
        """Signal all that live."""
        for descriptor in self._living():
            for number in numbers:
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(descriptor, number)

    def lives(self) -> bool:
        """Tell whether one of them does."""
        return bool(self._held) and bool(self._living())

    def _living(self) -> Collection[int]:
        poll = select.poll()
        for descriptor in self._held.values():
            poll.register(descriptor, select.POLLIN)
        over = {descriptor for descriptor, _ in poll.poll(0)}
        return [descriptor for descriptor in self._held.values() if descriptor not in over]

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
