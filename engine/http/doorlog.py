"""What clients were refused, told in one line of the log a minute for each kind, however many they were."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

TOLD_AFTER_S = 60.0
MOST_CLIENTS = 1000
"""Clients that are told apart in one line; the others are counted as one."""

MOST_NAMED = 5
OTHERS = "others"

log = logging.getLogger("engine.http")


class DoorLog:
    """Counts by kind and client, and tells.

    Without it whoever is refused could fill the log. `kinds` has the sentence of each kind, which begins with how
    often it was; its name is the `action` of the record.
    """

    def __init__(self, kinds: dict[str, str]) -> None:
        self._kinds = kinds
        self._counts: dict[str, Counter[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, kind: str, client: str) -> None:
        """Count one; it is told within a minute."""
        counts = self._counts.setdefault(kind, Counter())
        counts[client if client in counts or len(counts) < MOST_CLIENTS else OTHERS] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOLD_AFTER_S, self.tell)

    def tell(self) -> None:
        """Tell what was counted since the last time, if anything was."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counted, self._counts = self._counts, {}
        for kind, counts in counted.items():
            total = counts.total()
            most = ", ".join(f"{client} ({count})" for client, count in counts.most_common(MOST_NAMED))
            log.warning(
                "%d %s, from %d clients: %s", total, self._kinds[kind], len(counts), most,
                extra={"action": kind, "count": total, "clients": len(counts)},
            )  # fmt: skip
