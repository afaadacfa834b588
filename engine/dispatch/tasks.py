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

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []

    def begin(self, life: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Begin a task; it does not run before this returns."""
        task = self._loop.create_task(life, name=name)
        self._tasks.add(task)
        return task

    def over(self, task: asyncio.Task[None] | None) -> None:
        """Take note, in a task, that it does nothing more."""
        self._tasks.discard(task)

    def failed(self, error: Exception) -> None:
        """Take note of what nobody expected: all is cancelled, and it is raised where the tasks are waited for."""
        self._errors.append(error)
        self._scope.cancel()
        self._cancel()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[RunTasks]:
        """Wait for all tasks at the end; where that comes by an error, or by a cancellation, they are cancelled.

        Raises an ExceptionGroup of what failed in them and in the body.
        """
        try:
            with self._scope:
                try:
                    yield self
                    await self._wait()
                except Exception as error:
                    self._errors.append(error)
                    self._cancel()
                except BaseException:
                    self._cancel()
                    raise
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._wait()
        finally:
            if self._errors:
                raise ExceptionGroup("runs failed in the engine", self._errors)

    def _cancel(self) -> None:
        """Cancel all tasks, each once: its cleanup would be cut off by a second time."""
        for task in self._tasks - self._told:
            self._told.add(task)
            task.cancel()

    async def _wait(self) -> None:
        while self._tasks:
            tasks = list(self._tasks)
            await asyncio.wait(tasks)
            self._tasks.difference_update(tasks)  # one that was cancelled before it began has not said that it is over
