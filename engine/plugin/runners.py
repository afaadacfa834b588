"""Runners: what executes runs."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

from msgspec import Struct

from engine.clock import Clock
from engine.events import Event
from engine.expressions import Scope
from engine.plugin.settings import BadSetting, Plugin
from engine.runs import RunState

T = TypeVar("T")


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt ended: `state` is `succeeded`, `failed` or `skipped`, with a stable code and a sentence.

    `retry_after_s`: the next attempt, where the job's retry policy has one, begins no sooner (a day at most);
    for what others ask for, such as a server's `Retry-After`. `final`: there is no next attempt, whatever that says.
    """

    state: RunState
    code: str
    reason: str
    exit_code: int | None = None
    outputs: Mapping[str, Any] | None = None
    retry_after_s: float | None = None
    final: bool = False

    @staticmethod
    def succeeded(reason: str, *, exit_code: int | None = None, outputs: Mapping[str, Any] | None = None) -> Outcome:
        """Return the outcome of an attempt that did its work."""
        return Outcome(state=RunState.SUCCEEDED, code="succeeded", reason=reason, exit_code=exit_code, outputs=outputs)

    @staticmethod
    def failed(
        code: str, reason: str, *, exit_code: int | None = None, outputs: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None, final: bool = False,
    ) -> Outcome:  # fmt: skip
        """Return the outcome of an attempt that did not; the job's retry policy says what follows."""
        return Outcome(
            state=RunState.FAILED, code=code, reason=reason, exit_code=exit_code, outputs=outputs,
            retry_after_s=retry_after_s, final=final,
        )  # fmt: skip


class PrepareContext(Protocol):
    """What the engine offers to a runner ahead of the runs of a job; a `RunContext` offers it too."""

    job: str

    base: Path
    """The directory of the configuration file: relative paths in settings are relative to it."""

    clock: Clock
    log: logging.LoggerAdapter[logging.Logger]

    async def shared(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what all attempts with this key share, such as a pool of processes or connections.

        `make()` is called and entered when it is first asked for; the engine leaves it when it stops, after the
        last attempt ended. `key` begins with the runner's name and holds the settings that matter, such as
        `("python", workers)`. Raises what `make` or entering raises; it is tried anew at the next call.
        """
        ...


class RunContext(PrepareContext, Protocol):
    """What the engine offers to a runner for one attempt."""

    run_id: str
    trigger: str
    attempt: int
    """The number of this attempt, from 1."""

    event: Event
    """The latest event, with the data as the trigger merged it."""

    events: tuple[Event, ...]
    """All events of the run, oldest first."""

    scheduled_for: datetime | None

    scope: Scope
    """The values that the job's expressions and templates see."""

    marks: Mapping[str, str]
    """Environment variables by which a process is known as this run's; every process of it must carry them."""

    keep_path: str | None
    """Where an attempt that is to outlive the engine (`on_crash = "adopt"`) leaves what it is taken up by: a file, and
    others whose names begin with its name. The engine removes them when the end of the attempt is recorded. None: it is
    to be ended with the engine."""

    @property
    def let_go(self) -> bool:
        """Whether `run` is cancelled as the engine stops, and the attempt is to go on: what it started is not ended."""
        ...

    @property
    def traceparent(self) -> str:
        """What others that do a part of the work go on from (https://www.w3.org/TR/trace-context/); the engine finds by
        it which run caused an event that they send."""
        ...

    def open_log(self) -> int:
        """Return a file descriptor to append the run's output to; the runner closes it."""
        ...

    def output_path(self) -> str:
        """Return the path of a file, not yet there, where the attempt may leave `name=value` lines."""
        ...

    def process_started(self, pid: int) -> None:
        """Tell of a process, the leader of its own session, so that it can be found after a crash."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether this attempt is cancelled because the engine stops: it is made again at the next start.

        What others do for it meanwhile may then go on; else (a time-out, somebody cancels it) it is to be ended.
        """
        ...

    @property
    def noted(self) -> Any:
        """What this attempt noted, also before the engine was stopped or died; None for nothing."""
        ...

    async def note(self, value: Any) -> None:
        """Note a JSON value for an attempt that has to be made again after a crash, durably when it returns.

        It takes the place of what was noted before, is not seen by later attempts, and is gone when the run has
        ended. Raises InvalidEvent for what is no JSON value, StoreUnavailable when it can't be stored now.
        """
        ...

    def used(
        self, cpu_s: float | None, peak_bytes: int | None, *, ended_at: datetime | None = None
    ) -> None:  # fmt: skip
        """Tell what the attempt's processes took: seconds of processor time, and their most memory at once.

        What is told last counts; None is what is not known. `ended_at`: when they ended, where nobody was there to see.
        """
        ...


class Runner(Plugin, frozen=True, kw_only=True):
    """Something that executes runs, such as a program.

    When an attempt is timed out or cancelled, `run` is cancelled: it must then end what it started before it
    lets the cancellation go on, unless `context.let_go` says that it is to go on by itself.
    """

    keeps: ClassVar[bool] = False
    """Whether its attempts can outlive the engine, as jobs with `on_crash = "adopt"` want it."""

    guarded: ClassVar[frozenset[str]] = frozenset()
    """Settings by which it can be made to do more than `programs` says, such as environment variables: they can stand
    in a configuration file alone, and not in what the API defines."""

    @abstractmethod
    async def run(self, context: RunContext) -> Outcome:
        """Execute one attempt and return how it ended. What it raises is a failed attempt (`runner_raised`)."""

    def kept(self, path: str, attempt: int) -> bool:
        """Tell whether the attempt of that number can be taken up, by what it left at its `RunContext.keep_path`.

        It is running, or how it ended is known. Called at the start of the engine, where `keeps` is true.
        """
        return False

    async def take_up(self, context: RunContext) -> Outcome:
        """Follow an attempt that another engine process began to its end, as `run` does; where `kept` was true."""
        raise NotImplementedError

    def programs(self) -> Sequence[str]:
        """Return what it starts on this machine: programs, or functions, as its settings name them.

        A job that the API defines may have it where `[security] api_commands` allows each of them.
        """
        return ()

    def check(self, names: Collection[str]) -> None:
        """Compile what the settings hold; raise BadSetting for what is wrong. Called once, at `check`."""

    @classmethod
    def examine(cls, runners: Mapping[str, Self], base: Path) -> Mapping[str, BadSetting]:
        """Look at what settings name outside of themselves, such as modules; return what is wrong, by job.

        Called once with the runners of all jobs, by name, when the engine starts and at `check`; other commands do
        without. It may take its time, but must end. `base`: see `PrepareContext.base`.
        """
        return {}

    async def prepare(self, context: PrepareContext) -> None:
        """Make ready what the first run of a job would wait for, such as processes or imports.

        Called once for each job when the engine starts, beside everything else: a run may come first. What it
        raises is logged, and nothing else follows.
        """
