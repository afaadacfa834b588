"""Outcomes: what the log says of ends of runs. A busy engine sums up, so that its log costs no more than its work."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

import anyio

from engine.clock import Clock
from engine.runs import Run, RunState, Step
from engine.units import format_duration

log = logging.getLogger("engine.run")

MOST_AT_ONCE, MORE_EACH_S = 20, 2.0
"""So many ends are told one by one; every so many seconds one more."""

SUM_UP_S = 5.0
"""What was not told one by one is summed up so often."""

_LEVELS = {
    RunState.SUCCEEDED: logging.INFO,
    RunState.SKIPPED: logging.INFO,
    RunState.CANCELLED: logging.INFO,
    RunState.QUEUED: logging.INFO,
    RunState.RETRYING: logging.WARNING,
}


class Tells(Protocol):
    """Hears that an attempt ended and what becomes of its run: its last step."""

    def __call__(self, run: Run, step: Step, /) -> None: ...


class Allowance:
    """How many ends may be told one by one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = float(MOST_AT_ONCE)
        self._since_s = clock.monotonic()

    def take(self) -> bool:
        """Take one, where there is one."""
        now_s = self._clock.monotonic()
        self._left = min(self._left + (now_s - self._since_s) / MORE_EACH_S, MOST_AT_ONCE)
        self._since_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Outcomes:
    """Tells ends of attempts in the log; however many succeed, failures are told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._good, self._bad = Allowance(clock), Allowance(clock)
        self._untold: Counter[RunState] = Counter()
        self._wanted = anyio.Event()
        self._scope = anyio.CancelScope()

    def __call__(self, run: Run, step: Step, /) -> None:
        level = _LEVELS.get(step.state, logging.ERROR)
        if not (self._good if level == logging.INFO else self._bad).take():
            self._untold[step.state] += 1
            self._wanted.set()
            return
        took = "" if run.started_at is None else f" after {format_duration((step.at - run.started_at).total_seconds())}"
        log.log(
            level, "Run of %s %s%s: %s", run.job, step.state, took, step.reason,
            extra={"action": "run_ended", "run": run.id, "trigger": run.trigger, "code": step.code},
        )  # fmt: skip

    async def run(self) -> None:
        """Sum up what was not told one by one, until `close`."""
        with self._scope:
            while True:
                await self._wanted.wait()
                await self._clock.sleep(SUM_UP_S)
                self._sum_up()
        self._sum_up()

    def close(self) -> None:
        """Let `run` sum up once more, and return."""
        self._scope.cancel()

    def _sum_up(self) -> None:
        untold, self._untold, self._wanted = self._untold, Counter(), anyio.Event()
        if untold:
            worst = max(_LEVELS.get(state, logging.ERROR) for state in untold)
            parts = ", ".join(f"{state} {count}" for state, count in sorted(untold.items()))
            log.log(worst, "%d more attempts ended: %s", untold.total(), parts, extra={"action": "runs_ended"})
