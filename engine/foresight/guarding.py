"""Guards in the simulation: what breakers hold back, and where chains of runs are cut."""

from __future__ import annotations

from collections.abc import Mapping

from engine.clock import from_microseconds
from engine.decide.breakers import Breakers
from engine.foresight.course import Course
from engine.foresight.tally import Tally


class Guards:
    """Decides as the door does. `quarantined` are the triggers that are in quarantine at the start, and why."""

    def __init__(self, tally: Tally, *, max_hops: int, quarantined: Mapping[str, str]) -> None:
        self._tally = tally
        self._max_hops = max_hops
        self._quarantined = quarantined
        self._breakers = Breakers()

    def hold_back(self, course: Course, due_us: int, at_us: int) -> bool:
        """Count what comes due; tell of it, and return true, where it is held back."""
        why = self._quarantined.get(course.trigger.name)
        if why is None:
            for place, breaker in course.rule.breakers:
                asked = self._breakers.ask(place, breaker, from_microseconds(at_us), "")
                self._breakers.settle((asked,))
                if asked.quarantine is not None:
                    why = asked.quarantine.said()
                    break
        if why is None:
            return False
        self._tally.dropped(course, "quarantined", due_us, at_us, f"quarantined: {why}")
        return True

    def cut(self, course: Course, hops: int, at_us: int) -> bool:
        """Tell of what a chain of so many runs has caused, and return true, where that is too long."""
        own = course.trigger.max_hops
        most = self._max_hops if own is None else own
        if hops <= most:
            return False
        why = f"rejected: it comes after {hops:,} runs, one caused by the other, and max_hops is {most:,}"
        self._tally.dropped(course, "rejected", at_us, at_us, why)
        return True
