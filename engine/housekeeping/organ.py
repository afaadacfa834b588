"""The organ: rounds of housekeeping, every hour and when somebody asks, and how the last one went."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
from msgspec import Struct

from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.config import StoreSettings
from engine.errors import EngineError
from engine.housekeeping.backups import Backups
from engine.housekeeping.files import RunFiles
from engine.housekeeping.received import ReceivedFiles
from engine.housekeeping.room import Room
from engine.housekeeping.rounds import Round, Tally
from engine.journal import Journal
from engine.runlogs import RunLogs
from engine.store.base import Store
from engine.units import format_duration, format_size

log = logging.getLogger("engine.housekeeping")

FIRST_S = 30.0
"""The first round begins so long after the start."""

EVERY_S, LIMITED_EVERY_S = 3600.0, 600.0
"""Then one comes so often, and where the disk is the limit so often: it may fill fast."""


class Past(Struct, frozen=True, kw_only=True):
    """A round that is over; `problem` is why it could not be ended, in words."""

    began_at: datetime
    ended_at: datetime
    tally: Tally
    problem: str | None = None

    def view(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "began_at": rfc3339(self.began_at), "ended_at": rfc3339(self.ended_at), **self.tally.view(),
            "problem": self.problem,
        }  # fmt: skip


class Housekeeping:
    """Removes what is over after its time (see `engine.housekeeping.rounds`), beside a look at the disk.

    `logs` is the directory of the files of runs, `received` that of files which came with events. `room` and `backups`
    are its parts.
    """

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, run_logs: RunLogs, logs: Path, received: Path,
        settings: StoreSettings,
    ) -> None:  # fmt: skip
        self.keep = settings.keep
        self.room = Room(
            clock=clock, journal=journal, places=(settings.path.parent, logs), min_free_bytes=settings.min_free_bytes,
            lost=store.lost,
        )  # fmt: skip
        self.backups = Backups(clock=clock, path=settings.path, directory=settings.backups)
        self._clock = clock
        self._journal = journal
        self._store = store
        self._run_logs = run_logs
        self._files = RunFiles(logs)
        self._received = ReceivedFiles(received)
        self._asked = anyio.Event()
        self._over = anyio.Event()
        self._done = 0
        self._going: Round | None = None
        self._last: Past | None = None

    async def run(self) -> None:
        """Do round after round, and look at the disk, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.room.run, name="room")
            await self._do_rounds()

    async def _do_rounds(self) -> None:
        pause_s = FIRST_S
        while True:
            await sleep_or_wake(self._clock, pause_s, self._asked)
            self._asked = anyio.Event()
            await self._do_round()
            pause_s = EVERY_S if self.keep.disk is None else LIMITED_EVERY_S

    async def _do_round(self) -> None:
        began_at, going = self._clock.now(), self._round()
        self._going, problem = going, None
        try:
            await going.run()
        except (EngineError, OSError) as error:
            problem = str(error)
        finally:
            self._going = None
        self._last = Past(began_at=began_at, ended_at=self._clock.now(), tally=going.tally, problem=problem)
        self._tell(going.tally, problem)
        self._done += 1
        over, self._over = self._over, anyio.Event()
        over.set()

    def _round(self, *, dry_run: bool = False) -> Round:
        return Round(
            clock=self._clock, journal=self._journal, store=self._store, run_logs=self._run_logs, files=self._files,
            received=self._received, keep=self.keep, dry_run=dry_run,
        )  # fmt: skip

    def _tell(self, tally: Tally, problem: str | None) -> None:
        if tally.runs or tally.events or tally.files:
            log.info(
                "Removed what was kept long enough: %d events, %d runs, %d files (%s)", tally.events, tally.runs,
                tally.files, format_size(tally.file_bytes),
                extra={"action": "purged", "events": tally.events, "runs": tally.runs, "files": tally.files},
            )  # fmt: skip
        if problem is not None:
            log.warning("Housekeeping is put off: %s", problem, extra={"action": "housekeeping_put_off"})
        elif tally.over_bytes:
            log.warning("%s", self._said_of_excess(tally), extra={"action": "disk_budget_exceeded"})

    def _said_of_excess(self, tally: Tally) -> str:
        return (
            f"store and logs take {format_size(tally.used_bytes or 0)}, {format_size(tally.over_bytes)} more than "
            "[store] keep.disk, and nothing is left that may be removed"
        )

    # What is asked

    async def begin(self, *, patience_s: float) -> bool:
        """Have a round done now, beside what goes on; return whether it was over within `patience_s`."""
        # One that goes on already may have passed what is meant.
        wanted = self._done + (1 if self._going is None else 2)
        self._asked.set()
        with anyio.move_on_after(patience_s):
            while self._done < wanted:
                await self._over.wait()
        return self._done >= wanted

    async def rehearse(self) -> dict[str, Any]:
        """Return what a round would remove now, and remove nothing. Raises StoreUnavailable."""
        going = self._round(dry_run=True)
        await going.run()
        return going.tally.view()

    async def view(self) -> dict[str, Any]:
        """Return what is kept for how long, and what was removed, as the API shows it. Raises StoreUnavailable."""
        purged, size = await self._store.purged(), await self._store.size()
        return {
            **self.status(),
            "purged": {
                "events": purged.events, "runs": purged.runs,
                "before": None if purged.before is None else rfc3339(purged.before),
            },
            "store": {"bytes": size.total, "free_bytes": size.free, "shrinks": size.shrinks},
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Return what is kept for how long, whether a round goes on, and how the last one went."""
        keep, going, last = self.keep, self._going, self._last
        return {
            "keep": {
                "events": format_duration(keep.events), "runs": format_duration(keep.runs),
                "logs": format_duration(keep.logs), "disk": None if keep.disk is None else format_size(keep.disk),
            },
            "running": None if going is None else going.tally.view(),
            "last": None if last is None else last.view(),
        }  # fmt: skip

    def checks(self) -> list[dict[str, Any]]:
        """Return how the disk and the last round are, as two of the engine's checks."""
        return [self.room.check(), self._check()]

    def _check(self) -> dict[str, Any]:
        last = self._last
        if last is None:
            return {"name": "housekeeping", "ok": True, "detail": "no round was done yet"}
        detail = f"the last round ended at {rfc3339(last.ended_at)}"
        if last.problem is not None:
            detail = f"put off: {last.problem}"
        elif last.tally.over_bytes:
            detail = self._said_of_excess(last.tally)
        return {"name": "housekeeping", "ok": last.problem is None and not last.tally.over_bytes, "detail": detail}
