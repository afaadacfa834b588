"""Execution: one attempt of a run, from its context to its outcome, whatever the runner does."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
from msgspec.structs import replace

from engine import cancellation
from engine.attending import Attendant
from engine.causing import CURRENT
from engine.clock import Clock
from engine.decide.rules import Rule
from engine.decide.shaping import taken
from engine.errors import ExpressionError, InvalidEvent
from engine.events import Event
from engine.expressions import Scope
from engine.ids import is_slug
from engine.jobs import Job, OnCrash
from engine.logcap import DEFAULT_LOG_BYTES
from engine.logids import IDS
from engine.logs import IdLogger, Masker
from engine.payload import encode_json, survey
from engine.plugin import Outcome
from engine.processes import end_leftovers
from engine.runlogs import RunLogs
from engine.runnotes import RunNotes
from engine.runs import Run, RunState
from engine.shared import Shared
from engine.traces import Tracing, plain_traceparent
from engine.traces.tracing import AttemptSpan
from engine.triggers import Take
from engine.units import format_size

log = logging.getLogger("engine.run")

T = TypeVar("T")

RUN_MARK = "ENGINE_RUN_ID"
"""The environment variable by which every process of a run is known."""

LONGEST_REASON = 2000
LARGEST_OUTPUTS_BYTES = 1024 * 1024
_LONGEST_REPR = 200

_ALLOWED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED})


class Preparation:
    """What a runner gets ahead of the runs of a job; see `engine.plugin.PrepareContext`."""

    __slots__ = ("_shared", "base", "clock", "job", "log")

    def __init__(self, *, job: str, base: Path, clock: Clock, shared: Shared) -> None:
        self.job: str = job
        self.base: Path = base
        self.clock: Clock = clock
        self.log: logging.LoggerAdapter[logging.Logger] = IdLogger(log, {"job": job})
        self._shared = shared

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        return await self._shared.get(key, make)


class Context:
    """What a runner gets for one attempt; see `engine.plugin.RunContext`."""

    __slots__ = (
        "_adopted", "_attendant", "_first", "_interrupted", "_log", "_log_bytes", "_logging", "_make_scope", "_notes",
        "_run_logs", "_scope", "_shared", "_traceparent", "attempt", "base", "clock", "event", "events", "job",
        "keep_path", "marks", "run_id", "scheduled_for", "started", "trigger",
    )  # fmt: skip

    def __init__(
        self, *, run: Run, event: Event, events: tuple[Event, ...], make_scope: Callable[[], Scope], base: Path,
        clock: Clock, run_logs: RunLogs, shared: Shared, attendant: Attendant, notes: RunNotes,
        interrupted: Callable[[str], bool], keeps: bool = False, adopted: bool = False,
        log_bytes: int = DEFAULT_LOG_BYTES, traceparent: str | None = None,
    ) -> None:  # fmt: skip
        self._traceparent = traceparent
        self.run_id: str = run.id
        self.job: str = run.job
        self.trigger: str = run.trigger
        self.attempt: int = run.attempt
        self.events: tuple[Event, ...] = events
        self.event: Event = event
        self.scheduled_for: datetime | None = run.scheduled_for
        self._make_scope = make_scope
        self._scope: Scope | None = None
        # Nothing can lie where the files of a run will be that has never been tried.
        self._first = run.attempt <= 1 and not run.attempts
        self.base = base
        self.clock = clock
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self.marks: Mapping[str, str] = {RUN_MARK: run.id}
        self._run_logs = run_logs
        self._shared = shared
        self._notes = notes
        self._interrupted = interrupted
        self._attendant = attendant
        self._log_bytes = log_bytes
        self.keep_path: str | None = run_logs.keep_path(run.id) if keeps else None
        self._logging = self._adopted = adopted
        self.started: bool = False
        """Whether it has told of a process."""

    @property
    def scope(self) -> Scope:
        """The values for templates: made when they are asked for, as most programs have no templates."""
        if self._scope is None:
            self._scope = self._make_scope()
        return self._scope

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        if self._log is None:
            self._log = IdLogger(log, {"run": self.run_id, "job": self.job, "trigger": self.trigger})
        return self._log

    @property
    def traceparent(self) -> str:
        return self._traceparent or plain_traceparent(self.run_id, self.attempt)

    @property
    def let_go(self) -> bool:
        return self._attendant.let_go

    def open_log(self) -> int:
        self._logging = True
        return self._run_logs.open(self.run_id, new=self._first, most_bytes=self._log_bytes)

    def close(self) -> None:
        """Take note that the attempt has ended."""
        if self._logging:
            self._run_logs.ended(self.run_id)

    def output_path(self) -> str:
        path = self._run_logs.output_path(self.run_id)
        if not self._first and not self._adopted:
            with suppress(FileNotFoundError):
                os.unlink(path)  # left by an attempt that the engine did not outlive
        return path

    def process_started(self, pid: int) -> None:
        if type(pid) is not int or pid < 2:
            raise ValueError(f"{pid!r} is no process id of a run")
        self.started = True
        self._attendant.process(pid)

    def used(
        self, cpu_s: float | None, peak_bytes: int | None, *, ended_at: datetime | None = None
    ) -> None:  # fmt: skip
        self._attendant.used(cpu_s, peak_bytes, ended_at=ended_at)

    @property
    def interrupted(self) -> bool:
        return self._interrupted(self.run_id)

    @property
    def noted(self) -> Any:
        return self._notes.of(self.run_id, self.attempt)

    async def note(self, value: Any) -> None:
        await self._notes.note(self.run_id, self.attempt, value)

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        return await self._shared.get(key, make)


class Executor:
    """Executes attempts with the runners of the jobs.

    `retired` are triggers that were removed, but whose runs may still come. `secrets` are masked in reasons: what
    raises often quotes the URL or the setting that it could not work with. `interrupted` tells, by the id of a run,
    whether its attempt is cancelled as the engine stops. `strays` hears of each run whose attempt had processes and has
    ended. `tracing` makes a span of each attempt; None: nothing is traced.
    """

    def __init__(
        self, *, rules: Mapping[str, Rule], clock: Clock, base: Path, run_logs: RunLogs, shared: Shared,
        retired: Mapping[str, Rule] = MappingProxyType({}), secrets: Collection[str] = (),
        notes: RunNotes | None = None, interrupted: Callable[[str], bool] = lambda _: False,
        strays: Callable[[str], None] | None = None, tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._retired = retired
        self._clock = clock
        self._base = base
        self._run_logs = run_logs
        self._shared = shared
        self._notes = notes or RunNotes()
        self._interrupted = interrupted
        self._mask = Masker(secrets).mask
        self._strays = strays
        self._tracing = tracing

    async def prepare(self, jobs: Iterable[Job]) -> None:
        """Let the runners of all jobs make ready what their first runs would wait for; failures are logged."""
        async with anyio.create_task_group() as group:
            for job in jobs:
                if job.enabled:
                    group.start_soon(self._prepare, job, name=f"prepare {job.name}")

    async def _prepare(self, job: Job) -> None:
        context = Preparation(job=job.name, base=self._base, clock=self._clock, shared=self._shared)
        try:
            await job.runner.prepare(context)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # plugin code: also SystemExit, which would end the engine
            if isinstance(error, anyio.get_cancelled_exc_class()) and cancellation.is_wanted():
                raise
            why = _printable(_shown(error, str))[:LONGEST_REASON]
            log.warning(
                "Job %s could not be prepared: %s", job.name, why, exc_info=error,
                extra={"action": "prepare_failed", "job": job.name},
            )  # fmt: skip

    async def execute(self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant) -> Outcome:
        """Execute one attempt; what a runner raises becomes a failed outcome. Cancellation passes through."""
        if self._tracing is None:
            return await self._execute(run, job, events, attendant)
        with self._tracing.attempt(run, events) as span:
            outcome = await self._execute(run, job, events, attendant, span)
            span.ended(outcome)
            return outcome

    def _masked(self, outcome: Outcome) -> Outcome:
        # Masked before it is cut: half of a secret would be known by nobody.
        reason = self._mask(outcome.reason)[:LONGEST_REASON]
        return outcome if reason == outcome.reason else replace(outcome, reason=reason)

    async def _execute(
        self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant, span: AttemptSpan | None = None
    ) -> Outcome:
        # What its code hands in within this process comes from this run.
        before = CURRENT.set(run)
        ids = {"run": run.id, "job": run.job, "trigger": run.trigger, "event": run.event, "attempt": run.attempt}
        IDS.set(ids if span is None else {**ids, "trace_id": span.trace})
        if log.isEnabledFor(logging.DEBUG):
            log.debug("Attempt %d of a run of %s begins", run.attempt, run.job, extra={"action": "run_begins"})
        try:
            try:
                event, merged, make_scope = self._merge(run, job, events)
            except ExpressionError as error:
                return self._masked(Outcome.failed("data_error", f"failed: {error}"))
            context = Context(
                run=run, event=event, events=merged, make_scope=make_scope, base=self._base, clock=self._clock,
                run_logs=self._run_logs, shared=self._shared, attendant=attendant, notes=self._notes,
                interrupted=self._interrupted, keeps=job.on_crash is OnCrash.ADOPT, log_bytes=job.log_bytes,
                traceparent=None if span is None else span.traceparent,
            )  # fmt: skip
            if run.attempt > 1:
                await self._end_strays(run)
            return await self._follow(run, job, job.runner.run, context)
        finally:
            CURRENT.reset(before)

    async def _follow(
        self, run: Run, job: Job, begin: Callable[[Context], Awaitable[Any]], context: Context
    ) -> Outcome:  # fmt: skip
        """Await what a runner does for an attempt, whatever that is."""
        try:
            outcome: Any = await begin(context)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except anyio.get_cancelled_exc_class() as error:
            if not context.let_go:
                with anyio.CancelScope(shield=True):
                    await self._end_strays(run)
            if cancellation.is_wanted():
                raise
            outcome = _raised(run, job, error)
        except BaseException as error:  # also SystemExit, which would end the engine
            outcome = _raised(run, job, error)
        finally:
            context.close()
            if context.started and self._strays is not None and not context.let_go:
                self._strays(run.id)
        return self._masked(_checked(outcome))

    # Attempts that outlive the engine

    def is_kept(self, run: Run, job: Job) -> bool:
        """Tell whether an attempt that an earlier engine process began can be taken up."""
        try:
            return bool(job.runner.keeps and job.runner.kept(self._run_logs.keep_path(run.id), run.attempt))
        except Exception:  # kept is plugin code
            log.exception(
                "The runner of job %s raised", job.name, extra={"action": "runner_raised", "run": run.id}
            )  # fmt: skip
            return False

    async def take_up(self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant) -> Outcome:
        """Follow an attempt that `is_kept` to its end, as `execute` does."""
        try:
            event, merged, make_scope = self._merge(run, job, events)
        except ExpressionError:  # the triggers are others by now; it runs already
            event, merged, make_scope = events[-1], events, lambda: Scope({})
        context = Context(
            run=run, event=event, events=merged, make_scope=make_scope, base=self._base, clock=self._clock,
            run_logs=self._run_logs, shared=self._shared, attendant=attendant, notes=self._notes,
            interrupted=self._interrupted, keeps=True, adopted=True,
        )  # fmt: skip
        self._run_logs.watch(run.id, most_bytes=job.log_bytes)
        return await self._follow(run, job, job.runner.take_up, context)

    async def end(self, run: Run) -> None:
        """End all processes of an attempt that an earlier engine process began."""
        processes = {run.id: (run.process, run.process_started)}
        with anyio.CancelScope(shield=True):
            await end_leftovers(processes, mark=RUN_MARK, clock=self._clock)

    def forget(self, run_id: str) -> None:
        """Remove what an attempt was to be taken up by: how it ended is durable."""
        self._run_logs.forget_kept(run_id)

    async def _end_strays(self, run: Run) -> None:
        """End what an attempt left outside of its group: no two attempts of a run are ever alive at once."""
        ended = await end_leftovers({run.id: (None, None)}, mark=RUN_MARK, clock=self._clock)
        if ended:
            log.warning(
                "Ended %d processes that an attempt had left running", len(ended[run.id]),
                extra={"action": "strays_ended", "run": run.id},
            )  # fmt: skip

    def _merge(
        self, run: Run, job: Job, events: tuple[Event, ...]
    ) -> tuple[Event, tuple[Event, ...], Callable[[], Scope]]:  # fmt: skip
        """Return the run's event and all of them, with the data as the trigger merges it, and what makes the scope for
        templates."""
        rule = self._rules.get(run.trigger) or self._retired.get(run.trigger)
        if rule is None:
            return events[-1], events, partial(_scope_without_rule, run, job, events[-1], self._clock)
        if rule.joining is not None and rule.joining.waits and events[-1].input is not None:
            event = rule.joining.joined(events)
            event = replace(event, data=rule.data_of(event))
            return event, events, partial(_scope_of, rule, event, self._clock)
        merged = tuple([_with_data(event, rule) for event in events])
        event = taken(merged, Take.LAST if rule.gathering is None else rule.gathering.take)
        return event, merged, partial(_scope_of, rule, event, self._clock)


def _with_data(event: Event, rule: Rule) -> Event:
    data = rule.data_of(event)
    return event if data is event.data else replace(event, data=data)


def _scope_of(rule: Rule, event: Event, clock: Clock) -> Scope:
    return rule.scope(event, event.data).derive(now=clock.now())


def _scope_without_rule(run: Run, job: Job, event: Event, clock: Clock) -> Scope:
    return Scope({
        "event": {
            "id": event.id, "source": event.source, "type": event.type, "subject": event.subject, "time": event.time,
            "received_at": event.received_at, "key": event.key, "priority": event.priority, "input": event.input,
        },
        "data": {} if event.data is None else event.data,
        "now": clock.now(),
        "trigger": {"name": run.trigger, "tags": []},
        "job": {"name": job.name, "tags": list(job.tags)},
    })  # fmt: skip


def _raised(run: Run, job: Job, error: BaseException) -> Outcome:
    log.error("The runner of job %s raised", job.name, exc_info=error, extra={"action": "runner_raised", "run": run.id})
    text = _printable(f"{type(error).__name__}: {_shown(error, str)}")
    return Outcome.failed("runner_raised", f"failed: the runner raised {text}")


def _checked(outcome: Any) -> Outcome:
    """Return what a runner returned, if it is an outcome that can be stored; else a failed one that says why not."""
    if (
        not isinstance(outcome, Outcome)
        or not isinstance(outcome.state, str)
        or outcome.state not in _ALLOWED
        or not isinstance(outcome.code, str)
        or not is_slug(outcome.code)
        or not isinstance(outcome.reason, str)
        or not (outcome.exit_code is None or (type(outcome.exit_code) is int and abs(outcome.exit_code) < 2**63))
        or not _is_pause(outcome.retry_after_s)
        or not isinstance(outcome.final, bool)
    ):
        text = _printable(_shown(outcome, repr))[:_LONGEST_REPR]
        return Outcome.failed("runner_broke_contract", f"failed: the runner returned {text}")
    outputs = outcome.outputs
    if outputs is None and type(outcome.state) is RunState and outcome.reason.isascii():
        return outcome
    try:
        if outputs is not None:
            outputs = dict(outputs)
            survey(outputs)
            if (size := len(encode_json(outputs))) > LARGEST_OUTPUTS_BYTES:
                raise InvalidEvent(f"they are {format_size(size)}, more than {format_size(LARGEST_OUTPUTS_BYTES)}")
    except (TypeError, ValueError) as error:
        return Outcome.failed("bad_outputs", f"failed: its outputs can't be kept: {_printable(str(error))}")
    except InvalidEvent as error:
        return Outcome.failed("bad_outputs", f"failed: its outputs can't be kept: {error}")
    return replace(outcome, state=RunState(outcome.state), reason=_printable(outcome.reason), outputs=outputs)


def _is_pause(seconds: Any) -> bool:
    return seconds is None or (type(seconds) in (int, float) and 0 <= seconds < math.inf)


def _shown(value: Any, how: Callable[[Any], str]) -> str:
    """Return a plugin's object as text, whatever its methods do."""
    try:
        return how(value)
    except Exception as error:
        return f"a {type(value).__name__} that can't be shown ({type(error).__name__})"


def _printable(reason: str) -> str:
    """Return a sentence as valid Unicode, which can be stored."""
    return reason.encode("utf-8", "backslashreplace").decode()
