"""One life of an embedded engine: a task beside the one that started it, from its readiness to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import anyio

from engine.errors import EngineError
from engine.runtime import STOP_PLUGINS_S, Runtime, causes

log = logging.getLogger("engine")


class Life:
    """Runs a runtime in a task of its own.

    It may be started in one task and stopped in another (fixtures of tests do), so it is no task group. Where the
    engine fails, the task that started it is cancelled, as a task group would do it, and `stop` raises the failure.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loop = asyncio.get_running_loop()
        self.ended = anyio.Event()
        self.failure: BaseException | None = None
        self._host = asyncio.current_task()
        self._interrupted = False
        self._watching = False
        self._ready = self.loop.create_future()
        self.task = self.loop.create_task(runtime.run(), name="engine")
        self.task.add_done_callback(self._note_end)

    def note_ready(self) -> None:
        """Take note that everything runs."""
        if not self._ready.done():
            self._ready.set_result(None)

    async def start(self) -> None:
        """Return when the engine runs; raise what keeps it from it."""
        try:
            await asyncio.wait([self.task, self._ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.task.cancel()
            await self._wait_for_end()
            raise
        if self.failure is not None:
            raise self.failure
        self._watching = True

    async def stop(self, error: BaseException | None) -> None:
        """Stop the engine by its stop ladder; raise its failure where it failed, or CancelledError where told to.

        `error` is what the block was left with. A cancellation meanwhile is raised when all has stopped.
        """
        self._watching = False
        self.runtime.stop()
        cancelled = await self._wait_for_end()
        if self._interrupted and self._host is not None and self._host is asyncio.current_task():
            if not isinstance(error, asyncio.CancelledError):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)  # the cancellation that has not come through yet
            if self._host.uncancel() > 0:
                log.critical("The engine failed: %s", self.failure, extra={"action": "failed"})
                return  # somebody else has cancelled it, too
        if self.failure is not None:
            raise self.failure
        if cancelled:
            raise asyncio.CancelledError

    async def _wait_for_end(self) -> bool:
        """Return when the runtime has ended, and whether this was cancelled meanwhile."""
        cancelled = False
        patience_s = self.runtime.config.engine.shutdown_grace_s + STOP_PLUGINS_S
        with anyio.CancelScope(shield=True):
            while not self.task.done():
                try:
                    _, waiting = await asyncio.wait([self.task], timeout=patience_s)
                except asyncio.CancelledError:
                    cancelled = True
                    continue
                if waiting:
                    log.warning(
                        "The engine has not stopped yet: %d runs go on", self.runtime.running,
                        extra={"action": "stop_overdue"},
                    )  # fmt: skip
        return cancelled

    def _note_end(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.failure = None if error is None else single(error)
        self.ended.set()
        if self.failure is not None and self._watching and self._host is not None and not self._host.done():
            self._interrupted = self._host.cancel("the engine failed")


def single(error: BaseException) -> BaseException:
    """Return the engine's own error out of a group that holds nothing else."""
    found = causes(error)
    return found[0] if all(isinstance(cause, EngineError) for cause in found) else error
