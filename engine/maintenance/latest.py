"""Which run of a trigger waits as the latest, where its window keeps only that one for its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from engine.clock import EPOCH
from engine.errors import StoreUnavailable
from engine.runs import Run
from engine.store.base import HeldPlace, Store

CODE_LATEST = "maintenance_latest"
"""Of a run that is held, and skipped where a later one of its trigger waits too."""

PAGE = 1_000


class Latest:
    """By trigger, the latest run that waits: one for each trigger that has some; the store has the rest."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[datetime, str]] = {}
        self._superseded: set[str] = set()

    def __contains__(self, trigger: str) -> bool:
        return trigger in self._known

    def newer(self, run: Run) -> str | None:
        """Return the run that waits in the place of this one, where there is one."""
        latest = self._known.get(run.trigger)
        return latest[1] if latest is not None and latest > (run.created_at, run.id) else None

    def note(self, run: Run) -> bool:
        """Note that a run waits as the latest; return whether another one is to give way to it."""
        before = self._known.get(run.trigger)
        self._known[run.trigger] = (run.created_at, run.id)
        if before is None or before[1] == run.id:
            return False
        self._superseded.add(run.trigger)
        return True

    def take_superseded(self) -> Collection[str]:
        """Return the triggers of which a run is to give way, once."""
        taken, self._superseded = self._superseded, set()
        return taken

    async def load(self, store: Store, triggers: Iterable[str]) -> None:
        """Take up what waits in the store. Raises StoreUnavailable."""
        held = await store.held_counts()
        for name in triggers:
            place: HeldPlace | None = None
            while name in held and (page := await store.held(name, after=place, limit=PAGE)):
                found = [(run.created_at, run.id) for run in page if run.code == CODE_LATEST]
                if found:
                    self._known[name] = max([*found, self._known.get(name, (EPOCH, ""))])
                place = HeldPlace(name, page[-1].rank, page[-1].id)

    async def forget(self, store: Store, held: Collection[str]) -> None:
        """Forget triggers that no window holds any more, but for those in `held`, once nothing of them waits so."""
        for name in [name for name in self._known if name not in held]:
            try:
                waiting = await store.held(name, after=None, limit=PAGE)
            except StoreUnavailable:
                return
            if all(run.code != CODE_LATEST for run in waiting):
                self._known.pop(name, None)
