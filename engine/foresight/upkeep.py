"""Maintenance: which windows are open, and what waits for them. As the engine's gate does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.decide.windows import After, Cut, MaintenanceWindow, Spell, spell_at
from engine.foresight.agenda import Agenda, Phase
from engine.foresight.course import Course
from engine.foresight.line import Going
from engine.foresight.tally import Tally

MOST_OPENINGS = 1_000
"""So many openings are told of."""

GiveBack = Callable[[Going, int], None]
"""Gets a run that has waited for a window."""

Drop = Callable[[Going, int, str], None]
"""Ends a run for a reason."""


class _Watch(Struct):
    """A window, and the time around now in which it stays open or closed; `broken` where its timer raised."""

    window: MaintenanceWindow
    spell: Spell | None = None
    broken: bool = False

    def until(self, at: datetime) -> datetime | None:
        """Return when it closes, or None where it is closed."""
        if (self.spell is None or not self.spell.holds(at)) and not self.broken:
            try:
                self.spell = spell_at(self.window.pattern, at)
            except Exception:  # plugin code; the engine holds nothing for such a window
                self.spell, self.broken = None, True
        return self.spell.until if self.spell is not None and self.spell.is_open else None


class Upkeep:
    """The maintenance windows, and the runs that wait for their ends."""

    def __init__(self, windows: Sequence[MaintenanceWindow], *, agenda: Agenda, tally: Tally) -> None:
        self._watches = [_Watch(window) for window in windows]
        self._agenda = agenda
        self._tally = tally
        self._of: dict[str, list[_Watch]] = {}
        self._held: dict[int, Going] = {}
        self._back_at: dict[int, list[Going]] = {}
        self._latest: dict[str, Going] = {}

    def expect(self, course: Course) -> None:
        """Take in a trigger."""
        found = [watch for watch in self._watches if watch.window.scope.holds(course.rule)]
        if found:
            self._of[course.trigger.name] = found

    def keeps(self, run: Going, at_us: int, *, give_back: GiveBack, drop: Drop) -> bool:
        """Hold a run that could start, or drop it, where a window of its trigger is open; tell whether one is."""
        watches = self._of.get(run.course.trigger.name)
        if not watches:
            return False
        at = from_microseconds(at_us)
        open_ones = [(watch.window, until) for watch in watches if (until := watch.until(at)) is not None]
        if not open_ones:
            return False
        window, until = max(open_ones, key=lambda one: one[1])
        dropping = [each for each, _ in open_ones if each.after is After.DROP]
        if dropping and not run.begun:
            drop(run, at_us, f"maintenance {dropping[0].name} is open, for which nothing waits")
            return True
        run.waits_for, run.until_us = f"maintenance {window.name}", to_microseconds(until)
        self._hold(run, give_back)
        if not run.begun and any(each.after is After.LATEST for each, _ in open_ones):
            older = self._latest.get(run.course.trigger.name)
            self._latest[run.course.trigger.name] = run
            if older is not None and older.number in self._held:
                drop(self.take(older.number), at_us, "only the latest run is kept for after maintenance")
        return True

    def _hold(self, run: Going, give_back: GiveBack) -> None:
        self._held[run.number] = run
        back = self._back_at.get(run.until_us)
        if back is None:
            self._back_at[run.until_us] = [run]
            self._agenda.push(run.until_us, Phase.CHANGE, lambda at: self._give_back(at, give_back))
        else:
            back.append(run)

    def _give_back(self, at_us: int, give_back: GiveBack) -> None:
        """Let go what waited, in the order in which the engine asks about it."""
        waited = self._back_at.pop(at_us)
        for run in sorted(waited, key=lambda one: (one.course.trigger.name, one.rank, one.number)):
            if self._held.pop(run.number, None) is not None:
                give_back(run, at_us)

    def has(self, number: int) -> bool:
        """Tell whether a run waits for a window."""
        return number in self._held

    def take(self, number: int) -> Going:
        """Take out a run that waits."""
        return self._held.pop(number)

    def waiting(self) -> Iterable[Going]:
        """Return what still waits, in the order in which it came."""
        return sorted(self._held.values(), key=lambda run: run.number)

    def watch_cuts(self, cut: Callable[[MaintenanceWindow, int], None]) -> None:
        """Have `cut` called at each opening of the windows that cancel what runs."""
        for watch in self._watches:
            if watch.window.running is Cut.CANCEL:
                self._plan_cut(watch, self._agenda.start_us, cut)

    def _plan_cut(self, watch: _Watch, after_us: int, cut: Callable[[MaintenanceWindow, int], None]) -> None:
        at: datetime | None = from_microseconds(after_us)
        if at is not None and watch.until(at) is not None:
            at = watch.until(at)
        if at is None or watch.until(at) is not None or watch.spell is None or watch.spell.until is None:
            return
        opens_us = to_microseconds(watch.spell.until)

        def act(at_us: int) -> None:
            cut(watch.window, at_us)
            self._plan_cut(watch, at_us, cut)

        self._agenda.push(opens_us, Phase.CHANGE, act)

    def openings(self, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """Return when windows are open between two instants, by time."""
        found: list[tuple[datetime, datetime, str]] = []
        for watch in self._watches:
            at: datetime | None = start
            count = 0
            while at is not None and at < end and count < MOST_OPENINGS:
                until = watch.until(at)
                if until is not None:
                    found.append((at, until, watch.window.name))
                    count += 1
                at = None if watch.spell is None else watch.spell.until
        return [
            {"name": name, "from": rfc3339(opens), "to": rfc3339(closes)}
            for opens, closes, name in sorted(found)[:MOST_OPENINGS]
        ]
