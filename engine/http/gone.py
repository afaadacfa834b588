"""What is not there: whether it may have been removed after its time, and what is said then."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.problems import Problem
from engine.units import format_duration


async def not_there(call: Call, what: str, name: str) -> Problem:
    """Return the problem that tells of a run or an event of which there is none of that id: 404, or 410 where one may
    have been and was removed. Ids are in the order of time, so that can be told."""
    purged, keep = await call.operations.store.purged(), call.operations.config.store.keep
    last, kept = (purged.last_run, keep.runs) if what == "run" else (purged.last_event, keep.events)
    if name > last:
        return Problem(404, f"there is no {what} of that id")
    longer = "after its end" if what == "run" else "and as long as a run of it is open"
    sooner = "" if keep.disk is None else ", or less where [store] keep.disk is reached"
    return Problem(
        410, f"{what} {name} is gone, or never was; kept {format_duration(kept)} {longer}{sooner}", code="gone"
    )
