"""Attempts whose ends a machine decides, in an engine that it stops and kills."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from fractions import Fraction

from engine.jobs import Job
from engine.plugin import Outcome
from engine.runs import Run
from engine.store.base import RunFilter
from engine.testing import VirtualClock
from engine.triggers import Trigger
from tests.machines.driven import Driven, settle_left
from tests.organs import Bench, bench


class Attempts(Driven[Bench]):
    """An engine whose attempts go on until `end` is called, or something ends them.

    Runs are known by numbers, in the order in which they came.
    """

    def __init__(self, jobs: Sequence[Job], triggers: Sequence[Trigger], concurrency: int) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.began = self.clock.now()
        self.numbers: dict[str, int] = {}
        self._jobs, self._triggers, self._concurrency = jobs, triggers, concurrency
        self._going: dict[str, asyncio.Future[Outcome]] = {}
        self._begun: list[tuple[Fraction, int, int]] = []

    @property
    def now(self) -> Fraction:
        """Seconds since the beginning."""
        return Fraction(round((self.clock.now() - self.began).total_seconds() * 1e6), 10**6)

    def start(self) -> None:
        """Start the engine, which first settles what was left running."""
        named = {job.name: job for job in self._jobs}
        self.enter(self._bench(dispatching=False))
        self.do(settle_left(self.desk, named))
        self.leave()
        self.enter(self._bench(dispatching=True))
        self.do(self.desk.settle())

    def _bench(self, *, dispatching: bool) -> AbstractAsyncContextManager[Bench]:
        return bench(
            self.path, jobs=self._jobs, triggers=self._triggers, concurrency=self._concurrency, clock=self.clock,
            dispatching=dispatching, act=self._act,
        )  # fmt: skip

    async def _act(self, run: Run, job: Job) -> Outcome:
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._going[run.id] = ended
        try:
            return await ended
        finally:
            if self._going.get(run.id) is ended:
                del self._going[run.id]

    def know(self, run: str) -> int:
        """Return the number of a run."""
        return self.numbers.setdefault(run, len(self.numbers))

    def end(self, number: int, outcome: Outcome) -> None:
        """Have the attempt of a run end."""
        name = next(run for run, mine in self.numbers.items() if mine == number)
        self._going[name].set_result(outcome)
        self.do(self.desk.settle())

    def stop(self, seconds: float, *, killed: bool) -> None:
        """Stop the engine, or kill it, and start it again after a while."""
        self._begun = self.begun()
        if killed:
            self.kill()
        else:
            self.do(self.desk.dispatch.drain(0))
            self.leave()
        self._going.clear()
        self.do(self.clock.advance(seconds))
        self.start()

    def begun(self) -> list[tuple[Fraction, int, int]]:
        """Return each attempt that has begun: when, of which run, and its number."""
        return self._begun + [
            (Fraction(round((at - self.began).total_seconds() * 1e6), 10**6), self.numbers[run], attempt)
            for run, attempt, at in self.desk.script.begun
        ]

    def runs(self) -> dict[int, Run]:
        """Return all runs as they are stored, by number."""
        found = self.do(self.desk.store.runs(RunFilter(), limit=10_000))
        return {self.numbers[run.id]: run for run in found}
