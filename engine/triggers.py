"""Triggers: on this source, when that holds, run this job."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

PRIORITIES = {"low": 2, "normal": 5, "high": 8, "critical": 9}
"""The named priorities; the others are the numbers 0 (least) to 9 (most urgent)."""

LOWEST_PRIORITY, NORMAL_PRIORITY, HIGH_PRIORITY, HIGHEST_PRIORITY = 0, 5, 8, 9


class TriggerState(StrEnum):
    """Where a trigger stands."""

    ACTIVE = "active"
    DISABLED = "disabled"
    COMPLETED = "completed"
    """Its timer has no further due instant."""


class Debounce(Struct, frozen=True, kw_only=True):
    """Gather events that come close together into one run.

    The run starts when no further event came for `wait_s`, and at the latest `max_wait_s` after the first
    (None: no bound). Events with different values of the CEL expression `key` are gathered apart.
    """

    wait_s: float
    max_wait_s: float | None = None
    key: str | None = None


class Trigger(Struct, frozen=True, kw_only=True):
    """A rule that turns events of one source into runs of one job.

    - `source`: the id of its source; triggers with equal sources share one.
    - `on`: the source's settings: an `engine.plugin.Source` or `engine.plugin.Timer`.
    - `filter`: a CEL expression that must be true; None lets everything pass.
    - `priority`: what its runs have when the event asks for nothing; `priority_max` bounds what may be asked.
    - `data`: fixed values, they win over the event's; `defaults`: fill what the event's data lacks, text
    values
      may hold `{{ CEL }}`.
    """

    name: str
    job: str
    source: str
    on: Any
    filter: str | None = None
    debounce: Debounce | None = None
    priority: int = NORMAL_PRIORITY
    priority_max: int = HIGH_PRIORITY
    data: dict[str, Any] | None = None
    defaults: dict[str, Any] | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""
