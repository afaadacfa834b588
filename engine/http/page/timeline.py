"""The timeline: runs as bars over time, a lane for each job; and a list of them beside it, for who can't see it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from engine.clock import rfc3339
from engine.http.calls import Call
from engine.http.page.views import View
from engine.http.page.words import instant, span
from engine.http.problems import Problem
from engine.ids import first_id_at
from engine.runs import FAILURES, Run, RunState
from engine.store.base import RunFilter, Store
from engine.units import parse_duration

MOST_RUNS = 1000
PAGE = 500
MOST_LANES = 40
MOST_ROWS = 4
"""So many runs of one job that overlap are drawn below each other; more share the last row."""

ROW_PX, GAP_PX, LOWEST_PX = 12, 10, 26
NARROWEST = 0.25
LONGEST_S = 14 * 86_400.0
LISTED = 60

LEGEND = ("succeeded", "failed", "timed_out", "running", "queued", "retrying", "held", "skipped", "cancelled", "missed")
"""States in the order in which the legend names those that are drawn."""

SPANS = (("15 min", "15m"), ("1 hour", "1h"), ("6 hours", "6h"), ("24 hours", "1d"), ("7 days", "7d"))


class Bar(Struct, frozen=True, kw_only=True):
    """One run: where it lies in the time, in hundredths of its width, and how far down."""

    run: Run
    x: float
    width: float
    y: int
    title: str


class Lane(Struct, kw_only=True):
    """The runs of one job, and how high they stand."""

    job: str
    bars: list[Bar] = []
    rows: int = 1

    @property
    def height(self) -> int:
        """The height of its drawing, in pixels."""
        return max(self.rows * ROW_PX + GAP_PX, LOWEST_PX)


async def make(call: Call) -> View:
    """Make the page."""
    now = call.operations.clock.now()
    start, end, over = _time(call, now)
    which = RunFilter(job=call.request.query.get("job") or None)
    runs, all_there = await _runs(call.operations.store, which, start, end, now)
    lanes = lanes_of(runs, start, end, now)
    length = end - start
    return View(
        template="timeline.html",
        values={
            "lanes": lanes[:MOST_LANES],
            "more_lanes": max(len(lanes) - MOST_LANES, 0),
            "count": len(runs),
            "all_there": all_there,
            "drawn": [state for state in LEGEND if any(run.state.value == state for run in runs)],
            "listed": runs[:LISTED],
            "start": start,
            "end": end,
            "scale": [start + length * part / 6 for part in range(7)],
            "over": over,
            "spans": SPANS,
            "earlier": rfc3339(end - length / 2),
            "later": None if end >= now else rfc3339(min(end + length / 2, now)),
            "live": "to" not in call.request.query,
            "row_px": ROW_PX,
            "job": which.job or "",
        },
    )


def lanes_of(runs: Iterable[Run], start: datetime, end: datetime, now: datetime) -> list[Lane]:
    """Return a lane for each job, by name; runs that overlap stand below each other."""
    lanes: dict[str, Lane] = {}
    free: dict[str, list[datetime]] = {}
    length = end - start
    for run in sorted(runs, key=_began):
        began, ended = max(_began(run), start), min(_ended(run, now), end)
        lane = lanes.setdefault(run.job, Lane(job=run.job, bars=[]))
        rows = free.setdefault(run.job, [])
        row = next((at for at, until in enumerate(rows) if until <= began), len(rows))
        if row >= MOST_ROWS:
            row = min(range(MOST_ROWS), key=lambda at: rows[at])
        rows[row : row + 1] = [ended]
        lane.rows = max(lane.rows, row + 1)
        x = min(max((began - start) / length * 100, 0.0), 100 - NARROWEST)
        width = max(min((ended - began) / length * 100, 100 - x), NARROWEST)
        took = "" if run.started_at is None else f", {span((_ended(run, now) - run.started_at).total_seconds())}"
        title = f"{run.job} {run.state.value.replace('_', ' ')}{took}, by {run.trigger}: {run.reason}"
        lane.bars.append(Bar(run=run, x=round(x, 3), width=round(width, 3), y=row * ROW_PX + GAP_PX // 2, title=title))
    for lane in lanes.values():  # what failed lies over what went well, where they are close
        lane.bars.sort(key=lambda bar: bar.run.state in FAILURES)
    return sorted(lanes.values(), key=lambda lane: lane.job)


async def _runs(
    store: Store, which: RunFilter, start: datetime, end: datetime, now: datetime
) -> tuple[list[Run], bool]:
    """Return the runs that ran, or were to run, in a time, the newest first, and whether these are all."""
    # A run is found by when it was made: one that runs still may have been made long before.
    found = [run for run in await store.running() if which.job in (None, run.job) and _began(run) < end]
    known = {run.id for run in found}
    before: str | None = first_id_at(end)
    first = first_id_at(start)
    while before is not None and len(found) < MOST_RUNS:
        page = await store.runs(which, limit=PAGE, before=before)
        found += [run for run in page if run.id >= first and run.id not in known and run.state in _DRAWN]
        before = page[-1].id if len(page) == PAGE and page[-1].id >= first else None
    return sorted(found, key=lambda run: run.id, reverse=True)[:MOST_RUNS], before is None


_DRAWN = frozenset(RunState) - {RunState.PENDING}


def _began(run: Run) -> datetime:
    return run.started_at or run.created_at


def _ended(run: Run, now: datetime) -> datetime:
    if run.finished_at is not None:
        return run.finished_at
    return now if run.state is RunState.RUNNING else _began(run)


def _time(call: Call, now: datetime) -> tuple[datetime, datetime, str]:
    """Return the time that is drawn: `over` long up to `to` or now, or from `from` to `to`; raise Problem 422."""
    asked = call.request.query
    over = asked.get("over", "6h")
    try:
        end = instant(asked.get("to") or None) or now
        start = instant(asked.get("from") or None) or end - timedelta(seconds=parse_duration(over))
        if start.tzinfo is None or end.tzinfo is None:
            raise ValueError("an instant has a zone")
        if not 1.0 <= (end - start).total_seconds() <= LONGEST_S:
            raise ValueError("from a second to two weeks can be drawn")
        return start, end, "" if "from" in asked else over
    except (ValueError, OverflowError) as error:
        raise Problem(422, f"over is a duration such as 6h, from and to are instants: {error}") from None
