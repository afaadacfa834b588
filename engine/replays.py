"""Replays and rehearsals: an event that is run again, and what an event would become if it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from engine.events import Event, Outcome
from engine.runs import Origin, Run

REPLAY_KEY = "replay "
"""The key of a replayed event, and of its runs, begins so; then come the id of the event of the first time, and one
for the request."""

RETRY_KEY = "retry "
"""So begins the key of the copies that a retried run is for."""


class Rehearsed(Struct, frozen=True, kw_only=True):
    """What an event would become at a trigger, with the gates that say so.

    - `run`: the run that would come of it, as it would be; None where none would.
    - `data`: what the job and the expressions would see; None where a default fails on this event.
    """

    event: Event
    outcome: Outcome
    run: Run | None = None
    data: Any = None


def replay_of(run: Run) -> str | None:
    """Return the id of the event that a run replays; None where it is no replay of one."""
    if run.origin is not Origin.REPLAY or not run.key.startswith(REPLAY_KEY):
        return None
    return run.key.removeprefix(REPLAY_KEY).partition(" ")[0]


def is_copy(event: Event, outcomes: Sequence[Outcome]) -> bool:
    """Tell whether an event is a copy that was made to run another one again."""
    key = event.key or ""
    return key.startswith((REPLAY_KEY, RETRY_KEY)) or any(one.code == "retried" for one in outcomes)
