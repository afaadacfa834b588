"""Pages of lists that are narrowed: what is wanted may be rare, and no request reads all there is to find it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from engine.clock import Clock
from engine.ids import first_id_at
from engine.store.base import Listed, Store

SLICE = 2_000
"""Events or runs that are looked through at a time: others have their turn between."""

SLICES = 10
PATIENCE_S = 0.02
"""So many at most in one request, and none more after this time."""

One = TypeVar("One")
Found = TypeVar("Found", covariant=True)


class Find(Protocol[Found]):
    """Finds at most `limit` before an id and from one on, the newest first."""

    def __call__(self, *, limit: int, before: str | None, since: str | None) -> Awaitable[Sequence[Found]]: ...


async def page_of(
    store: Store, clock: Clock, what: Listed, find: Find[One], id_of: Callable[[One], str], *, limit: int,
    before: str | None, since: str | None, narrowed: bool,
) -> tuple[list[One], str | None]:  # fmt: skip
    """Return a page, and the cursor of the next one; None at the end.

    Where the list is narrowed, the page may hold fewer than `limit`, or none, and still have a next one.
    """
    found: list[One] = []
    began_s = clock.monotonic()
    for _ in range(SLICES):
        bound = await store.nth_before(what, before, SLICE) if narrowed else None
        low = since if bound is None or (since is not None and since > bound) else bound
        found += await find(limit=limit + 1 - len(found), before=before, since=low)
        if len(found) > limit:
            return found[:limit], id_of(found[limit - 1])
        if bound is None or low != bound:
            return found, None
        before = bound
        if clock.monotonic() - began_s > PATIENCE_S:
            break
    return found, before


def before_of(cursor: str | None, end: datetime | None) -> str | None:
    """Return before which id a page begins: that of its cursor, or of what came to be at the end of a time."""
    ends = [one for one in (cursor, None if end is None else first_id_at(end)) if one is not None]
    return min(ends, default=None)
