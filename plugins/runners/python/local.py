"""Functions in the engine's own process: async ones on its event loop, plain ones in a thread each."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

from engine.plugin import FunctionContext, Outcome, RunContext
from plugins.runners.python.calling import Progress, RunLog, call, raised, returned


class Attempt:
    """What the context of a function in this process leads to, and what has to be closed after it.

    It does not know that context: a cycle of theirs would live, with the run's events, until the collector comes by.
    """

    __slots__ = ("_log", "_progress", "_run", "cancelled")

    def __init__(self, run: RunContext) -> None:
        self.cancelled = False
        self._run = run
        self._log: logging.Logger | None = None
        self._progress: Progress | None = None

    def context(self, is_cancelled: Callable[[], bool] | None = None) -> FunctionContext:
        """Return what the function is given; `is_cancelled` where that is not what `cancelled` says."""
        run = self._run
        return FunctionContext(
            run.event, events=run.events, run_id=run.run_id, job=run.job, trigger=run.trigger, attempt=run.attempt,
            scheduled_for=run.scheduled_for, traceparent=self.traceparent, log=self.log,
            is_cancelled=is_cancelled or self.is_cancelled, on_progress=self.progress,
        )  # fmt: skip

    def is_cancelled(self) -> bool:
        return self.cancelled

    def traceparent(self) -> str:
        return self._run.traceparent

    def log(self) -> logging.Logger:
        if self._log is None:
            self._log = logging.Logger("run", logging.INFO)
            self._log.addHandler(RunLog(self._run.open_log))
        return self._log

    def progress(self, fraction: float, text: str) -> None:
        if self._progress is None:
            self._progress = Progress(self.log)
        self._progress(fraction, text)

    def close(self) -> None:
        if self._log is not None:
            for handler in self._log.handlers:
                handler.close()


async def await_function(
    function: Callable[..., Any], run: RunContext, takes_run: bool, arguments: Mapping[str, Any]
) -> Outcome:
    """Call an async function on the loop. It is cancelled as the attempt is; what it does instead does not count."""
    attempt = Attempt(run)
    context = attempt.context(_is_being_cancelled)
    try:
        outcome = returned(await call(function, context, takes_run, arguments), context)
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # the user's code: also SystemExit and KeyboardInterrupt, which would end the engine
        outcome = raised(error, context)
    finally:
        attempt.close()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # It caught its cancellation, and returned or raised something else: it was cancelled all the same.
        await checkpoint_if_cancelled()
    return outcome


def _is_being_cancelled() -> bool:
    return anyio.current_effective_deadline() == float("-inf")


async def call_in_thread(
    function: Callable[..., Any], run: RunContext, takes_run: bool, arguments: Mapping[str, Any]
) -> Outcome:
    """Call a plain function in a thread of its own. A thread can't be ended: cancelled, this waits for its end."""
    attempt = Attempt(run)
    context = attempt.context()
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Outcome] = loop.create_future()

    def work() -> None:
        try:
            outcome = returned(call(function, context, takes_run, arguments), context)
        except BaseException as error:  # the user's code
            outcome = raised(error, context)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(ended.set_result, outcome)

    name = f"run {run.run_id} {run.job}"
    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        attempt.cancelled = True
        if not ended.done():
            text = "told to end; a thread can't be made to: its run keeps its slot until the function returns"
            context.log.warning(text, extra={"action": "thread_lingers"})
            run.log.warning("Run %s: %s", run.run_id, text, extra={"action": "thread_lingers"})
        with CancelScope(shield=True):
            await asyncio.wait([ended])
        raise
    finally:
        attempt.close()
