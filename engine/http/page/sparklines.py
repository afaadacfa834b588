"""Sparklines: how the runs of a trigger, or of a job, ended in each hour of a day, or on each day of four weeks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from engine.http.page.words import plural
from engine.runs import FAILURES, RunState
from engine.store.base import Store
from engine.tallies import Statistics, TallyRow, Width, sum_up

HEIGHT = 24.0
LOWEST = 3.0
"""How high what was at all is at least."""

BARS = {Width.HOUR: 24, Width.DAY: 28}


class Bar(Struct, frozen=True, kw_only=True):
    """One hour or day: how high what went well, what failed, and what did not run stand, and that in words."""

    good: float
    bad: float
    other: float
    title: str


class Sparkline(Struct, frozen=True, kw_only=True):
    """The bars, the oldest first, what they tell in one sentence, and the sums of the same time."""

    bars: list[Bar]
    label: str
    sums: Statistics


async def sparkline(
    store: Store, now: datetime, width: Width, *, trigger: str | None = None, job: str | None = None
) -> Sparkline:
    """Return the sparkline of a trigger or a job; raise StoreUnavailable."""
    start = width.start_of(now) - width.length * (BARS[width] - 1)
    rows = await store.tallies(trigger=trigger, job=job, width=width, start=start, end=now + timedelta(seconds=1))
    return drawn(rows, start, width)


def drawn(rows: Sequence[TallyRow], start: datetime, width: Width) -> Sparkline:
    """Return the sparkline of tallies from an hour, or a day, on."""
    counts = [[0, 0, 0] for _ in range(BARS[width])]
    for row in rows:
        place = (row.key.began_at - start) // width.length
        if not 0 <= place < len(counts):
            continue
        for state, count in row.tally.ends.items():
            counts[place][1 if state in FAILURES else 0 if state is RunState.SUCCEEDED else 2] += count
    highest = max((sum(one) for one in counts), default=0)
    total, failed = sum(sum(one) for one in counts), sum(one[1] for one in counts)
    over = "24 hours" if width is Width.HOUR else "28 days"
    label = f"{plural(total, 'run')} in {over}, {failed} failed" if total else f"no runs in {over}"
    return Sparkline(
        bars=[_bar(one, highest, start + width.length * place, width) for place, one in enumerate(counts)],
        label=label, sums=sum_up((row.tally for row in rows), start, start + width.length * BARS[width]),
    )  # fmt: skip


def _bar(counts: list[int], highest: int, at: datetime, width: Width) -> Bar:
    good, bad, other = (max(count / highest * HEIGHT, LOWEST) if count else 0.0 for count in counts)
    over = max(good + bad + other - HEIGHT, 0.0)
    when = at.strftime("%d %b %H:00 UTC" if width is Width.HOUR else "%d %b")
    told = f"{counts[0]} succeeded, {counts[1]} failed" + (f", {counts[2]} not run" if counts[2] else "")
    tallest = max(good, bad, other)  # gives what the smallest ones needed to be seen
    return Bar(
        good=round(good - over * (good == tallest), 1), bad=round(bad - over * (good != tallest and bad == tallest), 1),
        other=round(other - over * (good != tallest and bad != tallest), 1), title=f"{when}: {told}",
    )  # fmt: skip
