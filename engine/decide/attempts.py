"""What follows an attempt: the end of its run, another attempt, or the queue once more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.decide.priority import rank
from engine.decide.retry import delay_s
from engine.jobs import OnCrash, RetryPolicy
from engine.plugin import Outcome
from engine.runs import CANCELLING, Attempt, Run, RunState, Step
from engine.units import format_span

MOST_CRASHES = 10
"""A run that was running at so many crashes of the engine is failed, as it may be what kills the engine."""

TOLD_LATE_S = 2.0
"""An attempt that takes so long to end after its time-out had its slot all the while, and its reason says so."""


class AttemptEnd(Struct, frozen=True, kw_only=True):
    """How an attempt ended, and where its run goes: `step.state`, an end, `retrying` (with `due_at`) or `queued` (with
    `rank`). `attempt_count` is the run's number of counted attempts afterwards.
    """

    step: Step
    attempt: Attempt
    attempt_count: int
    due_at: datetime | None = None
    rank: int | None = None
    outputs: dict[str, Any] | None = None


def after_end(run: Run, outcome: Outcome, retry: RetryPolicy, started_at: datetime, now: datetime) -> AttemptEnd:
    """Return what follows an attempt that ended, or was timed out: another one, where it failed and one is left."""
    state, code, reason = outcome.state, outcome.code, outcome.reason
    outputs = dict(outcome.outputs) if outcome.outputs else None
    step = Step(at=now, state=state, code=code, reason=reason)
    attempt = _record(run, started_at, step, state, exit_code=outcome.exit_code)
    pause_s = None
    if state in (RunState.FAILED, RunState.TIMED_OUT) and not outcome.final:
        pause_s = delay_s(retry, run.attempt, run.id, outcome.retry_after_s or 0.0)
        if pause_s is not None and retry.on is not None and not retry.on.takes(code, outcome.exit_code):
            pause_s = None
            step = replace(step, reason=f"{reason}; not tried again, as `retry.on` does not name it")
    if pause_s is None:
        return AttemptEnd(step=step, attempt=attempt, attempt_count=run.attempt, outputs=outputs)
    text = f"attempt {run.attempt} of {retry.attempts} {reason}; next in {format_span(pause_s)}"
    return AttemptEnd(
        step=Step(at=now, state=RunState.RETRYING, code=code, reason=text), attempt=attempt,
        attempt_count=run.attempt, due_at=now + timedelta(seconds=pause_s), outputs=outputs,
    )  # fmt: skip


def timed_out(timeout_s: float, late_s: float) -> Outcome:
    """Return the outcome of an attempt that was ended after `timeout_s`, and was gone `late_s` after that."""
    reason = f"timed out after {format_span(timeout_s)}"
    if late_s >= TOLD_LATE_S:
        reason += f", and ended {format_span(round(late_s))} later"
    return Outcome(state=RunState.TIMED_OUT, code="timed_out", reason=reason)


def after_replacement(run: Run, by: str, started_at: datetime, now: datetime) -> AttemptEnd:
    """Return what follows an attempt that was cut off as the run `by` takes its place: the end of its run."""
    step = Step(at=now, state=RunState.CANCELLED, code="replaced", reason=said_of_replacement(RunState.CANCELLED, by))
    attempt = _record(run, started_at, step, RunState.CANCELLED)
    return AttemptEnd(step=step, attempt=attempt, attempt_count=run.attempt)


def after_cancel(run: Run, said: str, started_at: datetime, now: datetime) -> AttemptEnd:
    """Return what follows an attempt that was cut off as somebody cancelled its run: the end of that."""
    step = Step(at=now, state=RunState.CANCELLED, code="cancelled", reason=said)
    return AttemptEnd(
        step=step, attempt=_record(run, started_at, step, RunState.CANCELLED), attempt_count=run.attempt
    )  # fmt: skip


def after_cut(run: Run, said: str, started_at: datetime, now: datetime) -> AttemptEnd:
    """Return what follows an attempt that was cut off for a maintenance window: the end of its run."""
    step = Step(at=now, state=RunState.CANCELLED, code="maintenance", reason=f"cancelled: {said}")
    attempt = _record(run, started_at, step, RunState.CANCELLED)
    return AttemptEnd(step=step, attempt=attempt, attempt_count=run.attempt)


def said_of_replacement(state: RunState, by: str) -> str:
    """Say that a run came to an end as a later one takes its place."""
    return f"{state}: run {by} takes its place (overlap: replace)"


def after_interruption(run: Run, started_at: datetime, now: datetime, ageing_s: float) -> AttemptEnd:
    """Return what follows an attempt that the engine's stop cut off: its run is queued again where it stood."""
    step = Step(
        at=now, state=RunState.QUEUED, code="interrupted",
        reason="interrupted: the engine was stopped; the attempt does not count",
    )  # fmt: skip
    return _uncounted(run, started_at, step, ageing_s, run.attempt - 1)


def after_crash(run: Run, on_crash: OnCrash, now: datetime, ended: int, ageing_s: float) -> AttemptEnd:
    """Return what becomes of a run that was running when its engine died; `ended` processes of it were ended."""
    found = f"; {ended} of its processes ended" if ended else ""
    crashes = sum(not attempt.counted and attempt.code == "engine_died" for attempt in run.attempts)
    started_at = run.started_at or now
    if run.code == CANCELLING:
        asked = run.reason.removeprefix(f"{CANCELLING}: ")
        return after_cancel(run, f"cancelled: {asked}; the engine died meanwhile{found}", started_at, now)
    if on_crash is OnCrash.ADOPT:
        found += "; nothing was left of it that could be adopted"
    if on_crash is not OnCrash.FAIL and crashes < MOST_CRASHES:
        step = Step(
            at=now, state=RunState.QUEUED, code="engine_died",
            reason=f"queued again: the engine died while it ran{found}; the attempt does not count",
        )  # fmt: skip
        return _uncounted(run, started_at, step, ageing_s, max(run.attempt - 1, 0))
    code = "engine_died" if on_crash is OnCrash.FAIL else "crash_loop"
    text = f"failed: the engine died while it ran{found}"
    if code == "crash_loop":
        text = f"failed: the engine died {crashes + 1} times while it ran{found}"
    step = Step(at=now, state=RunState.FAILED, code=code, reason=text)
    return AttemptEnd(step=step, attempt=_record(run, started_at, step, RunState.FAILED), attempt_count=run.attempt)


def _uncounted(run: Run, started_at: datetime, step: Step, ageing_s: float, attempt_count: int) -> AttemptEnd:
    attempt = replace(_record(run, started_at, step, RunState.CANCELLED), counted=False)
    ready = rank(run.created_at, run.priority, ageing_s)
    return AttemptEnd(step=step, attempt=attempt, attempt_count=attempt_count, rank=ready)


def _record(
    run: Run, started_at: datetime, step: Step, state: RunState, *, exit_code: int | None = None
) -> Attempt:  # fmt: skip
    return Attempt(
        number=run.attempt, started_at=started_at, finished_at=step.at, state=state, code=step.code,
        reason=step.reason, exit_code=exit_code,
    )  # fmt: skip
