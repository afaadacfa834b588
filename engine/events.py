"""Events: things that happened, with the attributes of a CloudEvent, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine.clock import EPOCH

RESERVED_PREFIX = "engine."
"""Types that begin so are the engine's own and can't be sent from outside."""


class Cause(Struct, frozen=True, kw_only=True):
    """The run that caused an event, and the chain of runs, one caused by the other, that ends with it.

    `hops` is how many these are, `via` the triggers of the last of them.
    """

    run: str
    hops: int
    via: tuple[str, ...]


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened.

    A source makes an event with a `type` and what else it knows; the engine fills the rest when it accepts
    it.

    - `type`: what kind of thing happened, dotted, such as `order.created`.
    - `subject`: what it happened to, such as a path or a row; text.
    - `data`: any JSON value: None, bool, int, float, str, lists, and dicts with str keys. Or `Raw` (msgspec's) of
      a JSON text as it was received, which the engine then reads itself, as `parse_json` does: the quickest way.
    - `key`: the sender's identity of the event (a delivery id, a file's identity). The same key from the same
      source is the same event, for ever. None: each one is new.
    - `time`: when it happened, aware; None means when it was received.
    - `priority`: 0 to 9 as asked by the sender; clamped by the trigger's `priority_max`.
    - `http`: method, headers, query and remote of a request, for expressions; it is never stored.
    - `traceparent`: where the sender said so (https://www.w3.org/TR/trace-context/), for the engine to find by it the
      run that caused the event; it is not stored.
    - `trace`: the traceparent that it came with, where traces are made; given by the engine.
    - `id`, `source`, `received_at`, `cause`: given by the engine; what a plugin puts there is replaced.
    - `input`: at a trigger on several sources, the name of the one by which it came; given by the engine.
    """

    type: str
    subject: str | None = None
    data: Any = None
    key: str | None = None
    time: datetime | None = None
    priority: int | None = None
    http: Mapping[str, Any] | None = None
    traceparent: str | None = None
    id: str = ""
    source: str = ""
    received_at: datetime = EPOCH
    cause: Cause | None = None
    input: str | None = None
    trace: str | None = None


class EventOutcome(StrEnum):
    """What became of an event at one trigger; exactly one for each trigger that it met."""

    RUN = "run"
    JOINED = "joined"
    FILTERED = "filtered"
    DEDUPLICATED = "deduplicated"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    PAUSED = "paused"
    UNMATCHED = "unmatched"


class Seen(Struct, frozen=True, array_like=True):
    """What one gate saw of an event at a trigger, and what it said.

    - `gate`: its name, as the configuration has it; `verdict`: `pass`, or what it did instead.
    - `saw`: the value on which it decided: any JSON value, kept small.
    """

    gate: str
    verdict: str
    saw: Any = None


class Outcome(Struct, frozen=True, kw_only=True):
    """An event's outcome at one trigger, with its reason: a row of the ledger.

    `trigger` is None for `unmatched`; `run` is the run that came of it, where one did. `gates` are those that the
    trigger has and the event came to, in their order.
    """

    trigger: str | None
    outcome: EventOutcome
    run: str | None = None
    code: str
    reason: str
    gates: tuple[Seen, ...] = ()


def at_first(reason: str) -> str:
    """Write an outcome's reason as it is told later: where its run had to wait, that was then, and the run has a state
    of its own now."""
    return reason.replace("pending: ", "pending at first: ", 1) if reason.startswith("pending: ") else reason


class Accepted(Struct, frozen=True, kw_only=True):
    """What the engine answers for an event once it is durable.

    `duplicate` is true where the same key came before; event and runs are then those of the first time.
    """

    event: str
    runs: tuple[str, ...] = ()
    duplicate: bool = False
    outcomes: tuple[Outcome, ...] = ()
