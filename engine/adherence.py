"""Adherence: how well a timer was kept in a time: what was due, what ran, how late, and why the rest did not.

It is made of tallies. A span is told by whole hours (UTC) as far as they are kept, and by whole days before: of each
day that lies in it whole, the day's tally alone is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from engine.runs import RunState
from engine.tallies import Planned, Tally, Width, percentile

_S = RunState
RAN = (_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT)
"""Ends of runs that did their work, well or not."""


class Piece(Struct, frozen=True, kw_only=True):
    """A part of a span whose tallies are of one width."""

    width: Width
    start: datetime
    end: datetime


class Lateness(Struct, frozen=True, kw_only=True):
    """How long after its due instant a run began: percentiles are right to a twentieth, the others as counted.

    None where no run began.
    """

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None
    mean_s: float | None


class Adherence(Struct, frozen=True, kw_only=True):
    """What became of the due instants of a trigger between two instants.

    - `due`: those of which it is known what became of them: their runs have ended, or they made none.
    - `by_state`: those that made a run, or the record of a missed one, by its end.
    - `ran`: those whose run did its work, well or not; `kept_rate` is their part of all, `success_rate` the part of
      them that succeeded. None where there is none.
    - `not_run`: why the others did not, by the state of the run and the code of the reason; those that made no run of
      their own by `no_run` and the code of what became of their event.
    """

    trigger: str
    start: datetime
    end: datetime
    due: int
    ran: int
    by_state: Mapping[RunState, int]
    not_run: Mapping[str, int]
    kept_rate: float | None
    success_rate: float | None
    lateness: Lateness


def pieces(start: datetime, end: datetime, *, hours_since: datetime) -> list[Piece]:
    """Return, in order, of which tallies a span is made, which is made longer to whole hours or days.

    Hours are there since `hours_since`; before that a span has whole days.
    """
    start, end = _whole(start, hours_since, up=False), _whole(end, hours_since, up=True)
    day, hour = Width.DAY, Width.HOUR
    first, last = _up(start, day), day.start_of(end)
    if first > last:
        return [Piece(width=hour, start=start, end=end)]
    found = [
        Piece(width=hour, start=start, end=first), Piece(width=day, start=first, end=last),
        Piece(width=hour, start=last, end=end),
    ]  # fmt: skip
    return [piece for piece in found if piece.start < piece.end]


def _whole(at: datetime, hours_since: datetime, *, up: bool) -> datetime:
    width = Width.HOUR if at >= hours_since else Width.DAY
    return _up(at, width) if up else width.start_of(at)


def _up(at: datetime, width: Width) -> datetime:
    start = width.start_of(at)
    return start if start == at else start + width.length


def adherence_of(trigger: str, tallies: Iterable[Tally], start: datetime, end: datetime) -> Adherence:
    """Return what tallies say together."""
    whole = Planned()
    for tally in tallies:
        if tally.planned is not None:
            whole.take(tally.planned)
    ran = sum(whole.ends.get(state, 0) for state in RAN)
    due = sum(whole.ends.values()) + sum(whole.unrun.values())
    not_run = {**whole.codes, **{f"no_run:{code}": count for code, count in whole.unrun.items()}}
    return Adherence(
        trigger=trigger, start=start, end=end, due=due, ran=ran, by_state=whole.ends,
        not_run=dict(sorted(not_run.items(), key=lambda one: (-one[1], one[0]))),
        kept_rate=ran / due if due else None, success_rate=whole.ends.get(_S.SUCCEEDED, 0) / ran if ran else None,
        lateness=_lateness(whole),
    )  # fmt: skip


def _lateness(whole: Planned) -> Lateness:
    began = sum(whole.late.values())
    # What stands for a bin may be a little more than the most there was, and nothing late is no millisecond.
    half, most, nearly_all = (_at_most(percentile(whole.late, part), whole.latest_s) for part in (0.5, 0.95, 0.99))
    return Lateness(
        p50_s=half, p95_s=most, p99_s=nearly_all, max_s=whole.latest_s if began else None,
        mean_s=whole.late_s / began if began else None,
    )  # fmt: skip


def _at_most(value: float | None, most: float) -> float | None:
    return None if value is None else min(value, most)


def kept_since(now: datetime, kept: timedelta) -> datetime:
    """Return since when all hours of a day are there, where they are kept for so long."""
    return _up(now - kept, Width.DAY)
