"""Tallies: how the runs of one trigger and job ended in one hour or day, how long they took, and how late they began.

Times are counted in bins that are each a tenth wider than the one before: so an hour's are a handful of numbers,
however many runs there were, and a percentile is right to a twentieth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from msgspec import Struct, field

from engine.runs import RunState

SHORTEST_S = 0.001
"""What is shorter falls into the first bin."""

GROWTH = 1.1

_LOG_GROWTH = math.log(GROWTH)

WORKLESS = frozenset({RunState.SKIPPED, RunState.MISSED, RunState.EXPIRED, RunState.CANCELLED})
"""Ends of runs that did not do, or not finish, their work; they are told apart by their codes."""

MOST_CODES, OTHERS = 50, "(other)"
"""Codes that one tally tells apart; the engine's own are fewer, a plugin may make up any number."""


class Width(StrEnum):
    """How long the time is that a tally is of."""

    HOUR = "hour"
    DAY = "day"

    def start_of(self, at: datetime) -> datetime:
        """Return when the hour or day (UTC) that an instant lies in began."""
        at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return at if self is Width.HOUR else at.replace(hour=0)

    @property
    def length(self) -> timedelta:
        """Return how long it is."""
        return timedelta(hours=1) if self is Width.HOUR else timedelta(days=1)


class Planned(Struct, kw_only=True, omit_defaults=True):
    """What became of due instants.

    - `ends`: of those that made a run, or the record of a missed one, by state.
    - `codes`: why runs among these did not do their work, by state and code.
    - `unrun`: those that made no run of their own, by the code of what became of their event.
    - `late`: how long after its instant each run began: their number by bin, their sum, and the longest.
    """

    ends: dict[RunState, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    unrun: dict[str, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    late_s: float = 0.0
    latest_s: float = 0.0

    def end(self, state: RunState, code: str, count: int = 1) -> None:
        """Count the end of the run of a due instant, or of `count` of them."""
        self.ends[state] = self.ends.get(state, 0) + count
        if state in WORKLESS:
            _count(self.codes, f"{state.value}:{code}", count)

    def pass_by(self, code: str) -> None:
        """Count a due instant that made no run of its own."""
        _count(self.unrun, code, 1)

    def begin(self, late_s: float) -> None:
        """Count how late a run began; where the clock was set back meanwhile, it was on time."""
        late_s = max(late_s, 0.0)
        number = bin_of(late_s)
        self.late[number] = self.late.get(number, 0) + 1
        self.late_s += late_s
        self.latest_s = max(self.latest_s, late_s)

    def take(self, other: Planned) -> None:
        """Add all that another one counted."""
        for state, count in other.ends.items():
            self.ends[state] = self.ends.get(state, 0) + count
        for mine, others in ((self.codes, other.codes), (self.unrun, other.unrun)):
            for code, count in others.items():
                _count(mine, code, count)
        for number, count in other.late.items():
            self.late[number] = self.late.get(number, 0) + count
        self.late_s += other.late_s
        self.latest_s = max(self.latest_s, other.latest_s)


class Last(Struct, frozen=True, kw_only=True):
    """The end that came last: of which run, how, when, and how many before it failed in a row, it included."""

    run: str
    state: RunState
    code: str
    at: datetime
    failures: int


class Tally(Struct, kw_only=True, omit_defaults=True):
    """Ends by state, and the times that the timed ones took: their sum and their number by bin.

    `planned` is about those that were due at an instant, None where none was; `last` about the one that came last.
    """

    ends: dict[RunState, int] = field(default_factory=dict)
    total_s: float = 0.0
    bins: dict[int, int] = field(default_factory=dict)
    planned: Planned | None = None
    last: Last | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not self.ends and self.planned is None

    @property
    def plan(self) -> Planned:
        """What is counted of due instants, to add to."""
        if self.planned is None:
            self.planned = Planned()
        return self.planned

    def add(self, state: RunState, duration_s: float | None, count: int = 1) -> None:
        """Count an end, or `count` of them, without a time."""
        self.ends[state] = self.ends.get(state, 0) + count
        if duration_s is not None:
            self.total_s += duration_s
            number = bin_of(duration_s)
            self.bins[number] = self.bins.get(number, 0) + 1

    def take(self, other: Tally) -> None:
        """Add all that another one counted."""
        for state, count in other.ends.items():
            self.ends[state] = self.ends.get(state, 0) + count
        self.total_s += other.total_s
        for number, count in other.bins.items():
            self.bins[number] = self.bins.get(number, 0) + count
        if other.planned is not None:
            self.plan.take(other.planned)
        if other.last is not None and (self.last is None or other.last.at >= self.last.at):
            self.last = other.last


class TallyKey(Struct, frozen=True, kw_only=True):
    """What a tally is of."""

    trigger: str
    job: str
    width: Width
    began_at: datetime


class TallyRow(Struct, frozen=True, kw_only=True):
    """A tally, and what it is of."""

    key: TallyKey
    tally: Tally


class Statistics(Struct, frozen=True, kw_only=True):
    """How runs ended between two instants. Times are seconds, None where no run took any.

    `success_rate` is the part that succeeded of those that succeeded, failed or were timed out.
    """

    start: datetime
    end: datetime
    ends: Mapping[RunState, int]
    total: int
    success_rate: float | None
    duration_mean_s: float | None
    duration_p50_s: float | None
    duration_p95_s: float | None


def _count(counts: dict[str, int], key: str, count: int) -> None:
    if key not in counts and len(counts) >= MOST_CODES:
        key = OTHERS
    counts[key] = counts.get(key, 0) + count


def bin_of(duration_s: float) -> int:
    """Return the bin that a time falls into."""
    return 0 if duration_s <= SHORTEST_S else 1 + int(math.log(duration_s / SHORTEST_S) / _LOG_GROWTH)


def middle_of(number: int) -> float:
    """Return the time that stands for a bin: no time in it is further away than a twentieth."""
    return SHORTEST_S if number == 0 else float(SHORTEST_S * GROWTH ** (number - 0.5))


def percentile(bins: Mapping[int, int], part: float) -> float | None:
    """Return the time that `part` of all took at most, by the nearest rank; None where there is none."""
    total = sum(bins.values())
    if not total:
        return None
    rank = max(math.ceil(part * total), 1)
    for number in sorted(bins):
        rank -= bins[number]
        if rank <= 0:
            return middle_of(number)
    return None


def sum_up(tallies: Iterable[Tally], start: datetime, end: datetime) -> Statistics:
    """Return what tallies say together."""
    whole = Tally()
    for tally in tallies:
        whole.take(tally)
    ends = whole.ends
    good = ends.get(RunState.SUCCEEDED, 0)
    judged = good + ends.get(RunState.FAILED, 0) + ends.get(RunState.TIMED_OUT, 0)
    timed = sum(whole.bins.values())
    return Statistics(
        start=start, end=end, ends=ends, total=sum(ends.values()), success_rate=good / judged if judged else None,
        duration_mean_s=whole.total_s / timed if timed else None, duration_p50_s=percentile(whole.bins, 0.5),
        duration_p95_s=percentile(whole.bins, 0.95),
    )  # fmt: skip
