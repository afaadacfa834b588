"""Shaping in the simulation: what intake and dispatch do with windows, marks and rates, without a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from engine.clock import from_microseconds, to_microseconds
from engine.decide import gcra
from engine.decide.marks import Mark, Marks
from engine.decide.priority import rank
from engine.decide.shaping import Gathering, Window, Windows, first_due, next_due
from engine.foresight.agenda import Agenda, Phase
from engine.foresight.course import Course
from engine.foresight.line import Going
from engine.foresight.tally import Tally
from engine.triggers import Edge, Rate

_ALL_OF_THEM = 2**31
"""There is no store to read the marks from, so none is forgotten before its time."""


class Shaping:
    """Shapes what comes due; `make` makes a run of a trigger, `ready` takes one that is ready."""

    def __init__(
        self, *, agenda: Agenda, tally: Tally, ageing_s: float, make: Callable[[Course, int, int, bool], Going],
        ready: Callable[[Going, int], None],
    ) -> None:  # fmt: skip
        self._agenda = agenda
        self._tally = tally
        self._ageing_s = ageing_s
        self._make = make
        self._ready = ready
        self._windows = Windows()
        self._marks = Marks(_ALL_OF_THEM)
        self._gathering: dict[str, Going] = {}

    def tell_rest(self) -> None:
        """Tell of what still gathers at the very end."""
        for run in self._gathering.values():
            self._tally.left_waiting(run, "gathering")

    def shape(self, course: Course, keys: Mapping[str, str], due_us: int, at_us: int, late: bool) -> None:
        """Let what comes due go through its trigger's gates, in their order."""
        if self._is_dropped(course, keys, due_us, at_us):
            return
        gathering = course.rule.gathering
        if gathering is not None and self._is_gathered(course, gathering, keys, due_us, at_us):
            return
        run = self._make(course, due_us, at_us, late)
        self._remember(course, keys, at_us, str(run.number))
        if gathering is not None and gathering.edge is not Edge.TRAILING:
            until, closes_at = first_due(gathering, from_microseconds(at_us))
            self._mark(course, "debounce", keys, Mark(until, str(run.number), closes_at))
        self._throttle(run, keys.get("throttle", ""), at_us)

    def _is_dropped(self, course: Course, keys: Mapping[str, str], due_us: int, at_us: int) -> bool:
        trigger = course.trigger
        if trigger.dedupe is not None and self._find(course, "dedupe", keys, at_us) is not None:
            why = "deduplicated: an earlier one has the same key"
            self._tally.dropped(course, "deduplicated", due_us, at_us, why)
            return True
        if trigger.rate_limit is None:
            return False
        if self._free_us(course, "rate_limit", trigger.rate_limit, keys, at_us) > at_us:
            why = f"rate_limited: {gcra.said_of_rate(trigger.rate_limit)}"
            self._tally.dropped(course, "rate_limited", due_us, at_us, why)
            return True
        self._count(course, "rate_limit", trigger.rate_limit, keys, at_us)
        return False

    def _is_gathered(
        self, course: Course, gathering: Gathering, keys: Mapping[str, str], due_us: int, at_us: int
    ) -> bool:
        """Let it join a window, open one, or drop it after a leading one; False where it runs at once."""
        now, key = from_microseconds(at_us), keys.get(gathering.gate, "")
        window = self._windows.find(course.trigger.name, key)
        if window is not None:
            window.count += 1
            window.due_at = next_due(gathering, now, window.closes_at)
            self._tally.joined(course)
            self._remember(course, keys, at_us, window.run)
            if gathering.is_full(window.count, 0):
                self._windows.seal(window)
                window.due_at = now
                self._agenda.push(at_us, Phase.WINDOW, lambda at: self._close(window, keys, at))
            return True
        due_at, closes_at = first_due(gathering, now)
        if gathering.edge is not Edge.TRAILING:
            mark = self._find(course, "debounce", keys, at_us)
            if mark is None:
                return False
            due_at, closes_at = next_due(gathering, now, mark.closes_at), mark.closes_at
            if gathering.edge is Edge.LEADING:
                self._mark(course, "debounce", keys, Mark(max(due_at, mark.until), mark.run, closes_at))
                why = "deduplicated: the first of what comes close together has run"
                self._tally.dropped(course, "deduplicated", due_us, at_us, why)
                return True
        if gathering.is_full(1, 0):
            return False
        run = self._make(course, due_us, at_us, False)
        opened = Window(
            run=str(run.number), trigger=course.trigger.name, key=key, due_at=due_at, closes_at=closes_at,
            priority=course.trigger.priority,
        )  # fmt: skip
        self._windows.open(opened)
        self._gathering[opened.run] = run
        self._remember(course, keys, at_us, opened.run)
        self._agenda.push(to_microseconds(due_at), Phase.WINDOW, lambda at: self._close(opened, keys, at))
        return True

    def _close(self, window: Window, keys: Mapping[str, str], at_us: int) -> None:
        """Close a window whose time has come, or look again when it will have."""
        due_us = to_microseconds(window.due_at)
        if window.run not in self._gathering:
            return  # it was full
        if due_us > at_us:
            self._agenda.push(due_us, Phase.WINDOW, lambda at: self._close(window, keys, at))
            return
        self._windows.close(window)
        run = self._gathering.pop(window.run)
        run.events = window.count
        self._throttle(run, keys.get("throttle", ""), at_us)

    def _throttle(self, run: Going, key: str, at_us: int) -> None:
        rate = run.course.trigger.throttle
        if rate is None:
            self._begin(run, at_us)
            return
        keys = {"throttle": key}
        free_us = self._free_us(run.course, "throttle", rate, keys, at_us)
        self._count(run.course, "throttle", rate, keys, at_us)
        if free_us <= at_us:
            self._begin(run, at_us)
            return
        number = str(run.number)
        self._gathering[number] = run
        self._agenda.push(free_us, Phase.WINDOW, lambda at: self._begin(self._gathering.pop(number), at))

    def _begin(self, run: Going, at_us: int) -> None:
        run.ready_us = at_us
        run.rank = rank(from_microseconds(at_us), run.course.trigger.priority, self._ageing_s)
        self._ready(run, at_us)

    # Marks

    def _remember(self, course: Course, keys: Mapping[str, str], at_us: int, run: str) -> None:
        dedupe = course.trigger.dedupe
        if dedupe is not None:
            until = from_microseconds(at_us) + timedelta(seconds=dedupe.window_s)
            self._mark(course, "dedupe", keys, Mark(until, run))

    def _find(self, course: Course, gate: str, keys: Mapping[str, str], at_us: int) -> Mark | None:
        return self._marks.find((course.trigger.name, gate, keys.get(gate, "")), from_microseconds(at_us))

    def _mark(self, course: Course, gate: str, keys: Mapping[str, str], mark: Mark) -> None:
        self._marks.set((course.trigger.name, gate, keys.get(gate, "")), mark)

    def _tat_us(self, course: Course, gate: str, keys: Mapping[str, str], at_us: int) -> int:
        mark = self._find(course, gate, keys, at_us)
        return 0 if mark is None else to_microseconds(mark.until)

    def _free_us(self, course: Course, gate: str, rate: Rate, keys: Mapping[str, str], at_us: int) -> int:
        return gcra.free_at(rate, self._tat_us(course, gate, keys, at_us), at_us)

    def _count(self, course: Course, gate: str, rate: Rate, keys: Mapping[str, str], at_us: int) -> None:
        moved = gcra.moved(rate, self._tat_us(course, gate, keys, at_us), at_us)
        self._mark(course, gate, keys, Mark(from_microseconds(moved)))
