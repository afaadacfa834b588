"""By a cursor: what to ask next, and which of the rows that come are new. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from plugins.querying.rows import BadRows
from plugins.sources.database.rows import Row
from plugins.sources.database.values import earlier, order, pack, unpack

Form = Literal["written", "inclusive", "whole"]
"""A form of the query: as it was written, with `>=` for `>`, or without a bound."""


class Plan(Struct, frozen=True, kw_only=True):
    """What of the settings decides.

    - `column`: the cursor's. `start`: `beginning`, `now`, or the value after which rows are new.
    - `keyed`: whether rows have a key beside the cursor, so that they may share its values.
    - `look_back`: see `values.earlier`; 0 for none.
    - `limit`: so many rows are a full page. `may_be_cut`: whether a page may be full with fewer.
    """

    column: str
    start: Any
    keyed: bool = False
    look_back: float = 0
    limit: int
    may_be_cut: bool = False

    @property
    def tracked(self) -> bool:
        """Whether rows are read again, and known by their ids."""
        return self.keyed or bool(self.look_back)

    @property
    def floor(self) -> Any:
        """The value that no row from before may pass, or None."""
        return None if self.start in ("beginning", "now") else self.start


class Question(Struct, frozen=True, kw_only=True):
    """What is asked: a form of the query, and the value of `:cursor`, which the form `whole` has not."""

    form: Form
    value: Any = None


class Step(Struct, frozen=True, kw_only=True):
    """What a page comes to: new rows, the cursor and what to remember of it, to be stored in one transaction.

    - `cursor` is None where it stays as it is; in `remember` None stands for what is forgotten.
    - `more`: whether to ask again at once. `in_place`: whether that is the same question, so that this page has to
      have brought something.
    """

    rows: tuple[Row, ...]
    cursor: dict[str, Any] | None
    remember: dict[str, Any]
    more: bool
    in_place: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.rows and self.cursor is None and not self.remember


class Walk:
    """The way along a cursor: from where it was left (or its start) over pages to the end, round after round.

    A round begins at the cursor, or `look_back` before it, and each page goes on from the last row of the one before.
    Where rows may share a value, that is read again too, and rows are known by their ids: those within the
    window from `look_back` before the cursor are remembered. `stored` is the cursor as it was stored, `memory` what was
    remembered; None is what a source has that never came so far.
    """

    def __init__(self, plan: Plan, stored: Mapping[str, Any] | None, memory: Mapping[str, Any]) -> None:
        self._plan = plan
        self._begun = stored is not None
        self._baseline = stored is None and plan.start == "now"
        self._cursor = None if stored is None or stored["value"] is None else unpack(stored)
        self._known = {row_id: unpack(value) for row_id, value in memory.items()}
        self._leaving = [(value, row_id) for row_id, value in self._known.items()] if plan.look_back else []
        heapq.heapify(self._leaving)
        self._position: Any = None

    @property
    def wants_now(self) -> bool:
        """Whether `begin_at` has to be told the greatest cursor that is there, before anything is asked."""
        return self._baseline and self._cursor is None

    @property
    def known(self) -> int:
        """How many rows are remembered."""
        return len(self._known)

    def begin_round(self) -> None:
        """Go back to where a round begins."""
        self._position = None

    def begin_at(self, greatest: Any) -> Step:
        """Take the greatest cursor that is there (None: there is no row) for the last one that is known.

        Where there is one, what is asked next is a baseline: rows that are there already, to be known and no events.
        """
        if greatest is None:
            return Step(rows=(), cursor=self._end_baseline(), remember={}, more=False)
        pack(greatest)
        self._cursor = greatest
        return Step(rows=(), cursor=None, remember={}, more=True)

    def question(self) -> Question:
        """Return what to ask now."""
        plan = self._plan
        if self._position is not None:
            return Question(form="inclusive" if plan.tracked else "written", value=self._position)
        if self._cursor is None:
            whole = self._begun or plan.floor is None
            return Question(form="whole") if whole else Question(form="written", value=plan.floor)
        if not plan.look_back:
            return Question(form="inclusive" if plan.tracked else "written", value=self._cursor)
        bound = earlier(self._cursor, plan.look_back)
        if plan.floor is not None and (before := order(bound, plan.floor)) != 1:
            if before is None:
                raise BadRows(f"`start` and the column {plan.column!r} hold values that can't be compared")
            return Question(form="written", value=plan.floor)
        return Question(form="inclusive", value=bound)

    def take(self, asked: Question, rows: Sequence[Row], *, cut: bool = False) -> Step:
        """Take the rows of a page, and return what it comes to; raise BadRows where they can't be followed.

        `cut`: the page ended before its limit, as its rows are large.
        """
        plan = self._plan
        self._check_order(asked, rows)
        fresh = self._fresh(rows)
        if not rows:
            return Step(rows=(), cursor=self._end_baseline() if self._baseline else None, remember={}, more=False)
        last = rows[-1].cursor
        stays = asked.form != "whole" and last == asked.value
        full = cut or len(rows) >= plan.limit
        if full and stays and not fresh:
            raise BadRows(self.stuck(len(rows), last))
        more = full or (plan.may_be_cut and not (stays and not fresh))
        moved = self._move(last)
        remember = self._remember(fresh, moved)
        self._position = last
        if self._baseline:
            cursor = None if more else self._end_baseline()
            return Step(rows=(), cursor=cursor, remember=remember, more=more)
        self._begun = True
        cursor = self._stored() if moved else None
        return Step(rows=tuple(fresh), cursor=cursor, remember=remember, more=more, in_place=stays)

    def stuck(self, count: int, value: Any) -> str:
        """Say that a page can't go on."""
        what = f"{count} rows or more share the value {value} in the column {self._plan.column!r}"
        return f"{what}, which is all that a page holds: raise the query's limit and `page` above their number"

    def _check_order(self, asked: Question, rows: Sequence[Row]) -> None:
        before = asked.value if asked.form != "whole" else None
        for row in rows:
            pack(row.cursor)
            ordered = None if before is None else order(row.cursor, before)
            if ordered is None and before is not None and self._plan.look_back:
                raise BadRows(f"{row.cursor!r} and {before!r} in the column {self._plan.column!r} can't be compared")
            if ordered == -1:
                column = self._plan.column
                if row is rows[0]:
                    raise BadRows(f"the query gives a row with {row.cursor} in {column!r} when asked from {before} on")
                raise BadRows(f"rows do not come in the order of {column!r}: {row.cursor} after {before}")
            before = row.cursor

    def _fresh(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows that are new; raise BadRows where two are not told apart, of which one would be lost."""
        plan = self._plan
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                what = f"two rows share the value {row.cursor} in the column {plan.column!r}"
                raise BadRows(
                    f"{what} and the key {row.subject}: `key` has to tell such rows apart" if plan.keyed
                    else f"{what}: name the column that tells them apart as `key`"
                )  # fmt: skip
            seen.add(row.id)
        if plan.tracked:
            return [row for row in rows if row.id not in self._known]
        return [row for row in rows if row.cursor != self._cursor]

    def _move(self, last: Any) -> bool:
        """Move the cursor to the last row of a page, never back; return whether it moved."""
        if self._cursor is not None and self._plan.look_back:
            if order(last, self._cursor) != 1:
                return False
        if last == self._cursor:
            return False
        self._cursor = last
        return True

    def _remember(self, fresh: Sequence[Row], moved: bool) -> dict[str, Any]:
        """Return what to remember of new rows, and to forget of old ones."""
        plan = self._plan
        if not plan.tracked:
            return {}
        changes: dict[str, Any] = {}
        if not plan.look_back:
            if moved:
                changes = dict.fromkeys(row_id for row_id, value in self._known.items() if value != self._cursor)
            kept = [row for row in fresh if row.cursor == self._cursor]
        else:
            bound = earlier(self._cursor, plan.look_back)
            while self._leaving and order(self._leaving[0][0], bound) == -1:
                changes[heapq.heappop(self._leaving)[1]] = None
            kept = [row for row in fresh if order(row.cursor, bound) != -1]
            for row in kept:
                heapq.heappush(self._leaving, (row.cursor, row.id))
        for row_id in changes:
            self._known.pop(row_id, None)
        for row in kept:
            self._known[row.id] = row.cursor
            changes[row.id] = pack(row.cursor)
        return changes

    def _end_baseline(self) -> dict[str, Any]:
        """Return the cursor from which rows are new."""
        self._baseline, self._begun = False, True
        return self._stored()

    def _stored(self) -> dict[str, Any]:
        packed = {"kind": None, "value": None} if self._cursor is None else pack(self._cursor)
        return {"column": self._plan.column, **packed}
