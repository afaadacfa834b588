"""How structs become rows of the SQLite store, and rows structs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.clock import from_microseconds, to_microseconds
from engine.decide.marks import Claim, Mark, Place
from engine.events import Cause, Event, EventOutcome, Outcome, Seen
from engine.runs import Attempt, Origin, Run, RunState, Step
from engine.store.changes import Entry

PLAIN_EVENT_COLUMNS = "id, source, type, subject, time, received_at, data"
"""Of an event without a key, a priority, a cause and a trace."""

EVENT_COLUMNS = "id, source, type, subject, time, received_at, key, priority, data, cause, trace"
RUN_COLUMNS = (
    "id, job, trigger, origin, key, event, event_count, state, code, priority, rank, attempt, created_at, due_at, "
    "closes_at, window, scheduled_for, started_at, finished_at, exit_code, outputs, process, process_started, boot, "
    "trace, attempts, expires_at, event_bytes, throttled, limit_key, cause"
)
OUTCOME_COLUMNS = "event, trigger, outcome, run, code, reason, gates"
READY_RUN_COLUMNS = (
    "id, job, trigger, origin, key, first_event, event, event_count, state, code, priority, rank, attempt, "
    "created_at, trace, event_bytes"
)
"""Of a new run that waits for nothing but a slot, as most do: all others are null, and cost nothing so."""

NEW_RUN_COLUMNS = (
    f"{READY_RUN_COLUMNS}, due_at, closes_at, window, scheduled_for, started_at, finished_at, boot, expires_at, "
    "throttled, limit_key, cause"
)

_LATEST = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_cause = msgspec.json.Decoder(Cause).decode
_decode_gates = msgspec.json.Decoder(tuple[Seen, ...]).decode


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_microseconds(at)


def _instant(value: int | None) -> datetime | None:
    return None if value is None else from_microseconds(value)


def cause_text(cause: Cause) -> str:
    """Return a cause as it is stored."""
    return _encode(cause).decode()


def plain_event_row(entry: Entry) -> tuple[Any, ...]:
    """Return the values of PLAIN_EVENT_COLUMNS."""
    event = entry.event
    received = to_microseconds(event.received_at)
    time = received if event.time is event.received_at else _micros(event.time)
    return (event.id, event.source, event.type, event.subject, time, received, entry.data.decode())


def event_row(entry: Entry) -> tuple[Any, ...]:
    """Return the values of EVENT_COLUMNS."""
    event = entry.event
    *first, data = plain_event_row(entry)
    cause = None if event.cause is None else cause_text(event.cause)
    return (*first, event.key, event.priority, data, cause, event.trace)


def read_event(row: Sequence[Any]) -> Event:
    """Make an event of the values of EVENT_COLUMNS, and of the input by which it came, where that was asked for."""
    return Event(
        id=row[0],
        source=row[1],
        type=row[2],
        subject=row[3],
        time=from_microseconds(row[4]),
        received_at=from_microseconds(row[5]),
        key=row[6],
        priority=row[7],
        data=_decode(row[8]),
        cause=None if row[9] is None else _decode_cause(row[9]),
        trace=row[10],
        input=row[11] if len(row) > 11 else None,
    )


def outcome_row(event: str, outcome: Outcome) -> tuple[Any, ...]:
    """Return the values of OUTCOME_COLUMNS."""
    gates = _encode(outcome.gates)[1:-1].decode() if outcome.gates else None
    return (event, outcome.trigger or "", outcome.outcome._value_, outcome.run, outcome.code, outcome.reason, gates)


def read_outcome(row: Sequence[Any]) -> Outcome:
    """Make an outcome of the values of OUTCOME_COLUMNS."""
    return Outcome(
        trigger=row[1] or None, outcome=EventOutcome(row[2]), run=row[3], code=row[4], reason=row[5],
        gates=() if row[6] is None else _decode_gates(f"[{row[6]}]"),
    )  # fmt: skip


def step_fragment(step: Step) -> str:
    """Return one step of a trace as it is appended."""
    values = (to_microseconds(step.at), step.state, step.code, step.reason)
    return _encode((*values, step.bypass) if step.bypass else values).decode()


def attempt_fragment(attempt: Attempt) -> str:
    """Return one attempt as it is appended."""
    values = (
        attempt.number,
        to_microseconds(attempt.started_at),
        to_microseconds(attempt.finished_at),
        attempt.state,
        attempt.code,
        attempt.reason,
        attempt.exit_code,
        attempt.counted,
    )
    if attempt.cpu_s is None and attempt.peak_bytes is None:
        return _encode(values).decode()
    cpu_us = None if attempt.cpu_s is None else round(attempt.cpu_s * 1e6)
    return _encode((*values, cpu_us, attempt.peak_bytes)).decode()


def encode_value(value: Any) -> str:
    """Return any JSON value as text."""
    return _encode(value).decode()


def decode_value(text: str) -> Any:
    """Return the value of a JSON text that we wrote."""
    return _decode(text)


def is_ready(run: Run) -> bool:
    """Tell whether the values of READY_RUN_COLUMNS say all of a new run."""
    return (
        run.due_at is None
        and run.started_at is None
        and run.scheduled_for is None
        and run.window is None
        and run.throttled is None
        and run.expires_at is None
        and run.limit_key is None
        and run.cause is None
        and run.closes_at is None
        and run.finished_at is None
        and run.boot is None
    )


def ready_run_row(run: Run) -> tuple[Any, ...]:
    """Return the values of READY_RUN_COLUMNS."""
    trace = run.trace
    return (
        run.id,
        run.job,
        run.trigger,
        run.origin._value_,
        run.key,
        run.event,
        run.event,
        run.event_count,
        run.state._value_,
        run.code,
        run.priority,
        run.rank,
        run.attempt,
        to_microseconds(run.created_at),
        step_fragment(trace[0]) if len(trace) == 1 else ",".join([step_fragment(step) for step in trace]),
        run.event_bytes,
    )


def new_run_row(run: Run) -> tuple[Any, ...]:
    """Return the values of NEW_RUN_COLUMNS."""
    return (
        *ready_run_row(run),
        _micros(run.due_at),
        _micros(run.closes_at),
        run.window,
        _micros(run.scheduled_for),
        _micros(run.started_at),
        _micros(run.finished_at),
        run.boot,
        _micros(run.expires_at),
        run.throttled,
        run.limit_key,
        None if run.cause is None else cause_text(run.cause),
    )


def read_trace(fragments: str) -> tuple[Step, ...]:
    """Make a trace of what was appended."""
    return tuple(
        Step(
            at=from_microseconds(at),
            state=RunState(state),
            code=code,
            reason=reason,
            bypass=tuple(more[0]) if more else (),
        )
        for at, state, code, reason, *more in _decode(f"[{fragments}]")
    )


def read_attempts(fragments: str) -> tuple[Attempt, ...]:
    """Make attempts of what was appended."""
    if not fragments:
        return ()
    return tuple(
        Attempt(
            number=number,
            started_at=from_microseconds(started),
            finished_at=from_microseconds(finished),
            state=RunState(state),
            code=code,
            reason=reason,
            exit_code=exit_code,
            counted=counted,
            cpu_s=used[0] / 1e6 if used and used[0] is not None else None,
            peak_bytes=used[1] if used else None,
        )
        for number, started, finished, state, code, reason, exit_code, counted, *used in _decode(f"[{fragments}]")
    )


def read_run(row: Sequence[Any]) -> Run:
    """Make a run of the values of RUN_COLUMNS."""
    trace = read_trace(row[24])
    return Run(
        id=row[0],
        job=row[1],
        trigger=row[2],
        origin=Origin(row[3]),
        key=row[4],
        event=row[5],
        event_count=row[6],
        state=RunState(row[7]),
        code=row[8],
        reason=trace[-1].reason,
        priority=row[9],
        rank=row[10],
        attempt=row[11],
        created_at=from_microseconds(row[12]),
        due_at=_instant(row[13]),
        closes_at=_instant(row[14]),
        window=row[15],
        scheduled_for=_instant(row[16]),
        started_at=_instant(row[17]),
        finished_at=_instant(row[18]),
        exit_code=row[19],
        outputs=None if row[20] is None else _decode(row[20]),
        process=row[21],
        process_started=row[22],
        boot=row[23],
        trace=trace,
        attempts=read_attempts(row[25]),
        expires_at=_instant(row[26]),
        event_bytes=row[27],
        throttled=row[28],
        limit_key=row[29],
        cause=None if row[30] is None else _decode_cause(row[30]),
    )


def claim_row(claim: Claim) -> tuple[Any, ...]:
    """Return a claim as the statement takes it: its place, its mark, and which one may be there."""
    mark = claim.mark
    return (
        *claim.place, to_microseconds(mark.until), mark.run, _micros(mark.closes_at),
        _LATEST if claim.forced else to_microseconds(claim.now), _micros(claim.seen),
    )  # fmt: skip


def read_mark(row: Sequence[Any]) -> tuple[Place, Mark]:
    """Return the place of a mark, and the mark."""
    trigger, gate, key, until, run, closes_at = row
    return (trigger, gate, key), Mark(from_microseconds(until), run, _instant(closes_at))


def prefixed(alias: str, columns: str) -> str:
    """Return a column list with each name qualified: `prefixed("r", "id, job")` is `"r.id, r.job"`."""
    return ", ".join(f"{alias}.{name}" for name in columns.split(", "))


def flatten(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return all values of all rows, for a statement with many rows of parameters."""
    return [value for row in rows for value in row]
