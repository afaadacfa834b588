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

MOST_OPENINGS = 1_000
"""So many openings are told of."""

GiveBack = Callable[[Going, int], None]
"""Gets a run that has waited for a window."""

Drop = Callable[[Going, int, str], None]
"""Ends a run that waits, for a reason."""

Cancel = Callable[[MaintenanceWindow, int], None]
"""Ends what runs as a window opens."""


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
    """The maintenance windows, and the runs that wait for their ends.

    Runs that have waited are handed to `give_back`; `drop` ends runs, and `cut` what runs as a window opens. They are
    put here before anything is asked.
    """

    def __init__(self, windows: Sequence[MaintenanceWindow], *, agenda: Agenda) -> None:
        self._watches = [_Watch(window) for window in windows]
        self._agenda = agenda
        self._of: dict[str, list[_Watch]] = {}
        self._held: dict[int, Going] = {}
        self._latest: dict[str, Going] = {}
        self._up = True
        self.give_back: GiveBack = lambda run, at_us: None
        self.drop: Drop = lambda run, at_us, why: None
        self.cut: Cancel = lambda window, at_us: None
        for watch in self._watches:
            self._plan_change(watch, agenda.start_us)

    def expect(self, course: Course) -> None:
        """Take in a trigger."""
        found = [watch for watch in self._watches if watch.window.scope.holds(course.rule)]
        if found:
            self._of[course.trigger.name] = found

    def keeps(self, run: Going, at_us: int) -> bool:
        """Hold a run that could start, or drop it, where a window of its trigger is open; tell whether one is."""
        watches = self._of.get(run.course.trigger.name)
        if not watches:
            return False
        at = from_microseconds(at_us)
        open_ones = [(watch.window, until) for watch in watches if (until := watch.until(at)) is not None]
        if not open_ones:
            return False
        dropping = [window for window, _ in open_ones if window.after is After.DROP]
        if dropping and not run.begun:
            self._end(run, at_us, f"maintenance {dropping[0].name} is open, for which nothing waits")
            return True
        window, until = max(open_ones, key=lambda one: one[1])
        run.waits_for, run.until_us = f"maintenance {window.name}", to_microseconds(until)
        self._held[run.number] = run
        if not run.begun and any(each.after is After.LATEST for each, _ in open_ones):
            self._keep_latest(run, at_us)
        return True

    def _keep_latest(self, run: Going, at_us: int) -> None:
        other = self._latest.get(run.course.trigger.name)
        if other is None or other.number not in self._held or other.number == run.number:
            self._latest[run.course.trigger.name] = run
            return
        older, newer = sorted((run, other), key=lambda one: one.number)
        self._latest[run.course.trigger.name] = newer
        self._end(older, at_us, "only the latest run is kept for after maintenance")

    def _end(self, run: Going, at_us: int, why: str) -> None:
        self._held.pop(run.number, None)
        self.drop(run, at_us, why)

    # Openings and closings

    def _plan_change(self, watch: _Watch, after_us: int) -> None:
        """Put the next opening or closing of a window on the agenda."""
        watch.until(from_microseconds(after_us))
        if watch.spell is None or watch.spell.until is None:
            return
        opens = not watch.spell.is_open

        def act(at_us: int) -> None:
            self._plan_change(watch, at_us)
            if self._up and opens and watch.window.running is Cut.CANCEL:
                self.cut(watch.window, at_us)
            self._ask_again(at_us)

        self._agenda.push(to_microseconds(watch.spell.until), Phase.CHANGE, act)

    def _ask_again(self, at_us: int) -> None:
        """Ask about all that is held, in the order in which the engine does, and let go what nothing holds any more."""
        held = self._held.values() if self._up else ()
        for run in sorted(held, key=lambda one: (one.course.trigger.name, one.rank, one.number)):
            if run.number in self._held and not self.keeps(run, at_us):
                del self._held[run.number]
                self.give_back(run, at_us)

    def stop(self) -> None:
        """Ask about nothing until the engine is back."""
        self._up = False

    def come_back(self, at_us: int) -> None:
        """Ask about all that is held, as the engine does at its start."""
        self._up = True
        self._ask_again(at_us)

    def has(self, number: int) -> bool:
        """Tell whether a run waits for a window."""
        return number in self._held

    def take(self, number: int) -> Going:
        """Take out a run that waits."""
        return self._held.pop(number)

    def waiting(self) -> Iterable[Going]:
        """Return what still waits, in the order in which it came."""
        return sorted(self._held.values(), key=lambda run: run.number)

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
