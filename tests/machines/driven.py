"""What a machine drives: an engine in an event loop of its own, which is stopped, killed and started again at will."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

from engine.decide.attempts import after_crash
from engine.jobs import Job
from engine.store.changes import Finish
from tests.organs import AGEING_S, Bench

T = TypeVar("T")
D = TypeVar("D")

PHASES = tuple(Phase)
"""What Hypothesis does; shrinking takes minutes where a way is long."""

STEPS_OF_ONE = 40
"""So many steps an engine is driven for, at most, before another one is."""


class Driven(Generic[D]):
    """An engine that somebody drives who has no event loop; `desk` is what stands for it while it runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self._lives = 0
        self.desk: D
        self._task: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()

    @property
    def path(self) -> Path:
        """The file of the store."""
        return Path(self._folder.name) / f"{self._lives}.db"

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Have something done, and return what it returns."""
        return self._loop.run_until_complete(what)

    def enter(self, engine: AbstractAsyncContextManager[D]) -> None:
        """Start an engine."""
        ready: asyncio.Future[D] = self._loop.create_future()
        self._leave = asyncio.Event()

        async def live() -> None:
            try:
                async with engine as desk:
                    ready.set_result(desk)
                    await self._leave.wait()
            except BaseException as error:
                if not ready.done():
                    ready.set_exception(error)
                    return
                raise

        self._task = self._loop.create_task(live())
        self.desk = self._loop.run_until_complete(ready)

    def leave(self) -> None:
        """Stop the engine."""
        if self._task is not None:
            self._leave.set()
            task, self._task = self._task, None
            self._loop.run_until_complete(task)

    def kill(self) -> None:
        """End the engine as it stands: what follows goes on from what its store held at this instant."""
        before, names = self.path, ("", "-wal")
        self._lives += 1
        for name in names:
            if Path(f"{before}{name}").exists():
                shutil.copyfile(f"{before}{name}", f"{self.path}{name}")
        self.leave()

    def close(self) -> None:
        """Take everything down."""
        self.leave()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._folder.cleanup()


async def settle_left(desk: Bench, jobs: dict[str, Job]) -> None:
    """End what a crash left running, as the runtime does before anything is started."""
    now = desk.clock.now()
    for run in await desk.store.running():
        end = after_crash(run, jobs[run.job].on_crash, now, 0, AGEING_S)
        await desk.intake.finish(run, Finish.of(run.id, end))


class Machine(RuleBasedStateMachine):
    """Counts its steps, and compares after each of them. `compare` raises where engine and model differ."""

    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._compared = False

    def compare(self) -> None:
        """Raise AssertionError where engine and model differ."""
        raise NotImplementedError

    @invariant()
    def engine_and_model_agree(self) -> None:
        if self._compared:
            type(self).steps += 1
        self._compared = True
        self.compare()


def drive(machine: type[Machine], steps: int) -> int:
    """Drive a machine for at least so many steps; return how many it were. Raises what a difference does."""
    before = machine.steps
    while (left := steps - (machine.steps - before)) > 0:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=min(max(left // (STEPS_OF_ONE // 2), 1), 200), stateful_step_count=STEPS_OF_ONE,
                deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES,
            ),
        )  # fmt: skip
    return machine.steps - before
