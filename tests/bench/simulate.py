"""`simulate`: a million due instants through all deciders, against the bare schedules.

A thousand triggers with cron expressions and intervals in four zones, a fifth of them with a calendar, a fifth with
jitter; on two hundred jobs with limits, of all kinds of overlap, that last up to some minutes; with 48 slots in all, so
that runs wait and are skipped. The baseline steps through the same schedules on a bare heap, and decides nothing.
Both are one thread that waits for nothing, so processor time is measured.
"""

from __future__ import annotations

import gc
import heapq
import time
from datetime import UTC, date, datetime, timedelta

from engine.clock import to_microseconds
from engine.decide.calendars import Calendar
from engine.decide.schedule import Schedule
from engine.foresight import Durations, Simulation, Tally, World
from engine.jobs import Job, Overlap
from engine.plugin import Outcome, RunContext, Runner
from engine.triggers import Trigger
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.bench.report import BenchFailed, Figure, Options, Report

INSTANTS, QUICK_INSTANTS = 1_000_000, 20_000
TRIGGERS, JOBS, SLOTS = 1_000, 200, 48
START = datetime(2026, 11, 21, tzinfo=UTC)
DAYS = 60

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
EXPRESSIONS = (
    "*/5 * * * *", "*/2 * * * *", "7,37 * * * *", "*/15 6-20 * * mon-fri", "0 * * * *", "30 2 * * *", "*/10 * * * *",
)  # fmt: skip
OVERLAPS = (Overlap.QUEUE, Overlap.QUEUE, Overlap.SKIP, Overlap.REPLACE)


class Nothing(Runner, frozen=True, kw_only=True):
    """A runner that is never run."""

    async def run(self, context: RunContext) -> Outcome:
        return Outcome.succeeded("nothing")


def measure(options: Options) -> Report:
    """Foresee so many instants, and step through as many on a bare heap, in turn."""
    instants = QUICK_INSTANTS if options.quick else INSTANTS
    world, durations = _world(), Durations({f"job-{number}": 1.0 + number % 97 for number in range(JOBS)})
    times_s: list[float] = []
    bare_s: list[float] = []
    for _ in range(options.rounds):
        gc.collect()
        begun_s = time.process_time()
        end = START + timedelta(days=DAYS)
        tally = Tally(to_microseconds(START), to_microseconds(end), first=10)
        simulation = Simulation(world, durations, START, end, tally=tally, most=2 * instants)
        if simulation.go_on(instants):
            raise BenchFailed(f"only {simulation.instants:,} instants came due")
        hours, windows = tally.load.hours("Europe/Berlin"), tally.load.quietest(7200, 3)
        times_s.append(time.process_time() - begun_s)
        if not hours or len(windows) != 3:
            raise BenchFailed("there are no hours or windows")
        begun_s = time.process_time()
        _step(world, instants)
        bare_s.append(time.process_time() - begun_s)
    counts = tally.counts.values()
    value = Figure(
        title=f"{instants:,} instants foreseen, processor time",
        unit="s",
        values=times_s,
        baselines=bare_s,
        target="below 30 s",
    )
    return Report(
        bench="simulate",
        figures=[value],
        extra={
            "instants": simulation.instants,
            "runs": sum(each.runs for each in counts),
            "waited": sum(each.waited for each in counts),
            "skipped": sum(each.skipped + each.replaced for each in counts),
            "instant_us": value.value / instants * 1e6,
        },
    )


def _world() -> World:
    jobs = [
        Job(
            name=f"job-{number}", runner=Nothing(), concurrency=(None, 1, 2)[number % 3],
            overlap=OVERLAPS[number % len(OVERLAPS)],
        )
        for number in range(JOBS)
    ]  # fmt: skip
    holidays = Calendar(
        name="holidays",
        spans=tuple((day.toordinal(), day.toordinal()) for day in (date(2026, 11, 26), date(2026, 12, 25))),
    )
    triggers = [_trigger(number, holidays) for number in range(TRIGGERS)]
    return World(
        triggers={each.name: each for each in triggers}, jobs={each.name: each for each in jobs}, concurrency=SLOTS,
        ageing_s=60.0, shutdown_grace_s=30.0, timezone="Europe/Berlin",
    )  # fmt: skip


def _trigger(number: int, holidays: Calendar) -> Trigger:
    name = f"trigger-{number}"
    excluded = ("holidays",) if number % 5 == 0 else ()
    jitter = 30.0 if number % 5 == 1 else None
    zone = ZONES[number % len(ZONES)]
    on = (
        Interval(every=60.0 + number % 300, except_=excluded, jitter=jitter)
        if number % 4 == 0
        else Cron(expression=EXPRESSIONS[number % len(EXPRESSIONS)], timezone=zone, except_=excluded, jitter=jitter)
    )
    return Trigger(
        name=name, job=f"job-{number % JOBS}", source=f"timer:{name}", on=on, priority=number % 10,
        schedule=Schedule(trigger=name, timer=on, calendars={"holidays": holidays}),
    )  # fmt: skip


def _step(world: World, instants: int) -> None:
    """Step through the schedules, and do nothing else."""
    heap = []
    for number, trigger in enumerate(world.triggers.values()):
        due = trigger.schedule.next(START)
        heap.append((trigger.schedule.fires_at(due), number, due, trigger.schedule))
    heapq.heapify(heap)
    for _ in range(instants):
        _, number, due, schedule = heap[0]
        due = schedule.next(due)
        heapq.heapreplace(heap, (schedule.fires_at(due), number, due, schedule))
