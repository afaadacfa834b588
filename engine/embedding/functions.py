"""Jobs that are functions of the application: called in its own process, on its loop or in a thread."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from msgspec.structs import replace

from engine import cancellation
from engine.errors import said
from engine.events import Event
from engine.logs import IdLogger
from engine.payload import copied
from engine.plugin import Outcome, Runner
from engine.plugin import RunContext as Attempt

log = logging.getLogger("engine.run")


class RunContext:
    """What a job's function gets: one attempt of one run.

    - `event` is the latest event, `events` all of them (more than one after a debounce, a batch or a join). `data` is
      what the run gets: that of the latest, or what `take` or the join makes of all, as the trigger merged it. They are
      the attempt's own: what it changes, nobody else sees.
    - `run_id`, `job`, `trigger`; `attempt` is the number of this attempt, from 1.
    - `scheduled_for`: the due instant of a timer, else None.
    - `traceparent`: to be sent along with requests to others (https://www.w3.org/TR/trace-context/).
    """

    def __init__(self, attempt: Attempt) -> None:
        self.run_id: str = attempt.run_id
        self.job: str = attempt.job
        self.trigger: str = attempt.trigger
        self.attempt: int = attempt.attempt
        self.scheduled_for: datetime | None = attempt.scheduled_for
        self.traceparent: str = attempt.traceparent
        self.events: tuple[Event, ...] = tuple(_own(event) for event in attempt.events)
        self.event: Event = self.events[-1] if attempt.event is attempt.events[-1] else _own(attempt.event)
        self.data: Any = self.event.data
        self._file = _LogFile(attempt.open_log)
        self._outputs: dict[str, Any] = {}
        self._is_cancelled: Callable[[], bool] = cancellation.is_wanted

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records go to the run's log file, and on to the logger `engine.run`."""
        # It stands in no registry of loggers, and goes with the attempt.
        logger = logging.Logger(log.name, logging.INFO)
        logger.addHandler(self._file)
        logger.addHandler(_Onward())
        return IdLogger(logger, {"run": self.run_id, "job": self.job, "trigger": self.trigger})

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is to end: its time is up, or the engine stops.

        An asynchronous function is cancelled then. A thread can't be ended from outside: a plain function that runs
        for long looks here now and then, and returns.
        """
        return self._is_cancelled()

    def output(self, **values: Any) -> None:
        """Set outputs of the run; JSON values. Those that the function returns go over them."""
        self._outputs |= values

    def progress(self, fraction: float, text: str = "") -> None:
        """Note in the run's log how far it is, from 0 to 1. Raises ValueError for what is not between them."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress goes from 0 to 1; {fraction!r} is not between them")
        self.log.info("%.0f %%%s", fraction * 100, f": {text}" if text else "", extra={"action": "run_progress"})


class Function(Runner, frozen=True, kw_only=True):
    """Call a function of the application with a `RunContext`: an asynchronous one on the loop, a plain one in a thread.

    It returns None, a dict of outputs, an `Outcome`, or any other JSON value, which becomes the output `result`.
    What it raises is a failed attempt. A thread can't be ended: one whose time is up keeps its slot until it ends.
    """

    name: ClassVar[str] = "function"

    function: Any
    """A callable; settings of that type there are none."""

    async def run(self, context: Attempt) -> Outcome:
        run = RunContext(context)
        try:
            answer = await self._call(run)
        except (Exception, SystemExit) as error:  # the application's code
            run.log.exception("Job %s raised", run.job, extra={"action": "function_raised"})
            return Outcome.failed("function_raised", f"raised {type(error).__name__}: {said(error)}")
        finally:
            run._file.close()
        return answer if isinstance(answer, Outcome) else _succeeded(run._outputs, answer)

    async def _call(self, run: RunContext) -> Any:
        if is_async(self.function):
            return await self.function(run)
        answer = await _in_thread(self.function, run)
        # A plain function may hand on what an asynchronous one gave it.
        return await answer if inspect.isawaitable(answer) else answer


async def _in_thread(function: Callable[[RunContext], Any], run: RunContext) -> Any:
    """Call a plain function in a thread, however long it takes, and let it know when it is cancelled meanwhile."""

    cancelled = threading.Event()
    run._is_cancelled = cancelled.is_set
    error: BaseException | None = None
    answer: Any = None

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            # Slots bound the threads, so that each attempt has one at once.
            answer = await anyio.to_thread.run_sync(function, run, limiter=anyio.CapacityLimiter(1))
        except (Exception, SystemExit) as raised:
            error = raised  # a group would wrap it
        group.cancel_scope.cancel()
    run._is_cancelled = cancellation.is_wanted
    # One that ended as it was told to has not done its work, whatever it returned.
    await anyio.lowlevel.checkpoint_if_cancelled()
    if error is not None:
        raise error
    return answer


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class _LogFile(logging.Handler):
    """Appends records to the run's log file, which is made with the first one."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._open = open_log
        self._descriptor: int | None = None
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._closed:  # the attempt has ended; whoever kept its logger writes to the other one alone
            return
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        super().close()
        with self.lock or contextlib.nullcontext():
            self._closed = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


class _Onward(logging.Handler):
    """Hands records to the logger `engine.run`, for what its level lets pass."""

    def emit(self, record: logging.LogRecord) -> None:
        if log.isEnabledFor(record.levelno):
            log.handle(record)


def _succeeded(outputs: Mapping[str, Any], answer: Any) -> Outcome:
    if answer is not None:
        outputs = {**outputs, **(answer if isinstance(answer, Mapping) else {"result": answer})}
    return Outcome.succeeded("returned", outputs=outputs or None)


def _own(event: Event) -> Event:
    return replace(event, data=copied(event.data))
