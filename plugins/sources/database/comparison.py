"""By hashes: which rows were inserted, updated or deleted since the last time. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from engine.plugin import parse_json
from plugins.querying.rows import BadRows
from plugins.sources.database.rows import Row, fingerprint
from plugins.sources.database.values import as_text

What = Literal["inserted", "updated", "deleted"]


class Change(Struct, frozen=True, kw_only=True):
    """A row that is another than before; `digest` is its new hash, None where it is gone."""

    what: What
    row: Row
    digest: str | None


class Step(Struct, frozen=True, kw_only=True):
    """Changes that are stored in one transaction: `first` is the running number of the first of them.

    While what is there already is only to be known, there are none, and `cursor` is None.
    """

    changes: tuple[Change, ...]
    cursor: dict[str, Any] | None
    remember: dict[str, str | None]
    first: int


class Comparison:
    """What is known of the rows: a hash of each, by its key, as it was `stored`.

    A look goes over all rows: `begin`, then `look` for some at a time, then `gone`. What they find is stored in
    steps, and known once it was: `store` is told of each. `held_bytes` bounds what a look may hold; beyond that it ends
    early, and what it found is stored before the next.
    """

    def __init__(
        self, key: Sequence[str], stored: Mapping[str, Any] | None, memory: Mapping[str, str], *, baseline: bool,
        held_bytes: int,
    ) -> None:  # fmt: skip
        self._key = tuple(key)
        self._known = dict(memory)
        self._sequence = 0 if stored is None else int(stored["sequence"])
        self.is_baseline = baseline and stored is None
        self._seen: set[str] = set()
        self._held_bytes = held_bytes
        self._held = 0

    @property
    def known(self) -> int:
        """How many rows are known."""
        return len(self._known)

    def begin(self) -> None:
        """Begin a look over all rows."""
        self._seen.clear()
        self._held = 0

    @property
    def has_room(self) -> bool:
        """Whether the look may go on."""
        return self._held < self._held_bytes

    def look(self, rows: Sequence[Row]) -> list[Change]:
        """Return which of some rows are new or others than before; raise BadRows where a key comes twice."""
        found = []
        for row in rows:
            if row.id in self._seen:
                raise BadRows(f"two rows have the key {row.id}: `key` has to tell all rows apart")
            self._seen.add(row.id)
            digest, known = fingerprint(row.data), self._known.get(row.id)
            if digest != known:
                # Of what is only to be known, the hash is enough.
                kept = Row(id=row.id, subject=row.subject, data={}, size=0) if self.is_baseline else row
                found.append(Change(what="updated" if known else "inserted", row=kept, digest=digest))
                self._held += 200 + kept.size
        return found

    def gone(self) -> Iterator[Change]:
        """Return the rows that a look over all of them has not seen; of these the key alone is known."""
        for row_id in [row_id for row_id in self._known if row_id not in self._seen]:
            values = parse_json(row_id.encode())
            data = dict(zip(self._key, values, strict=True))
            subject = ",".join(map(as_text, values))[:1024] or None
            row = Row(id=row_id, subject=subject, data=data, size=len(row_id))
            yield Change(what="deleted", row=row, digest=None)

    def step(self, changes: Sequence[Change]) -> Step:
        """Return what of some changes is to be stored."""
        return Step(
            changes=() if self.is_baseline else tuple(changes),
            cursor=None if self.is_baseline else {"sequence": self._sequence + len(changes)},
            remember={change.row.id: change.digest for change in changes},
            first=self._sequence + 1,
        )

    def store(self, changes: Sequence[Change]) -> None:
        """Know what was stored."""
        self._sequence += len(changes)
        for change in changes:
            if change.digest is None:
                self._known.pop(change.row.id, None)
            else:
                self._known[change.row.id] = change.digest

    def end_baseline(self) -> dict[str, Any]:
        """Return the cursor that says that what was there before is known."""
        self.is_baseline = False
        return {"sequence": self._sequence}
