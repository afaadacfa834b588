"""What becomes of due instants that passed while nobody looked, against plain counting."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide import misfire
from engine.decide.misfire import MOST_COUNTED, MOST_ROWS, Due, Gap, due

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
Step = Callable[[datetime], datetime | None]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def listed(instants: Sequence[datetime]) -> tuple[Step, Step]:
    """Return next and previous of a timer that is due at the given instants, which are in order."""

    def following(after: datetime) -> datetime | None:
        place = bisect_right(instants, after)
        return instants[place] if place < len(instants) else None

    def preceding(before: datetime) -> datetime | None:
        place = bisect_left(instants, before)
        return instants[place - 1] if place else None

    return following, preceding


class Every:
    """A timer that is due every so many seconds, for ever, and counts how often it is asked."""

    def __init__(self, seconds: float) -> None:
        self.period = timedelta(seconds=seconds)
        self.asked = 0

    def next(self, after: datetime) -> datetime:
        self.asked += 1
        return NOON + ((after - NOON) // self.period + 1) * self.period

    def previous(self, before: datetime) -> datetime:
        self.asked += 1
        return NOON - ((NOON - before) // self.period + 1) * self.period

    def look(self, since: datetime, now: datetime) -> Due | None:
        return due(self.next, self.previous, since, now)


def test_nothing_is_due_before_the_next_instant() -> None:
    assert Every(60).look(at(0), at(59.999999)) is None


def test_an_instant_is_due_at_that_instant_and_dealt_with_once() -> None:
    timer = Every(60)
    assert timer.look(at(0), at(60)) == Due(run=at(60))
    assert timer.look(at(60), at(60)) is None
    assert timer.look(at(60), at(119)) is None


def test_of_several_that_passed_the_latest_is_run_and_the_others_are_missed() -> None:
    assert Every(60).look(at(0), at(200)) == Due(run=at(180), missed=(at(60), at(120)))


def test_a_clock_that_was_set_back_brings_nothing_up_again() -> None:
    timer = Every(60)
    assert timer.look(at(600), at(300)) is None
    assert timer.look(at(600), at(660)) == Due(run=at(660))


def test_a_timer_that_is_never_due_or_no_more_is_never_due() -> None:
    never = listed([])
    assert due(*never, at(0), at(1e6)) is None
    once = listed([at(5)])
    assert due(*once, at(0), at(1e6)) == Due(run=at(5))
    assert due(*once, at(5), at(1e6)) is None


def test_as_many_as_have_rows_are_named_one_by_one() -> None:
    found = Every(1).look(at(0), at(MOST_ROWS + 1))
    assert found == Due(run=at(MOST_ROWS + 1), missed=tuple(at(n) for n in range(1, MOST_ROWS + 1)))


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


INSTANTS = st.lists(st.integers(0, 200), max_size=60, unique=True).map(sorted)


@given(seconds=INSTANTS, since_s=st.integers(-10, 210), passed_s=st.integers(-20, 220))
def test_each_instant_that_passed_is_run_or_told_of_and_none_twice(
    seconds: list[int], since_s: int, passed_s: int
) -> None:
    instants = [at(second) for second in seconds]
    since, now = at(since_s), at(since_s + passed_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(misfire, "MOST_ROWS", 7)
        patch.setattr(misfire, "MOST_COUNTED", 11)
        found = due(*listed(instants), since, now)
    passed = [instant for instant in instants if since < instant <= now]
    if not passed:
        assert found is None
        return
    assert found is not None
    assert found.run == passed[-1]
    assert list(found.missed) == passed[:-1][-7:]
    early = passed[:-1][:-7]
    if not early:
        assert found.gap is None
        return
    assert found.gap == Gap(first=early[0], last=early[-1], count=min(len(early), 11), more=len(early) > 11)
