"""What becomes of due instants that passed while nobody looked, against plain counting."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide import misfire
from engine.decide.misfire import MOST_COUNTED, MOST_ROWS, ON_TIME_S, Dates, Due, Gap, due
from engine.triggers import MISFIRE, CatchUp, Misfire

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ALL, NONE = Misfire(catch_up=CatchUp.ALL), Misfire(catch_up=CatchUp.NONE)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Listed:
    """Dates that are given, in order; each fires so many seconds later as is listed for it."""

    def __init__(self, instants: Sequence[datetime], late_s: Sequence[float] = ()) -> None:
        self.instants = instants
        self.late = dict(zip(instants, late_s, strict=False))

    def next(self, after: datetime) -> datetime | None:
        place = bisect_right(self.instants, after)
        return self.instants[place] if place < len(self.instants) else None

    def previous(self, before: datetime) -> datetime | None:
        place = bisect_left(self.instants, before)
        return self.instants[place - 1] if place else None

    def fires_at(self, due: datetime) -> datetime:
        return due + timedelta(seconds=self.late.get(due, 0.0))

    def count(self, first: datetime, last: datetime) -> int | None:
        return None


class Every:
    """Dates every so many seconds, for ever, which count how often they are asked."""

    def __init__(self, seconds: float) -> None:
        self.period = timedelta(seconds=seconds)
        self.asked = 0

    def next(self, after: datetime) -> datetime:
        self.asked += 1
        return NOON + ((after - NOON) // self.period + 1) * self.period

    def previous(self, before: datetime) -> datetime:
        self.asked += 1
        return NOON - ((NOON - before) // self.period + 1) * self.period

    def fires_at(self, due: datetime) -> datetime:
        return due

    def count(self, first: datetime, last: datetime) -> int | None:
        return None

    def look(self, since: datetime, now: datetime, rule: Misfire = MISFIRE) -> Due | None:
        return due(self, since, now, rule)


class Counted(Every):
    """Dates that can count without stepping."""

    def count(self, first: datetime, last: datetime) -> int | None:
        return (last - first) // self.period + 1


def test_nothing_is_due_before_the_next_instant() -> None:
    assert Every(60).look(at(0), at(59.999999)) is None


@pytest.mark.parametrize("rule", [MISFIRE, ALL, NONE])
def test_an_instant_is_due_at_that_instant_and_dealt_with_once(rule: Misfire) -> None:
    timer = Every(60)
    assert timer.look(at(0), at(60), rule) == Due(runs=(at(60),))
    assert timer.look(at(60), at(60), rule) is None
    assert timer.look(at(60), at(119), rule) is None


def test_of_several_that_passed_the_latest_is_run_and_the_others_are_missed() -> None:
    found = Every(60).look(at(0), at(200))
    assert found == Due(runs=(at(180),), missed=(at(60), at(120)))
    assert found.first == at(180)


def test_a_clock_that_was_set_back_brings_nothing_up_again() -> None:
    timer = Every(60)
    assert timer.look(at(600), at(300)) is None
    assert timer.look(at(600), at(660)) == Due(runs=(at(660),))


def test_a_timer_that_is_never_due_or_no_more_is_never_due() -> None:
    assert due(Listed([]), at(0), at(1e6)) is None
    once = Listed([at(5)])
    assert due(once, at(0), at(1e6)) == Due(runs=(at(5),))
    assert due(once, at(5), at(1e6)) is None


def test_what_is_longer_ago_than_the_grace_is_missed() -> None:
    rule = Misfire(grace_s=100.0)
    assert Every(600).look(at(0), at(700), rule) == Due(runs=(at(600),))
    found = Every(600).look(at(0), at(701), rule)
    assert found == Due(runs=(), missed=(at(600),))
    assert found.first == at(600)
    assert Every(600).look(at(0), at(1900), rule) == Due(runs=(at(1800),), missed=(at(600), at(1200)))


def test_all_are_run_in_order_but_only_the_newest_so_many() -> None:
    assert Every(60).look(at(0), at(200), ALL) == Due(runs=(at(60), at(120), at(180)))
    few = Misfire(catch_up=CatchUp.ALL, max=2)
    found = Every(60).look(at(0), at(320), few)
    assert found == Due(runs=(at(240), at(300)), missed=(at(60), at(120), at(180)))
    assert found.first == at(240)
    graced = Misfire(catch_up=CatchUp.ALL, grace_s=130.0)
    assert Every(60).look(at(0), at(310), graced) == Due(runs=(at(180), at(240), at(300)), missed=(at(60), at(120)))


def test_none_runs_what_is_on_time_and_a_busy_second_is_no_misfire() -> None:
    assert Every(600).look(at(0), at(600 + ON_TIME_S), NONE) == Due(runs=(at(600),))
    assert Every(600).look(at(0), at(601 + ON_TIME_S), NONE) == Due(runs=(), missed=(at(600),))
    assert Every(600).look(at(0), at(605), Misfire(catch_up=CatchUp.NONE, grace_s=4.0)) == Due(
        runs=(), missed=(at(600),)
    )


def test_an_instant_that_fires_later_is_not_due_before_and_is_late_from_then() -> None:
    dates: Dates = Listed([at(60), at(120)], [0.0, 30.0])
    assert due(dates, at(0), at(149)) == Due(runs=(at(60),))
    assert due(dates, at(60), at(149)) is None
    assert due(dates, at(60), at(150)) == Due(runs=(at(120),))
    assert due(dates, at(60), at(150 + ON_TIME_S), NONE) == Due(runs=(at(120),))


def test_as_many_as_have_rows_are_named_one_by_one() -> None:
    found = Every(1).look(at(0), at(MOST_ROWS + 1))
    assert found == Due(runs=(at(MOST_ROWS + 1),), missed=tuple(at(n) for n in range(1, MOST_ROWS + 1)))


def test_what_lies_before_those_is_told_of_together() -> None:
    found = Every(1).look(at(0), at(MOST_ROWS + 6))
    assert found is not None
    assert found.missed == tuple(at(n) for n in range(6, MOST_ROWS + 6))
    assert found.gap == Gap(first=at(1), last=at(5), count=5, more=False)


def test_a_gap_of_any_length_costs_a_bounded_number_of_questions() -> None:
    timer = Every(1)
    found = timer.look(at(0), at(30 * 86400))
    assert found is not None
    assert found.gap is not None
    assert found.gap.more
    assert found.gap.count == MOST_COUNTED
    assert (found.gap.first, found.gap.last) == (at(1), at(30 * 86400 - MOST_ROWS - 1))
    assert timer.asked <= MOST_COUNTED + MOST_ROWS + 4


def test_a_timer_that_can_count_is_not_stepped_through() -> None:
    timer = Counted(60)
    found = timer.look(at(0), at(30 * 86400), ALL)
    assert found is not None
    assert found.gap == Gap(first=at(60), last=at(30 * 86400 - 200 * 60), count=43_000, more=False)
    assert timer.asked <= ALL.max + MOST_ROWS + 4


INSTANTS = st.lists(st.integers(0, 200), max_size=60, unique=True).map(sorted)
RULES = st.builds(
    Misfire, catch_up=st.sampled_from(CatchUp), grace_s=st.none() | st.integers(0, 150).map(float),
    max=st.integers(1, 9),
)  # fmt: skip


def modelled(instants: Sequence[datetime], late_s: Sequence[float], since: datetime, now: datetime, rule: Misfire) -> (
    tuple[list[datetime], list[datetime]]
):  # fmt: skip
    """Return which instants are run and which are missed, by looking at each of them, in words of the docs."""
    fires = {instant: instant + timedelta(seconds=late) for instant, late in zip(instants, late_s, strict=True)}
    passed = [instant for instant in instants if since < instant and fires[instant] <= now]
    grace_s = rule.grace_s
    if grace_s is None and rule.catch_up is CatchUp.NONE:
        grace_s = ON_TIME_S
    fresh = [
        instant for instant in passed if grace_s is None or now - fires[instant] <= timedelta(seconds=grace_s)
    ]  # fmt: skip
    run = fresh[-rule.max :] if rule.catch_up is CatchUp.ALL else fresh[-1:]
    return run, [instant for instant in passed if instant not in run]


@given(seconds=INSTANTS, late=st.integers(0, 99), since_s=st.integers(-10, 210), passed_s=st.integers(-20, 220),
       rule=RULES)  # fmt: skip
def test_each_instant_that_passed_is_run_or_told_of_and_none_twice(
    seconds: list[int], late: int, since_s: int, passed_s: int, rule: Misfire
) -> None:
    instants = [at(second) for second in seconds]
    distances = [b - a for a, b in pairwise([*seconds, 300])]
    late_s = [distance * (late * (n + 1) % 100) / 100 for n, distance in enumerate(distances)]
    since, now = at(since_s), at(since_s + passed_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(misfire, "MOST_ROWS", 7)
        patch.setattr(misfire, "MOST_COUNTED", 11)
        found = due(Listed(instants, late_s), since, now, rule)
    runs, missed = modelled(instants, late_s, since, now, rule)
    if not runs and not missed:
        assert found is None
        return
    assert found is not None
    assert list(found.runs) == runs
    assert list(found.missed) == missed[-7:]
    early = missed[:-7]
    if not early:
        assert found.gap is None
        return
    assert found.gap == Gap(first=early[0], last=early[-1], count=min(len(early), 11), more=len(early) > 11)
