"""What goes with the end of a run, in its commit."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.runnotes import SOURCE, RunNotes
from engine.runs import Run
from engine.store.changes import Accept, End, Finish, Memory


class Aftermath:
    """Decides what goes with an end: what its run noted is forgotten."""

    def __init__(self, *, notes: RunNotes) -> None:
        self._notes = notes

    def of(self, run: Run, end: Finish | End) -> Accept | None:
        """Return what is stored with the end of a run; None where that is nothing."""
        forgotten = self._notes.forgetting(run.id)
        if forgotten is None:
            return None
        return Accept(entries=(), memory=Memory(source=SOURCE, values=forgotten))

    def settled(self, stored: asyncio.Future[Any]) -> None:
        """Take note that it is durable, or was refused with the end."""
