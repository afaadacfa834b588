"""Triggers: on this source, when that holds, run this job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.events import Event
from engine.jobs import RetryChange
from engine.redaction import Redaction

PRIORITIES = {"low": 2, "normal": 5, "high": 8, "critical": 9}
"""The named priorities; the others are the numbers 0 (least) to 9 (most urgent)."""

LOWEST_PRIORITY, NORMAL_PRIORITY, HIGH_PRIORITY, HIGHEST_PRIORITY = 0, 5, 8, 9


SHAPING = frozenset({"debounce", "batch", "throttle", "rate_limit", "dedupe"})
"""The gates that shape what events become."""

STARTING_GATES = frozenset({"conditions", "maintenance"})
"""Those of them that are asked when a run is about to start; its trace keeps which it passes by."""

GATES = SHAPING | {"pause", "quarantine"} | STARTING_GATES
"""The gates that a manual fire may leave out."""


class TriggerState(StrEnum):
    """Where a trigger stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    COMPLETED = "completed"
    """Its timer has no further due instant."""
    QUARANTINED = "quarantined"
    """Too many events came to it, or from its source: nothing runs until it is released."""


MAX_HOPS = 16
"""How long the chain of runs may be that caused an event, where nothing else is said."""


class Breaker(Struct, frozen=True, kw_only=True):
    """Where more than `limit` events come within `per_s` seconds, nothing runs until somebody releases it."""

    limit: int
    per_s: float


class Deadline(Struct, frozen=True, kw_only=True):
    """By when a trigger has to succeed: at a time of the day, in its zone, or so long after each due instant."""

    at: time | None
    after_s: float | None


class PayloadSchema(Struct, frozen=True, kw_only=True):
    """What an event's data has to look like: `text` is a JSON Schema, `name` that of its file, if it has one."""

    text: str
    name: str = ""


class SharedSource(Struct, frozen=True, kw_only=True):
    """A source or timer with a name, for several triggers.

    `id` is that of the source, under which its keys and cursor are kept; None for a timer, of which each trigger
    has its own. `schema` and `redaction` hold for all triggers on it.
    has its own. `breaker` counts its events, whatever triggers they meet, and one is
    expected every `expect_s`.
    """

    name: str
    id: str | None
    on: Any
    schema: PayloadSchema | None = None
    redaction: Redaction | None = None
    breaker: Breaker | None = None
    expect_s: float | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""


class PauseScope(StrEnum):
    """What a pause is of, the widest first."""

    ENGINE = "engine"
    TAG = "tag"
    TRIGGER = "trigger"


BY_ENGINE = "the engine"
"""Who made a pause that nobody asked for: a trigger failed too often."""


class Pause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Since when a trigger, all with a tag, or the whole engine runs nothing, and why.

    - `until`: its end; None: until somebody resumes it. `who` made it, as far as that is known.
    - `name`: that of the trigger, or the tag; empty for the engine.
    - `parts`: where several hold at once for one trigger, each of them; see `merged`.
    """

    reason: str
    since: datetime
    until: datetime | None = None
    who: str = ""
    scope: PauseScope = PauseScope.TRIGGER
    name: str = ""
    parts: tuple[Pause, ...] = ()

    def holds(self, at: datetime) -> bool:
        """Tell whether it holds at that instant."""
        return self.until is None or at < self.until

    @property
    def subject(self) -> str:
        """What is paused, in words."""
        return "the engine" if self.scope is PauseScope.ENGINE else f"{self.scope} {self.name}"

    def said(self) -> str:
        """Say what is paused, until when, and why."""
        if self.parts:
            return "; ".join(part.said() for part in self.parts)
        until = "" if self.until is None else f" until {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.subject} is paused{until}{self.reason and ': '}{self.reason}"

    def said_of(self, trigger: str) -> str:
        """Say why a trigger is paused: what holds for it, until when, and why."""
        own = self.scope is PauseScope.TRIGGER and not self.parts
        return (replace(self, name=trigger) if own else self).said()


def merged(pauses: Sequence[Pause]) -> Pause | None:
    """Return one pause that stands for all that hold for a trigger, the widest first: from the first to the last of
    them, with their reasons. None where none does."""
    if len(pauses) < 2:
        return pauses[0] if pauses else None
    ends = [pause.until for pause in pauses if pause.until is not None]
    first = pauses[0]
    return Pause(
        reason="; ".join(pause.reason for pause in pauses if pause.reason), since=min(pause.since for pause in pauses),
        until=max(ends) if len(ends) == len(pauses) else None, who=first.who, scope=first.scope, name=first.name,
        parts=tuple(pauses),
    )  # fmt: skip


Judge = Callable[[Event], Any]
"""An application's function where a CEL expression may stand: it gets the event, with the data as the trigger
merges it, answers at once, and changes nothing."""


class Edge(StrEnum):
    """When a debounce runs: at the end of what comes close together, at its beginning, or both."""

    TRAILING = "trailing"
    LEADING = "leading"
    BOTH = "both"


class Take(StrEnum):
    """What a run that gathered several events gets as its data.

    That of the last event or of the first, a list of all, or one object in which later values win (the first level).
    """

    LAST = "last"
    FIRST = "first"
    ALL = "all"
    MERGE = "merge"


class Debounce(Struct, frozen=True, kw_only=True):
    """Gather events that come close together into one run.

    The run starts when no further event came for `wait_s`, at the latest `max_wait_s` after the first (None: no
    bound), and at once with the event that makes `max_events` of them. Events with different values of `key`, a CEL
    expression or a function, are gathered apart.
    """

    wait_s: float
    max_wait_s: float | None = None
    max_events: int | None = None
    edge: Edge = Edge.TRAILING
    take: Take = Take.LAST
    key: str | Judge | None = None


class Batch(Struct, frozen=True, kw_only=True):
    """Gather `size` events into one run, or those that came within `wait_s` of the first.

    With `size_bytes`, it starts at once when their data is so much, as JSON, in all.
    """

    size: int
    wait_s: float
    size_bytes: int | None = None
    take: Take = Take.ALL
    key: str | Judge | None = None


class Use(StrEnum):
    """Which of the events that come by an input a join uses: the last of them, the first, or all."""

    LAST = "last"
    FIRST = "first"
    ALL = "all"


class Reset(StrEnum):
    """What ends a join: that all of its inputs have come, or that its window is over."""

    COMPLETE = "complete"
    WINDOW = "window"


class Join(Struct, frozen=True, kw_only=True):
    """One run for an event of each input of a trigger.

    A join begins with the first event and waits `window_s` for the others; what is incomplete then is not run. Events
    with different values of `key`, a CEL expression or a function, are joined apart. At most `max_open` joins of a
    trigger wait at once, each of at most `max_events` events.
    """

    window_s: float
    reset: Reset = Reset.COMPLETE
    key: str | Judge | None = None
    max_open: int = 1_000
    max_events: int = 1_000


class Input(Struct, frozen=True, kw_only=True):
    """One of several sources of a trigger, by a name.

    `source`, `on`, `schedule` and `shared` are as those of a trigger that has one source alone; `filter` says which of
    its events come by this input, `use` which of those a join uses.
    """

    name: str
    source: str
    on: Any
    schedule: Any = None
    shared: SharedSource | None = None
    filter: str | Judge | None = None
    use: Use = Use.LAST

    @property
    def works(self) -> bool:
        """Whether its source is enabled, where that is one with a name."""
        return self.shared is None or self.shared.enabled


class Rate(Struct, frozen=True, kw_only=True):
    """`limit` in `per_s` seconds, with `burst` at once after a rest, for each value of `key`."""

    limit: int
    per_s: float
    burst: int
    key: str | Judge | None = None


class Dedupe(Struct, frozen=True, kw_only=True):
    """Run one of the events that have an equal `key` and come within `window_s` of the first."""

    key: str | Judge
    window_s: float


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


class CatchUp(StrEnum):
    """Which of the due instants that passed while a timer could not run them are run."""

    LATEST = "latest"
    ALL = "all"
    NONE = "none"


MOST_CAUGHT_UP = 10_000
"""No trigger catches up on more due instants than these."""


class Misfire(Struct, frozen=True, kw_only=True):
    """What becomes of due instants that passed while the engine was away, busy or paused.

    - `catch_up`: the latest is run; or each, in order; or none but one that is still on time.
    - `grace_s`: what is later than that is missed. None is no limit, with `none` a minute: that is "on time".
    - `max`, `rate_per_s`: of `all`, only the newest so many are run, and so many a second.
    """

    catch_up: CatchUp = CatchUp.LATEST
    grace_s: float | None = None
    max: int = 100
    rate_per_s: float = 10.0


MISFIRE = Misfire()
"""What holds where a trigger says nothing."""


class Trigger(Struct, frozen=True, kw_only=True):
    """A rule that turns events of one source into runs of one job.

    - `source`: the id of its source; triggers with equal sources share one.
    - `on`: the source's settings: an `engine.plugin.Source` or `engine.plugin.Timer`.
    - `schedule`: for one on a timer, when it comes due: an `engine.decide.schedule.Schedule`; see `schedule_of` there.
    - `misfire`: for one on a timer, what becomes of due instants that it could not run in time.
    - `shared`: the source that it names, where it does not have one of its own; it then works only while that does.
    - `inputs`: where it is on several sources, each of them; `source` and `on` then only say so. `join`: it is run when
    all of them have come; None: for each event.
    - `preset`: the preset that it names; all that it has from there stands in the other fields.
    - `schema`: what an event's data has to look like; others are recorded as rejected. None: anything.
    - `breaker`: how many events may come before it is in quarantine; see docs/guards.md. None: any number.
    - `max_hops`: how long the chain of runs may be that caused an event; None: as the engine says.
    - `expect_s`: where no event comes for so long, people are told; None: they are not.
    - `deadline`: where it has not succeeded by then, people are told; None: it may take as long as it does.
    - `filter`: a CEL expression that must be true, or a function; None lets everything pass.
    - `dedupe`, `rate_limit`, `debounce` or `batch`, `throttle`: how its events are shaped, in this order; see
      docs/shaping.md. A throttle lets runs wait, a rate limit drops events.
    - `expires_s`: a run that has not begun so long after it was ready is ended as expired; None: it waits for ever.
    - `priority`: what its runs have when the event asks for nothing; `priority_max` bounds what may be asked.
    - `priority_from`: a template with CEL that gives it for each event; where that fails it is `priority`.
    - `max_waiting`: so many of its runs may wait; events that come then are dropped, and recorded. None: no limit.
    - `pause_after`: where so many of its runs fail one after the other, it pauses itself.
    - `timeout_s`, `retry`: what holds for its runs in the place of what its job says; None: as the job has it.
    - `data`: fixed values, or a function that gives them; they win over the event's; `defaults`: fill what the
      event's data lacks, text values may hold `{{ CEL }}`.
    - `conditions`: the conditions that its runs obey, besides those that all do; `hold_s`: how long a run waits for
    them; None: it does not, and is skipped.
    - `adaptive`: how the interval of its timer or polling source follows what comes of its runs; None: it does not.
    """

    name: str
    job: str
    source: str
    on: Any
    schedule: Any = None
    misfire: Misfire = MISFIRE
    shared: SharedSource | None = None
    inputs: tuple[Input, ...] = ()
    join: Join | None = None
    preset: str | None = None
    schema: PayloadSchema | None = None
    breaker: Breaker | None = None
    max_hops: int | None = None
    expect_s: float | None = None
    deadline: Deadline | None = None
    filter: str | Judge | None = None
    dedupe: Dedupe | None = None
    rate_limit: Rate | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    throttle: Rate | None = None
    expires_s: float | None = None
    adaptive: Adaptive | None = None
    conditions: tuple[str, ...] = ()
    hold_s: float | None = None
    priority: int = NORMAL_PRIORITY
    priority_from: str | None = None
    priority_max: int = HIGH_PRIORITY
    max_waiting: int | None = None
    timeout_s: float | None = None
    retry: RetryChange | None = None
    pause_after: int | None = None
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
        off = [one for one in self.inputs if not one.works]
        if off and (self.join is not None or len(off) == len(self.inputs)):
            names = ", ".join(dict.fromkeys(one.shared.name for one in off if one.shared is not None))
            return f"is disabled, as its source {names} is"
        return None

    @property
    def works(self) -> bool:
        """Whether it is enabled, and so is its source."""
        return self.why_disabled() is None

    @property
    def feeds(self) -> tuple[tuple[str, Any], ...]:
        """The id and settings of each source or timer by which its events come, whether it works or not."""
        return tuple((one.source, one.on) for one in self.inputs) or ((self.source, self.on),)

    @property
    def works_on(self) -> tuple[tuple[str, Any], ...]:
        """Those of its `feeds` that have to work for it."""
        if not self.works:
            return ()
        return tuple((one.source, one.on) for one in self.inputs if one.works) or ((self.source, self.on),)
