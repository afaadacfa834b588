"""What waits, and why: runs grouped by the reason, so that a thousand of them are one line."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from engine.http.operations import Operations
from engine.runs import Lane, Run, RunState
from engine.store.base import RunFilter

LOOKED_AT = 200
"""So many runs of each kind are looked at; what is beyond is counted with them, not told apart."""

NAMED = 4

_ORDER = (RunState.HELD, RunState.QUEUED, RunState.RETRYING, RunState.PENDING)


class Group(Struct, kw_only=True):
    """Runs that wait for the same.

    - `since`: since when the oldest of them is there; `due_at`: when the first of them goes on by itself.
    - `triggers`: how many there are of each trigger.
    """

    state: RunState
    code: str
    reason: str
    count: int = 0
    since: datetime
    due_at: datetime | None = None
    triggers: dict[str, int] = {}
    first: str = ""

    @property
    def named(self) -> list[str]:
        """The triggers that have most of them."""
        return sorted(self.triggers, key=lambda name: (-self.triggers[name], name))[:NAMED]

    @property
    def unnamed(self) -> int:
        """How many other triggers have some of them."""
        return max(len(self.triggers) - NAMED, 0)


class Waiting(Struct, frozen=True, kw_only=True):
    """All that waits: the groups, how many runs are in each state, and how many no group holds."""

    groups: list[Group]
    counts: dict[RunState, int]
    beyond: int

    @property
    def total(self) -> int:
        """How many runs wait in all."""
        return sum(self.counts.get(state, 0) for state in _ORDER)


async def waiting(operations: Operations, *, scoped: bool = False) -> Waiting:
    """Return what waits now, of the triggers in scope where it is `scoped`; raise StoreUnavailable."""
    found: dict[tuple[str, str, str], Group] = {}
    if scoped:  # where others stand in the line is not told
        ready = await operations.store.runs(RunFilter(states=frozenset({RunState.QUEUED})), limit=LOOKED_AT)
        known = None
        for run in ready:
            _add(found, run, "queued", run.reason, None)
    else:
        page = await operations.queue.page(limit=LOOKED_AT)
        made_up = await operations.queue.page(lane=Lane.BACKFILL, limit=LOOKED_AT)
        known = page.counts
        for run, standing in (*page.items, *made_up.items):
            reason = operations.pools.waits_for(run) or run.reason
            _add(found, run, "queued", reason, standing.expected_start_at)
    held = await operations.store.held(None, after=None, limit=LOOKED_AT)
    for run in held:
        _add(found, run, run.code, run.reason, None)
    for _, run in await operations.store.due(after=None, limit=LOOKED_AT):
        if run.state is not RunState.HELD:
            _add(found, run, run.code, run.reason, run.due_at)
    groups = sorted(found.values(), key=lambda one: (_ORDER.index(one.state), -one.count, one.since))
    counts = {state: _sum(one for one in groups if one.state is state) for state in _ORDER}
    if known is not None:
        counts = {state: known.get(state, 0) for state in _ORDER}
    return Waiting(groups=groups, counts=counts, beyond=max(sum(counts.values()) - _sum(groups), 0))


def _add(found: dict[tuple[str, str, str], Group], run: Run, code: str, reason: str, due_at: datetime | None) -> None:
    state = RunState.QUEUED if code == "queued" else run.state
    # A retry's reason names its own attempt and time: those of one trigger are told together.
    told = run.trigger if state in (RunState.RETRYING, RunState.PENDING) else reason.partition(";")[0]
    key = (state, code, told)
    group = found.get(key)
    if group is None:
        group = found[key] = Group(
            state=state, code=code, reason=reason, since=run.created_at, triggers={}, first=run.id
        )
    group.count += 1
    group.since = min(group.since, run.created_at)
    group.triggers[run.trigger] = group.triggers.get(run.trigger, 0) + 1
    if due_at is not None and (group.due_at is None or due_at < group.due_at):
        group.due_at = due_at


def _sum(groups: Iterable[Group]) -> int:
    return sum(group.count for group in groups)
