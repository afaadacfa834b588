"""The order of the queue: priority first, and ageing so that nothing waits for ever.

A run's rank is the instant at which it became ready, moved earlier by `ageing_s` for each step of priority.
The queue starts the lowest rank first. A rank never changes while a run waits, so an index keeps the order
however long the queue is, and ageing costs nothing.

The bound: a run is overtaken only by runs that became ready less than `(9 - priority) * ageing_s` seconds
after it. With the default of one minute, a run of priority 0 is ahead of everything that came nine minutes
after it. (The rule is that of multilevel queues with linear ageing, with the ageing folded into the key.)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.clock import to_microseconds
from engine.errors import ExpressionError
from engine.triggers import HIGHEST_PRIORITY, LOWEST_PRIORITY, PRIORITIES

DEFAULT_AGEING_S = 60.0


def rank(ready_at: datetime, priority: int, ageing_s: float = DEFAULT_AGEING_S) -> int:
    """Return the place in the queue of a run that is ready at `ready_at`: lower is earlier (microseconds)."""
    return to_microseconds(ready_at) - priority * int(ageing_s * 1_000_000)


def priority_of(value: Any) -> int:
    """Return the priority that a template's value stands for: 0 to 9, or a name; raise ExpressionError for another."""
    if isinstance(value, str):
        named = PRIORITIES.get(value)
        if named is not None:
            return named
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 3 else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int and LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY:
        return value
    raise ExpressionError(f"{str(value)[:40]!r} is no priority: 0 to 9, {', '.join(PRIORITIES)}")


def effective(trigger_priority: int, asked: int | None, highest: int) -> int:
    """Return the priority of a run: what was asked for, or the trigger's own, at most `highest`.

    The bound holds for what others ask for; a trigger's own priority is its author's and stands.
    """
    if asked is None:
        return trigger_priority
    return min(max(asked, 0), max(highest, trigger_priority))
