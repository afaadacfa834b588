"""What runs: limits, overlap, the line of runs that wait. As intake and dispatch do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import takewhile

from engine.clock import from_microseconds
from engine.decide.limits import Slots
from engine.decide.overlap import START, Action, Decision, OpenRun
from engine.decide.overlap import decide as decide_overlap
from engine.decide.priority import rank
from engine.decide.windows import MaintenanceWindow
from engine.foresight.agenda import Agenda, Phase
from engine.foresight.line import Going, Lane, Line
from engine.foresight.tally import Tally
from engine.foresight.upkeep import Upkeep
from engine.jobs import Job, OnCrash, Overlap
from engine.runs import RunState

Ended = Callable[[Going, RunState, int], None]
"""Hears that a run has ended, how, and when."""


class Running:
    """Starts runs where slots are free, and ends them when their time has come."""

    def __init__(
        self, jobs: Iterable[Job], *, concurrency: int, ageing_s: float, agenda: Agenda, tally: Tally, ended: Ended,
        upkeep: Upkeep, pools: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        self._ageing_s = ageing_s
        self._agenda = agenda
        self._tally = tally
        self._ended = ended
        self._upkeep = upkeep
        upkeep.give_back, upkeep.drop, upkeep.cut = self._take_back, self._drop, self._cut
        self._line = Line()
        self._slots = Slots(concurrency, pools=pools)
        # Of the jobs with a limit: the runs that are open, by number, as far as another one may meet them.
        self._open: dict[Lane, dict[int, OpenRun]] = {}
        for job in jobs:
            self._slots.limit(job)
        self._active: dict[int, Going] = {}
        self._up = True

    def stop(self) -> None:
        """Start nothing more until the engine is back."""
        self._up = False
        self._upkeep.stop()

    def come_back(self, at_us: int) -> None:
        """Start what waits."""
        self._up = True
        self._upkeep.come_back(at_us)
        self._pump(at_us)

    def tell_rest(self, at_us: int) -> None:
        """Tell of what still runs or waits at the very end."""
        for run in self._active.values():
            self._tally.ended(run, at_us, "running")
        for run in (*self._line.waiting(), *self._upkeep.waiting()):
            self._tally.left_waiting(run, "waiting")

    def ready(self, run: Going, at_us: int) -> None:
        """Start a run that is ready where a slot is free, else let it wait; unless others of its job are in the way."""
        lane = self._lane_of(run)
        if lane is not None and not self._has_room(run, lane, at_us):
            return
        if self._up and self._slots.may_start(*run.lane) and not self._line.has(run.lane):
            if not self._upkeep.keeps(run, at_us):
                self._start(run, at_us)
            return
        run.waits_for = self._slots.said_of_wait(*run.lane) if self._up else "the engine, which is down"
        self._wait(run, at_us)

    def _lane_of(self, run: Going) -> dict[int, OpenRun] | None:
        """Return the open runs that may be in the way of one; None where its job has no limit."""
        return None if run.course.job.concurrency is None else self._open.setdefault(run.lane, {})

    def _take_back(self, run: Going, at_us: int) -> None:
        """Put a run that has waited for a window back in line."""
        self._line.push(run)
        self._pump(at_us)

    def _drop(self, run: Going, at_us: int, why: str) -> None:
        self._forget_open(run)
        self._tally.skipped(run, at_us, why)

    def _cut(self, window: MaintenanceWindow, at_us: int) -> None:
        """Cancel what runs as a window opens."""
        cut = [run for run in self._active.values() if window.scope.holds(run.course.rule)]
        for run in cut:
            self._leave(run)
            self._forget_open(run)
            self._tally.ended(run, at_us, "cancelled", f"maintenance {window.name} is open (running = cancel)")
            self._pump(at_us)
            self._ended(run, RunState.CANCELLED, at_us)

    def _wait(self, run: Going, at_us: int) -> None:
        self._line.push(run)
        self._tally.waits(len(self._line), at_us)

    def _has_room(self, run: Going, lane: dict[int, OpenRun], at_us: int) -> bool:
        """Take in a run of a job with a limit; False where it is skipped, or waits to take the place of another."""
        job = run.course.job
        decision = self._meet(run, list(lane.values()))
        if decision.action is Action.SKIP:
            self._tally.skipped(run, at_us, _in_the_way(decision, lane))
            return False
        if not run.exempt and (run.scheduled or job.overlap is not Overlap.QUEUE):
            lane[run.number] = _open(run, begun=False)
        if decision.action is not Action.REPLACE:
            return True
        run.waits_for = "the end of the run that it replaces"
        self._agenda.push(at_us, Phase.REPLACE, lambda at: self._take_place(run, lane, at))
        return False

    def _meet(self, run: Going, others: list[OpenRun]) -> Decision:
        job = run.course.job
        if job.concurrency is None or len(others) < job.concurrency:
            return START
        return decide_overlap(
            job.overlap, limit=job.concurrency, trigger=run.course.trigger.name, scheduled=run.scheduled,
            exempt=run.exempt, open_runs=others,
        )  # fmt: skip

    def _take_place(self, run: Going, lane: dict[int, OpenRun], at_us: int) -> None:
        """End what a run takes the place of: of what came before it."""
        before = list(takewhile(lambda other: other.id != str(run.number), lane.values()))
        decision = self._meet(run, before)
        self._wait(run, at_us)
        for number in map(int, decision.drops):
            held = self._upkeep.has(number)
            dropped = self._upkeep.take(number) if held else self._line.remove(run.lane, number)
            self._tally.skipped(dropped, at_us, "a newer run takes its place")
            del lane[number]
        if decision.cancels is not None:
            number = int(decision.cancels)
            lane[number].leaving = True
            self._agenda.push(at_us, Phase.LEAVE, lambda at: self._end_replaced(number, at))
        self._pump(at_us)

    def _end_replaced(self, number: int, at_us: int) -> None:
        run = self._active[number]
        self._leave(run)
        self._forget_open(run)
        self._tally.ended(run, at_us, "replaced", "a newer run takes its place")
        self._pump(at_us)
        self._ended(run, RunState.CANCELLED, at_us)

    def _start(self, run: Going, at_us: int) -> None:
        course = run.course
        self._slots.take(str(run.number), course.job.name, key=run.limit_key)
        lane = self._lane_of(run)
        if lane is not None:
            self._begin_open(run, lane)
        run.started_us, run.begun = at_us, True
        run.ends_us = at_us + course.length_us
        self._active[run.number] = run
        self._agenda.push(run.ends_us, Phase.END, partial(self._end, run))
        self._tally.started(run, at_us, self._slots.taken)

    def _begin_open(self, run: Going, lane: dict[int, OpenRun]) -> None:
        known = lane.get(run.number)
        if known is not None:
            known.begun = True
        else:
            lane[run.number] = _open(run, begun=True)

    def _end(self, run: Going, at_us: int) -> None:
        if run.ends_us != at_us or run.number not in self._active:
            return  # it was cut off, and may have begun again
        course = run.course
        self._leave(run)
        self._forget_open(run)
        state = RunState.TIMED_OUT if course.times_out else RunState.SUCCEEDED
        self._tally.ended(run, at_us, state.value)
        self._pump(at_us)
        self._ended(run, state, at_us)

    def _leave(self, run: Going) -> None:
        del self._active[run.number]
        pools = self._slots.give(str(run.number))
        self._line.unpark(run.lane)
        if pools:
            self._line.unpark_jobs({user for pool in pools for user in self._slots.users(pool)})

    def _forget_open(self, run: Going) -> None:
        lane = self._open.get(run.lane)
        if lane is not None:
            lane.pop(run.number, None)
            if not lane:
                del self._open[run.lane]

    def _pump(self, at_us: int) -> None:
        while self._up and self._slots.taken < self._slots.most:
            run = self._line.take(lambda lane, place: self._slots.blocks(*lane, place) is None)
            if run is None:
                return
            if not self._upkeep.keeps(run, at_us):
                self._start(run, at_us)

    def cut_off(self, at_us: int) -> None:
        """Queue again what did not end in time: the attempt does not count, and its place is that of its beginning.

        What outlives the engine goes on.
        """
        for run in list(self._active.values()):
            if run.course.job.on_crash is OnCrash.ADOPT:
                continue
            self._tally.ended(run, at_us, "interrupted")
            self._leave(run)
            run.rank = rank(
                from_microseconds(run.created_us), run.course.trigger.priority, self._ageing_s
            )  # fmt: skip
            run.started_us = run.ends_us = -1
            run.ready_us = at_us
            run.waits_for = "the engine, which is down"
            self._line.push(run)


def _open(run: Going, *, begun: bool) -> OpenRun:
    return OpenRun(
        id=str(run.number), trigger=run.course.trigger.name, begun=begun, scheduled=run.scheduled,
        exempt=run.exempt,
    )  # fmt: skip


def _in_the_way(decision: Decision, lane: Mapping[int, OpenRun]) -> str:
    other = lane[int(decision.run or "")]
    state = "still runs" if other.begun else "waits already"
    return f"overlap: a run of trigger {other.trigger} {state}"
