"""The store on a disk that is slow, full or away when the plan says so, without a thread; and what it says it keeps."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
from msgspec import Struct

from engine.audits import Audit
from engine.errors import StoreUnavailable
from engine.store.base import Boot, Result
from engine.store.changes import Change
from engine.store.connection import Connection, connector, translate
from engine.store.opening import prepare
from engine.store.sqlite import SqliteStore
from tests.dst.gone import lay_aside, tell_all
from tests.dst.turns import Clock

T = TypeVar("T")


class Weather(Struct, kw_only=True):
    """How the disk is now; the plan changes it.

    `slow_s`: the longest that a commit takes; `fails_writes`, `fails_reads`: the part of them that fails. It is fair
    again from `until_s` on.
    """

    until_s: float = 0.0
    slow_s: float = 0.0
    fails_writes: float = 0.0
    fails_reads: float = 0.0


FAIR = Weather()


class _Inline:
    """A connection that works on the event loop itself."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

    def begin(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(self.raw))
        except sqlite3.Error as error:
            future.set_exception(translate(error))
        except Exception as error:
            future.set_exception(error)
        return future

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self.begin(function)

    async def close(self) -> None:
        self.raw.close()


class Disk:
    """The file that outlives the engine, and all that is open on it."""

    def __init__(self, path: Path, clock: Clock, seed: str) -> None:
        self.path = path
        self._clock = clock
        self._weather = Weather()
        self.random = random.Random(seed)
        self.owning = random.Random(f"owning {seed}")
        """Draws what comes while the store is taken over."""
        self._open: list[sqlite3.Connection] = []
        self._reader: sqlite3.Connection | None = None
        self._story: sqlite3.Connection | None = None

    @property
    def weather(self) -> Weather:
        """How it is now."""
        return self._weather if self._clock.monotonic() < self._weather.until_s else FAIR

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._weather = weather

    @property
    def foul_until_s(self) -> float:
        """Until when it was not fair last."""
        return self._weather.until_s

    def connect(self, *, read_only: bool) -> sqlite3.Connection:
        raw = connector(self.path, read_only=read_only)()
        raw.execute("pragma synchronous = off")
        self._open.append(raw)
        if not read_only:
            lay_aside(raw, self._aside)
        return raw

    @property
    def _aside(self) -> Path:
        return self.path.with_name("aside.db")

    @property
    def reader(self) -> sqlite3.Connection:
        """A connection for whoever judges the engine by what is stored."""
        if self._reader is None:
            prepare(self.path)
            self._reader = connector(self.path, read_only=True)()
        return self._reader

    @property
    def story(self) -> sqlite3.Connection:
        """A connection as `reader` is, to which nothing was ever removed by housekeeping."""
        if self._story is None:
            prepare(self.path)
            if not self._aside.exists():
                self.connect(read_only=False)
            self._story = connector(self.path, read_only=True)()
            tell_all(self._story, self._aside)
        return self._story

    def cut(self) -> None:
        """Close what a life of the engine left open, as the kernel does when a process dies."""
        for raw in self._open:
            raw.close()
        self._open.clear()

    def leave_open(self) -> Sequence[sqlite3.Connection]:
        """Return what a life of the engine that only stands still has open; `cut` leaves it as it is."""
        left, self._open = self._open, []
        return left

    def close(self) -> None:
        self.cut()
        for raw in (self._reader, self._story):
            if raw is not None:
                raw.close()


class SimulatedStore(SqliteStore):
    """The SQLite store itself, on such a disk.

    `on_commit` is called with each batch and its results in the moment in which it is durable: before anybody
    learns of it.
    """

    def __init__(
        self, disk: Disk, clock: Clock, on_commit: Callable[[Sequence[Change], Sequence[Result]], None]
    ) -> None:
        super().__init__(disk.path, clock=clock)
        self._disk = disk
        self._is_at_once = False
        self._on_commit = on_commit

    async def open(self) -> None:
        self.checked = prepare(self.path)
        self._writer = cast("Connection", _Inline(self._disk.connect(read_only=False)))
        self._readers = [cast("Connection", _Inline(self._disk.connect(read_only=True))) for _ in range(2)]

    async def take_over(self, boot: Boot) -> None:
        # It takes no time and no chance of the others', so that what a seed stood for before it goes on to be so.
        chance, self._disk.random, self._is_at_once = self._disk.random, self._disk.owning, True
        try:
            await super().take_over(boot)
        finally:
            self._disk.random, self._is_at_once = chance, False

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        await self._take_time()
        if self._disk.random.random() < self._disk.weather.fails_writes:
            raise StoreUnavailable("the disk is full (simulated)")
        results = await super().apply(changes, notes)
        self._on_commit(changes, results)
        await self._take_time()
        return results

    @property
    def owns(self) -> bool:
        """Whether it is written that this engine has the store."""
        return self._owned

    async def check(self) -> list[str]:
        rows = self._disk.reader.execute("pragma integrity_check(20)").fetchall()
        return [str(row[0]) for row in rows if row[0] != "ok"]

    async def _read(self, function: Callable[[sqlite3.Connection], Any], *, slow: bool = False) -> Any:
        await self._take_time()
        if self._disk.random.random() < self._disk.weather.fails_reads:
            raise StoreUnavailable("the disk does not answer (simulated)")
        return await super()._read(function, slow=slow)

    async def _take_time(self) -> None:
        if self._is_at_once:
            return
        weather, chance = self._disk.weather, self._disk.random
        if weather.slow_s and chance.random() < 0.5:
            await anyio.sleep(chance.uniform(0, weather.slow_s))
        else:
            await asyncio.sleep(0)
