"""What gates remember, kept: the marks that are known in memory, and the way to those in the store."""

from __future__ import annotations

from collections.abc import Collection

from engine.decide.marks import MOST_KNOWN, Claim, Marks
from engine.runs import RunState
from engine.store.base import Store


class MarkKeeper:
    """Knows the marks used last, and reads others where a claim was refused. `most` bounds how many are known."""

    def __init__(self, store: Store, *, most: int = MOST_KNOWN) -> None:
        self.known = Marks(most)
        self._store = store
        self._most = most

    async def load(self) -> None:
        """Take up what has an effect for the longest time, so that first claims after a start need no second try."""
        for place, mark in (await self._store.latest_marks(limit=self._most)).items():
            self.known.learn(place, mark)

    async def learn(self, claims: Collection[Claim]) -> None:
        """Read the marks that claims which were refused were on; raise StoreUnavailable."""
        self.known.forget(claims)
        for place, mark in (await self._store.marks({claim.place for claim in claims})).items():
            self.known.learn(place, mark)

    async def over(self, runs: Collection[str]) -> set[str]:
        """Return which of these runs are not there, or gather no more; raise StoreUnavailable."""
        found = {run_id: await self._store.run(run_id) for run_id in runs}
        return {run_id for run_id, run in found.items() if run is None or run.state is not RunState.PENDING}
