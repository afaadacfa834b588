"""The lease: this engine renews what says that it owns the store, from a thread, whatever holds up the event loop.

One lease stands for all runs of an engine, as each of them names its boot. With SQLite nobody takes over by the age of
a lease: a lock file tells that its owner is gone. What the lease is for here is to be seen (`status`), and to be asked
about before each write, so that an owner which was succeeded while it stood still does no harm.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime
from typing import Any

from engine.clock import rfc3339
from engine.errors import StoreLost
from engine.store.base import Store

log = logging.getLogger("engine.lease")

EVERY_S = 10.0
LATE_S = 3 * EVERY_S
"""A lease that was not renewed for so long is told of in the engine's health."""


class Lease:
    """Renews the lease of a boot again and again, from `start` to `stop`."""

    def __init__(self, store: Store, boot: str, *, every_s: float = EVERY_S) -> None:
        self._store = store
        self._boot = boot
        self._every_s = every_s
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None
        self.renewals = 0

    def start(self) -> None:
        """Begin to renew it."""
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew it no more. What is under way may take as long as the store does, and is not waited for."""
        self._enough.set()

    def _renew(self) -> None:
        while not self._enough.wait(self._every_s):
            try:
                self._store.renew()
                self.renewals += 1
            except StoreLost as error:
                log.critical("%s", error, extra={"action": "lease_lost"})
                return

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        at = self._store.renewed_at()
        return {"boot": self._boot, "renewed_at": None if at is None else rfc3339(at), "every_s": self._every_s}

    def age_s(self, now: datetime) -> float | None:
        """Return how long ago it was renewed; None where nothing renews it."""
        at = self._store.renewed_at()
        return None if at is None or self._thread is None else (now - at).total_seconds()

    def check(self, now: datetime) -> dict[str, Any]:
        """Return whether it is renewed in time, as the API shows it."""
        age_s = self.age_s(now) or 0.0
        ok = age_s < LATE_S
        return {"name": "lease", "ok": ok, "detail": "renewed" if ok else f"renewed {age_s:.0f} s ago, and not since"}
