"""What is handed on when a timer comes due: the event of the instant that is run, and the runs of those that are not.

Missed ones begin and end as missed, and say why.
"""

from __future__ import annotations

from datetime import datetime

from engine.clock import rfc3339
from engine.decide.firing import Firing
from engine.decide.misfire import ON_TIME_S, Due, Gap, late_limit_s
from engine.decide.schedule import OF_INPUT, Schedule, owner_of
from engine.events import Event
from engine.ids import new_id
from engine.runs import Origin, Run, RunState, Step
from engine.timers.state import State
from engine.triggers import CatchUp, Pause, Trigger
from engine.units import format_duration, format_span

EVENT_TYPE = "engine.timer"


def firing_of(state: State, found: Due, now: datetime) -> Firing:
    """Return what is handed on of what a timer is due now; raise what the timer does."""
    event = None
    if found.runs:
        at = rfc3339(found.runs[0])
        event = Event(
            type=EVENT_TYPE, subject=owner_of(state.trigger.name), time=found.runs[0], key=at,
            data={"scheduled_for": at},
        )  # fmt: skip
    reason = _late(state, found, now)
    in_a_row = bool(reason) or bool(state.backlog) or len(found.runs) > 1
    return Firing(
        source=state.source,
        event=event,
        cursor=rfc3339(found.first),
        missed=tuple(_missed_runs(state.trigger, state.schedule, found, now, state.pause)),
        reason=reason,
        caught_up=in_a_row and state.trigger.misfire.catch_up is CatchUp.ALL,
    )


def _missed_runs(trigger: Trigger, schedule: Schedule, found: Due, now: datetime, pause: Pause | None) -> list[Run]:
    """Return a run for each missed instant, and one for all that lie before them.

    `pause` is the one in which the trigger was, as far as it is known.
    """
    if found.gap is None and not found.missed:
        return []
    runs = []
    if found.gap is not None:
        runs.append(_gap_run(trigger, schedule, found.gap, now, pause))
    for instant in found.missed:
        meanwhile, why = _meanwhile(trigger, instant, pause), _why(trigger, schedule, instant, now)
        reason = f"missed: due at {rfc3339(instant)}, while {meanwhile}; {why}"
        runs.append(_run(trigger, instant, rfc3339(instant), now, reason))
    return runs


def _late(state: State, found: Due, now: datetime) -> str:
    """Say how late the instant that is run is, and why; nothing where it is on time."""
    if not found.runs:
        return ""
    late_s = (now - state.schedule.fires_at(found.runs[0])).total_seconds()
    if late_s <= ON_TIME_S:
        return ""
    return f"{format_span(late_s)} late, as {_meanwhile(state.trigger, found.runs[0], state.pause)}"


def _gap_run(trigger: Trigger, schedule: Schedule, gap: Gap, now: datetime, pause: Pause | None) -> Run:
    count = f"{'more than ' if gap.more else ''}{gap.count:,}"
    first, last = rfc3339(gap.first), rfc3339(gap.last)
    meanwhile, why = _meanwhile(trigger, gap.last, pause), _why(trigger, schedule, gap.last, now)
    reason = f"missed: {count} due instants from {first} to {last}, while {meanwhile}; {why}"
    outputs = {"instants": gap.count, "first": first, "last": last}
    return _run(trigger, gap.first, f"{first}/{last}", now, reason, outputs)


def _meanwhile(trigger: Trigger, instant: datetime, pause: Pause | None) -> str:
    if pause is not None and instant >= pause.since:
        return pause.said_of(owner_of(trigger.name)).replace(" is paused", " was paused", 1)
    return "the engine was away or busy"


def _why(trigger: Trigger, schedule: Schedule, instant: datetime, now: datetime) -> str:
    rule, limit_s = trigger.misfire, late_limit_s(trigger.misfire)
    if limit_s is not None and (now - schedule.fires_at(instant)).total_seconds() > limit_s:
        if rule.catch_up is CatchUp.NONE:
            return f"what is more than {format_duration(limit_s)} late is not caught up on"
        return f"that is longer ago than the grace of {format_duration(limit_s)}"
    if rule.catch_up is CatchUp.ALL:
        return f"only the newest {rule.max:,} are caught up on"
    return "a later one is run"


def _run(
    trigger: Trigger, instant: datetime, key: str, now: datetime, reason: str, outputs: dict[str, object] | None = None
) -> Run:
    owner = owner_of(trigger.name)
    if owner != trigger.name:
        # Another of its inputs may be due at the same instant.
        key = f"{trigger.name.removeprefix(owner + OF_INPUT)} {key}"
    # The key is not the instant alone: one that a wrong clock made us miss may come again, and is run then.
    return Run(
        id=new_id(), job=trigger.job, trigger=owner, origin=Origin.SCHEDULE, key=f"missed {key}", event="",
        event_count=0, state=RunState.MISSED, code="missed", reason=reason, priority=trigger.priority, rank=0,
        created_at=now, scheduled_for=instant, finished_at=now, outputs=outputs,
        trace=(Step(at=now, state=RunState.MISSED, code="missed", reason=reason),),
    )  # fmt: skip
