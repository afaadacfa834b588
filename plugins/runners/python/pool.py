"""The pool of workers: who of them is idle, who is replaced, and the helper that forks them.

A worker takes one task at a time, is kept for the next one where it stayed clean, and ended after enough of them or
after a while without work. There are as many as runs need at once: limits are the engine's and the job's.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio import CancelScope

from engine.plugin import Clock
from plugins.runners.python import wire
from plugins.runners.python.probe import Surroundings
from plugins.runners.python.processes import Helper, Worker, within

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL on a timeout or cancellation."""

IDLE_S = 60.0
"""A worker that had no work for so long is ended, but for the last one."""

LOOK_S = 5.0

HANGS_S = 40.0
"""A helper that owes a worker, or the end of one, for so long is ended: longer than an import may take in it."""

log = logging.getLogger("engine.run.python")


class WorkerLost(Exception):
    """A worker ended before it answered: with `status` as of wait(2), or None where its helper ended."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"the worker ended with {status}")
        self.status = status


class NoWorker(Exception):
    """No worker can be made; the text says why."""


class Workers:
    """All workers with the same surroundings. Made by `open_workers`."""

    def __init__(self, surroundings: Surroundings, clock: Clock) -> None:
        self._surroundings = surroundings
        self._clock = clock
        self._helper: Helper | None = None
        self._idle: list[Worker] = []
        self._modules: dict[str, None] = {}

    def load(self, module: str | None) -> None:
        """Start the helper where there is none, and let the workers to come have a module imported; raise NoWorker."""
        helper = self._open_helper()
        if module is not None and module not in self._modules:
            self._modules[module] = None
            helper.tell(wire.Load(module=module))

    async def call(self, task: bytes, log: int, *, recycle: int, started: Callable[[int], None]) -> wire.Answer:
        """Let a worker execute a task, and return its answer; `started` is told its process id.

        A worker that has had `recycle` tasks is not kept. Cancelled, it ends the worker: SIGTERM to its group, after
        `GRACE_S` SIGKILL. Raises WorkerLost and NoWorker.
        """
        while True:
            worker = self._take()
            try:
                await self._pid_of(worker)
                started(worker.pid)
                worker.changed.clear()
                try:
                    await worker.send(task, log)
                except OSError:
                    worker.never_read = True
                while worker.answer is None and not worker.ended:
                    await worker.changed.wait()
                    worker.changed.clear()
            except BaseException:
                with CancelScope(shield=True):
                    await self._stop(worker)
                raise
            if worker.calls and worker.never_read and worker.answer is None:
                continue  # it ended while it was idle
            break
        worker.calls += 1
        answer, worker.answer = worker.answer, None
        if answer is None:
            raise WorkerLost(worker.status)
        if not answer.is_clean or not worker.is_open:
            with CancelScope(shield=True):
                await self._end(worker)
        elif worker.calls < recycle:
            worker.idle_since_s = self._clock.monotonic()
            self._idle.append(worker)
        else:
            worker.close()  # it ends by that
        return answer

    def _open_helper(self) -> Helper:
        helper = self._helper
        if helper is None or not helper.is_open:
            try:
                helper = self._helper = Helper(self._surroundings)
            except OSError as error:
                raise NoWorker(f"the helper of the workers can't be started: {error.strerror}") from None
            for module in self._modules:
                helper.tell(wire.Load(module=module))
        return helper

    def _take(self) -> Worker:
        """Take the worker that was idle for the shortest time, or make one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_open:
                return worker
            worker.close()
        try:
            return self._open_helper().fork()
        except OSError as error:
            raise NoWorker(f"no worker process can be made: {error.strerror}") from None

    async def _pid_of(self, worker: Worker) -> None:
        while not worker.pid:
            await worker.changed.wait()
            worker.changed.clear()
            if worker.ended:
                text = "no worker process could be made"
                raise NoWorker(text if worker.status == -1 else f"{text}: their helper ended")

    async def _stop(self, worker: Worker) -> None:
        """Let a worker end what it does within `GRACE_S`; then end it, if it has not."""
        if not worker.pid:
            worker.close()  # once it is forked it finds nobody, and ends
            return
        if not worker.ended:
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGCONT)
            await within(lambda: worker.ended or worker.answer is not None, GRACE_S, self._clock)
        await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        """Kill a worker's group and wait until it has ended."""
        worker.close()
        if not worker.ended:
            worker.signal(signal.SIGKILL)
        while not worker.ended:
            await worker.changed.wait()
            worker.changed.clear()

    async def look_after(self) -> None:
        """End, for ever, workers that had no work for long, and a helper that does not answer."""
        while True:
            await self._clock.sleep(LOOK_S)
            now_s = self._clock.monotonic()
            helper = self._helper
            if helper is not None and helper.owes_since_s(now_s) < now_s - HANGS_S:
                text = "The helper of the workers does not act for %g s: an import may hang in it; it is replaced"
                log.error(text, HANGS_S, extra={"action": "python_helper_hangs"})
                await helper.end(self._clock)
            latest_s = now_s - IDLE_S
            kept = self._idle[-1:]
            for worker in self._idle[:-1]:
                if worker.idle_since_s <= latest_s:
                    worker.close()
                else:
                    kept.insert(-1, worker)
            self._idle = kept

    async def close(self) -> None:
        """End the helper and all workers."""
        if self._helper is not None:
            await self._helper.end(self._clock)


@asynccontextmanager
async def open_workers(surroundings: Surroundings, clock: Clock) -> AsyncIterator[Workers]:
    """Have workers, made as they are needed, until the block is left."""
    workers = Workers(surroundings, clock)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(workers.look_after, name="python: workers")
            yield workers
            group.cancel_scope.cancel()
    finally:
        with CancelScope(shield=True):
            await workers.close()
