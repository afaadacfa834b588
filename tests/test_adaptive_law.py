"""The law of adaptive intervals: bounded, damped, and it converges, whatever the runs show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.adaptive import (
    BAND,
    MOST_PATIENCE,
    WEIGHT,
    Decision,
    Mean,
    Pace,
    Sample,
    Seen,
    decide,
    idle,
    strains,
)
from engine.triggers import Adaptive
from tests.adaptive_plot import PLOT, plot
from tests.adaptive_worlds import (
    BASE_S,
    BY_VOLUME,
    HOUR,
    MINUTE,
    SCENARIOS,
    SETTINGS,
    SHOWN_S,
    TROUBLE_S,
    Moment,
    World,
    busy,
    drought,
    failing,
    live,
    slow,
    well,
)

CALM = hypothesis.settings(deadline=None)

ALL = Adaptive(
    min_s=30 * MINUTE, max_s=4 * HOUR, success_rate_min=0.95, duration_max_s=45 * MINUTE, cpu_max=0.85, memory_max=0.9,
    load_max=1.5,
)  # fmt: skip


def after(settings: Adaptive, *samples: Sample, interval_s: float = BASE_S, patience: int = 1) -> Decision:
    """Return what is decided once all these runs were seen, long after the last change."""
    seen = Seen()
    for sample in samples:
        seen = seen.with_run(sample)
    return decide(settings, BASE_S, Pace(interval_s=interval_s, patience=patience), seen, 100 * HOUR)


def good(**fields: float) -> Sample:
    return Sample(failed=False, **fields)


BAD = Sample(failed=True)


def changes(course: Sequence[Moment]) -> list[tuple[float, float]]:
    """Return all changes of an interval: before and after."""
    return [(a.interval_s, b.interval_s) for a, b in pairwise(course) if a.interval_s != b.interval_s]


def turns(course: Sequence[Moment]) -> int:
    """Return how often an interval that grew shrinks, or the other way round."""
    signs = [after > before for before, after in changes(course)]
    return sum(a != b for a, b in pairwise(signs))


# One decision


@pytest.mark.parametrize(
    ("sample", "rule"),
    [
        (BAD, "success_rate"),
        (good(duration_s=60 * MINUTE), "duration"),
        (good(cpu=0.9), "cpu"),
        (good(memory=0.95), "memory"),
        (good(load=3.0), "load"),
    ],
)
def test_each_limit_that_is_exceeded_lengthens_the_interval_and_is_named(sample: Sample, rule: str) -> None:
    decision = after(ALL, sample, sample, sample)
    assert decision.rule == rule
    assert BASE_S * 1.2 <= decision.pace.interval_s <= BASE_S * ALL.step
    assert decision.why.startswith("lengthened from 1h to 1h")


def test_the_limit_that_is_exceeded_most_is_the_one_that_counts() -> None:
    assert after(ALL, *[good(cpu=0.86, load=3.0)] * 3).rule == "load"
    assert after(ALL, *[Sample(failed=True, cpu=1.0)] * 3).rule == "success_rate"


def test_without_its_limit_an_input_does_not_count() -> None:
    only_cpu = Adaptive(min_s=MINUTE, max_s=4 * HOUR, cpu_max=0.85)
    sample = Sample(failed=True, cpu=0.5, load=99.0, memory=1.0, duration_s=HOUR)
    assert after(only_cpu, sample, sample, sample).why == "it stays: all is well at the configured interval"


def test_what_was_not_seen_changes_nothing() -> None:
    decision = after(ALL, *[good(cpu=0.1, load=0.1)] * 3, interval_s=2 * BASE_S)
    assert decision.why == "it stays: the runs since the last change tell nothing of duration and memory"
    assert after(ALL, *[good(cpu=1.0)] * 3).rule == "cpu"


@pytest.mark.parametrize("cpu", [0.77, 0.8, 0.85])
def test_near_its_limit_the_interval_stays_wherever_it_is(cpu: float) -> None:
    for interval_s in (BASE_S, 2 * BASE_S):
        decision = after(ALL, *[good(cpu=cpu)] * 3, interval_s=interval_s)
        assert (decision.pace.interval_s, decision.rule) == (interval_s, "hold")
        assert decision.why.endswith("which is near the limit")


def test_nothing_is_changed_before_so_many_runs_and_one_interval() -> None:
    seen = Seen().with_run(BAD).with_run(BAD)
    assert decide(ALL, BASE_S, Pace(interval_s=BASE_S), seen, 9 * HOUR).why == (
        "it is held: 2 of 3 runs since the last change"
    )
    seen = seen.with_run(BAD)
    held = decide(ALL, BASE_S, Pace(interval_s=BASE_S), seen, 40 * MINUTE)
    assert (held.rule, held.why) == ("hold", "it is held: the last change was 40m ago, and the interval is longer")
    assert decide(ALL, BASE_S, Pace(interval_s=BASE_S), seen, 60 * MINUTE).rule == "success_rate"


def test_a_single_failure_is_forgotten_after_as_many_successes_as_the_hold_asks_for() -> None:
    assert after(ALL, good(), good(), BAD).rule == "success_rate"
    assert after(ALL, BAD, good(), good()).rule == "success_rate"
    assert after(ALL, BAD, good(), good(), good()).rule == "hold"
    assert after(ALL, BAD, good(), good(), good(), patience=2).rule == "success_rate"


def test_a_success_rate_that_allows_no_failure_is_no_division_by_nothing() -> None:
    strict = Adaptive(min_s=MINUTE, max_s=4 * HOUR, success_rate_min=1.0)
    assert after(strict, *[good()] * 3).rule == "hold"
    assert after(strict, BAD, good(), good()).pace.interval_s == BASE_S * strict.step
    assert after(strict, *[good()] * 6, interval_s=2 * BASE_S).rule == "return"


def test_an_average_is_plain_at_first_and_then_exponential() -> None:
    mean = Mean()
    for value in (1.0, 3.0):
        mean = mean.with_value(value)
    assert mean.value == 2.0
    assert mean.with_value(None) == mean
    for _ in range(3):
        mean = mean.with_value(2.0)
    assert mean.with_value(12.0).value == pytest.approx(2.0 + WEIGHT * 10)


def test_a_volume_below_its_target_lengthens_and_one_above_it_shortens() -> None:
    assert after(BY_VOLUME, *[good(volume=100.0)] * 3).pace.interval_s == BASE_S * 1.5
    assert after(BY_VOLUME, *[good(volume=0.0)] * 3).pace.interval_s == BASE_S * 1.5
    plenty = after(BY_VOLUME, *[good(volume=5000.0)] * 3)
    assert (plenty.rule, plenty.pace.interval_s) == ("volume", BASE_S / 1.5)
    for near in (460.0, 500.0, 550.0):
        assert after(BY_VOLUME, *[good(volume=near)] * 3).rule == "hold"
    assert after(BY_VOLUME, *[Sample(failed=True, volume=5000.0)] * 3).rule == "success_rate"
    assert after(BY_VOLUME, *[good()] * 3).why == "it stays: the runs since the last change tell nothing of rows"
    assert "a run brings 100 rows, 500 are wanted" in after(BY_VOLUME, *[good(volume=100.0)] * 3).why


def test_a_quiet_source_goes_back_step_by_step_unless_the_machine_is_busy_or_a_volume_is_wanted() -> None:
    pace, quiet_s = Pace(interval_s=3 * HOUR), 9 * HOUR
    back = idle(SETTINGS, BASE_S, pace, Seen(), quiet_s)
    assert back is not None
    assert (back.rule, back.pace.interval_s) == ("return", 2 * HOUR)
    assert back.why == "shortened from 3h to 2h: nothing came for 9h"
    assert idle(SETTINGS, BASE_S, pace, Seen(), quiet_s - 1) is None
    assert idle(SETTINGS, BASE_S, Pace(interval_s=3 * HOUR, patience=2), Seen(), quiet_s) is None
    assert idle(SETTINGS, BASE_S, pace, Seen(cpu=Mean(value=0.8, count=1)), quiet_s) is None
    assert idle(BY_VOLUME, BASE_S, pace, Seen(), quiet_s) is None
    assert idle(SETTINGS, BASE_S, Pace(interval_s=BASE_S), Seen(), quiet_s) is None


# All decisions


RATES = st.floats(0, 1.5)
SAMPLES = st.builds(
    Sample,
    failed=st.booleans(),
    duration_s=st.none() | st.floats(0, 10 * HOUR),
    cpu=st.none() | RATES,
    memory=st.none() | RATES,
    load=st.none() | st.floats(0, 100),
    volume=st.none() | st.floats(-10, 1e9),
)
LIMITS = st.builds(
    Adaptive,
    min_s=st.floats(1, 1800),
    max_s=st.floats(3600, 1e6),
    success_rate_min=st.none() | st.floats(0, 1),
    duration_max_s=st.none() | st.floats(0.1, 1e5),
    cpu_max=st.none() | st.floats(0.01, 1),
    load_max=st.none() | st.floats(0.01, 10),
    step=st.floats(1.01, 2),
    hold=st.integers(1, 5),
) | st.builds(
    Adaptive,
    min_s=st.floats(1, 1800),
    max_s=st.floats(3600, 1e6),
    volume=st.just("rows"),
    volume_target=st.floats(0.01, 1e6),
    success_rate_min=st.none() | st.floats(0, 1),
    step=st.floats(1.01, 2),
    hold=st.integers(1, 5),
)


@CALM
@given(settings=LIMITS, samples=st.lists(SAMPLES, max_size=60))
def test_an_interval_stays_in_its_bounds_and_no_change_is_larger_or_sooner_than_allowed(
    settings: Adaptive, samples: list[Sample]
) -> None:
    pace, seen, since_s = Pace(interval_s=BASE_S), Seen(), 0.0
    for sample in samples:
        since_s += pace.interval_s
        seen = seen.with_run(sample)
        decision = decide(settings, BASE_S, pace, seen, since_s)
        assert decision == decide(settings, BASE_S, pace, seen, since_s)
        new_s, old_s = decision.pace.interval_s, pace.interval_s
        assert settings.min_s <= new_s <= settings.max_s
        assert 1 / settings.step - 1e-9 <= new_s / old_s <= settings.step + 1e-9
        assert 1 <= decision.pace.patience <= MOST_PATIENCE
        assert (decision.rule == "hold") == (new_s == old_s)
        if new_s != old_s:
            assert seen.runs >= settings.hold
            assert decision.pace.shortened == (new_s < old_s)
            seen, since_s = Seen(), 0.0
        pace = decision.pace


@CALM
@given(settings=LIMITS, samples=st.lists(SAMPLES, min_size=1, max_size=20))
def test_when_all_is_well_again_it_comes_back_to_the_configured_interval_and_stays(
    settings: Adaptive, samples: list[Sample]
) -> None:
    def world(at_s: float, interval_s: float) -> Sample:
        number = round(at_s) % len(samples)
        return samples[number] if at_s < 40 * HOUR else good(duration_s=0.0, cpu=0.0, memory=0.0, load=0.0)

    settings = Adaptive(
        min_s=settings.min_s, max_s=min(settings.max_s, 8 * HOUR), success_rate_min=settings.success_rate_min,
        duration_max_s=settings.duration_max_s, cpu_max=settings.cpu_max, load_max=settings.load_max,
        step=max(settings.step, 1.2), hold=settings.hold,
    )  # fmt: skip
    course = live(settings, world, runs=2000)
    assert {moment.interval_s for moment in course[-5:]} == {BASE_S}


# Worlds


def settled(course: Sequence[Moment], from_s: float) -> set[float]:
    return {moment.interval_s for moment in course if moment.at_s >= from_s}


def test_a_well_job_keeps_its_interval() -> None:
    for settings in (ALL, BY_VOLUME):
        assert changes(live(settings, well, 1000 * HOUR)) == []


@pytest.mark.parametrize("number", range(4), ids=[title for title, *_ in SCENARIOS])
def test_in_each_scenario_it_grows_during_the_trouble_and_comes_back_after_it_with_one_turn(number: int) -> None:
    _, _, settings, world = SCENARIOS[number]
    course = live(settings, world, 10 * SHOWN_S)
    begun, ended = TROUBLE_S
    grown = [moment.interval_s for moment in course if begun <= moment.at_s < ended]
    assert grown == sorted(grown)
    assert grown[-1] >= 2 * BASE_S
    assert turns(course) == 1
    last = course[-1].interval_s
    assert settled(course, SHOWN_S) == {last}
    assert abs(last / BASE_S - 1) <= BAND / 2 + 0.06
    if settings is not BY_VOLUME:
        assert last == BASE_S


def forever(world: World) -> World:
    """Return a world whose trouble has begun and does not end."""
    return lambda at_s, interval_s: world(20 * HOUR, interval_s)


@pytest.mark.parametrize("world", [slow, failing, busy])
def test_trouble_that_does_not_end_leads_to_the_longest_interval_and_stays_there(world: World) -> None:
    course = live(SETTINGS, forever(world), 200 * HOUR)
    assert settled(course, 100 * HOUR) == {SETTINGS.max_s}
    assert turns(course) == 0


def test_a_drought_that_does_not_end_leads_to_the_target_and_not_past_it() -> None:
    course = live(BY_VOLUME, forever(drought), 400 * HOUR)
    [interval_s] = settled(course, 100 * HOUR)
    assert 170.0 * interval_s / HOUR == pytest.approx(500.0, rel=BAND)
    assert turns(course) == 0


def proportional(cpu_an_hour: float, exponent: float = 1.0) -> World:
    """A machine that is as busy as its job runs often."""
    return lambda at_s, interval_s: good(cpu=min(cpu_an_hour * (HOUR / interval_s) ** exponent, 1.0))


@CALM
@given(cpu=st.floats(0.86, 3.0), exponent=st.floats(0.3, 1.0))
def test_load_that_the_job_itself_brings_ends_in_the_dead_band_and_does_not_swing(cpu: float, exponent: float) -> None:
    settings = Adaptive(min_s=MINUTE, max_s=10_000 * HOUR, cpu_max=0.85)
    course = live(settings, proportional(cpu, exponent), runs=400)
    [interval_s] = {moment.interval_s for moment in course[200:]}
    assert (1 - BAND) * 0.85 <= proportional(cpu, exponent)(0, interval_s).cpu <= 0.85 + 1e-9  # type: ignore[operator]
    assert turns(course) <= 1


@CALM
@given(rows=st.floats(10, 3000))
def test_a_volume_that_grows_with_the_interval_ends_at_its_target_without_a_turn(rows: float) -> None:
    settings = Adaptive(min_s=MINUTE, max_s=1000 * HOUR, volume="rows", volume_target=500.0)
    course = live(settings, lambda at_s, interval_s: good(volume=rows * interval_s / HOUR), runs=400)
    [interval_s] = {moment.interval_s for moment in course[200:]}
    assert 500 / (1 + BAND) * 0.99 <= rows * interval_s / HOUR <= 500 / (1 - BAND) * 1.01
    assert turns(course) == 0


def test_what_fails_below_an_interval_is_tried_again_ever_more_rarely() -> None:
    def world(at_s: float, interval_s: float) -> Sample:
        return Sample(failed=interval_s < 100 * MINUTE, duration_s=0.0, cpu=0.0)

    course = live(SETTINGS, world, 3000 * HOUR)
    shortened = [b.at_s for a, b in pairwise(course) if b.interval_s < a.interval_s]
    pauses = [b - a for a, b in pairwise(shortened)]
    assert pauses[0] < 20 * HOUR
    assert all(pause >= 90 * HOUR for pause in pauses[4:])
    failed = sum(moment.interval_s < 100 * MINUTE for moment in course[200:])
    assert failed / len(course[200:]) < 0.1
    assert set(settled(course, 100 * HOUR)) <= {90 * MINUTE, 135 * MINUTE}


def noise(values: Sequence[float]) -> Callable[[float, float], Sample]:
    return lambda at_s, interval_s: good(duration_s=0.0, cpu=values[int(at_s / MINUTE) % len(values)])


@CALM
@given(values=st.lists(st.floats(0.4, 0.84), min_size=1, max_size=50))
def test_noise_below_the_limit_never_moves_it(values: list[float]) -> None:
    assert changes(live(SETTINGS, noise(values), 500 * HOUR)) == []


def test_a_strain_is_one_at_its_limit() -> None:
    seen = Seen().with_run(good(duration_s=45 * MINUTE, cpu=0.85, memory=0.9, load=1.5))
    found = {strain.rule: strain.ratio for strain in strains(ALL, Pace(interval_s=BASE_S), seen)}
    assert found == pytest.approx({"success_rate": 0.0, "duration": 1.0, "cpu": 1.0, "memory": 1.0, "load": 1.0})
    assert not any(math.isnan(ratio) for ratio in found.values())


def test_the_plot_in_the_documentation_is_what_the_law_gives() -> None:
    assert PLOT.read_text("utf-8") == plot(), "python -m tests.adaptive_plot draws it anew"
