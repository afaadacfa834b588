"""Calling a function, wherever that is: its context, and the outcome that what it returned or raised stands for."""

from __future__ import annotations

import inspect
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from engine.plugin import FunctionContext, InvalidEvent, Outcome, RunCancelled, survey

LONGEST_TEXT = 500
PROGRESS_S = 1.0
"""The least time between two lines of progress."""

_HERE = os.path.dirname(__file__) + os.sep

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class RunLog(logging.Handler):
    """Writes records to the log of a run, opened at the first; a log that can't be written fails nothing."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(LOG_FORMAT))
        self._open = open_log
        self._descriptor = -1

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._descriptor < 0:
                self._descriptor = self._open()
            os.write(self._descriptor, text)
        except Exception:  # a record's arguments are the user's
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Let it go: the disk may be full, or the record's arguments may not fit its text."""

    def close(self) -> None:
        """Close the file; what is logged later opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


class Progress:
    """Lines of progress in a run's log, at most one a second; the last one always."""

    def __init__(self, log: Callable[[], logging.Logger]) -> None:
        self._log = log
        self._next_s = 0.0

    def __call__(self, fraction: float, text: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s or fraction == 1:
            self._next_s = now_s + PROGRESS_S
            self._log().info("progress %.0f %%%s", fraction * 100, f": {text}" if text else "")


def call(function: Callable[..., Any], context: FunctionContext, takes_run: bool, arguments: Mapping[str, Any]) -> Any:
    """Call a function as its signature asks for."""
    return function(context, **arguments) if takes_run else function(**arguments)


def returned(value: Any, context: FunctionContext) -> Outcome:
    """Return the outcome of a function that returned."""
    if value is None:
        if not context.outputs:
            return Outcome.succeeded("returned")
        return checked(Outcome.succeeded("returned", outputs=context.outputs))
    if isinstance(value, Outcome):
        if context.outputs or value.outputs:
            outputs = {**context.outputs, **(value.outputs or {})}
            value = Outcome(
                state=value.state, code=value.code, reason=value.reason, exit_code=value.exit_code, outputs=outputs,
                retry_after_s=value.retry_after_s,
            )  # fmt: skip
        return checked(value)
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        what = type(value).__name__
        if inspect.iscoroutine(value):
            value.close()  # so that nobody warns of it
        reason = f"returned a {what}, of which nothing was run: a function that awaits has to be `async def` itself"
        return Outcome.failed("not_awaited", reason, outputs=outputs_of(context))
    found = dict(value) if isinstance(value, Mapping) else {"result": value}
    return checked(Outcome.succeeded("returned", outputs={**context.outputs, **found}))


def checked(outcome: Outcome) -> Outcome:
    """Return an outcome whose outputs are plain JSON values, or the failed one that says what is not."""
    try:
        survey(outcome.outputs)
    except InvalidEvent as error:
        text = str(error).replace("data", "what it returned or gave as outputs", 1)
        return Outcome.failed("bad_outputs", f"can't be kept: {text}")
    return outcome


def outputs_of(context: FunctionContext) -> dict[str, Any] | None:
    """Return what was given as outputs by a function that failed; None where it can't be kept."""
    try:
        survey(context.outputs)
    except InvalidEvent:
        return None
    return context.outputs or None


def raised(error: BaseException, context: FunctionContext) -> Outcome:
    """Return the outcome of a function that raised, and write the traceback to the run's log."""
    outputs = outputs_of(context)
    if isinstance(error, SystemExit):
        if error.code is None or (type(error.code) is int and error.code == 0):
            return Outcome.succeeded("exited with 0", exit_code=0, outputs=outputs)
        code = error.code if type(error.code) is int else 1
        text = "" if type(error.code) is int else f": {_text(error)}"
        return Outcome.failed("exit_code", f"exited with {code}{text}", exit_code=code, outputs=outputs)
    frames = traceback.extract_tb(error.__traceback__)
    own = next((place for place, frame in enumerate(frames) if not frame.filename.startswith(_HERE)), len(frames))
    _log_traceback(error, own, context)
    if isinstance(error, MemoryError):
        reason = "ran out of memory: raise the runner's `memory`, where it has one, or use less"
        return Outcome.failed("out_of_memory", reason, outputs=outputs)
    if isinstance(error, RunCancelled):
        return Outcome.failed("signal", "ended by SIGTERM", outputs=outputs)
    inner = frames[-1] if frames else None
    place = f" ({os.path.basename(inner.filename)}, line {inner.lineno})" if inner and own < len(frames) else ""
    text = _text(error)
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Outcome.failed("function_raised", f"raised {said}{place}", outputs=outputs)


def _log_traceback(error: BaseException, own: int, context: FunctionContext) -> None:
    place = error.__traceback__
    for _ in range(own):
        place = place.tb_next if place is not None else None
    try:
        context.log.error("raised", exc_info=(type(error), error, place))
    except Exception:  # an error that can't be shown
        context.log.error("raised %s", type(error).__name__)


def _text(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:LONGEST_TEXT]
    except Exception:
        return "what can't be shown"
