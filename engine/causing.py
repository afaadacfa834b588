"""What caused an event: the run from which it came, and how long the chain of runs before that is.

It is known of the end of a run, and of what a run's own code hands in within this process. Of what comes from outside
it is claimed, by the `traceparent` that a run's processes have (https://www.w3.org/TR/trace-context/): its trace id is
the run's id. Of what is known and what is claimed the longer chain counts.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar

from engine.events import Cause
from engine.runs import Run
from engine.store.base import Store

CURRENT: ContextVar[Run | None] = ContextVar("engine_run", default=None)
"""The run whose code is executing, in this process."""

MOST_NAMED = 5
"""So many triggers of a chain are kept: the last ones."""

MOST_KNOWN = 1_000

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-|\Z)")


def caused_by(run: Run) -> Cause:
    """Return the cause of an event that comes from a run."""
    before = run.cause
    hops, via = (0, ()) if before is None else (before.hops, before.via)
    return Cause(run=run.id, hops=hops + 1, via=(*via, run.trigger)[-MOST_NAMED:])


def deeper(one: Cause | None, other: Cause | None) -> Cause | None:
    """Return the one with the longer chain."""
    if one is None or other is None:
        return one or other
    return other if other.hops > one.hops else one


def run_of(traceparent: str) -> str | None:
    """Return the id of the run that a traceparent may be of; None where it can be of none.

    Ids are UUIDs of version 7, which the trace ids of others, random numbers, are one time in 64.
    """
    found = _TRACEPARENT.match(traceparent)
    if found is None:
        return None
    trace = found["trace"]
    if trace[12] != "7" or trace[16] not in "89ab":
        return None
    return f"{trace[:8]}-{trace[8:12]}-{trace[12:16]}-{trace[16:20]}-{trace[20:]}"


class Causes:
    """Finds the causes that senders claim; the runs found last are known.

    `named` says, where traces are made, which run a traceparent is of: its trace is not the run's own then.
    """

    def __init__(self, store: Store, named: Callable[[str], str | None] | None = None) -> None:
        self._store = store
        self._named = named
        self._known: OrderedDict[str, Cause] = OrderedDict()

    async def find(self, traceparent: str | None) -> Cause | None:
        """Return the cause of what is handed in now, and claims a traceparent, where it has one.

        A claim of a run that is not there is none. Raises StoreUnavailable.
        """
        running = CURRENT.get()
        own = None if running is None else caused_by(running)
        run_id = None
        if traceparent is not None:
            run_id = (None if self._named is None else self._named(traceparent)) or run_of(traceparent)
        return own if run_id is None else deeper(own, await self._of_run(run_id))

    async def _of_run(self, run_id: str) -> Cause | None:
        cause = self._known.get(run_id)
        if cause is None:
            run = await self._store.run(run_id)
            if run is None:
                return None
            cause = caused_by(run)
            if run.window is not None:
                return cause  # it gathers, and its chain may still grow
            self._known[run_id] = cause
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(run_id)
        return cause
