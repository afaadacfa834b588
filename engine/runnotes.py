"""What attempts of runs note for themselves: it outlives the engine, and is gone when the attempt has ended.

So a runner that has handed work to somebody else finds it again after a crash, rather than to hand it over twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.ids import is_id
from engine.payload import survey
from engine.store.base import Store
from engine.store.changes import Accept, Memory

SOURCE = "engine:runs"
"""Under this id the store remembers notes, by the ids of their runs, and which jobs fail."""

PAGE = 1_000

Submit = Callable[[Accept], Any]


class RunNotes:
    """Keeps one note for each run that has one: those of runs that have not ended, so they are few.

    `submit` makes a change durable, once what it returns is awaited; without it notes live in memory alone.
    """

    def __init__(self, submit: Submit | None = None) -> None:
        self._submit = submit
        self._notes: dict[str, tuple[int, Any]] = {}

    async def load(self, store: Store) -> None:
        """Read what is noted; raise StoreError."""
        after: str | None = None
        while page := await store.memory(SOURCE, after=after, limit=PAGE):
            for run_id, (attempt, value) in page.items():
                if not is_id(run_id):  # what is remembered of jobs stands behind
                    return
                self._notes[run_id] = (attempt, value)
            after = max(page)

    def of(self, run_id: str, attempt: int) -> Any:
        """Return what this attempt of a run noted before the engine was started anew, or since; None for nothing."""
        number, value = self._notes.get(run_id, (0, None))
        return value if number == attempt else None

    async def note(self, run_id: str, attempt: int, value: Any) -> None:
        """Note a JSON value in the place of what was noted before, durably; None notes nothing any more.

        Raises InvalidEvent for what is no JSON value, and StoreUnavailable; it is noted in memory then.
        """
        survey(value)
        if value is None and run_id not in self._notes:
            return
        if value is None:
            del self._notes[run_id]
        else:
            self._notes[run_id] = (attempt, value)
        if self._submit is not None:
            stored = None if value is None else [attempt, value]
            await self._submit(Accept(entries=(), memory=Memory(source=SOURCE, values={run_id: stored})))

    def forgetting(self, run_id: str) -> Mapping[str, None] | None:
        """Forget the note of a run that ends; return what the store is to forget with that, None where it has none."""
        return None if self._notes.pop(run_id, None) is None else {run_id: None}
