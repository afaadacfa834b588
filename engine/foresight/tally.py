"""What the simulation is told to: counts by trigger, the load, the first of each kind, and all of it where asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from engine.clock import from_microseconds, rfc3339
from engine.decide.windows import shown
from engine.foresight.course import Course
from engine.foresight.line import Going
from engine.foresight.load import Load
from engine.runs import RunState

NOTABLE = (
    "waits", "interrupted", "timed_out", "skipped", "replaced", "cancelled", "missed", "paused", "rejected",
    "quarantined", "filtered", "deduplicated", "rate_limited", "unfinished",
)  # fmt: skip
"""What a reader wants to see examples of, in the order in which it is told."""

Item = dict[str, Any]


class Counts(Struct, kw_only=True):
    """What becomes of one trigger. Times are microseconds.

    - `due`: what comes due, or follows from the end of a run; `runs` what of it starts, each once.
    - `rejected`: what a chain of runs that is too long has caused.
    - `joined`: what joins a run that gathers.
    - `waited`: the runs that wait for a slot, with the sum and the longest of the waits; `waits_for` counts for what.
    - `unfinished`: the runs that still wait at the end; `running` those that still run.
    """

    course: Course
    due: int = 0
    runs: int = 0
    joined: int = 0
    waited: int = 0
    wait_us: int = 0
    longest_us: int = 0
    longest_at_us: int = 0
    waits_for: dict[str, int] = {}
    caught_up: int = 0
    interrupted: int = 0
    timed_out: int = 0
    skipped: int = 0
    replaced: int = 0
    cancelled: int = 0
    missed: int = 0
    paused: int = 0
    rejected: int = 0
    quarantined: int = 0
    filtered: int = 0
    deduplicated: int = 0
    rate_limited: int = 0
    running: int = 0
    unfinished: int = 0
    busy_us: int = 0


class Tally:
    """Counts what it is told, in the order of time.

    `first` bounds the examples of each kind that are kept. `see` gets every single thing as it is known (a run when it
    has ended); nothing of that is kept here, so that a million of them cost no memory. `only` are the triggers of which
    both tell, None for all; counts and load are of all.
    """

    def __init__(
        self, start_us: int, end_us: int, *, first: int, see: Callable[[Item], None] | None = None,
        only: frozenset[str] | None = None,
    ) -> None:  # fmt: skip
        self.load = Load(start_us, end_us)
        self.counts: dict[str, Counts] = {}
        self.examples: dict[str, list[Item]] = {kind: [] for kind in NOTABLE}
        self.most_running = self.most_running_us = 0
        self.most_waiting = self.most_waiting_us = 0
        self._first = first
        self._see = see
        self._only = only

    def expect(self, course: Course) -> None:
        """Take in a trigger."""
        self.counts[course.trigger.name] = Counts(course=course)

    def came(self, course: Course, at_us: int) -> None:
        """Count what comes due, or follows from the end of a run."""
        self.counts[course.trigger.name].due += 1
        self.load.came(at_us)

    def joined(self, course: Course) -> None:
        """Count what joins a run that gathers."""
        self.counts[course.trigger.name].joined += 1

    def waits(self, waiting: int, at_us: int) -> None:
        """Note how many runs wait."""
        if waiting > self.most_waiting:
            self.most_waiting, self.most_waiting_us = waiting, at_us

    def started(self, run: Going, at_us: int, running: int) -> None:
        """Count a start, with its wait, and note how many run."""
        counts = self.counts[run.course.trigger.name]
        counts.runs += 1
        counts.caught_up += run.late
        if running > self.most_running:
            self.most_running, self.most_running_us = running, at_us
        if (waited_us := at_us - run.ready_us) > 0:
            counts.waited += 1
            counts.wait_us += waited_us
            counts.waits_for[run.waits_for] = counts.waits_for.get(run.waits_for, 0) + 1
            if waited_us > counts.longest_us:
                counts.longest_us, counts.longest_at_us = waited_us, run.ready_us
            self._keep("waits", run)

    def ended(self, run: Going, at_us: int, state: str, why: str = "") -> None:
        """Count an end, or what cuts a run off; those that still run at the very end too."""
        counts = self.counts[run.course.trigger.name]
        self.load.busy(run.started_us, at_us)
        counts.busy_us += at_us - run.started_us
        if state != RunState.SUCCEEDED:
            setattr(counts, state, getattr(counts, state) + 1)
            if state == "interrupted":
                counts.runs -= 1  # it starts again
            if state in self.examples:
                self._keep(state, run, state, at_us, why)
        if self._see is not None and self._tells(run.course):
            self._see(_of_run(run, state, at_us, why))

    def skipped(self, run: Going, at_us: int, why: str) -> None:
        """Count a run that is skipped, at once or after it waited."""
        self.dropped(run.course, "skipped", run.due_us, at_us, why)

    def left_waiting(self, run: Going, state: str) -> None:
        """Count a run that still waits at the very end, for a slot or for more to come (`gathering`)."""
        self.counts[run.course.trigger.name].unfinished += 1
        self._keep("unfinished", run, state, None)
        if self._see is not None and self._tells(run.course):
            self._see(_of_run(run, state, None))

    def dropped(self, course: Course, state: str, due_us: int, at_us: int, why: str, *, count: int = 1) -> None:
        """Count due instants that come to no run: `state` is one of those, such as `missed`."""
        counts = self.counts[course.trigger.name]
        setattr(counts, state, getattr(counts, state) + count)
        if state in ("missed", "paused", "rejected"):
            counts.due += count  # nothing came of it
        kept = self.examples[state]
        if (self._see is None and len(kept) >= self._first) or not self._tells(course):
            return
        item = {
            "trigger": course.trigger.name, "job": course.job.name, "state": state, "due_at": _at(due_us),
            "ready_at": None, "started_at": None, "finished_at": _at(at_us), "waited_s": None, "reason": why,
            "count": count, "decided_at": _at(at_us),
        }  # fmt: skip
        if len(kept) < self._first:
            kept.append(item)
        if self._see is not None:
            self._see(item)

    def _keep(self, kind: str, run: Going, state: str = "run", ended_us: int | None = None, why: str = "") -> None:
        kept = self.examples[kind]
        if len(kept) < self._first and self._tells(run.course):
            kept.append(_of_run(run, state, ended_us, why))

    def _tells(self, course: Course) -> bool:
        return self._only is None or course.trigger.name in self._only


def _of_run(run: Going, state: str, ended_us: int | None, why: str = "") -> Item:
    started = run.started_us >= 0
    return {
        "trigger": run.course.trigger.name,
        "job": run.course.job.name,
        "state": state,
        "due_at": _at(run.due_us),
        "ready_at": _at(run.ready_us),
        "started_at": _at(run.started_us) if started else None,
        "finished_at": None if ended_us is None or state in ("running", "waiting", "gathering") else _at(ended_us),
        "waited_s": (run.started_us - run.ready_us) / 1e6 if started else None,
        "reason": why or _reason(run),
        "count": run.events,
        "decided_at": _at(run.created_us),
    }


def _reason(run: Going) -> str:
    if run.waits_for:
        until = f" until {shown(from_microseconds(run.until_us))}" if run.until_us >= 0 else ""
        return f"waits for {run.waits_for}{until}"
    if run.started_us < 0 and run.course.rule.gathering is not None:
        return "gathers what comes due"
    if run.started_us < 0 and run.course.trigger.throttle is not None:
        return "waits for its turn at the throttle"
    if run.late:
        return "makes up for instants that were missed"
    return "due" if run.scheduled else "follows from the end of a run"


def _at(at_us: int) -> str:
    return rfc3339(from_microseconds(at_us))
