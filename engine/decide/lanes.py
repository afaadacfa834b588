"""Which lane of the queue a free slot goes to: what is done now goes first, and what is made up for never starves.

1. A free slot goes to live work that waits for it.
2. A run of a backfill gets one that no live work wants, but never the last one: of the engine's slots, or of its job's
   where that may have more than one. So live work that comes finds a slot.
3. Where live work has kept a job's backfill from every slot for `LONGEST_KEPT_S`, its next run is *ahead*: it gets the
   next slot that is free, before live work, and be it the last one. One run at a time is ahead.

So live work waits for a backfill only where a job may have one slot, or the engine one, or by rule 3; and a backfill
waits at most that long, and then for a slot to come free and the runs ahead of it to end.
"""

from __future__ import annotations

from msgspec import Struct

LONGEST_KEPT_S = 60.0
"""How long live work may keep a job's backfill from every slot."""


class Room(Struct, frozen=True):
    """How many slots are taken, of the engine's or of a job's, and how many there are (None: no limit)."""

    taken: int
    limit: int | None

    @property
    def is_free(self) -> bool:
        """Whether there is a free one."""
        return self.limit is None or self.taken < self.limit

    @property
    def is_spare(self) -> bool:
        """Whether there is a free one that is not the last, or the only one that there is."""
        return self.limit is None or self.taken < (self.limit - 1 if self.limit > 1 else self.limit)


class Waits(Struct, frozen=True, kw_only=True):
    """A job whose backfill waits: since when it has been kept from every slot (None: a run of it has one)."""

    job: str
    kept_since_s: float | None
    room: Room


def is_kept_too_long(kept_since_s: float | None, now_s: float) -> bool:
    """Tell whether a backfill has been kept from every slot for too long."""
    return kept_since_s is not None and now_s - kept_since_s >= LONGEST_KEPT_S


def ahead(waits: list[Waits], engine: Room, *, one_is_ahead: bool, now_s: float) -> str | None:
    """Return the job whose backfill gets a slot before live work does, or None (rule 3)."""
    if one_is_ahead or not engine.is_free:
        return None
    kept = [
        (one.kept_since_s, one.job)
        for one in waits
        if one.kept_since_s is not None and is_kept_too_long(one.kept_since_s, now_s) and one.room.is_free
    ]
    return min(kept)[1] if kept else None


def may_use_idle(engine: Room, job: Room) -> bool:
    """Tell whether a backfill's run may have a slot that no live work wants (rule 2)."""
    return engine.is_spare and job.is_spare
