"""One start of a source: the task that runs it, and how it is brought to its end."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from engine.clock import Clock
from engine.plugin import Source
from engine.sources.context import Context
from engine.sources.waiting import wait_for

_DEEPEST = 30


class Started:
    """A source that runs in a task of its own, named `source <id>`.

    Nobody has to wait for the task: so one that ignores its cancellation keeps nothing else from stopping. `changed` is
    set when the source is ready or has ended.
    """

    def __init__(self, source: Source, make_context: Callable[[Callable[[], None]], Context]) -> None:
        self.told_to_stop = False
        self.changed = anyio.Event()
        self.ended = anyio.Event()
        self.error: BaseException | None = None
        """What it raised, once it has ended; None where it ended by itself, or as it was told."""
        self.context = make_context(self.changed.set)
        self._source = source
        self._cancelled = anyio.CancelScope()
        self._given_up = anyio.CancelScope()
        self._task = asyncio.create_task(self._run(), name=f"source {self.context.name}")
        self._task.add_done_callback(self._note_end)

    def when_ended(self, call: Callable[[], object]) -> None:
        """Have something called once it has ended."""
        self._task.add_done_callback(lambda _: call())

    async def stop(self, clock: Clock, within_s: float) -> bool:
        """Cancel it, and tell whether it has ended in time: what it still emits is taken until then."""
        self.told_to_stop = True
        self._cancelled.cancel()
        await wait_for(self.ended, clock, within_s)
        if not self.ended.is_set():
            self.context.close()
            # It is cancelled anew at each turn of the loop; one that catches that goes round without end.
            self._given_up.shield = True
        return self.ended.is_set()

    def where(self) -> str:
        """Return where it waits: its innermost frame that is not the engine's or a library's, or the innermost one."""
        frames = self._frames()
        if not frames:
            return "an unknown place"
        own = [frame for frame in frames if _is_own(frame.filename)] or frames
        return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}"

    def stack(self) -> str:
        """Return the stack of what it waits for, outermost first."""
        return "".join(traceback.format_list(self._frames()))

    def _frames(self) -> list[traceback.FrameSummary]:
        """Return the frames of the chain of coroutines that wait for each other; a task knows its outermost alone."""
        found: list[traceback.FrameSummary] = []
        coroutine: Any = self._task.get_coro()
        while coroutine is not None and len(found) < _DEEPEST:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
            if frame is not None:
                found += traceback.extract_stack(frame, limit=1)
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
        return found

    async def _run(self) -> None:
        try:
            with self._cancelled, self._given_up:
                await self._source.run(self.context)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit, which would end the engine
            self.error = error
        finally:
            self.context.close()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.error = asyncio.CancelledError("before it began")
        elif (raised := task.exception()) is not None:
            self.error = raised
        self.ended.set()
        self.changed.set()


def _is_own(filename: str) -> bool:
    """Tell whether code is a plugin's: neither Python's, nor a library's, nor the engine's."""
    path = Path(filename)
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return False
    return not any(path.is_relative_to(place) for place in _OTHERS)


_OTHERS = (Path(asyncio.__file__).parents[1], Path(__file__).parents[1])
