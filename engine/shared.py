"""What the attempts of runs share: made when it is first asked for, kept, and closed when the engine stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

from engine import cancellation
from engine.errors import PluginError

log = logging.getLogger("engine.shared")

T = TypeVar("T")


class Shared:
    """Holds what runners share, each in a task of its own, by a key."""

    def __init__(self) -> None:
        self._held: dict[Hashable, asyncio.Future[Any]] = {}
        self._group: TaskGroup | None = None
        self._closing = anyio.Event()

    async def run(self, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Hold what is asked for, until `close`; return when all of it is closed."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                task_status.started()
                await self._closing.wait()
                self._group = None
        finally:
            self._group = None
            for made in self._held.values():
                made.cancel()

    def close(self) -> None:
        """Let `run` close everything, and return."""
        self._closing.set()

    async def get(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what was made for the key, making it where it is the first time.

        What `make` or entering raises is raised to all that wait, and tried anew at the next call.
        """
        made = self._held.get(key)
        if made is None:
            if self._group is None:
                raise PluginError("the engine stops; nothing more is made")
            made = self._held[key] = asyncio.get_running_loop().create_future()
            self._group.start_soon(self._hold, key, make, made, name=f"shared {key}")
        elif made.done():
            result: T = made.result()
            return result
        # Who asked may be cancelled; what is being made is for the others, too.
        result = await asyncio.shield(made)
        return result

    async def _hold(
        self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[Any]], made: asyncio.Future[Any]
    ) -> None:
        try:
            async with make() as value:
                made.set_result(value)
                await self._closing.wait()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # plugin code: also SystemExit, which would end the engine
            if isinstance(error, anyio.get_cancelled_exc_class()) and cancellation.is_wanted():
                raise
            log.exception("What runs share as %s failed", key, extra={"action": "shared_failed"})
            if not made.done():
                made.set_exception(error if isinstance(error, Exception) else PluginError(repr(error)))
                made.exception()  # who asked may be gone
        finally:
            if self._held.get(key) is made:
                del self._held[key]
            if not made.done():
                made.cancel()
