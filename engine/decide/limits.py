"""The limits on how much runs at once: those of the engine, of jobs, of the values of their keys, and of pools.

A run takes a slot of the engine, one of its job (or, where the job has a `concurrency_key`, one of its key's value),
and from each pool of its job as much as the job weighs there. It starts when it can have all of them at once.

**Nobody starves at a pool.** Where the first in line that needs pools can't have all it needs of them, they are *kept*
for it: none of those behind it takes from any of its pools, though there would be room, until it has started. So it
waits as long as what runs takes to end, and a heavy run is not overtaken for ever by light ones. A run that waits for
something else as well, or that weighs more than the pool can ever hold, keeps nothing from others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from msgspec import Struct

from engine.decide.lanes import Room, Shares
from engine.jobs import Job
from engine.runs import Lane

ENGINE_POOL = "engine"
"""The slots of the engine, where they are shown and changed beside the pools; no pool may be called so."""

HIGHEST_LIMIT = 1_000_000
"""No limit is set higher while the engine runs."""

Place = tuple[int, str]
"""A place in line: rank, then the run."""

FIRST_RANK = -(2**63)
"""The rank of what goes before all others."""


class Block(Enum):
    """What keeps a run from starting: the first of these that has no room."""

    ENGINE = "engine"
    JOB = "job"
    KEY = "key"
    POOL = "pool"


class Shortage(Struct, frozen=True, kw_only=True):
    """A limit that keeps a run waiting: how much of it is taken and by which runs, how much it is, and what is needed.

    - `name`: the pool's, the job's, or the key's value.
    - `kept_for`: the run that is before it in line there, where there is room that is kept for that one.
    """

    block: Block
    name: str
    taken: int
    limit: int
    needs: int = 1
    holders: tuple[str, ...] = ()
    kept_for: str | None = None


class _Held(Struct):
    """What a run has taken: the slots are given back as they were taken, whatever its job has become."""

    job: str
    key: str | None
    lane: Lane
    keyed: bool
    pools: Mapping[str, int]


class Slots:
    """Counts who runs, and tells who may start. `most` is how many runs may have a slot, in all jobs together.

    `kept` are the slots that are kept for lanes, `pools` how much each pool holds. A run is counted by its id.
    """

    __slots__ = (
        "_held", "_kept", "_limits", "_needs", "_per_key", "_pools", "_reserved", "_shares", "_taken_by", "_taken_of",
        "_taken_of_pool", "most", "taken",
    )  # fmt: skip

    def __init__(
        self, most: int, kept: Mapping[Lane, int] | None = None, pools: Mapping[str, int] | None = None
    ) -> None:  # fmt: skip
        self.most = most
        self._kept = kept if kept and any(kept.values()) else None
        self._shares = Shares(most, self._kept) if self._kept else None
        self.taken = 0
        """How many runs have one now."""
        self._taken_by: dict[str, int] = {}
        self._taken_of: dict[tuple[str, str | None], int] = {}
        self._limits: dict[str, int] = {}
        self._per_key: dict[str, int] = {}
        self._needs: dict[str, Mapping[str, int]] = {}
        self._pools = dict(pools or {})
        self._taken_of_pool = dict.fromkeys(self._pools, 0)
        self._reserved: dict[str, tuple[Place, str]] = {}
        """By pool, for whom it is kept: the place in line, and the job."""
        self._held: dict[str, _Held] = {}

    # What there is

    def limit(self, job: Job) -> None:
        """Take in a job, or another version of one, with its limits; nothing of a disabled one starts."""
        name, most = job.name, job.concurrency
        self._limits.pop(name, None)
        self._per_key.pop(name, None)
        if not job.enabled:
            self._limits[name] = 0
        elif most is not None and job.concurrency_key is None:
            self._limits[name] = most
        elif most is not None:
            self._per_key[name] = most
        if job.pools:
            self._needs[name] = dict(job.pools)
        else:
            self._needs.pop(name, None)
        if self._taken_by.get(name):
            self._count_anew(name)
        self._reserved = {pool: kept for pool, kept in self._reserved.items() if kept[1] != name}

    def resize(self, most: int) -> None:
        """Have another number of slots; what runs goes on, be it more than that."""
        self.most = most
        if self._kept is not None:
            self._shares = Shares(most, self._kept)
            for held in self._held.values():
                self._shares.take(held.lane)

    def set_pool(self, name: str, limit: int) -> None:
        """Have a pool hold another amount; what runs goes on, be it more than that."""
        self._pools[name] = limit
        self._taken_of_pool.setdefault(name, 0)
        self._reserved.pop(name, None)

    @property
    def pools(self) -> Mapping[str, int]:
        """How much each pool holds."""
        return self._pools

    def taken_of_pool(self, name: str) -> int:
        """Return how much of a pool is taken."""
        return self._taken_of_pool[name]

    def taken_by(self, job: str) -> int:
        """Return how many runs of a job have a slot now."""
        return self._taken_by.get(job, 0)

    def taken_of(self, job: str, key: str | None) -> int:
        """Return how many runs of a job whose key has that value have a slot now, where its limit is by key."""
        return self._taken_of.get((job, key), 0)

    def holders(self, *, pool: str | None = None) -> dict[str, int]:
        """Return the runs that hold something of a pool, with how much; None: those that have a slot."""
        if pool is None:
            return dict.fromkeys(self._held, 1)
        return {run: weight for run, held in self._held.items() if (weight := held.pools.get(pool))}

    def users(self, pool: str) -> list[str]:
        """Return the jobs that need a pool."""
        return [job for job, needs in self._needs.items() if pool in needs]

    def needs(self, job: str) -> Mapping[str, int]:
        """Return how much a run of a job takes of each of its pools."""
        return self._needs.get(job, {})

    # Who may start

    def blocks(self, job: str, key: str | None = None, place: Place | None = None) -> Block | None:
        """Return what keeps one more run of a job from starting, or None.

        `place` is where it waits in line; None: it is a new one, behind all. Where pools alone keep one that waits,
        they are kept for it from then on.
        """
        if self.taken >= self.most:
            return Block.ENGINE
        limit = self._limits.get(job)
        if limit is not None and self._taken_by.get(job, 0) >= limit:
            return Block.JOB
        if self._per_key and (most := self._per_key.get(job)) is not None and self.taken_of(job, key) >= most:
            return Block.KEY
        if self._needs and (needs := self._needs.get(job)) is not None:
            return self._blocks_at_pools(job, needs, place)
        return None

    def may_start(self, job: str, key: str | None = None) -> bool:
        """Tell whether one more run of a job, a new one, may start now."""
        return self.blocks(job, key) is None

    def _blocks_at_pools(self, job: str, needs: Mapping[str, int], place: Place | None) -> Block | None:
        if self._fits(needs):
            kept = self._reserved and any(self._is_before(pool, place) for pool in needs)
            return Block.POOL if kept else None
        if place is not None and all(weight <= self._pools.get(pool, 0) for pool, weight in needs.items()):
            self._reserve(needs, place, job)
        return Block.POOL

    def _fits(self, needs: Mapping[str, int]) -> bool:
        return all(self._taken_of_pool[pool] + weight <= self._pools[pool] for pool, weight in needs.items())

    def _is_before(self, pool: str, place: Place | None) -> bool:
        """Tell whether a pool is kept for a run that stands before a place."""
        kept = self._reserved.get(pool)
        return kept is not None and (place is None or (kept[0] < place and kept[0][1] != place[1]))

    def _reserve(self, needs: Iterable[str], place: Place, job: str) -> None:
        for pool in needs:
            if not self._is_before(pool, place):
                self._reserved[pool] = (place, job)

    @property
    def kept_for(self) -> dict[str, str]:
        """The runs for which pools are kept, with their jobs."""
        return {place[1]: job for place, job in self._reserved.values()} if self._reserved else {}

    def keep_no_more(self, run: str) -> None:
        """Keep no pool for a run any more."""
        self._reserved = {pool: kept for pool, kept in self._reserved.items() if kept[0][1] != run}

    def may_take(self, lane: Lane) -> bool:
        """Tell whether a run of a lane may have a free slot."""
        return self._shares is None or self._shares.may_take(lane)

    def has_own(self, lane: Lane) -> bool:
        """Tell whether a slot is free that is kept for a lane."""
        return self._shares is not None and self._shares.has_own(lane)

    def room_of(self, job: str) -> Room:
        """Return the room for runs of a job: at its own limit, or at that of its pools that has the least."""
        rooms = [Room(self.taken_by(job), self._limits.get(job))]
        for pool, weight in self._needs.get(job, {}).items():
            limit = self._pools[pool]
            most, left = limit // weight, max(limit - self._taken_of_pool[pool], 0) // weight
            kept = self._reserved.get(pool)
            rooms.append(Room(most if kept is not None and kept[1] != job else most - left, most))
        return min(rooms, key=lambda room: (room.is_free, room.is_spare))

    # Who runs

    def take(self, run: str, job: str, lane: Lane = Lane.LIVE, key: str | None = None) -> None:
        """Count one more run of a job, whether there is room or not."""
        if self._shares is not None:
            self._shares.take(lane)
        self.taken += 1
        self._taken_by[job] = self._taken_by.get(job, 0) + 1
        held = self._held[run] = _Held(job, key, lane, False, {})
        if self._per_key or self._needs:
            self._count(held)
        if self._reserved:
            self.keep_no_more(run)

    def give(self, run: str) -> Mapping[str, int]:
        """Count a run no more; return what it gives back of which pools. Those are kept for nobody then."""
        held = self._held.pop(run)
        if self._shares is not None:
            self._shares.give(held.lane)
        self.taken -= 1
        left = self._taken_by[held.job] - 1
        if left:
            self._taken_by[held.job] = left
        else:
            del self._taken_by[held.job]
        pools = held.pools
        if held.keyed or pools:
            self._uncount(held)
            for pool in pools if self._reserved else ():
                self._reserved.pop(pool, None)
        return pools

    def _count(self, held: _Held) -> None:
        if held.job in self._per_key:
            held.keyed = True
            place = (held.job, held.key)
            self._taken_of[place] = self._taken_of.get(place, 0) + 1
        held.pools = self._needs.get(held.job, {})
        for pool, weight in held.pools.items():
            self._taken_of_pool[pool] += weight

    def _uncount(self, held: _Held) -> None:
        if held.keyed:
            held.keyed = False
            place = (held.job, held.key)
            left = self._taken_of[place] - 1
            if left:
                self._taken_of[place] = left
            else:
                del self._taken_of[place]
        for pool, weight in held.pools.items():
            self._taken_of_pool[pool] -= weight

    def _count_anew(self, job: str) -> None:
        """Count what runs of a job by what the job is now."""
        for held in self._held.values():
            if held.job == job:
                self._uncount(held)
                self._count(held)

    # What is said

    def shortage(self, job: str, key: str | None = None, place: Place | None = None) -> Shortage | None:
        """Return the limit that keeps a run of a job waiting; None where it may start."""
        if (limit := self._limits.get(job)) is not None and self.taken_by(job) >= limit:
            held = self._holding(lambda held: held.job == job)
            return Shortage(block=Block.JOB, name=job, taken=len(held), limit=limit, holders=held)
        if (most := self._per_key.get(job)) is not None and (taken := self.taken_of(job, key)) >= most:
            held = self._holding(lambda held: held.job == job and held.key == key and held.keyed)
            return Shortage(block=Block.KEY, name=key or "", taken=taken, limit=most, holders=held)
        for pool, weight in self._needs.get(job, {}).items():
            before = self._is_before(pool, place)
            if before or self._taken_of_pool[pool] + weight > self._pools[pool]:
                return Shortage(
                    block=Block.POOL, name=pool, taken=self._taken_of_pool[pool], limit=self._pools[pool],
                    needs=weight, holders=tuple(self.holders(pool=pool)),
                    kept_for=self._reserved[pool][0][1] if before else None,
                )  # fmt: skip
        if self.taken >= self.most:
            return Shortage(
                block=Block.ENGINE, name=ENGINE_POOL, taken=self.taken, limit=self.most, holders=tuple(self._held)
            )
        return None

    def _holding(self, counts: Callable[[_Held], bool]) -> tuple[str, ...]:
        return tuple([run for run, held in self._held.items() if counts(held)])

    def said_of_wait(self, job: str, key: str | None = None) -> str:
        """Say what a run of a job that may not start waits for."""
        block = self.blocks(job, key)
        if block is Block.KEY:
            return f"a slot of job {job} for {key}"
        if block is Block.POOL:
            found = self.shortage(job, key)
            return f"pool {found.name}" if found is not None else f"the pools of job {job}"
        return f"a slot of job {job}" if block is Block.JOB else "a slot of the engine"


MOST_HOLDERS = 3
"""So many of the runs that hold what another one waits for are named."""


def said_of_shortage(shortage: Shortage) -> str:
    """Say which limit a run waits for, how much of it is taken, and by whom."""
    of = {
        Block.ENGINE: "the engine",
        Block.JOB: f"job {shortage.name}",
        Block.KEY: f"key {shortage.name!r}" if shortage.name else "its key",
        Block.POOL: f"pool {shortage.name}",
    }[shortage.block]
    if shortage.needs > shortage.limit:
        return f"waits for {of}, and needs {shortage.needs} of it: it has {shortage.limit}"
    text = f"waits for {of}: {shortage.taken} of {shortage.limit} taken"
    if shortage.holders:
        named = ", ".join(map(str, shortage.holders[:MOST_HOLDERS]))
        more = len(shortage.holders) - MOST_HOLDERS
        text += f" by {'run' if len(shortage.holders) == 1 else 'runs'} {named}" + (f" and {more} more" * (more > 0))
    if shortage.needs > 1:
        text += f"; it needs {shortage.needs}"
    if shortage.kept_for is not None:
        text += f"; the rest is kept for run {shortage.kept_for}, which is before it"
    return text
