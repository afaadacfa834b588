"""What the API answers with: the members of its JSON objects. More may stand beside them.

They are typed dictionaries: the views that make the answers are checked against them by mypy, the description of the
API is made of them, and the tests hold every answer against that.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

from msgspec import Meta

from engine.events import EventOutcome
from engine.http.kinds import ID_PATTERN, words_of
from engine.runs import Lane, Origin, RunState
from engine.triggers import TriggerState

Item = TypeVar("Item")

At = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""An instant in RFC 3339, in UTC."""

Id = Annotated[str, Meta(pattern=ID_PATTERN)]
INVALID = "invalid"
"""The state of a trigger that the API defined, and that does not fit the configuration any more."""

State = Annotated[str, Meta(extra_json_schema={"enum": list(words_of(RunState))})]
Duration = Annotated[str, Meta(examples=["30m"])]


class Page(TypedDict, Generic[Item]):
    """One page of a list; `next` is the cursor of the following one, null at the end."""

    items: list[Item]
    next: str | None


class Fault(TypedDict):
    """One mistake in what was sent: in a member (`pointer`, RFC 6901) or in a parameter of the query."""

    detail: str
    pointer: NotRequired[str]
    parameter: NotRequired[str]


class ProblemDetails(TypedDict):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: NotRequired[list[Fault]]


# The engine


class Live(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Ready(TypedDict):
    """Whether the engine takes events, what it waits for, and what is wrong with single sources and timers."""

    ready: bool
    waiting_for: list[str]
    unhealthy: list[str]


class Check(TypedDict):
    """One of the engine's checks."""

    name: str
    ok: bool
    detail: str


class Health(TypedDict):
    """How the engine is; `paused` says since why it starts nothing, where all of it is paused."""

    status: Literal["ok", "degraded", "failing"]
    paused: str | None
    checks: list[Check]


class Vitals(TypedDict):
    """How each part is."""

    status: str
    paused: str | None
    triggers: NotRequired[list[Any]]
    next: NotRequired[str | None]


class Status(TypedDict):
    """The engine's state and counts."""

    state: str
    version: NotRequired[str]
    uptime_s: NotRequired[float]
    runs: NotRequired[dict[str, int]]
    triggers: NotRequired[int]
    jobs: NotRequired[int]


class LedgerSums(TypedDict):
    """How many events were accepted, and what became of them."""

    accepted: int
    ended: int
    waiting: int
    purged: int
    missing: int


class LedgerOfTrigger(TypedDict):
    """The same of one trigger; null is those that met none."""

    trigger: str | None
    accepted: int
    ended: int
    waiting: int
    purged: int


class Doctor(TypedDict):
    """What `doctor` found."""

    ok: bool
    ledger: LedgerSums
    broken: list[str]
    triggers: list[LedgerOfTrigger]
    checks: list[Check]


class PauseOf(TypedDict):
    scope: Literal["engine", "tag", "trigger"]
    name: str
    reason: str
    who: str
    since: At | None
    until: At | None  # fmt: skip


class Paused(PauseOf):
    """A pause that was made, and the triggers for which it holds."""

    triggers: list[str]


class Resumed(TypedDict):
    """What was resumed, whether it was paused, and what is paused still."""

    scope: Literal["engine", "tag", "trigger"]
    name: str
    resumed: bool
    pauses: list[PauseOf]


# Events and runs


class Cause(TypedDict):
    """The run that caused it, and how long the chain is."""

    run: str
    hops: int
    via: list[str]


class Gate(TypedDict):
    """A gate that an event passed, or that stopped it."""

    gate: str
    verdict: str
    saw: Any


class OutcomeOf(TypedDict):
    """What became of an event at a trigger."""

    trigger: str | None
    outcome: Annotated[str, Meta(extra_json_schema={"enum": list(words_of(EventOutcome))})]
    run: str | None
    code: str
    reason: str
    gates: list[Gate]


class EventOf(TypedDict):
    """An event."""

    id: Id
    source: str
    type: str
    subject: str | None
    time: At | None
    received_at: At | None
    key: str | None
    data: Any
    priority: int | None
    cause: Cause | None
    outcomes: list[OutcomeOf]


class Accepted(TypedDict):
    """An event that is durable."""

    event: Id
    runs: list[Id]
    duplicate: bool
    outcomes: NotRequired[list[OutcomeOf]]


class Waited(Accepted):
    """An event that is durable, and how its runs stand where the answer waited for them."""

    states: NotRequired[dict[str, State]]
    ends: NotRequired[list[Any]]


class AcceptedBatch(TypedDict):
    """Events that are durable."""

    items: list[Accepted]
    next: None
    states: NotRequired[dict[str, State]]
    ends: NotRequired[list[Any]]


class ReplayOfEvent(Accepted):
    """The copy of an event that is run again."""

    replay_of: Id


class ReplayedItem(TypedDict):
    """An event of a span, and what became of it."""

    replay_of: Id
    type: str
    subject: str | None
    received_at: At
    triggers: list[str]
    event: Id | None
    runs: list[Id]
    duplicate: bool
    skipped: str | None


class Replayed(TypedDict):
    """The events of a span that were run again."""

    items: list[ReplayedItem]
    next: Id | None
    dry_run: bool


class RunSummary(TypedDict):
    """A run, as lists show it."""

    id: Id
    job: str
    trigger: str
    origin: Annotated[str, Meta(extra_json_schema={"enum": list(words_of(Origin))})]
    state: State
    code: str
    reason: str
    priority: int
    events: list[str]
    attempt: int
    created_at: At | None
    due_at: At | None
    expires_at: At | None
    scheduled_for: At | None
    replay_of: str | None
    cause: Cause | None
    started_at: At | None
    finished_at: At | None
    exit_code: int | None
    outputs: Any


class StepOf(TypedDict):
    """One line of a trace."""

    at: At | None
    state: State
    code: str
    reason: str


class AttemptOf(TypedDict):
    """One attempt that has ended."""

    number: int
    started_at: At | None
    finished_at: At | None
    state: State
    code: str
    reason: str
    exit_code: int | None
    counted: bool
    cpu_s: float | None
    peak_bytes: int | None


class RunOf(RunSummary):
    """A run with its trace and its attempts."""

    trace: list[StepOf]
    attempts: list[AttemptOf]


class DeliveryOf(TypedDict):
    """Who was told of an end, or of an alert."""

    id: Id
    target: str
    event: str
    alert: str | None
    run: str | None
    job: str | None
    state: str
    code: str
    reason: str
    attempts: int
    created_at: At
    due_at: At | None
    finished_at: At | None


class WholeRun(RunOf):
    """A run with all that is known of it."""

    waits_for: str | None
    deliveries: NotRequired[list[DeliveryOf]]
    conditions: NotRequired[list[Any]]


class WholeDelivery(DeliveryOf):
    """A delivery with its message."""

    message: Any


class Queued(RunSummary):
    """A run that is ready, and where it stands."""

    lane: Annotated[str, Meta(extra_json_schema={"enum": list(words_of(Lane))})]
    position: int | None
    waits_for: str | None
    expected_start_at: At | None


class QueueOf(Page[Queued]):
    """What is ready, in its order, and how much waits in all."""

    waiting: dict[str, int]
    running: int
    slots: int


class Flushed(TypedDict):
    """What was cancelled, or would be."""

    dry_run: bool
    count: int
    triggers: dict[str, int]
    runs: list[Id]


class RetriedRun(TypedDict):
    """An ended run, and those that run once more what it was for."""

    run: Id
    runs: list[Id]


class Retried(TypedDict):
    """Which runs were run once more; `known` were so before."""

    dry_run: bool
    count: int
    items: list[RetriedRun]
    refused: dict[str, str]
    known: list[Id]
    next: Id | None


# Triggers and jobs


class Stats(TypedDict):
    """How runs ended, ever."""

    total: int
    succeeded: int
    failed: int
    skipped: int
    missed: int
    success_rate: float | None
    duration_mean_s: float | None
    by_state: dict[str, int]


class TriggerOf(TypedDict):
    """A trigger."""

    name: str
    job: str | None
    on: Any
    state: Annotated[str, Meta(extra_json_schema={"enum": [*words_of(TriggerState), INVALID]})]
    enabled: bool
    paused: PauseOf | None
    tags: list[str]
    description: str
    defined_in: str
    created_at: At | None
    updated_at: At | None
    next_at: At | None
    next_fires_at: At | None
    last_run: Any
    stats: Stats


class BulkItem(TypedDict):
    """What became of one of many: what was fired, or why it could not be done."""

    name: str
    ok: bool
    event: NotRequired[str]
    runs: NotRequired[list[Id]]
    status: NotRequired[int]
    code: NotRequired[str]
    detail: NotRequired[str]


class BulkDone(TypedDict):
    """What became of many triggers: `count` were done."""

    action: str
    atomic: bool
    count: int
    failed: int
    items: list[BulkItem]


class JobOf(TypedDict):
    """A job, with its secrets masked. One that does not fit the configuration any more has `state` and `state_reason`
    in the place of how it would run."""

    name: str
    run: dict[str, Any] | None
    state: NotRequired[str]
    state_reason: NotRequired[str]
    timeout: NotRequired[Duration]
    retry: NotRequired[dict[str, Any]]
    concurrency: NotRequired[int | None]
    concurrency_key: NotRequired[Any]
    pools: NotRequired[dict[str, Any]]
    overlap: NotRequired[str]
    on_crash: NotRequired[str]
    notify: NotRequired[Any]
    callback: NotRequired[Any]
    log: NotRequired[dict[str, Any]]
    description: str
    tags: list[str]
    enabled: bool
    defined_in: str


StatisticsOf = TypedDict(
    "StatisticsOf",
    {
        "from": At, "to": At, "total": int, "succeeded": int, "failed": int, "skipped": int, "missed": int,
        "by_state": dict[str, int], "success_rate": float | None, "duration_mean_s": float | None,
        "duration_p50_s": float | None, "duration_p95_s": float | None,
    },
)  # fmt: skip


class TriggerStatistics(StatisticsOf):
    """How the runs of a trigger ended, in a time."""

    trigger: str


class JobStatistics(StatisticsOf):
    """How the runs of a job ended, in a time."""

    job: str


class UpcomingOf(TypedDict):
    """A due instant to come."""

    at: At
    local: str
    note: str | None


class Rehearsed(OutcomeOf):
    """What an event would become."""

    event: dict[str, Any]
    would_run: dict[str, Any] | None
    data: Any


Released = TypedDict(
    "Released",
    {
        "scope": Literal["trigger", "source"], "name": str, "released": bool, "triggers": list[str],
        "from": At | None, "to": At | None, "was": str | None,
    },
)  # fmt: skip

Why = TypedDict(
    "Why",
    {
        "trigger": str, "job": str, "kind": Literal["source", "timer"], "from": At, "to": At, "items": list[Any],
        "next": str | None,
    },
)  # fmt: skip


class Named(TypedDict):
    """Something that has a name."""

    name: str


class Person(Named):
    """Who it is that asks."""

    role: str
    tags: list[str]


class PersonBy(Person):
    """Who it is that asks, and by which means."""

    means: str


class Source(Named):
    """A source, and how it is."""

    state: str
    triggers: list[str]


class PreviewedEvent(TypedDict):
    """An event that a source would emit."""

    type: str
    subject: str | None
    key: str | None
    time: At | None
    data: Any
    duplicate: bool
    refused: str | None


Previewed = TypedDict(
    "Previewed",
    {
        "source": str, "from": Any, "events": list[PreviewedEvent], "more": bool, "stored": Any, "cursor": Any,
    },
)  # fmt: skip


# What is around them

BackfillOf = TypedDict(
    "BackfillOf",
    {
        "id": Id, "trigger": str, "from": At, "to": At, "timezone": str, "max_parallel": int,
        "order": Literal["oldest", "newest"], "only_missing": bool, "skipped": int, "reason": str, "state": str,
        "state_reason": str, "holds": str | None, "created_at": At, "finished_at": At | None, "total": int,
        "done": int, "outcomes": dict[str, int], "not_run": int, "running": int, "waiting": int, "left": int,
        "current": At | None, "rate_per_s": float | None, "expected_end_at": At | None,
    },
)  # fmt: skip


class InstantOf(TypedDict):
    """An instant, also by the clock of the zone."""

    at: At
    local: str


class SkippedInstant(InstantOf):
    """An instant that has a run."""

    run: str


class SkippedInstants(TypedDict):
    """Instants that have runs; the first of them."""

    total: int
    instants: list[SkippedInstant]


BackfillPlanOf = TypedDict(
    "BackfillPlanOf",
    {
        "dry_run": Literal[True], "trigger": str, "from": At, "to": At, "timezone": str, "total": int,
        "first": At | None, "last": At | None, "instants": list[InstantOf], "skipped": SkippedInstants,
    },
)  # fmt: skip


class PresetOf(Named):
    """A preset."""

    description: str
    settings: Any
    parameters: dict[str, Any]
    defined_in: str
    changed: list[str]
