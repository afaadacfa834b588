"""`instants`: what one computed due instant of cron costs, against cronsim and croniter; and a hundred thousand timers.

An instant: from each due instant to the next one, as a simulation goes, for the cases of everyday: each five minutes,
each night in a zone whose clock changes, and the 29th of February. The peers step their own iterators, so they need
not be told where they are. Cronsim's instants have to be ours, for it follows the same rule; croniter's has another one
where clocks change. The main figure is the mean of the cases, its baseline that of cronsim. Times are those of the
processor: nothing waits here, and a machine that is shared disturbs them less.

The timers: a hundred thousand, made from text as the configuration makes them, with all pairs of minute and hour; and
as many that all differ. Their bytes are what Python's allocator gave for them, without their text. The peer, which is
cronsim, makes fewer.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from statistics import mean
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from msgspec import Struct

from plugins.timers.cron import Cron
from tests.bench.report import BenchFailed, Figure, Options, Report

START = datetime(2026, 11, 25, 12, 34, 56, tzinfo=UTC)
TIMERS, QUICK_TIMERS = 100_000, 2_000
PEERS = 20
"""The peer makes one timer for so many of ours."""


class Case(Struct, frozen=True):
    """An expression in a zone, and how many of its instants are computed in a row."""

    title: str
    expression: str
    zone: str
    steps: int


CASES = (
    Case("each 5 minutes, UTC", "*/5 * * * *", "UTC", 2_000),
    Case("each night, Berlin", "0 2 * * *", "Europe/Berlin", 2_000),
    Case("29 February, UTC", "0 0 29 2 *", "UTC", 40),
)

Step = Callable[[], datetime]


def measure(options: Options) -> Report:
    """Compute instants and make timers, ours and those of the peers in turns."""
    try:
        from cronsim import CronSim
    except ImportError:
        raise BenchFailed("cronsim is not installed: it comes with the test extra") from None

    # First of all: what timers share is kept for a while, up to a bound, and would hide what later ones cost.
    weights = [_bytes(texts, "Asia/Tokyo") for texts in _texts(options)]
    ours: list[list[float]] = [[] for _ in CASES]
    sims: list[list[float]] = [[] for _ in CASES]
    iters: list[list[float]] = [[] for _ in CASES]
    for _ in range(options.rounds):
        for number, case in enumerate(CASES):
            steps = case.steps // 10 if options.quick else case.steps
            start = START.astimezone(ZoneInfo(case.zone))
            sim, other = CronSim(case.expression, start), croniter(case.expression, start)
            found = [
                _walk(_ours(case), steps, ours[number]),
                _walk(partial(next, sim), steps, sims[number]),
                _walk(partial(other.get_next, datetime), steps, iters[number]),
            ]
            if found[0] != found[1]:
                raise BenchFailed(f"{case.title}: the engine and cronsim do not agree on the instants")
    made = [_make(options, number, CronSim) for number in range(options.rounds)]
    return _report(ours, sims, iters, made, weights)


def _ours(case: Case) -> Step:
    timer, at = Cron(expression=case.expression, timezone=case.zone), START

    def step() -> datetime:
        nonlocal at
        following = timer.next(at)
        assert following is not None
        at = following
        return at

    return step


def _walk(step: Step, steps: int, into: list[float]) -> list[datetime]:
    """Take so many steps; note the microseconds of one."""
    begun_s = time.process_time()
    found = [step() for _ in range(steps)]
    into.append((time.process_time() - begun_s) / steps * 1e6)
    return [at.astimezone(UTC) for at in found]


class Made(Struct, frozen=True, kw_only=True):
    """Microseconds that it takes to make a timer: where pairs of minute and hour come again, and where all differ."""

    paired_us: float
    distinct_us: float
    peer_us: float


def _make(options: Options, round_number: int, peer: Any) -> Made:
    (paired, distinct), zones = _texts(options), _fresh_zones(round_number)
    few = paired[::PEERS]

    def make(text: str, zone: str) -> Cron:
        return Cron(expression=text, timezone=zone)

    return Made(
        paired_us=_time(partial(make, zone=next(zones)), paired),
        distinct_us=_time(partial(make, zone=next(zones)), distinct),
        peer_us=_time(lambda text: peer(text, START), few),
    )


def _texts(options: Options) -> tuple[list[str], list[str]]:
    """Return expressions with all pairs of minute and hour, again and again, and as many that all differ."""
    numbers = range(QUICK_TIMERS if options.quick else TIMERS)
    return (
        [f"{n % 60} {n // 60 % 24} * * *" for n in numbers],
        [f"{n % 60} {n // 60 % 24} {n // 1_440 % 28 + 1} {n // 40_320 + 1} *" for n in numbers],
    )


def _fresh_zones(round_number: int) -> Iterator[str]:
    """Yield two zones that no other round has met: equal timers of a process share what they parsed."""
    names = sorted(name for name in available_timezones() if name.startswith("America/"))
    start = 2 * round_number % (len(names) - 1)
    return iter(names[start : start + 2])


def _time(make: Callable[[str], Any], texts: list[str]) -> float:
    """Return the microseconds that it takes to make a timer."""
    begun_s = time.process_time()
    timers = [make(text) for text in texts]
    return (time.process_time() - begun_s) / len(timers) * 1e6


def _bytes(texts: list[str], zone: str) -> float:
    """Return the bytes that each of some timers takes which were asked once for their next instant."""
    Cron(expression="* * * * *", timezone=zone).next(START)  # the zone's own tables count for nobody
    gc.collect()
    tracemalloc.start()
    try:
        timers = [Cron(expression=text, timezone=zone) for text in texts]
        for timer in timers:
            timer.next(START)
        return tracemalloc.get_traced_memory()[0] / len(timers)
    finally:
        tracemalloc.stop()


def _report(
    ours: list[list[float]], sims: list[list[float]], iters: list[list[float]], made: list[Made], weights: list[float]
) -> Report:
    rounds = range(len(ours[0]))
    whole, sim, other = ([mean(case[i] for case in found) for i in rounds] for found in (ours, sims, iters))
    figures = [
        Figure(title="one instant, mean of the cases", unit="µs", values=whole, baselines=sim, target="below 10 µs"),
        *(
            Figure(title=f"- {case.title}", unit="µs", values=ours[i], baselines=sims[i], target="below 10 µs")
            for i, case in enumerate(CASES)
        ),
        Figure(title="- against croniter", unit="µs", values=whole, baselines=other),
        Figure(
            title="one timer, pairs of minute and hour", unit="µs", values=[one.paired_us for one in made],
            baselines=[one.peer_us for one in made],
        ),
        Figure(
            title="- all different", unit="µs", values=[one.distinct_us for one in made],
            baselines=[one.peer_us for one in made], target="below 15 µs",
        ),
        Figure(title="its bytes, pairs of minute and hour", unit="B", values=weights[:1]),
        Figure(title="- all different", unit="B", values=weights[1:]),
    ]  # fmt: skip
    *_, against, paired, distinct, paired_bytes, distinct_bytes = figures
    return Report(
        bench="instants",
        figures=figures,
        notes=["The baseline is cronsim, but for the line that says croniter."],
        extra={
            "croniter_us": against.baseline,
            "made_us": paired.value,
            "made_distinct_us": distinct.value,
            "bytes": paired_bytes.value,
            "bytes_distinct": distinct_bytes.value,
        },
    )
