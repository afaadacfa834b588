"""Making one check of a condition, as the engine makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import anyio

from engine.clock import Clock
from engine.conditions import Checks
from engine.conditions.checks import NoAnswer
from engine.decide.conditions import Named
from engine.plugin import Condition, LastRun, RunState, Verdict
from engine.testing.clock import VirtualClock

T = TypeVar("T")


class CheckFailed(AssertionError):
    """The engine would have taken it for no answer; the text says why."""


class _Shared:
    """Holds what a check shares until the check is over."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self._made: dict[Hashable, Any] = {}

    async def get(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if key not in self._made:
            self._made[key] = await self.stack.enter_async_context(make())
        made: T = self._made[key]
        return made


class _Endings:
    def __init__(self, last_runs: Mapping[str, LastRun]) -> None:
        self._last_runs = last_runs

    async def last(self, job: str, states: Sequence[RunState]) -> LastRun | None:
        found = self._last_runs.get(job)
        return found if found is not None and (not states or found.state in states) else None


async def check_condition(
    condition: Condition, *, base: Path = Path("/nonexistent"), clock: Clock | None = None, timeout_s: float = 10.0,
    last_runs: Mapping[str, LastRun] | None = None,
) -> Verdict:  # fmt: skip
    """Make one check, and return its verdict as the engine would keep it.

    `last_runs` are how the last runs of jobs ended, by job; `base` is the directory of the configuration file. The
    clock is virtual unless another is given: a check that takes longer than `timeout_s` needs one that goes on. Raises
    CheckFailed, with what the engine would say, where there is no answer: the check raised, took too long, or returned
    what is no verdict.
    """
    answers: asyncio.Future[Verdict | NoAnswer] = asyncio.get_running_loop().create_future()

    def take(one: Named, found: Verdict | NoAnswer, took_s: float) -> None:
        if not answers.done():
            answers.set_result(found)

    shared = _Shared()
    async with shared.stack, anyio.create_task_group() as group:
        checks = Checks(
            base=base, clock=clock or VirtualClock(), shared=shared, endings=_Endings(last_runs or {}),
            secrets=frozenset(), on_answer=take,
        )  # fmt: skip
        checks.serve(group)
        checks.begin(Named(name=type(condition).name, check=condition, timeout_s=timeout_s))
        found = await answers
        group.cancel_scope.cancel()
    if isinstance(found, NoAnswer):
        raise CheckFailed(str(found))
    return found
