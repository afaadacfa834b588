"""What a function of a Python job is called with; authors import it for its type, and make one in their tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from engine.events import Event

_log = logging.getLogger("run")


class RunCancelled(BaseException):
    """Raised in a plain function in a worker process when its run is timed out, cancelled or interrupted.

    Let it pass: `finally` and `with` have ten seconds for what has to be put right, then the process is killed. It
    is not raised in a function that has looked at `FunctionContext.cancelled`, which is left to end by itself.
    """


class FunctionContext:
    """One attempt of a run, as a function of a Python job sees it: `def work(run: FunctionContext) -> dict: …`.

    - `event`: the latest event, with the data as the trigger merged it; `events`: all of the run, oldest first.
    - `run_id`, `job`, `trigger`: the same over all attempts; `attempt`: the number of this one, from 1.
    - `scheduled_for`: the due instant of a timer, in UTC; None for others.
    - `traceparent`: to be sent along with requests to others (https://www.w3.org/TR/trace-context/).
    - `outputs`: what `output` was told so far.

    The engine makes it; in a test of a function `FunctionContext(Event(type="order", data={…}))` is enough. `log`,
    `is_cancelled` and `on_progress` say where lines, the flag and progress come from and go to; a `traceparent` that
    has to be made first can be what makes it.
    """

    __slots__ = (
        "_is_cancelled", "_log", "_on_progress", "_traceparent", "attempt", "event", "events", "job", "outputs",
        "run_id", "scheduled_for", "trigger",
    )  # fmt: skip

    def __init__(
        self, event: Event, *, events: tuple[Event, ...] = (), run_id: str = "", job: str = "", trigger: str = "",
        attempt: int = 1, scheduled_for: datetime | None = None, traceparent: str | Callable[[], str] = "",
        log: Callable[[], logging.Logger] = lambda: _log, is_cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> None:  # fmt: skip
        self.event = event
        self.events = events or (event,)
        self.run_id = run_id
        self.job = job
        self.trigger = trigger
        self.attempt = attempt
        self.scheduled_for = scheduled_for
        self._traceparent = traceparent
        self.outputs: dict[str, Any] = {}
        self._log = log
        self._is_cancelled = is_cancelled
        self._on_progress = on_progress

    @property
    def data(self) -> Any:
        """The latest event's data."""
        return self.event.data

    @property
    def traceparent(self) -> str:
        """To be sent along with requests to others."""
        made = self._traceparent
        return made if isinstance(made, str) else made()

    @traceparent.setter
    def traceparent(self, text: str) -> None:
        self._traceparent = text

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines go to the run's log, from INFO on."""
        return self._log()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was timed out, cancelled or interrupted; it can't become false again.

        For functions in threads and worker processes to look at now and then, and to end soon where it is true. One
        in a worker process that has looked is not interrupted by `RunCancelled`. Async functions are cancelled.
        """
        return self._is_cancelled()

    def output(self, **values: Any) -> None:
        """Set outputs of the run by name, JSON values; a name that is set again has the last value.

        They are kept however the attempt ends, unless its process is killed. A dict that the function returns is
        added to them.
        """
        self.outputs.update(values)

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the work has come, from 0 to 1: a line in the run's log, at most one a second.

        Raises ValueError for what is no such number.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"{fraction!r} is no progress: pass a number from 0 to 1")
        if self._on_progress is not None:
            self._on_progress(fraction, text)
