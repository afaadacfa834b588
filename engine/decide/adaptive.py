"""The law by which an interval follows what comes of its runs. Pure, and the same for the same inputs.

Each limit gives a *strain*: what was seen, divided by what is allowed; the largest of them counts.

- Above 1 the interval grows by the strain's square root, at least by `LEAST` and at most by `step`.
- Between 1 - `BAND` and 1 it stays: a dead band, so that it neither hunts nor hugs its limit.
- Below, it goes back to the configured interval, by the strain's square root or `step`. Where the strain comes from the
  runs themselves it is inversely proportional to the interval, and a step so made can't bring it above 1 again.

With a volume the way back leads to its target in place of the configured interval: the strain's counterpart is then
target / volume, both ways, with the same root, step and band; the limits come first.

The root makes it an integral controller in log space with a gain of 1/2: where what is seen is proportional to the
interval (or its inverse) each step halves the distance to the target, and does not overshoot it. Inputs are averaged
over the runs that began since the last change, so no decision mixes two intervals, and none comes before `hold`
runs and one interval. Each shortening that has to be taken back at once doubles how many runs the next one waits for.
Failures count no more once as many runs in a row succeeded as a shortening waits for. What can't be seen changes
nothing.

Sources: two thresholds with nothing to do between them, TCP Vegas (Brakmo & Peterson 1995); to give way by a factor and
to come back carefully, Chiu & Jain 1989 (there: additive increase, multiplicative decrease of the rate); averages by
exponential smoothing, and to wait twice as long after each probe that failed, Jacobson 1988; a gain below 1 in a loop
with one step of delay, Åström & Murray, *Feedback Systems*, section 11 on integral control.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine.triggers import Adaptive
from engine.units import format_span

GAIN = 0.5
"""The exponent of a strain: a change goes this part of the way, in log space."""

BAND = 0.1
"""From so much below a limit (or around the target) up to it the interval stays."""

LEAST = 1.2
"""What exceeds a limit lengthens the interval by this at least."""

WEIGHT = 0.3
"""Of the latest run in the averages: the last six runs then make nine tenths of them."""

NEGLIGIBLE = 0.01
"""A part of runs that failed below this counts as none: an average forgets, but never wholly."""

MOST_PATIENCE = 16
"""A shortening waits so many times `hold` runs at most, however often it had to be taken back."""

_SNAP = 0.01


class Sample(Struct, frozen=True, kw_only=True):
    """What one run showed; None: nothing. CPU and memory are parts of the machine's, load is that of one CPU."""

    failed: bool
    duration_s: float | None = None
    cpu: float | None = None
    memory: float | None = None
    load: float | None = None
    volume: float | None = None


class Mean(Struct, frozen=True, kw_only=True):
    """An average: plain over the first values, then exponential."""

    value: float = 0.0
    count: int = 0

    def with_value(self, value: float | None) -> Mean:
        """Return it with one value more; None changes nothing."""
        if value is None:
            return self
        weight = max(1 / (self.count + 1), WEIGHT)
        return Mean(value=self.value + weight * (value - self.value), count=self.count + 1)


class Seen(Struct, frozen=True, kw_only=True):
    """The averages over the runs that began since the last change; `streak` is how many of them succeeded at last."""

    runs: int = 0
    streak: int = 0
    failures: Mean = Mean()
    duration_s: Mean = Mean()
    cpu: Mean = Mean()
    memory: Mean = Mean()
    load: Mean = Mean()
    volume: Mean = Mean()

    def with_run(self, sample: Sample) -> Seen:
        """Return it with one run more."""
        return Seen(
            runs=self.runs + 1,
            streak=0 if sample.failed else self.streak + 1,
            failures=self.failures.with_value(float(sample.failed)),
            duration_s=self.duration_s.with_value(sample.duration_s),
            cpu=self.cpu.with_value(sample.cpu),
            memory=self.memory.with_value(sample.memory),
            load=self.load.with_value(sample.load),
            volume=self.volume.with_value(sample.volume),
        )


class Pace(Struct, frozen=True, kw_only=True):
    """The interval in force, and what its latest changes teach.

    - `patience`: a shortening waits so many times `hold` runs.
    - `shortened`: whether the latest change was one.
    """

    interval_s: float
    patience: int = 1
    shortened: bool = False


class Strain(Struct, frozen=True, kw_only=True):
    """How an input stands to its limit: `ratio` is 1 at the limit, and `said` tells both in words."""

    rule: str
    ratio: float
    said: str


class Decision(Struct, frozen=True, kw_only=True):
    """What is to become of an interval: `pace` is the one from now on. `rule` and `why` say why, also where it stays.

    `rule` is one of `success_rate duration cpu memory load volume`, `return` (all is well), or `hold` (it stays).
    """

    pace: Pace
    rule: str
    why: str


def decide(settings: Adaptive, base_s: float, pace: Pace, seen: Seen, since_s: float) -> Decision:
    """Decide on an interval after a run, `since_s` after its last change; `base_s` is the configured interval."""
    if seen.runs < settings.hold or since_s < pace.interval_s:
        wait = f"{seen.runs} of {settings.hold} runs since the last change"
        if seen.runs >= settings.hold:
            wait = f"the last change was {format_span(round(since_s))} ago, and the interval is longer"
        return _stay(pace, f"it is held: {wait}")
    found = list(strains(settings, pace, seen))
    worst = max(found, key=lambda strain: strain.ratio, default=None)
    if worst is not None and worst.ratio > 1:
        factor = min(max(worst.ratio**GAIN, LEAST), settings.step)
        return _change(settings, base_s, pace, pace.interval_s * factor, worst.rule, worst.said)
    if worst is not None and worst.ratio > 1 - BAND:
        return _stay(pace, f"it stays: {worst.said}, which is near the limit")
    if unseen := _unseen(settings, found, seen):
        return _stay(pace, f"it stays: the runs since the last change tell nothing of {unseen}")
    slowest = max(1 / settings.step, worst.ratio**GAIN if worst is not None else 0.0)
    if settings.volume_target is not None:
        return _follow_volume(settings, base_s, pace, seen, slowest)
    if pace.interval_s > base_s:
        return _shorten(settings, base_s, pace, seen, max(base_s, pace.interval_s * slowest), "return", "all is well")
    if pace.interval_s < base_s:
        wanted_s = min(base_s, pace.interval_s * settings.step)
        return _change(settings, base_s, pace, wanted_s, "return", "nothing asks for a shorter one")
    return _rest(settings, pace, seen, "it stays: all is well at the configured interval")


def idle(settings: Adaptive, base_s: float, pace: Pace, seen: Seen, quiet_s: float) -> Decision | None:
    """Decide on the interval of a source that has brought no run for `quiet_s`; None: nothing is to be done.

    Where a volume is wanted, to bring nothing is a drought and no reason to look more often.
    """
    if quiet_s < settings.hold * pace.patience * pace.interval_s or settings.volume is not None:
        return None
    if any(strain.ratio > 1 - BAND for strain in strains(settings, pace, seen)):
        return None
    factor = 1 / settings.step if pace.interval_s > base_s else settings.step
    nearest = max if pace.interval_s > base_s else min
    wanted_s = nearest(base_s, pace.interval_s * factor)
    decision = _change(settings, base_s, pace, wanted_s, "return", f"nothing came for {format_span(quiet_s)}")
    return None if decision.pace.interval_s == pace.interval_s else decision


def strains(settings: Adaptive, pace: Pace, seen: Seen) -> Iterator[Strain]:
    """Yield how each input that has a limit, and was seen, stands to it."""
    if settings.success_rate_min is not None and seen.failures.count:
        # What failed before a shortening's worth of successes is over: an average alone would take days to say so.
        is_over = seen.streak >= settings.hold * pace.patience or seen.failures.value < NEGLIGIBLE
        failed = 0.0 if is_over else seen.failures.value
        allowed = 1 - settings.success_rate_min
        ratio = 0.0 if not failed else failed / allowed if allowed > 0 else math.inf
        said = f"{1 - failed:.0%} of the runs succeed, at least {settings.success_rate_min * 100:.4g}% should"
        yield Strain(rule="success_rate", ratio=ratio, said=said)
    if settings.duration_max_s is not None and seen.duration_s.count:
        took_s = seen.duration_s.value
        said = f"a run takes {format_span(took_s)}, at most {format_span(settings.duration_max_s)} is allowed"
        yield Strain(rule="duration", ratio=took_s / settings.duration_max_s, said=said)
    for rule, limit, mean, what in (
        ("cpu", settings.cpu_max, seen.cpu, "of the CPUs are busy"),
        ("memory", settings.memory_max, seen.memory, "of the memory is in use"),
    ):
        if limit is not None and mean.count:
            said = f"{mean.value:.0%} {what}, at most {limit:.0%} may be"
            yield Strain(rule=rule, ratio=mean.value / limit, said=said)
    if settings.load_max is not None and seen.load.count:
        said = f"the load is {seen.load.value:.2f} for each CPU, at most {settings.load_max:g} is allowed"
        yield Strain(rule="load", ratio=seen.load.value / settings.load_max, said=said)


def _unseen(settings: Adaptive, found: Sequence[Strain], seen: Seen) -> str:
    """Return what is to be gone by and was not seen, such as how long runs take where all fail at once."""
    limits = {
        "success_rate": settings.success_rate_min, "duration": settings.duration_max_s, "cpu": settings.cpu_max,
        "memory": settings.memory_max, "load": settings.load_max,
    }  # fmt: skip
    seen_rules = {strain.rule for strain in found}
    missing = [rule for rule, limit in limits.items() if limit is not None and rule not in seen_rules]
    if settings.volume is not None and not seen.volume.count:
        missing.append(settings.volume)
    return " and ".join(missing)


def _follow_volume(settings: Adaptive, base_s: float, pace: Pace, seen: Seen, slowest: float) -> Decision:
    """Lengthen in a drought, shorten at plenty, `slowest` being the smallest factor that the limits leave."""
    target, volume = settings.volume_target or 0.0, seen.volume.value
    ratio = target / volume if volume > 0 else math.inf
    said = f"a run brings {volume:.4g} {settings.volume}, {target:g} are wanted"
    if ratio > 1 + BAND:
        factor = min(ratio**GAIN, settings.step)
        return _change(settings, base_s, pace, pace.interval_s * factor, "volume", said)
    if ratio < 1 - BAND:
        factor = max(ratio**GAIN, slowest)
        return _shorten(settings, base_s, pace, seen, pace.interval_s * factor, "volume", said)
    return _rest(settings, pace, seen, f"it stays: {said}")


def _rest(settings: Adaptive, pace: Pace, seen: Seen, why: str) -> Decision:
    """Stay where all is as it should be; after a while what was taken back before counts no more."""
    rested = seen.runs >= settings.hold * pace.patience
    return _stay(Pace(interval_s=pace.interval_s) if rested else pace, why)


def _shorten(
    settings: Adaptive, base_s: float, pace: Pace, seen: Seen, wanted_s: float, rule: str, said: str
) -> Decision:
    needed = settings.hold * pace.patience
    if seen.runs < needed:
        return _stay(pace, f"it stays: {said}, for {seen.runs} of {needed} runs")
    return _change(settings, base_s, pace, wanted_s, rule, said)


def _change(settings: Adaptive, base_s: float, pace: Pace, wanted_s: float, rule: str, said: str) -> Decision:
    interval_s = _fitted(settings, base_s, pace.interval_s, wanted_s)
    if interval_s == pace.interval_s:
        bound = "longest" if wanted_s > pace.interval_s else "shortest"
        at = f" at the {bound} that is allowed" if interval_s in (settings.min_s, settings.max_s) else ""
        return _stay(pace, f"it stays{at}: {said}")
    shortened, patience = interval_s < pace.interval_s, pace.patience
    if pace.shortened:
        # A step that is followed by another was right; one that is taken back was too early.
        patience = max(patience // 2, 1) if shortened else min(patience * 2, MOST_PATIENCE)
    how = "shortened" if shortened else "lengthened"
    why = f"{how} from {format_span(pace.interval_s)} to {format_span(interval_s)}: {said}"
    return Decision(
        pace=Pace(interval_s=interval_s, patience=patience, shortened=shortened), rule=rule, why=why
    )  # fmt: skip


def _fitted(settings: Adaptive, base_s: float, from_s: float, wanted_s: float) -> float:
    """Return an interval within its bounds, in whole seconds from a minute on; near the configured one, that."""
    if abs(wanted_s / base_s - 1) < _SNAP and 1 / settings.step <= base_s / from_s <= settings.step:
        return base_s
    grain = 1 if wanted_s >= 60 else 1000
    # Towards where it comes from, so that no change is by more than `step`.
    rounded_s = (math.floor if wanted_s > from_s else math.ceil)(round(wanted_s * grain, 6)) / grain
    return min(max(rounded_s, settings.min_s), settings.max_s)


def _stay(pace: Pace, why: str) -> Decision:
    return Decision(pace=pace, rule="hold", why=why)
