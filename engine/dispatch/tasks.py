"""The tasks of runs: as of asyncio.TaskGroup, but for what each task of that costs when it ends.

A group is called back by the loop for each of its tasks, a turn later; here the task itself says that it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio


class RunTasks:
    """Tasks that are waited for by who has opened them. Each calls `over` as its last step, or `failed` before that."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []

    def begin(self, life: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Begin a task; it does not run before this returns."""
        task = self._loop.create_task(life, name=name)
        self._tasks.add(task)
        return task

    def over(self, task: asyncio.Task[None] | None) -> None:
        """Take note, in a task, that it does nothing more."""
        self._tasks.discard(task)

    def failed(self, error: BaseException) -> None:
        """Take note of what nobody expected: all is cancelled, and it is raised where the tasks are waited for."""
        self.errors.append(error)
        self._scope.cancel()
        self.cancel()

    def cancel(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Return when no task is left."""
        while self._tasks:
            tasks = list(self._tasks)
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)  # one that was cancelled before it began has not said that it is over


@asynccontextmanager
async def run_tasks() -> AsyncIterator[RunTasks]:
    """Open tasks for runs, and wait for them at the end; where that comes by an error, they are cancelled first.

    Raises a BaseExceptionGroup of what failed in them.
    """
    with anyio.CancelScope() as scope:
        tasks = RunTasks(scope)
        try:
            yield tasks
        except BaseException:
            tasks.cancel()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await tasks.wait()
    if tasks.errors:
        raise BaseExceptionGroup("runs failed in the engine", tasks.errors)
