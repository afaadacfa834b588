"""The agenda: what is to happen when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum

Act = Callable[[int], None]
"""Does what is to happen; it gets the instant, in microseconds since 1970."""


class Phase(IntEnum):
    """What comes first in one instant, of which the engine leaves the order open.

    Ends come first, then what begins or ends a downtime or a pause, then debounce windows, then what is due. What a
    new run replaces goes after all of that, as the engine has decided on all that is due by then.
    """

    END = 0
    CHANGE = 1
    WINDOW = 2
    DUE = 3
    REPLACE = 4
    LEAVE = 5


class Agenda:
    """What is to happen, from `start_us` until before `end_us`: the earliest first, then in the order of coming.

    `instants` counts what came due; it is the measure of how much there was to do.
    """

    def __init__(self, start_us: int, end_us: int) -> None:
        self.start_us, self.end_us = start_us, end_us
        self.now_us = start_us
        self.instants = 0
        self._heap: list[tuple[int, int, int, Act]] = []
        self._order = 0

    def push(self, at_us: int, phase: Phase, act: Act) -> None:
        """Put something on the agenda; what is beyond the end is left out."""
        if at_us < self.end_us:
            self._order += 1
            heapq.heappush(self._heap, (at_us, phase, self._order, act))

    def go_on(self, instants: int) -> bool:
        """Do what is next until so many more instants have come due; return whether nothing is left."""
        heap, until = self._heap, self.instants + instants
        while heap:
            if self.instants >= until:
                return False
            at_us, _, _, act = heapq.heappop(heap)
            self.now_us = at_us
            act(at_us)
        return True
