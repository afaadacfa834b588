"""The whole trace of an event, as a tree: whom it met, what ran for it, and what followed from that."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from engine.events import Outcome, at_first
from engine.following import JOB_SOURCE
from engine.http.operations import Operations
from engine.runs import ENDED, Run
from engine.store.base import StoredEvent

MOST_NODES = 80
DEEPEST = 6
HIGHEST = 8


class Node(Struct, kw_only=True):
    """One thing in the tree: an event, what a trigger made of it, or a run.

    `more` is how many there are besides its children that the tree has no room for.
    """

    kind: str
    id: str
    label: str
    state: str = ""
    told: str = ""
    at: datetime | None = None
    took_s: float | None = None
    children: list[Node] = []
    more: int = 0
    here: bool = False

    @property
    def depth(self) -> int:
        """How many stand one after the other from here on."""
        return 1 + max((child.depth for child in self.children), default=0)


class _Room(Struct):
    left: int = MOST_NODES


async def tree_of(operations: Operations, stored: StoredEvent) -> Node:
    """Return the tree of an event; raise StoreUnavailable."""
    return await _event(operations, stored, 0, _Room(), here=True)


async def ancestors_of(operations: Operations, stored: StoredEvent) -> list[Node]:
    """Return what an event follows from, the first first: each run, and the event that it was for."""
    found: list[Node] = []
    cause = stored.event.cause
    while cause is not None and len(found) < 2 * HIGHEST:
        run = await operations.store.run(cause.run)
        if run is None:
            break
        found.append(_of_run(run))
        above = await operations.store.event(run.event)
        if above is None:
            break
        found.append(_of_event(above))
        cause = above.event.cause
    return found[::-1]


async def _event(operations: Operations, stored: StoredEvent, depth: int, room: _Room, *, here: bool = False) -> Node:
    node = _of_event(stored)
    node.here = here
    for outcome in stored.outcomes:
        if room.left <= 0:
            node.more += 1
            continue
        room.left -= 1
        node.children.append(await _outcome(operations, outcome, depth, room))
    return node


async def _outcome(operations: Operations, outcome: Outcome, depth: int, room: _Room) -> Node:
    node = Node(
        kind="trigger", id=outcome.trigger or "", label=outcome.trigger or "no trigger", state=outcome.outcome.value,
        told=at_first(outcome.reason), children=[],
    )  # fmt: skip
    run = None if outcome.run is None else await operations.store.run(outcome.run)
    if run is not None:
        node.children.append(await _run(operations, run, depth, room))
    return node


async def _run(operations: Operations, run: Run, depth: int, room: _Room) -> Node:
    node = _of_run(run)
    if run.state not in ENDED or depth >= DEEPEST or room.left <= 0:
        return node
    followed = await operations.store.find_event(f"{JOB_SOURCE}:{run.job}", run.id)
    stored = None if followed is None else await operations.store.event(followed.event)
    if stored is not None:
        room.left -= 1
        node.children.append(await _event(operations, stored, depth + 1, room))
    return node


def _of_event(stored: StoredEvent) -> Node:
    event = stored.event
    return Node(
        kind="event", id=event.id, label=event.type, told=event.subject or "", at=event.received_at, children=[]
    )  # fmt: skip


def _of_run(run: Run) -> Node:
    took_s = None
    if run.started_at is not None and run.finished_at is not None:
        took_s = (run.finished_at - run.started_at).total_seconds()
    return Node(
        kind="run", id=run.id, label=run.job, state=run.state.value, told=run.reason, at=run.started_at, took_s=took_s,
        children=[],
    )  # fmt: skip
