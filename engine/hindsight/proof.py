"""The proof for timers: every due instant that was dealt with is recorded, as an event or as missed.

A timer's due instants are counted from when the trigger, as it is now, was first seen, up to the last one that was
dealt with; so are the records. Where a trigger has few, or the counts differ, each instant is looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from anyio.to_thread import run_sync
from msgspec import Struct

from engine.decide.misfire import counted
from engine.hindsight.account import TICK
from engine.hindsight.inquiry import Subject, inquire
from engine.spans import SpanKind
from engine.store.base import Store

log = logging.getLogger("engine.hindsight")

MOST_TIMERS = 5_000
"""So many timers are looked at; the proof says how many were left out."""

LOOKED_THROUGH = 1_000
"""A timer with at most so many records has each of its instants looked at."""

MOST_BROKEN = 100


class Proof(Struct, frozen=True, kw_only=True):
    """What was found.

    - `timers`: how many were looked at, `left_out` how many were not.
    - `due`, `recorded`: instants that were due and dealt with, and those of which there is a record.
    - `broken`: which are not recorded, in words.
    """

    timers: int
    left_out: int
    due: int
    recorded: int
    broken: tuple[str, ...]

    def check(self) -> dict[str, object]:
        """Return it as one of doctor's checks."""
        # With another schedule it is counted anew: what was due by the one before can't be told from that of today.
        what = "1 timer" if self.timers == 1 else f"{self.timers:,} timers"
        since = "since it has its schedule" if self.timers == 1 else "since each has its schedule"
        told = f"{self.due:,} due instants of {what} were dealt with, {since}, and each is recorded"
        if not self.due and self.timers:
            told = f"nothing came due of {what} {since}"
        elif not self.timers:
            told = "there are no timers"
        if self.broken:
            told = "; ".join(self.broken[:3])
        if self.left_out:
            told += f"; {self.left_out:,} further timers were not looked at"
        return {"name": "due_instants", "ok": not self.broken, "detail": told}


async def prove(store: Store, subjects: Iterable[Subject], now: datetime) -> Proof:
    """Compare what was due with what is recorded, for each trigger that is on a timer. Raises StoreUnavailable."""
    timers = [one for one in subjects if one.schedule is not None and not one.adapts]
    due = recorded = 0
    broken: list[str] = []
    for subject in timers[:MOST_TIMERS]:
        found = await _look_at(store, subject, now)
        due, recorded = due + found[0], recorded + found[1]
        broken += found[2]
    return Proof(
        timers=min(len(timers), MOST_TIMERS), left_out=max(len(timers) - MOST_TIMERS, 0), due=due, recorded=recorded,
        broken=tuple(broken[:MOST_BROKEN]),
    )  # fmt: skip


async def _look_at(store: Store, subject: Subject, now: datetime) -> tuple[int, int, list[str]]:
    """Return how many instants of a timer were due and how many are recorded, and which are not."""
    schedule, dealt = subject.schedule, await store.cursor(subject.source)
    [*spans] = await store.spans(SpanKind.TRIGGER, name=subject.name, start=now, end=now + TICK, limit=1)
    if schedule is None or not isinstance(dealt, str) or not spans or spans[-1].detail.get("disabled"):
        return 0, 0, []
    purged = (await store.purged()).before
    # What was removed as it was kept long enough can't be looked for.
    start, end = max(spans[-1].began_at, purged or spans[-1].began_at), datetime.fromisoformat(dealt) + TICK
    if end <= start:
        return 0, 0, []

    def count() -> tuple[int, bool]:
        first, last = schedule.next(start - TICK), schedule.previous(end)
        return (0, False) if first is None or last is None or last < first else counted(schedule, first, last)

    try:
        due, more = await run_sync(count)
    except Exception as error:  # plugin code
        log.warning(
            "The timer of trigger %s raised", subject.name, exc_info=True,
            extra={"action": "timer_raised", "trigger": subject.name},
        )  # fmt: skip
        return 0, 0, [f"the timer of trigger {subject.name} raised {type(error).__name__}: {error}"]
    recorded = await store.recorded_instants(subject.name, subject.source, start=start, end=end)
    if not more and recorded >= due > LOOKED_THROUGH:
        return due, recorded, []
    broken, lost = [], 0
    cursor: str | None = None
    while True:
        page = await inquire(store, subject, start=start, end=end, now=now, limit=LOOKED_THROUGH, cursor=cursor)
        for one in page["items"]:
            if one["code"] == "unexplained":
                lost += one["count"]
                upto = "" if one["until"] is None else f" to {one['until']} ({one['count']:,})"
                broken.append(f"trigger {subject.name}: nothing is recorded of what was due at {one['at']}{upto}")
        cursor = page["next"]
        if cursor is None:
            return recorded + lost, recorded, broken
