"""Which lane of the queue a free slot goes to: what is done now goes first, and what is made up for never starves.

1. A free slot goes to live work that waits for it.
2. A run of a backfill gets one that no live work wants, but never the last one: of the engine's slots, or of its job's
   where that may have more than one. So live work that comes finds a slot.
3. Where live work has kept a job's backfill from every slot for `LONGEST_KEPT_S`, its next run is *ahead*: it gets the
   next slot that is free, before live work, and be it the last one. One run at a time is ahead.

4. Slots that are kept for a lane (`[engine] reserve`) are taken by no other; see `Shares`. What people fire is a lane
   by itself for that alone: it and other live work are one line, in order of rank.

So live work waits for a backfill only where a job may have one slot, or the engine one, or by rule 3; and a backfill
waits at most that long, and then for a slot to come free and the runs ahead of it to end.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from engine.runs import Lane

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


class Shares:
    """The slots that are kept for lanes, and how many each has taken.

    A free slot may be taken by a lane that has not yet what is kept for it, and by any lane as long as there are more
    free ones than the others still have to get. So a lane has what is kept for it as soon as it needs it and so many
    runs have ended, and no slot is idle that nobody waits for but those that are kept.
    """

    __slots__ = ("_kept", "_left", "_most", "_taken")

    def __init__(self, most: int, kept: Mapping[Lane, int]) -> None:
        self._most = most
        self._kept = {lane: kept.get(lane, 0) for lane in Lane}
        self._taken = dict.fromkeys(Lane, 0)
        self._left = most

    def take(self, lane: Lane) -> None:
        """Count a slot that a lane has taken."""
        self._taken[lane] += 1
        self._left -= 1

    def give(self, lane: Lane) -> None:
        """Count a slot that a lane has given back."""
        self._taken[lane] -= 1
        self._left += 1

    def may_take(self, lane: Lane) -> bool:
        """Tell whether a lane may take one more slot."""
        others = sum(
            max(kept - self._taken[other], 0) for other, kept in self._kept.items() if other is not lane
        )  # fmt: skip
        return self._left > others

    def has_own(self, lane: Lane) -> bool:
        """Tell whether one of the slots that are kept for a lane is not taken yet."""
        return self._taken[lane] < self._kept[lane] and self._left > 0


def starved(most: int, kept: Mapping[Lane, int]) -> list[Lane]:
    """Return the lanes that would never get a slot, as all are kept for others."""
    return [lane for lane in Lane if sum(count for other, count in kept.items() if other is not lane) >= most]


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
