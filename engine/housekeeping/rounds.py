"""One round of housekeeping: what is old is found page by page, and removed in small batches.

Each batch is one change in the journal, beside the events that come meanwhile; how large it is goes by how long the
one before took. After each the round waits for twice as long, so that it never has more than a third of the writer's
time.
Files go before the rows that name them: where the engine dies in between, the next round finds the rows again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from msgspec import Struct

from engine.clock import Clock
from engine.config.keeping import KEYS_KNOWN_S, SHORTEST_S, KeepTable
from engine.housekeeping.files import SUFFIXES, Removed, RunFiles
from engine.housekeeping.received import ReceivedFiles, removed
from engine.journal import Journal
from engine.runlogs import RunLogs
from engine.runs import Origin
from engine.store.base import Store
from engine.store.changes import Accept, Purge

PAGE = 500
FEWEST, MOST = 10, 400
"""Rows in one batch."""

BATCH_S = 0.01
"""So long a batch is to take."""

PAUSES = 2
"""After a batch the round waits for so many times as long as it took."""

SHORTEST_PAUSE_S = 0.01
SPARE_BYTES = 8 * 2**20
"""So much free room stays in the store's file: what comes next needs it, and growing costs more than keeping."""

STEPS = 50
"""Where the disk is the limit, the past goes in so many steps at most, the oldest first."""


class Cut(Struct, frozen=True, kw_only=True):
    """Before which instants runs, events (those with a key: `keyed`) and files of runs are removed."""

    runs: datetime
    events: datetime
    keyed: datetime
    files: datetime

    @staticmethod
    def by_age(keep: KeepTable, now: datetime) -> Cut:
        """Return where the past ends for what is kept so long."""
        events = now - timedelta(seconds=keep.events)
        return Cut(
            runs=now - timedelta(seconds=keep.runs), events=events, keyed=events,
            files=now - timedelta(seconds=min(keep.logs, keep.runs)),
        )  # fmt: skip

    @staticmethod
    def at(instant: datetime, now: datetime) -> Cut:
        """Return where the past ends at one instant; a sender's key is known for as long as was promised."""
        keyed = min(instant, now - timedelta(seconds=KEYS_KNOWN_S))
        return Cut(runs=instant, events=instant, keyed=keyed, files=instant)


class Tally(Struct, kw_only=True):
    """What a round removed, or, as it was only tried, would remove.

    - `file_bytes`: what the files took of the disk; `shrunk_bytes`: what the store's file gave back to it.
    - `used_bytes`: what store and files take, where that is limited; `over_bytes`: by how much that is too much still.
    """

    dry_run: bool = False
    runs: int = 0
    events: int = 0
    files: int = 0
    file_bytes: int = 0
    shrunk_bytes: int = 0
    used_bytes: int | None = None
    over_bytes: int = 0

    def add(self, removed: Removed) -> None:
        self.files += removed.files
        self.file_bytes += removed.size_bytes

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class Round:
    """Removes what is old. With `dry_run` it only looks and counts."""

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, run_logs: RunLogs, files: RunFiles,
        received: ReceivedFiles, keep: KeepTable, dry_run: bool = False,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._run_logs = run_logs
        self._files = files
        self._received = received
        self._keep = keep
        self._size = FEWEST * 4
        self._spared: frozenset[str] | None = None
        self._backfilled: frozenset[str] = frozenset()
        self.tally = Tally(dry_run=dry_run)

    async def run(self) -> None:
        """Remove what is older than it may be, then what is too much for the disk; give free room back.

        Raises StoreUnavailable, and OSError where the directory of the logs can't be read.
        """
        now = self._clock.now()
        await self._purge(Cut.by_age(self._keep, now))
        if self._keep.disk is not None:
            await self._trim(now, self._keep.disk)
        if not self.tally.dry_run:
            await self._shrink()

    async def _trim(self, now: datetime, most_bytes: int) -> None:
        """Remove the oldest, step by step, until store and files take no more than they may."""
        used = await self._used_bytes()
        horizon, floor = await self._store.oldest(), now - timedelta(seconds=SHORTEST_S)
        if used > most_bytes and horizon is not None and not self.tally.dry_run:
            step = max((floor - horizon) / STEPS, timedelta(seconds=SHORTEST_S))
            while used > most_bytes and horizon < floor:
                horizon = min(horizon + step, floor)
                await self._purge(Cut.at(horizon, now))
                used = await self._used_bytes()
        self.tally.used_bytes, self.tally.over_bytes = used, max(used - most_bytes, 0)

    async def _used_bytes(self) -> int:
        size = await self._store.size()
        files = await run_sync(self._files.used_bytes) + await run_sync(self._received.used_bytes)
        return size.total - size.free + files

    async def _purge(self, cut: Cut) -> None:
        async for runs in self._old_runs(cut.runs):
            await self._remove_runs(runs, cut.runs)
        async for events in self._old_events(cut):
            await self._remove_events(events, cut.events)
        await self._remove_files(cut.files)
        await self._remove_received(cut.events)

    # What is old

    async def _old_runs(self, before: datetime) -> AsyncIterator[Sequence[str]]:
        after: int | None = 0
        while after is not None:
            page = await self._store.old_runs(before=before, after=after, limit=PAGE)
            if page.items and self._spared is None:
                # How a job ended last is asked by conditions, however long ago that was; a backfill counts its runs.
                self._spared = await self._store.latest_ends()
                self._backfilled = frozenset(one.trigger for one in await self._store.open_backfills())
            spared = self._spared or frozenset()
            yield [
                one.id
                for one in page.items
                if one.id not in spared and not (one.origin is Origin.BACKFILL and one.trigger in self._backfilled)
            ]
            after = page.after

    async def _old_events(self, cut: Cut) -> AsyncIterator[Sequence[str]]:
        after: int | None = 0
        while after is not None:
            page = await self._store.old_events(before=cut.events, keyed_before=cut.keyed, after=after, limit=PAGE)
            yield [one.id for one in page.items]
            after = page.after

    # Removing

    async def _remove_runs(self, runs: Sequence[str], before: datetime) -> None:
        for batch in self._batches(runs):
            self.tally.runs += len(batch)
            if not self.tally.dry_run:
                self.tally.add(await run_sync(self._files.remove_of, self._paths_of(batch)))
                await self._submit(Purge(before=before, runs=tuple(batch)))

    async def _remove_events(self, events: Sequence[str], before: datetime) -> None:
        for batch in self._batches(events):
            self.tally.events += len(batch)
            if not self.tally.dry_run:
                await self._submit(Purge(before=before, events=tuple(batch)))

    def _paths_of(self, runs: Sequence[str]) -> list[Path]:
        return [self._run_logs.path(run).with_suffix(f".{suffix}") for run in runs for suffix in SUFFIXES]

    def _batches(self, ids: Sequence[str]) -> Iterator[Sequence[str]]:
        start = 0
        while start < len(ids):
            size = len(ids) if self.tally.dry_run else self._size
            yield ids[start : start + size]
            start += size

    async def _submit(self, purge: Purge) -> None:
        began = self._clock.monotonic()
        await self._journal.submit(Accept(entries=(), purge=purge))
        took_s = self._clock.monotonic() - began
        wanted = self._size * BATCH_S / max(took_s, 1e-4)
        # Larger only little by little: one that went fast says little of the next.
        self._size = int(min(max(wanted, FEWEST), self._size * 1.5, MOST))
        await self._clock.sleep(max(PAUSES * took_s, SHORTEST_PAUSE_S))

    async def _remove_files(self, before: datetime) -> None:
        """Remove the files of runs that ended before an instant, or are not there any more, in folders of days past."""
        for day in await run_sync(self._files.days_before, before):
            found = await run_sync(self._files.files_of, day)
            for start in range(0, len(found), PAGE):
                page = found[start : start + PAGE]
                ends = await self._store.ends_of({one.run for one in page})
                old = [
                    one for one in page if one.run not in ends or ((at := ends[one.run]) is not None and at < before)
                ]  # fmt: skip
                if self.tally.dry_run:
                    self.tally.add(Removed(files=len(old), size_bytes=sum(one.size_bytes for one in old)))
                elif old:
                    self.tally.add(await run_sync(self._files.remove_of, [Path(one.path) for one in old]))
                    await self._clock.sleep(SHORTEST_PAUSE_S)
            if not self.tally.dry_run:
                await run_sync(self._files.tidy, day)

    async def _remove_received(self, before: datetime) -> None:
        """Remove the files that came with events which are not there any more, or never were."""
        for one in await run_sync(self._received.before, before):
            if one.event is not None and await self._store.event(one.event) is not None:
                continue
            if self.tally.dry_run:
                self.tally.add(removed(one))
            else:
                self.tally.add(await run_sync(self._received.remove, one))
                await self._clock.sleep(SHORTEST_PAUSE_S)

    async def _shrink(self) -> None:
        """Give free room of the store's file back to the disk, but for some that is soon needed again."""
        size = await self._store.size()
        while size.shrinks and size.unused > SPARE_BYTES:
            began = self._clock.monotonic()
            freed = await self._store.shrink()
            if not freed:
                return
            self.tally.shrunk_bytes += freed
            await self._clock.sleep(max(PAUSES * (self._clock.monotonic() - began), SHORTEST_PAUSE_S))
            size = await self._store.size()
