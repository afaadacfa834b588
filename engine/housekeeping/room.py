"""The room: whether the disk has some left, and whether the store's file is still the one that was opened.

Where little is left, new events are refused before the disk is full: what runs can end, and be recorded, and purging
goes on. Senders are told to come again, files stay, and timers and sources wait; it is over by itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.clock import Clock
from engine.errors import StoreDamaged, StoreUnavailable
from engine.journal import Journal
from engine.store.place import lost_text
from engine.units import format_size

log = logging.getLogger("engine.housekeeping")

LOOK_S, CLOSE_LOOK_S = 60.0, 0.5
"""How often the disk is looked at, and how often where it has less than `CLOSE` times the least room."""

CLOSE = 32
ENOUGH = 1.1
"""Events are taken again when there is so much more than the least room: else it would go on and off."""


class Room:
    """Looks again and again at the disks of `places`, the directories of the store and of the logs.

    `min_free_bytes` is the least that has to be free there; 0: anything is enough. `lost` says what became of the
    store's file, where it is another one than was opened.
    """

    def __init__(
        self, *, clock: Clock, journal: Journal, places: Sequence[Path], min_free_bytes: int,
        lost: Callable[[], str | None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._places = list(dict.fromkeys(places))
        self._min_free_bytes = min_free_bytes
        self._lost = lost
        self._least: tuple[int, Path] | None = None

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            is_close = self._least is not None and self._least[0] < CLOSE * self._min_free_bytes
            await self._clock.sleep(CLOSE_LOOK_S if is_close else LOOK_S)
            if (lost := self._lost()) is not None:
                self._journal.fail(StoreDamaged(lost_text(lost)))
                return
            self.look()

    def look(self) -> None:
        """See how much is free, and refuse or take events by that."""
        if self._min_free_bytes:
            self._judge(self._measure())

    def free_bytes(self) -> int | None:
        """Return the least that is free now on a disk of these places; None where it can't be told."""
        least = self._measure()
        return None if least is None else least[0]

    def _measure(self) -> tuple[int, Path] | None:
        """Return the least free room, and where that is; None where it can't be told anywhere."""
        found = []
        for place in self._places:
            # A directory that is not there yet is made in the nearest one that is.
            there = next((each for each in (place, *place.parents) if each.exists()), place)
            try:
                stat = os.statvfs(there)
            except OSError:
                continue
            found.append((stat.f_bavail * stat.f_frsize, place))
        return min(found, default=None)

    def _judge(self, least: tuple[int, Path] | None) -> None:
        self._least = least
        if least is None:
            return
        free, place = least
        refuses = self._journal.refusing is not None
        if not refuses and free < self._min_free_bytes:
            said = self._said(free, place)
            self._journal.refusing = StoreUnavailable(said)
            log.error("%s", said[:1].upper() + said[1:], extra={"action": "disk_low", "free": free})
        elif refuses and free >= self._min_free_bytes * ENOUGH:
            self._journal.refusing = None
            log.info("There is room on the disk again", extra={"action": "disk_room", "free": free})
        elif refuses:
            self._journal.refusing = StoreUnavailable(self._said(free, place))  # with what is free now

    def _said(self, free: int, place: Path) -> str:
        least = f"the {format_size(self._min_free_bytes)} of [store] min_free: no event is taken until there is more"
        if free < self._min_free_bytes:
            return f"only {format_size(free)} are free on the disk of {place}, less than {least}"
        return f"{format_size(free)} are free on the disk of {place}, hardly more than {least}"

    def check(self) -> dict[str, Any]:
        """Return it as one of the engine's checks, with what is free now; what is refused goes by the last look."""
        refusing, free = self._journal.refusing, self.free_bytes()
        detail = "what is free can't be told" if free is None else f"{format_size(free)} free"
        return {"name": "disk", "ok": refusing is None, "detail": detail if refusing is None else str(refusing)}
