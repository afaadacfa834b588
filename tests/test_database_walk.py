"""The way along a cursor: whatever is committed when, within the look-back, is an event once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from engine.payload import encode_json, parse_json
from plugins.querying.rows import BadRows
from plugins.sources.database.rows import Row, row_by_cursor
from plugins.sources.database.values import earlier, order, pack, unpack
from plugins.sources.database.walk import Plan, Question, Step, Walk

MOST_PAGES = 500
BASE = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

As = Any
"""Turns the whole numbers of a test into values of a cursor."""


def number(at: int) -> int:
    return at


def instant(at: int) -> datetime:
    return BASE + timedelta(seconds=at)


def stamp(at: int) -> str:
    return instant(at).strftime("%Y-%m-%d %H:%M:%S")


def decimal(at: int) -> Decimal:
    return Decimal(at) / 1


class Table:
    """A table in memory, asked as a database would be. `inner_limit` is one that nobody can see."""

    def __init__(self, plan: Plan, *, inner_limit: int | None = None, keys_reversed: bool = False) -> None:
        self.plan = plan
        self.rows: list[tuple[Any, int]] = []
        self.asked = 0
        self._inner_limit = inner_limit
        self._reversed = keys_reversed

    def ask(self, question: Question) -> list[Row]:
        self.asked += 1
        found = sorted(self.rows, key=lambda row: (row[0], -row[1] if self._reversed else row[1]))
        if question.form == "inclusive":
            found = [row for row in found if row[0] >= question.value]
        if question.form == "written":
            found = [row for row in found if row[0] > question.value]
        limit = min(self.plan.limit, self._inner_limit or self.plan.limit)
        key = ("n",) if self.plan.keyed else ()
        return [row_by_cursor({"at": value, "n": n}, "at", key) for value, n in found[:limit]]

    @property
    def greatest(self) -> Any:
        return max((value for value, _ in self.rows), default=None)


class Kept(Struct, kw_only=True):
    """What the store holds of a source."""

    cursor: Any = None
    memory: dict[str, Any]
    rows: list[Any]

    def apply(self, step: Step) -> None:
        """Make a step durable, as JSON, as the store does."""
        if step.cursor is not None:
            self.cursor = parse_json(encode_json(step.cursor))
        for row_id, value in step.remember.items():
            if value is None:
                self.memory.pop(row_id, None)
            else:
                self.memory[row_id] = parse_json(encode_json(value))
        self.rows += [row.data["n"] for row in step.rows]

    def walk(self, plan: Plan) -> Walk:
        return Walk(plan, self.cursor, self.memory)


def kept() -> Kept:
    return Kept(memory={}, rows=[])


def go_round(walk: Walk, table: Table, store: Kept, *, most: int = MOST_PAGES) -> bool:
    """Make a round, or the first pages of one; return whether it came to its end."""
    walk.begin_round()
    if walk.wants_now:
        step = walk.begin_at(table.greatest)
        store.apply(step)
        if not step.more:
            return True
    for _ in range(most):
        asked = walk.question()
        step = walk.take(asked, table.ask(asked))
        store.apply(step)
        if not step.more:
            return True
    return False


# Random interleavings


class Commit(Struct, frozen=True):
    """Rows that are committed at once, each so far before the newest value that there was (or after it)."""

    offsets: tuple[int, ...]


Poll = st.just("poll")
Crash = st.sampled_from(["crash", "crash after a page"])


def commits(look_back: int) -> st.SearchStrategy[Commit]:
    """Commit rows at the newest value, after it, or at most `look_back` before it."""
    return st.lists(st.integers(-look_back, 3), min_size=1, max_size=6).map(lambda all_of: Commit(tuple(all_of)))


def play(plan: Plan, as_value: As, actions: Sequence[Any], table: Table, first: int = 0) -> tuple[Kept, int]:
    """Play commits, polls and crashes; return what was stored in the end, and how many rows there are."""
    store, newest, count = kept(), first, first
    walk = store.walk(plan)
    for action in actions:
        if isinstance(action, Commit):
            bound = newest - (plan.look_back if plan.look_back else 0)
            for offset in action.offsets:
                at = max(int(bound), newest + offset)
                table.rows.append((as_value(at), count))
                count += 1
            newest = max(newest, *(newest + offset for offset in action.offsets))
        elif action == "poll":
            assert go_round(walk, table, store)
        else:
            if action == "crash after a page":
                go_round(walk, table, store, most=1)
            walk = store.walk(plan)
    assert go_round(walk, table, store)
    return store, count


@pytest.mark.parametrize("as_value", [number, instant, stamp, decimal])
@given(data=st.data())
def test_each_row_is_told_once_whatever_is_committed_late_within_the_look_back(
    as_value: As, data: st.DataObject
) -> None:
    look_back = data.draw(st.integers(1, 6))
    actions = data.draw(st.lists(st.one_of(commits(look_back), Poll, Crash), max_size=30))
    rows = sum(len(action.offsets) for action in actions if isinstance(action, Commit))
    in_s = as_value in (instant, stamp)
    # A page holds more than may share a value: else it can't go on, which other tests show.
    plan = Plan(
        column="at", start="beginning", keyed=True, look_back=float(look_back) if in_s else look_back, limit=rows + 1
    )
    store, count = play(plan, as_value, actions, Table(plan))
    assert sorted(store.rows) == list(range(count))


@given(data=st.data())
def test_each_row_is_told_once_where_rows_share_values_and_pages_are_small(data: st.DataObject) -> None:
    actions = data.draw(st.lists(st.one_of(st.integers(1, 4), Poll, Crash), max_size=40))
    limit = data.draw(st.integers(6, 9))
    reversed_keys, inner = data.draw(st.booleans()), data.draw(st.booleans())
    plan = Plan(column="at", start="beginning", keyed=True, limit=limit, may_be_cut=inner)
    table = Table(plan, inner_limit=5 if inner else None, keys_reversed=reversed_keys)
    # At most 4 rows share a value, in two commits: with the second, ones that were read already get company.
    shared, at = 0, 0
    played: list[list[int] | str] = []
    for action in actions:
        if isinstance(action, int):
            if shared + action > 4:
                at, shared = at + 1, 0
            shared += action
            played.append([at] * action)
        else:
            played.append(action)
    store, count = kept(), 0
    walk = store.walk(plan)
    for deed in [*played, "poll"]:
        if isinstance(deed, list):
            table.rows += [(value, count + n) for n, value in enumerate(deed)]
            count += len(deed)
        elif deed == "poll":
            assert go_round(walk, table, store)
        else:
            go_round(walk, table, store, most=1)
            walk = store.walk(plan)
    assert sorted(store.rows) == list(range(count))


@given(st.lists(st.one_of(st.integers(1, 9), Poll, Crash), max_size=30), st.integers(2, 4), st.booleans())
def test_each_row_is_told_once_where_values_are_unique(actions: list[Any], limit: int, inner: bool) -> None:
    plan = Plan(column="at", start="beginning", limit=limit, may_be_cut=inner)
    table, store, count = Table(plan, inner_limit=1 if inner else None), kept(), 0
    walk = store.walk(plan)
    for action in [*actions, "poll"]:
        if isinstance(action, int):
            table.rows += [(count + n, count + n) for n in range(action)]
            count += action
        elif action == "poll":
            assert go_round(walk, table, store)
        else:
            go_round(walk, table, store, most=1)
            walk = store.walk(plan)
    assert store.rows == list(range(count))


@given(data=st.data())
def test_what_was_there_before_is_never_told_and_all_that_comes_later_is(data: st.DataObject) -> None:
    look_back = data.draw(st.integers(0, 5))
    before = data.draw(st.lists(st.integers(0, 10), max_size=12))
    actions = data.draw(st.lists(st.one_of(commits(look_back), Poll, Crash), max_size=15))
    plan = Plan(column="at", start="now", keyed=True, look_back=look_back, limit=200)
    table = Table(plan)
    table.rows = [(at, -n - 1) for n, at in enumerate(before)]
    store, newest, count = kept(), max(before, default=0), 0
    walk = store.walk(plan)
    assert go_round(walk, table, store)
    for action in [*actions, "poll"]:
        if isinstance(action, Commit):
            values = [max(newest - look_back, newest + offset) for offset in action.offsets]
            table.rows += [(value, count + n) for n, value in enumerate(values)]
            count, newest = count + len(values), max(newest, *values)
        elif action == "poll":
            assert go_round(walk, table, store)
        else:
            walk = store.walk(plan)
    assert sorted(store.rows) == list(range(count))


@given(data=st.data())
def test_what_is_remembered_is_what_the_window_holds(data: st.DataObject) -> None:
    look_back = data.draw(st.integers(0, 4))
    actions = data.draw(st.lists(st.one_of(commits(look_back), Poll), max_size=20))
    plan = Plan(column="at", start="beginning", keyed=True, look_back=look_back, limit=200)
    table = Table(plan)
    store, _ = play(plan, number, actions, table)
    newest = table.greatest
    held = [value for value, _ in table.rows if value >= newest - look_back] if newest is not None else []
    assert len(store.memory) == len(held)
    assert store.walk(plan).known == len(held)


# Starts


def test_a_start_at_a_value_takes_what_comes_after_it_and_never_looks_back_beyond() -> None:
    plan = Plan(column="at", start=10, keyed=True, look_back=5, limit=50)
    table, store = Table(plan), kept()
    table.rows = [(at, at) for at in (8, 9, 10, 11, 12)]
    walk = store.walk(plan)
    assert go_round(walk, table, store)
    table.rows += [(10, 100), (11, 111)]
    assert go_round(walk, table, store)
    assert store.rows == [11, 12, 111]


def test_the_first_row_of_a_table_that_was_empty_at_the_start_is_an_event() -> None:
    plan = Plan(column="at", start="now", limit=50)
    table, store = Table(plan), kept()
    walk = store.walk(plan)
    assert go_round(walk, table, store)
    assert store.cursor == {"column": "at", "kind": None, "value": None}
    table.rows = [(-5, 1)]
    walk = store.walk(plan)
    assert go_round(walk, table, store)
    assert store.rows == [1]


def test_a_baseline_that_was_broken_off_leaves_no_cursor_behind() -> None:
    plan = Plan(column="at", start="now", keyed=True, look_back=100, limit=3)
    table, store = Table(plan), kept()
    table.rows = [(at, at) for at in range(10)]
    assert not go_round(store.walk(plan), table, store, most=2)
    assert store.cursor is None
    assert go_round(store.walk(plan), table, store)
    table.rows.append((5, 55))
    assert go_round(store.walk(plan), table, store)
    assert store.rows == [55]


# What can't be followed is said


def rows_of(*values: Any, key: Sequence[str] = ("n",)) -> list[Row]:
    return [row_by_cursor({"at": value, "n": n}, "at", key) for n, value in enumerate(values)]


def test_a_run_of_ties_that_fills_a_page_is_said_and_loses_nothing() -> None:
    plan = Plan(column="at", start="beginning", keyed=True, limit=3)
    table, store = Table(plan), kept()
    table.rows = [(1, 0), *((2, n) for n in range(1, 6)), (3, 6)]
    walk = store.walk(plan)
    with pytest.raises(BadRows, match=r"3 rows or more share the value 2 in the column 'at'.*raise the query's limit"):
        go_round(walk, table, store)
    larger = Plan(column="at", start="beginning", keyed=True, limit=6)
    table.plan = larger
    assert go_round(store.walk(larger), table, store)
    assert sorted(store.rows) == list(range(7))


@pytest.mark.parametrize("look_back", [0, 5])
def test_ties_without_a_key_are_said_instead_of_lost(look_back: int) -> None:
    walk = Walk(Plan(column="at", start="beginning", look_back=look_back, limit=9), None, {})
    with pytest.raises(BadRows, match=r"two rows share the value 2 .*: name the column .* as `key`"):
        walk.take(walk.question(), rows_of(1, 2, 2, key=()))


def test_a_key_that_does_not_tell_ties_apart_is_said_instead_of_losing_them() -> None:
    walk = Walk(Plan(column="at", start="beginning", keyed=True, limit=9), None, {})
    rows = [row_by_cursor({"at": 1, "kind": "x", "n": n}, "at", ("kind",)) for n in range(2)]
    with pytest.raises(BadRows, match=r"share the value 1 .* and the key x: `key` has to tell"):
        walk.take(walk.question(), rows)


def test_a_tie_with_the_last_row_is_said_where_the_query_reads_it_again() -> None:
    plan = Plan(column="at", start="beginning", limit=9)
    walk = Walk(plan, {"column": "at", "kind": "int", "value": "2"}, {})
    assert walk.take(Question(form="written", value=2), rows_of(2, 3, key=())).rows[0].cursor == 3
    with pytest.raises(BadRows, match="two rows share the value 3"):
        walk.take(Question(form="written", value=3), rows_of(3, 3, key=()))


def test_rows_out_of_order_and_a_cursor_that_goes_back_are_said() -> None:
    walk = Walk(Plan(column="at", start="beginning", limit=9), None, {})
    with pytest.raises(BadRows, match="rows do not come in the order of 'at': 2 after 3"):
        walk.take(walk.question(), rows_of(3, 2))
    walk = Walk(Plan(column="at", start="beginning", limit=9), {"column": "at", "kind": "int", "value": "7"}, {})
    with pytest.raises(BadRows, match="gives a row with 3 in 'at' when asked from 7 on"):
        walk.take(walk.question(), rows_of(3, 8))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no value in the cursor's column"),
        (True, "can't be true or false"),
        (float("nan"), "can't be NaN"),
        ([1], "can't be a list"),
    ],
)
def test_values_that_are_no_cursor_are_said(value: Any, said: str) -> None:
    walk = Walk(Plan(column="at", start="beginning", limit=9), None, {})
    with pytest.raises(BadRows, match=said):
        walk.take(walk.question(), rows_of(value))


def test_a_column_that_is_missing_is_named_with_those_that_are_there() -> None:
    with pytest.raises(BadRows, match="no column 'at', which `cursor` names; it gives: id, name"):
        row_by_cursor({"id": 1, "name": "x"}, "at", ())
    with pytest.raises(BadRows, match="no column 'k', which `key` names"):
        row_by_cursor({"at": 1}, "at", ("k",))


def test_a_cursor_of_another_kind_than_before_is_said_where_it_has_to_be_compared() -> None:
    stored = {"column": "at", "kind": "int", "value": "7"}
    walk = Walk(Plan(column="at", start="beginning", keyed=True, look_back=5, limit=9), stored, {})
    with pytest.raises(BadRows, match="can't be compared"):
        walk.take(walk.question(), rows_of("2026-01-01"))


def test_rows_of_another_key_with_the_same_text_are_other_rows() -> None:
    one = row_by_cursor({"at": "a", "k": "b|c"}, "at", ("k",))
    other = row_by_cursor({"at": "a|b", "k": "c"}, "at", ("k",))
    assert one.id != other.id
    assert row_by_cursor({"at": 1, "k": "1"}, "at", ("k",)).id != row_by_cursor({"at": 1, "k": 1}, "at", ("k",)).id
    assert len(row_by_cursor({"at": 1, "k": "x" * 5000}, "at", ("k",)).id) < 100


# Values of a cursor


@pytest.mark.parametrize(
    "value",
    [
        5, -(2**63), 2**80, 1.5, Decimal("1.50"), "text", BASE, BASE.replace(tzinfo=None, microsecond=5),
        date(2026, 1, 2), UUID(int=7), b"\x00\xff",
    ],
)  # fmt: skip
def test_a_cursor_comes_back_from_the_store_as_it_was(value: Any) -> None:
    back = unpack(parse_json(encode_json(pack(value))))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "look_back", "expected"),
    [
        (10, 3, 7),
        (1.5, 1, 0.5),
        (Decimal("1.5"), 1, Decimal("0.5")),
        (-(2**63) + 1, 5, -(2**63)),
        (BASE, 60.0, BASE - timedelta(minutes=1)),
        (date(2026, 3, 1), 60.0, date(2026, 2, 28)),
        ("2026-03-01", 60.0, "2026-02-28"),
        ("2026-03-01 00:00:05", 5.5, "2026-02-28 23:59:59"),
        ("2026-03-01T00:00:05.250", 5.5, "2026-02-28T23:59:59.750"),
        ("2026-03-01 00:00:05.123456789+01:00", 5.0, "2026-03-01 00:00:00.123456000+01:00"),
        ("2026-03-01T00:00Z", 60.0, "2026-02-28T23:59Z"),
        ("0001-01-01 00:00:01", 5.0, "0001-01-01 00:00:00"),
        (datetime.min.replace(tzinfo=UTC), 5.0, datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_looking_back_goes_to_an_earlier_value_in_the_same_form(value: Any, look_back: float, expected: Any) -> None:
    assert earlier(value, look_back) == expected


@pytest.mark.parametrize(
    ("value", "look_back", "said"),
    [
        (10, 5.0, "`look_back` has to be a whole number"),
        (BASE, 5, "`look_back` has to be a duration"),
        ("abc", 5.0, "text that is no time stamp"),
        ("2026-02-31 00:00:00", 5.0, "there is no such time"),
        (UUID(int=1), 5, "numbers, dates and time stamps have one"),
    ],
)
def test_looking_back_from_what_has_no_such_distance_is_said(value: Any, look_back: float, said: str) -> None:
    with pytest.raises(BadRows, match=said):
        earlier(value, look_back)


def test_only_what_all_databases_order_alike_is_compared() -> None:
    assert order(1, Decimal("1.5")) == -1
    assert order("2026-01-02", "2026-01-01") == 1
    assert order("a", "B") is None
    assert order("a", "a") == 0
    assert order(BASE, BASE.replace(tzinfo=None)) is None
    assert order(1, "1") is None
