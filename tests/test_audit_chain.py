"""The audit log's chain: whatever is done to it, it shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.audits import FIRST, Audit, AuditOutcome, AuditRow, linked, read, text_of, verify
from engine.store.changes import Accept
from engine.store.migrations import MIGRATIONS
from engine.store.sqlite import SqliteStore

AT = 1_764_000_000_000_000
LENGTH = 6


def an_audit(number: int = 0, **fields: object) -> Audit:
    given = {"at": AT + number, "action": f"POST /{number}", "outcome": AuditOutcome.DONE, "who": "ada", **fields}
    return Audit(**given)  # type: ignore[arg-type]


def chain_of(texts: Sequence[str]) -> list[AuditRow]:
    rows, before = [], FIRST
    for seq, text in enumerate(texts, start=1):
        before = linked(before, seq, text)
        rows.append(AuditRow(seq=seq, text=text, hash=before))
    return rows


def head_of(rows: Sequence[AuditRow]) -> tuple[int, bytes]:
    return rows[-1].seq, rows[-1].hash


ROWS = chain_of([text_of(an_audit(n)) for n in range(LENGTH)])
PLACES = st.integers(0, LENGTH - 1)


def test_a_chain_that_nobody_touched_is_right() -> None:
    assert verify(ROWS, head_of(ROWS)).check() == {
        "name": "audit", "ok": True, "detail": f"6 rows, the last is {ROWS[-1].hash.hex()[:16]}",
    }  # fmt: skip
    assert verify([], None).check() == {"name": "audit", "ok": True, "detail": "empty"}


@given(PLACES, st.binary(max_size=64).map(lambda data: data.decode("latin-1")))
def test_a_row_that_was_changed_is_found(place: int, text: str) -> None:
    changed = [*ROWS[:place], replace(ROWS[place], text=text), *ROWS[place + 1 :]]
    found = verify(changed, head_of(ROWS))
    assert found.wrong == f"row {place + 1} is not what was written, or follows another one"
    assert found.rows == place
    # Also where its own hash was made to fit.
    own = linked(ROWS[place - 1].hash if place else FIRST, place + 1, text)
    fitted = [*ROWS[:place], AuditRow(seq=place + 1, text=text, hash=own), *ROWS[place + 1 :]]
    assert verify(fitted, head_of(ROWS)).wrong is not None


@given(PLACES, st.integers(1, LENGTH))
def test_rows_that_are_gone_are_found(place: int, count: int) -> None:
    left = [*ROWS[:place], *ROWS[place + count :]]
    found = verify(left, head_of(ROWS))
    assert found.wrong is not None
    assert f"{place + 1}" in found.wrong
    assert "gone" in found.wrong


@given(st.permutations(range(LENGTH)).filter(lambda order: list(order) != list(range(LENGTH))))
def test_rows_in_another_order_are_found(order: list[int]) -> None:
    moved = [ROWS[place] for place in order]
    assert verify(moved, head_of(ROWS)).wrong is not None
    renumbered = [replace(row, seq=seq) for seq, row in enumerate(moved, start=1)]
    assert verify(renumbered, head_of(ROWS)).wrong is not None


def test_an_end_that_was_cut_off_is_found_and_so_is_a_row_that_was_put_behind_it() -> None:
    assert verify(ROWS[:-1], head_of(ROWS)).wrong == "row 6 is gone: the end was cut off"
    assert verify(ROWS[:2], head_of(ROWS)).wrong == "rows 3 to 6 are gone: the end was cut off"
    assert verify([], head_of(ROWS)).wrong == "rows 1 to 6 are gone: the end was cut off"
    assert verify(ROWS, head_of(ROWS[:-1])).wrong == "the log ends with row 6, and by its head with 5"
    assert verify(ROWS, None).wrong == "the log ends with row 6, and by its head with 0"


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers(-(2**62), 2**62) | st.none()))
def test_a_row_is_one_line_whatever_stands_in_it_and_is_read_as_it_was(text: str, after: dict[str, object]) -> None:
    try:
        text.encode()
        str(after).encode()
    except UnicodeEncodeError:
        return  # such text is replaced before it comes here
    audit = an_audit(reason=text, target=text, claims={"performed_by": text}, after=after)
    line = text_of(audit)
    assert read(line) == audit
    assert not {"\n", "\r", "\x1b", "\x00"} & set(line)


def test_a_page_of_one_persons_rows_reads_no_others() -> None:
    raw = sqlite3.connect(":memory:")
    for migration in MIGRATIONS:
        raw.executescript(migration)
    for column in ("who", "action", "target", "outcome"):
        query = f"select seq, entry, hash from audit where {column} = ? and seq < ? order by seq desc limit ?"
        plan = [row[3] for row in raw.execute(f"explain query plan {query}", ("x", 1, 1))]
        assert plan == [f"SEARCH audit USING INDEX audit_{column} ({column}=? AND seq<?)"]
    raw.close()


# In the store's file

TAMPERINGS: dict[str, tuple[str, str]] = {
    "changed": (
        "update audit set entry = replace(entry, 'ada', 'eve') where seq = 3",
        "row 3 is not what was written, or follows another one",
    ),
    "removed": ("delete from audit where seq = 3", "row 3 is gone: the next one has the number 4"),
    "removed first": ("delete from audit where seq = 1", "row 1 is gone: the next one has the number 2"),
    "cut off": ("delete from audit where seq > 4", "rows 5 to 6 are gone: the end was cut off"),
    "emptied": ("delete from audit", "rows 1 to 6 are gone: the end was cut off"),
    "moved": (
        "update audit set seq = 99 where seq = 2; update audit set seq = 2 where seq = 3; "
        "update audit set seq = 3 where seq = 99",
        "row 2 is not what was written, or follows another one",
    ),
    "removed and renumbered": (
        "delete from audit where seq = 2; update audit set seq = seq - 1 where seq > 2",
        "row 2 is not what was written, or follows another one",
    ),
    "head moved": ("update audit_head set seq = 4", "the log ends with row 6, and by its head with 4"),
    "head removed": ("delete from audit_head", "the log ends with row 6, and by its head with 0"),
    "hash changed": (
        "update audit set hash = zeroblob(32) where seq = 2",
        "row 2 is not what was written, or follows another one",
    ),
}


async def stored(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Accept(entries=())] * LENGTH, {n: an_audit(n) for n in range(LENGTH)})
    finally:
        await store.close()


def in_file(path: Path, statements: str) -> None:
    raw = sqlite3.connect(path)
    raw.executescript(statements)
    raw.close()


@pytest.mark.parametrize("how", TAMPERINGS)
async def test_what_is_done_to_the_log_in_its_file_is_found(tmp_path: Path, how: str) -> None:
    path = tmp_path / "engine.db"
    await stored(path)
    statements, wrong = TAMPERINGS[how]
    in_file(path, f"drop trigger audit_stays; drop trigger audit_keeps; {statements}")
    store = SqliteStore(path, read_only=True)
    await store.open()
    try:
        assert (await store.audit_chain()).wrong == wrong
    finally:
        await store.close()


@pytest.mark.parametrize("statement", ["update audit set hash = zeroblob(32)", "delete from audit where seq = 6"])
async def test_a_row_is_changed_by_no_mistake(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "engine.db"
    await stored(path)
    with pytest.raises(sqlite3.IntegrityError, match="the audit log is added to alone"):
        in_file(path, statement)


async def test_a_log_that_was_tampered_with_goes_on_and_stays_found_out(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    await stored(path)
    in_file(path, "drop trigger audit_keeps; delete from audit where seq = 6")
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Accept(entries=())], {0: an_audit(7)})
        assert (await store.audit_chain()).wrong == "row 6 is gone: the next one has the number 7"
    finally:
        await store.close()
