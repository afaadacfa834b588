"""Outcomes: what the log says of ends of runs. A busy engine sums up, so that its log costs no more than its work."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

import anyio

from engine.clock import Clock
from engine.decide.attempts import AttemptEnd
from engine.runs import Run, RunState
from engine.units import format_span

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
    """Hears that an attempt ended and what becomes of its run."""

    def __call__(self, run: Run, end: AttemptEnd, /) -> None: ...


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
        self._succeeded = 0
        self._waits = False
        self._wanted = anyio.Event()
        self._scope = anyio.CancelScope()

    def __call__(self, run: Run, end: AttemptEnd, /) -> None:
        step = end.step
        good = step.state is RunState.SUCCEEDED
        if not (self._good if good else self._bad).take():
            if good:
                self._succeeded += 1  # what a busy engine does all the time
            else:
                self._untold[step.state] += 1
            if not self._waits:
                self._waits = True
                self._wanted.set()
            return
        log.log(
            _LEVELS.get(step.state, logging.ERROR), "%s", _told(run, end),
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
        if self._succeeded:
            untold[RunState.SUCCEEDED] = self._succeeded
        self._succeeded, self._waits = 0, False
        if untold:
            # What is tried again has not failed yet: in a sum it is no reason to look.
            told = {state for state in untold if state is not RunState.RETRYING}
            worst = max((_LEVELS.get(state, logging.ERROR) for state in told), default=logging.INFO)
            what = "attempt" if untold.total() == 1 else "attempts"
            parts = ", ".join(f"{state} {count}" for state, count in sorted(untold.items()))
            log.log(worst, "%d more %s ended: %s", untold.total(), what, parts, extra={"action": "runs_ended"})


def _told(run: Run, end: AttemptEnd) -> str:
    """Say how an attempt ended, how long it took, and what becomes of its run."""
    attempt, step = end.attempt, end.step
    took = f"after {format_span((attempt.finished_at - attempt.started_at).total_seconds())}"
    one = f"Attempt {attempt.number} of a run of {run.job}"
    if step.state is RunState.QUEUED:
        why = step.reason.removeprefix("interrupted: ")
        return f"{one} was cut off {took}, and the run is queued again: {why}"
    if step.state is RunState.RETRYING and end.due_at is not None:
        pause = format_span((end.due_at - step.at).total_seconds())
        return f"{one} {_how(attempt.state, took, attempt.reason)}; next in {pause}"
    return f"Run of {run.job} {_how(step.state, took, step.reason)}"


def _how(state: RunState, took: str, reason: str) -> str:
    if state is RunState.TIMED_OUT and reason.startswith("timed out after"):
        return reason
    return f"{state.replace('_', ' ')} {took}: {reason}"
