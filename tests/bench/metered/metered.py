"""A runner that does nothing, so that what a dispatch costs is the engine's own; it can be held and let go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import anyio
import msgspec

from engine.plugin import Clock, Outcome, RunContext, Runner

LOOK_S = 0.02


class Meter:
    """Lets as many runs pass as the file `allowed` says, and notes in `passed` when the last of them did."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._allowed = self._begun = self._ended = 0
        self._opened = (0.0, 0.0)
        self._open = anyio.Event()
        self._looking = False

    async def enter(self, clock: Clock) -> None:
        """Wait until one more may pass."""
        self._begun += 1
        number = self._begun
        while number > self._allowed:
            if self._looking:
                await self._open.wait()
                continue
            self._looking = True
            try:
                await self._look(number, clock)
            finally:
                self._looking = False
                self._open.set()
                self._open = anyio.Event()

    async def _look(self, number: int, clock: Clock) -> None:
        file = self._folder / "allowed"
        while number > self._allowed:
            await clock.sleep(LOOK_S)
            self._allowed = int(file.read_text() or 0) if file.exists() else 0
        self._opened = (clock.monotonic(), time.process_time())

    def leave(self, clock: Clock) -> None:
        """Note that one has passed."""
        self._ended += 1
        if self._ended == self._allowed:
            now = (clock.monotonic(), time.process_time())
            wall_s, cpu_s = (late - early for late, early in zip(now, self._opened, strict=True))
            fields = {"passed": self._ended, "wall_s": wall_s, "cpu_s": cpu_s}
            file = self._folder / "passed.new"
            file.write_bytes(msgspec.json.encode(fields))
            file.rename(self._folder / "passed")


_meters: dict[str, Meter] = {}


class Metered(Runner, frozen=True, kw_only=True):
    """Succeed at once, when the meter in `folder` lets the run pass."""

    name: ClassVar[str] = "metered"
    main: ClassVar[str | None] = "folder"

    folder: str

    async def run(self, context: RunContext) -> Outcome:
        meter = _meters.get(self.folder)
        if meter is None:
            meter = _meters[self.folder] = Meter(Path(self.folder))
        await meter.enter(context.clock)
        meter.leave(context.clock)
        return Outcome.succeeded("passed")
