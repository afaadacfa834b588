"""What happens, as it becomes durable: for those who listen (`GET /api/v1/stream`).

There is one list of the latest messages for all who listen, and each of them has a place in it. So a slow one costs
nothing: who falls off its end, or comes back after too long or after a restart, is told to read anew. Nothing is
gathered while nobody listens, and for a while after the last one has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import Any

import anyio
from msgspec import Struct

from engine.clock import Clock, rfc3339
from engine.errors import EngineError
from engine.runs import Run, Step
from engine.store.changes import (
    Accept,
    AskCancel,
    Change,
    End,
    Enqueue,
    Entry,
    Finish,
    Hold,
    Memory,
    Postpone,
    SetPriority,
    Start,
    accept_of,
)

MOST_MESSAGES = 10_000
MOST_LISTENERS = 50
LINGER_S = 300.0
"""So long messages are gathered for who comes back, after the last one has left."""

MOST_KNOWN = 20_000
"""Runs of which it is known whose they are."""

TOPICS = {
    "engine:pauses": "pause", "engine:quarantine": "quarantine", "engine:adaptive": "adaptive",
    "engine:conditions": "condition", "engine:maintenance": "maintenance", "engine:pools": "pool",
}  # fmt: skip
"""What changes when something is remembered under a source."""

_STEPS = (Start, Finish, End, Hold, Enqueue, Postpone, SetPriority, AskCancel)


class Kind(StrEnum):
    """What a message is about."""

    RUN = "run"
    EVENT = "event"
    TRIGGER = "trigger"
    ALERT = "alert"


class Message(Struct, frozen=True, kw_only=True):
    """Something that has become durable. `job` and `triggers` are those that it is about, as far as that is known."""

    number: int
    kind: Kind
    data: dict[str, Any]
    job: str | None = None
    triggers: tuple[str, ...] = ()


class Feed:
    """The latest messages, and who listens to them. `boot` is this start of the engine."""

    def __init__(self, clock: Clock, boot: str) -> None:
        self._clock = clock
        self._boot = boot
        self._messages: deque[Message] = deque(maxlen=MOST_MESSAGES)
        self._number = 0
        self._known: dict[str, tuple[str, str]] = {}
        self._listeners = 0
        self._idle_since_s: float | None = None
        self._active = False
        self._bell = anyio.Event()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._listeners

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Have messages be gathered while somebody listens."""
        self._active, self._idle_since_s = True, None
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._idle_since_s = self._clock.monotonic()

    def place(self, last: str | None) -> int | None:
        """Return the number up to which somebody has read, by the last id that was seen; None where that is not known.

        Without an id it is the latest of all.
        """
        if last is None:
            return self._number
        boot, _, number = last.rpartition("-")
        if boot != self._boot or not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        place = int(number)
        return place if self._first() - 1 <= place <= self._number else None

    def id_of(self, number: int) -> str:
        """Return the id of a message by its number."""
        return f"{self._boot}-{number}"

    def after(self, place: int, limit: int) -> list[Message] | None:
        """Return the messages after a place, the oldest first; None where some of them are not there any more."""
        if place < self._first() - 1:
            return None
        return list(islice(self._messages, place - self._first() + 1, place - self._first() + 1 + limit))

    @property
    def latest(self) -> int:
        """The number of the latest message."""
        return self._number

    async def wait(self, place: int, timeout_s: float) -> None:
        """Return when there is a message after a place, or after `timeout_s` seconds."""
        if place < self._number:
            return
        bell = self._bell
        with anyio.move_on_after(timeout_s):
            await bell.wait()

    def tell(self, kind: Kind, data: dict[str, Any], *, job: str | None = None, triggers: tuple[str, ...] = ()) -> None:
        """Tell all who listen of something."""
        if not self._active:
            return
        self._number += 1
        self._messages.append(Message(number=self._number, kind=kind, data=data, job=job, triggers=triggers))
        bell, self._bell = self._bell, anyio.Event()
        bell.set()

    def alert(self, data: dict[str, Any], *, job: str | None = None, triggers: tuple[str, ...] = ()) -> None:
        """Tell all who listen of an alert."""
        self.tell(Kind.ALERT, data, job=job, triggers=triggers)

    def written(self, batch: Sequence[tuple[Change, Any]]) -> None:
        """Take what has become durable, each change with its result."""
        if not self._active:
            return
        if self._idle_since_s is not None and self._clock.monotonic() - self._idle_since_s > LINGER_S:
            self._active = False
            self._messages.clear()
            self._known.clear()
            return
        for change, result in batch:
            if not isinstance(result, EngineError):
                self._take(change, result)

    def _take(self, change: Change, result: Any) -> None:
        if isinstance(change, _STEPS):
            self._step(change.run, change.step)
        accept = accept_of(change)
        if accept is not None:
            self._accepted(accept, result)

    def _accepted(self, accept: Accept, result: Any) -> None:
        answers = result if isinstance(result, list) else ()
        for index, entry in enumerate(accept.entries):
            if index >= len(answers) or not answers[index].duplicate:
                self._entry(entry)
        for run in accept.missed:
            self._begun(run)
        for memory in (accept.memory, *accept.memories):
            if memory is not None:
                self._remembered(memory)

    def _entry(self, entry: Entry) -> None:
        event = entry.event
        outcomes = [
            {"trigger": one.trigger, "outcome": one.outcome.value, "run": one.run, "code": one.code}
            for one in entry.outcomes
        ]
        data = {
            "id": event.id, "source": event.source, "type": event.type, "subject": event.subject, "outcomes": outcomes
        }  # fmt: skip
        self.tell(Kind.EVENT, data, triggers=tuple(one.trigger for one in entry.outcomes if one.trigger is not None))
        for run in entry.runs:
            self._begun(run)
        for join in entry.joins:
            self._run(join.run, {"state": "pending", "code": "joined", "reason": join.reason, "at": None})

    def _begun(self, run: Run) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[run.id] = (run.job, run.trigger)
        at = run.trace[-1].at if run.trace else run.created_at
        said = {"state": run.state.value, "code": run.code, "reason": run.reason}
        self._run(run.id, {**said, "at": None if at is None else rfc3339(at)})

    def _step(self, run: str, step: Step) -> None:
        said = {"state": step.state.value, "code": step.code, "reason": step.reason}
        self._run(run, {**said, "at": rfc3339(step.at)})

    def _run(self, run: str, said: dict[str, Any]) -> None:
        job, trigger = self._known.get(run, (None, None))
        data = {"id": run, "job": job, "trigger": trigger, **said}
        self.tell(Kind.RUN, data, job=job, triggers=() if trigger is None else (trigger,))

    def _remembered(self, memory: Memory) -> None:
        topic = TOPICS.get(memory.source)
        if topic is None:
            return
        for key in memory.values:
            name = key.rpartition(":")[2]
            own = topic in ("pause", "adaptive", "quarantine") and ":" not in key
            data = {"changed": topic, "key": key, "name": name}
            self.tell(Kind.TRIGGER, data, triggers=(name,) if own else ())

    def whose(self, run: str) -> tuple[str, str] | None:
        """Return the job and the trigger of a run, as far as they are known."""
        return self._known.get(run)

    def learn(self, run: Run) -> None:
        """Know whose a run is, that began before somebody listened."""
        self._known.setdefault(run.id, (run.job, run.trigger))

    def _first(self) -> int:
        return self._messages[0].number if self._messages else self._number + 1
