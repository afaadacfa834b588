"""Triggers: on this source, when that holds, run this job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine.events import Event

PRIORITIES = {"low": 2, "normal": 5, "high": 8, "critical": 9}
"""The named priorities; the others are the numbers 0 (least) to 9 (most urgent)."""

LOWEST_PRIORITY, NORMAL_PRIORITY, HIGH_PRIORITY, HIGHEST_PRIORITY = 0, 5, 8, 9


GATES = frozenset({"debounce", "pause"})
"""The gates that a manual fire may leave out."""


class TriggerState(StrEnum):
    """Where a trigger stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    COMPLETED = "completed"
    """Its timer has no further due instant."""


class SharedSource(Struct, frozen=True, kw_only=True):
    """A source or timer with a name, for several triggers.

    `id` is that of the source, under which its keys and cursor are kept; None for a timer, of which each trigger
    has its own.
    """

    name: str
    id: str | None
    on: Any
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""


class Pause(Struct, frozen=True, kw_only=True):
    """Since when a trigger runs nothing, until when (None: until somebody resumes it), and why."""

    reason: str
    since: datetime
    until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Tell whether the trigger is paused at that instant."""
        return self.until is None or at < self.until

    def said_of(self, trigger: str) -> str:
        """Say that a trigger is paused, until when, and why."""
        until = "" if self.until is None else f" until {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return f"trigger {trigger} is paused{until}{self.reason and ': '}{self.reason}"


Judge = Callable[[Event], Any]
"""An application's function where a CEL expression may stand: it gets the event, with the data as the trigger
merges it, answers at once, and changes nothing."""


class Debounce(Struct, frozen=True, kw_only=True):
    """Gather events that come close together into one run.

    The run starts when no further event came for `wait_s`, and at the latest `max_wait_s` after the first
    (None: no bound). Events with different values of `key`, a CEL expression or a function, are gathered apart.
    """

    wait_s: float
    max_wait_s: float | None = None
    key: str | Judge | None = None


class Mode(StrEnum):
    """Whether an adaptive interval is changed, or it is only said what it would be."""

    ON = "on"
    SHADOW = "shadow"


class Adaptive(Struct, frozen=True, kw_only=True):
    """By what a trigger's interval is adapted, and how far; see `engine.decide.adaptive` for the law.

    - `min_s`, `max_s`: the shortest and the longest interval.
    - `success_rate_min`, `duration_max_s`, `cpu_max`, `memory_max`, `load_max`: limits, None for none. CPU and memory
      are parts of the machine's, 0 to 1; load is that of one CPU.
    - `volume`: the name of an output of the job, whose mean is led to `volume_target`.
    - `step`: no change is by more than this factor; `hold`: nor comes one before so many runs after the last.
    """

    min_s: float
    max_s: float
    success_rate_min: float | None = None
    duration_max_s: float | None = None
    cpu_max: float | None = None
    memory_max: float | None = None
    load_max: float | None = None
    volume: str | None = None
    volume_target: float | None = None
    step: float = 1.5
    hold: int = 3
    mode: Mode = Mode.ON

    @property
    def asks_machine(self) -> bool:
        """Whether it has to be known how busy the machine is."""
        return any(limit is not None for limit in (self.cpu_max, self.memory_max, self.load_max))


class Trigger(Struct, frozen=True, kw_only=True):
    """A rule that turns events of one source into runs of one job.

    - `source`: the id of its source; triggers with equal sources share one.
    - `on`: the source's settings: an `engine.plugin.Source` or `engine.plugin.Timer`.
    - `schedule`: for one on a timer, when it comes due: an `engine.decide.schedule.Schedule`; see `schedule_of` there.
    - `shared`: the source that it names, where it does not have one of its own; it then works only while that does.
    - `filter`: a CEL expression that must be true, or a function; None lets everything pass.
    - `priority`: what its runs have when the event asks for nothing; `priority_max` bounds what may be asked.
    - `data`: fixed values, or a function that gives them; they win over the event's; `defaults`: fill what the
      event's data lacks, text values may hold `{{ CEL }}`.
    - `adaptive`: how the interval of its timer or polling source follows what comes of its runs; None: it does not.
    """

    name: str
    job: str
    source: str
    on: Any
    schedule: Any = None
    shared: SharedSource | None = None
    filter: str | Judge | None = None
    debounce: Debounce | None = None
    adaptive: Adaptive | None = None
    priority: int = NORMAL_PRIORITY
    priority_max: int = HIGH_PRIORITY
    data: Mapping[str, Any] | Judge | None = None
    defaults: dict[str, Any] | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""

    def why_disabled(self) -> str | None:
        """Say, after its name, why it does not work; None where it does."""
        if not self.enabled:
            return "is disabled"
        if self.shared is not None and not self.shared.enabled:
            return f"is disabled, as its source {self.shared.name} is"
        return None

    @property
    def works(self) -> bool:
        """Whether it is enabled, and so is its source."""
        return self.why_disabled() is None
