"""Marks: what a gate remembers of a key, until an instant from which on it has no effect any more.

- `dedupe`: until the end of the window, the run of the first event.
- `rate_limit`, `throttle`: the key's theoretical arrival time (see `engine.decide.gcra`).
- `debounce`: of one that runs at once: until no event came for its wait, the run of the first event.

The truth is in the store, where a claim is refused that another one was quicker to make. Here is what is known of it:
the latest so many, what is decided and not yet durable among them. A key that is not known is taken to have no mark;
where it has one all the same, the claim is refused, the mark is read, and the event is decided anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

MOST_KNOWN = 50_000
"""So many marks are kept in memory: some 20 MB."""

Place = tuple[str, str, str]
"""Trigger, gate, and key."""


class Mark(Struct, frozen=True):
    """What a gate remembers; see above. `closes_at`: the last instant to which `until` can be put off."""

    until: datetime
    run: str | None = None
    closes_at: datetime | None = None


class Claim(Struct, frozen=True, kw_only=True):
    """What becomes of a mark with an event, in the same transaction.

    It is refused where the store has another mark there that still has an effect: one whose `until` is later than
    `now`, and not `seen`, which was known. With `extends` there has to be the mark that was seen. With `forced`
    whatever is there is replaced.
    """

    place: Place
    mark: Mark
    now: datetime
    seen: datetime | None = None
    extends: bool = False
    forced: bool = False


class Known(Struct):
    """A mark that is known, and whether it is in the store."""

    mark: Mark
    durable: bool


class Marks:
    """The marks that are known, the ones used last; `most` bounds how many, but for what is on its way."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._known: OrderedDict[Place, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, place: Place, now: datetime) -> Mark | None:
        """Return the mark that holds now, None where there is none or none is known."""
        known = self._known.get(place)
        if known is None:
            return None
        if known.mark.until <= now:
            del self._known[place]
            return None
        self._known.move_to_end(place)
        return known.mark

    def is_durable(self, place: Place) -> bool:
        """Tell whether the mark that is known is in the store."""
        known = self._known.get(place)
        return known is not None and known.durable

    def set(self, place: Place, mark: Mark) -> Known | None:
        """Note what was decided, before it is durable; return what was known before."""
        before = self._known.get(place)
        self._keep(place, Known(mark, durable=False))
        return before

    def restore(self, place: Place, before: Known | None) -> None:
        """Know again what was known before `set`, as nothing has happened since."""
        if before is None:
            self._known.pop(place, None)
        else:
            self._keep(place, before)

    def settle(self, claims: Iterable[Claim]) -> None:
        """Take note that claims are durable."""
        for claim in claims:
            known = self._known.get(claim.place)
            if known is not None and known.mark is claim.mark:
                known.durable = True
        # Not before: what is decided together is known together, however much that is.
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, claims: Iterable[Claim]) -> None:
        """Know nothing any more of what claims were to change, as they were not made."""
        for claim in claims:
            self._known.pop(claim.place, None)

    def learn(self, place: Place, mark: Mark) -> None:
        """Take in what the store has; what was decided since is newer."""
        if place not in self._known:
            self._keep(place, Known(mark, durable=True))

    def _keep(self, place: Place, known: Known) -> None:
        self._known[place] = known
        self._known.move_to_end(place)
