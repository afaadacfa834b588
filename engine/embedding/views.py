"""What a program sees of its triggers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.decide.joins import JoinWindow
from engine.jobs import Job
from engine.operations import state_of
from engine.triggers import Pause, Trigger, TriggerState


class JoinView(Struct, frozen=True, kw_only=True):
    """A join that waits: its run, the value of its key, and until when it waits.

    `has` are the ids of the events that it has by now, by input, and `missing` the inputs that it waits for.
    """

    run: str
    key: str
    until: datetime
    has: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]


class TriggerView(Struct, frozen=True, kw_only=True):
    """A trigger as it stands.

    - `on`: its source or timer, an instance of the plugin's class; `source` the id under which its events come,
      `shared` the name of its source where it stands in `[sources]`.
    - `state`: active, paused, disabled, quarantined or completed, and `state_reason` why it is not active. `paused`
      says since when, until when and why, where it is.
    - `inputs`: the names of its sources, where it is on several; `joins`: the joins that wait for some of them.
    - `next_at`: the next due instant of a timer; None for other sources, and while the engine does not run.
    - `adaptive`: how its interval is adapted, as the API shows it; None where it is not, and while the engine does not
      run.
    - `guards`: its breaker, the quarantine that holds, and when an event is expected, as the API shows them; None while
      the engine does not run.
    - `defined_in`: the file and line where it stands.
    """

    name: str
    job: str
    on: Any
    source: str
    shared: str | None
    state: TriggerState
    state_reason: str | None
    enabled: bool
    paused: Pause | None
    next_at: datetime | None
    inputs: tuple[str, ...]
    joins: tuple[JoinView, ...]
    adaptive: Mapping[str, Any] | None
    guards: Mapping[str, Any] | None
    priority: int
    description: str
    tags: tuple[str, ...]
    defined_in: str


def view_of(
    trigger: Trigger, *, job: Job | None, pause: Pause | None = None, next_at: datetime | None = None,
    completed: str | None = None, adaptive: Mapping[str, Any] | None = None, guards: Mapping[str, Any] | None = None,
    joins: Iterable[JoinWindow] = (),
) -> TriggerView:  # fmt: skip
    """Return a trigger as it stands; `job` is its job, where that is there already."""
    quarantine = None if guards is None or guards["quarantine"] is None else guards["quarantine"]["reason"]
    state, why = state_of(trigger, pause, completed=completed, job=job, quarantine=quarantine)
    return TriggerView(
        name=trigger.name, job=trigger.job, on=trigger.on, source=trigger.source,
        shared=None if trigger.shared is None else trigger.shared.name, state=state, state_reason=why,
        enabled=trigger.enabled, paused=pause, next_at=next_at, adaptive=adaptive, guards=guards,
        inputs=tuple(one.name for one in trigger.inputs), joins=tuple(map(_view_of_join, joins)),
        priority=trigger.priority,
        description=trigger.description, tags=trigger.tags, defined_in=trigger.defined_in,
    )  # fmt: skip


def _view_of_join(window: JoinWindow) -> JoinView:
    return JoinView(
        run=window.run, key=window.key, until=window.closes_at or window.due_at,
        has={name: tuple(events) for name, events in window.used.items()}, missing=tuple(window.missing),
    )  # fmt: skip
