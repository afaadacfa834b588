"""Worlds in which an interval is adapted: jobs that are slow or fail, a machine that is busy, data that stays away.

`live` runs the law of `engine.decide.adaptive` through one of them, run by run, in no time; the tests and the plot of
docs/adaptive.md come of the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from engine.decide.adaptive import Pace, Sample, Seen, decide
from engine.triggers import Adaptive

MINUTE, HOUR = 60.0, 3600.0
BASE_S = 60 * MINUTE
MOST_RUNS = 10_000

World = Callable[[float, float], Sample]
"""What a run shows that begins at a time (seconds), an interval after the one before."""


class Moment(Struct, frozen=True, kw_only=True):
    """The interval after a run that ended at `at_s`, and by which rule it came to be."""

    at_s: float
    interval_s: float
    rule: str


def live(settings: Adaptive, world: World, for_s: float = math.inf, *, runs: int = MOST_RUNS) -> list[Moment]:
    """Return how the interval went, from its start at 0, run after run."""
    pace, seen, since_s, at_s = Pace(interval_s=BASE_S), Seen(), 0.0, 0.0
    course = [Moment(at_s=0.0, interval_s=BASE_S, rule="hold")]
    while at_s < for_s and len(course) <= runs:
        sample = world(at_s, pace.interval_s)
        ended_s = at_s + (sample.duration_s or 0.0)
        seen = seen.with_run(sample)
        decision = decide(settings, BASE_S, pace, seen, ended_s - since_s)
        if decision.pace.interval_s != pace.interval_s:
            seen, since_s = Seen(), ended_s
        pace = decision.pace
        course.append(Moment(at_s=ended_s, interval_s=pace.interval_s, rule=decision.rule))
        at_s = max(at_s + pace.interval_s, ended_s)
    return course


def well(at_s: float, interval_s: float) -> Sample:
    """A job that takes ten minutes and succeeds, on a machine that is half busy."""
    return Sample(failed=False, duration_s=10 * MINUTE, cpu=0.5, memory=0.5, load=0.5, volume=500.0)


def slow(at_s: float, interval_s: float) -> Sample:
    """Runs take 70 minutes from hour 10 to hour 40."""
    took_s = 70 * MINUTE if 10 * HOUR <= at_s < 40 * HOUR else 10 * MINUTE
    return Sample(failed=False, duration_s=took_s, cpu=0.4)


def failing(at_s: float, interval_s: float) -> Sample:
    """All runs fail from hour 10 to hour 40."""
    return Sample(failed=10 * HOUR <= at_s < 40 * HOUR, duration_s=10 * MINUTE, cpu=0.4)


def busy(at_s: float, interval_s: float) -> Sample:
    """Others keep 95 % of the CPUs busy from hour 10 to hour 40, and 40 % else."""
    return Sample(failed=False, duration_s=10 * MINUTE, cpu=0.95 if 10 * HOUR <= at_s < 40 * HOUR else 0.4)


def drought(at_s: float, interval_s: float) -> Sample:
    """500 rows come in an hour, and from hour 10 to hour 40 but 170."""
    an_hour = 170.0 if 10 * HOUR <= at_s < 40 * HOUR else 500.0
    return Sample(failed=False, duration_s=10 * MINUTE, volume=an_hour * interval_s / HOUR)


SETTINGS = Adaptive(
    min_s=30 * MINUTE, max_s=4 * HOUR, success_rate_min=0.95, duration_max_s=45 * MINUTE, cpu_max=0.85
)  # fmt: skip
BY_VOLUME = Adaptive(min_s=30 * MINUTE, max_s=4 * HOUR, success_rate_min=0.95, volume="rows", volume_target=500.0)

SCENARIOS: tuple[tuple[str, str, Adaptive, World], ...] = (
    ("A slow job", "runs take 70 minutes, 45 are allowed", SETTINGS, slow),
    ("A failing job", "all runs fail, 95 % should succeed", SETTINGS, failing),
    ("A load spike", "95 % of the CPUs are busy, 85 % may be", SETTINGS, busy),
    ("A data drought", "170 rows an hour come in place of 500, 500 a run are wanted", BY_VOLUME, drought),
)
TROUBLE_S = (10 * HOUR, 40 * HOUR)
"""When each scenario has its trouble."""

SHOWN_S = 72 * HOUR
