"""Pools: the limits that jobs share and that of the engine, with what overrides them while it runs.

An override outlives the engine: it holds until it is reset. What runs when a limit is made smaller goes on; nothing
starts until there is room again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import anyio
import msgspec
from msgspec import Struct

from engine.clock import Clock, rfc3339
from engine.decide.lanes import starved
from engine.decide.limits import ENGINE_POOL, HIGHEST_LIMIT, Shortage, Slots, said_of_shortage
from engine.errors import InvalidRequest, NotFound
from engine.jobs import Job
from engine.journal import Journal
from engine.runs import Lane, Run, RunState
from engine.store.base import Store
from engine.store.changes import Accept, Memory

log = logging.getLogger("engine.pools")

POOLS_SOURCE = "engine:pools"
"""Under this id the store remembers the overrides, by the names of the pools."""

MOST_POOLS = 10_000


class Override(Struct, frozen=True, kw_only=True):
    """The limit that holds in the place of the configured one: since when, by whom and why."""

    limit: int
    since: datetime
    reason: str
    who: str = ""


class Taking(Protocol):
    """What pools need of dispatch."""

    @property
    def slots(self) -> Slots:
        """Who has slots, and how much of which pools."""
        ...

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name."""
        ...

    def job_of(self, run_id: str) -> str | None:
        """Return the job of a run that has a slot."""
        ...

    def shortage(self, run: Run) -> Shortage | None:
        """Return the limit that a run that is ready waits for."""
        ...

    def resize(self, *, concurrency: int | None = None, pools: Mapping[str, int] | None = None) -> None:
        """Have other limits from now on."""
        ...


class Pools:
    """Shows the pools, and changes their limits. `configured` are those of the configuration, the engine's included.

    `kept` are the slots of the engine that are kept for lanes.
    """

    def __init__(
        self, clock: Clock, journal: Journal, store: Store, *, concurrency: int, pools: Mapping[str, int],
        kept: Mapping[Lane, int],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._configured = {ENGINE_POOL: concurrency, **pools}
        self._kept = kept
        self._overrides: dict[str, Override] = {}
        self._turn = anyio.Lock()
        self.dispatch: Taking
        """It is put here before anything is asked."""

    async def load(self) -> None:
        """Take up the overrides that are stored."""
        found = await self._store.memory(POOLS_SOURCE, after=None, limit=MOST_POOLS)
        for name, value in found.items():
            # One of a pool that is configured no more waits until there is one of that name again.
            self._overrides[name] = msgspec.convert(value, Override)
        engine = self._overrides.get(ENGINE_POOL)
        if engine is not None and starved(engine.limit, self._kept):
            log.warning(
                "The override of the engine's slots to %d keeps lanes from all of them, as the configuration is now: "
                "it does not hold", engine.limit, extra={"action": "override_ignored"},
            )  # fmt: skip
            del self._overrides[ENGINE_POOL]

    def configure(self, *, concurrency: int, pools: Mapping[str, int]) -> None:
        """Take in what another configuration says; what overrides it stays."""
        configured = {ENGINE_POOL: concurrency, **pools}
        if configured != self._configured:
            self._configured = configured
            self.dispatch.resize(concurrency=self.limit(ENGINE_POOL), pools=self.limits())

    def limit(self, name: str) -> int:
        """Return how much a pool holds now: as it is configured, or what overrides that."""
        override = self._overrides.get(name)
        return self._configured[name] if override is None else override.limit

    def limits(self) -> dict[str, int]:
        """Return how much each pool holds now, without that of the engine."""
        return {name: self.limit(name) for name in self._configured if name != ENGINE_POOL}

    async def views(self) -> list[dict[str, Any]]:
        """Return all pools as the API shows them, the engine's first. Raises StoreUnavailable."""
        queued = await self._store.ahead(lanes=frozenset(Lane), before=None)
        return [self._view(name, queued) for name in self._configured]

    async def view(self, name: str) -> dict[str, Any]:
        """Return one pool. Raises NotFound and StoreUnavailable."""
        self._find(name)
        return self._view(name, await self._store.ahead(lanes=frozenset(Lane), before=None))

    async def change(self, name: str, limit: int, *, reason: str, who: str = "") -> dict[str, Any]:
        """Have a pool hold another amount, durably, until it is reset; 0 lets nothing start that needs it.

        `engine` are the slots of the engine, of which there is one at least. Raises NotFound, InvalidRequest and
        StoreUnavailable.
        """
        self._find(name)
        if not (name == ENGINE_POOL) <= limit <= HIGHEST_LIMIT:
            raise InvalidRequest(f"a limit is {int(name == ENGINE_POOL)} to {HIGHEST_LIMIT:,}")
        if name == ENGINE_POOL and (lanes := starved(limit, self._kept)):
            raise InvalidRequest(f"the slots that are kept ([engine] reserve) leave none of {limit} to {lanes[0]} runs")
        override = Override(limit=limit, since=self._clock.now(), reason=reason, who=who)
        await self._store_override(name, override)
        log.info(
            "Pool %s holds %d in the place of %d (by %s): %s", name, limit, self._configured[name], who or "hand",
            reason, extra={"action": "pool_changed", "pool": name, "by": who},
        )  # fmt: skip
        return await self.view(name)

    async def reset(self, name: str, *, who: str = "") -> dict[str, Any]:
        """Have a pool hold what is configured, durably. Raises NotFound and StoreUnavailable."""
        self._find(name)
        if name in self._overrides:
            await self._store_override(name, None)
            log.info("Pool %s holds %d again, as configured (by %s)", name, self._configured[name], who or "hand",
                     extra={"action": "pool_reset", "pool": name, "by": who})  # fmt: skip
        return await self.view(name)

    async def _store_override(self, name: str, override: Override | None) -> None:
        value = None if override is None else msgspec.to_builtins(override)
        # What is durable holds, also where whoever asked is gone; one after the other, as they are stored.
        with anyio.CancelScope(shield=True):
            async with self._turn:
                await self._journal.submit(Accept(entries=(), memory=Memory(source=POOLS_SOURCE, values={name: value})))
                if override is None:
                    self._overrides.pop(name, None)
                else:
                    self._overrides[name] = override
                if name == ENGINE_POOL:
                    self.dispatch.resize(concurrency=self.limit(name))
                else:
                    self.dispatch.resize(pools={name: self.limit(name)})

    def _find(self, name: str) -> None:
        if name not in self._configured:
            raise NotFound(f"there is no pool {name}; there are {', '.join(self._configured)}")

    def _view(self, name: str, queued: Mapping[str, int]) -> dict[str, Any]:
        slots, jobs = self.dispatch.slots, self.dispatch.jobs
        if name == ENGINE_POOL:
            users, taken, held = dict.fromkeys(sorted(jobs), 1), slots.taken, slots.holders()
        else:
            users = {job: slots.needs(job)[name] for job in sorted(slots.users(name))}
            taken, held = slots.taken_of_pool(name), slots.holders(pool=name)
        override = self._overrides.get(name)
        return {
            "name": name, "limit": self.limit(name), "configured": self._configured[name], "taken": taken,
            "queued": sum(queued.get(job, 0) for job in users), "jobs": users,
            "runs": [{"id": run, "job": self.dispatch.job_of(run), "takes": takes} for run, takes in held.items()],
            "override": None if override is None else {
                "limit": override.limit, "since": rfc3339(override.since), "reason": override.reason,
                "who": override.who,
            },
        }  # fmt: skip

    def waits_for(self, run: Run) -> str | None:
        """Say which limit a run that is ready waits for, and who has it; None where it waits for none."""
        if run.state is not RunState.QUEUED:
            return None
        shortage = self.dispatch.shortage(run)
        return None if shortage is None else said_of_shortage(shortage)
