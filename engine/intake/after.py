"""What else goes with the end of a run, in its commit."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from engine.runs import Run
from engine.store.changes import Accept, End, Finish


class After(Protocol):
    """Knows what is to be stored with the end of a run, besides the events that follow from it."""

    def of(self, run: Run, end: Finish | End) -> Accept | None:
        """Return it, without entries; None for nothing. Called once for each end, in the order of the ends."""
        ...

    def note(self, run: Run) -> None:
        """Take note of a run that ended as it was made, once that is durable."""
        ...

    def settled(self, stored: asyncio.Future[Any]) -> None:
        """Take note that what was returned is durable, or was refused with the end."""
        ...
