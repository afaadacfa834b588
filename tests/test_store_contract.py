"""The contract of a store, kept by the SQLite store."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from engine.ids import new_id
from engine.store import boots, connection, migrations, opening, sqlite
from engine.store.base import Boot, Store
from engine.store.boots import this_process
from engine.store.sqlite import SqliteStore
from engine.testing.clock import VirtualClock
from engine.testing.store_contract import StoreContract, promise, sentences_kept_by, sentences_of_contract
from engine.testing.store_contract.promises import sentences_of
from tests.store_files import copy_files, overwrite_page

SECOND = "alter table runs add column oven_note text; create index runs_note on runs (oven_note)"


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = tmp_path / "data" / "engine.db"
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.05)

    def make_store(self) -> Store:
        return SqliteStore(self.path, clock=VirtualClock())

    def contents(self) -> object:
        return {
            path.name: path.read_bytes()
            for path in self.path.parent.iterdir()
            if path.name in (self.path.name, self.path.name + "-wal")
        }

    def copies(self) -> int:
        return len([path for path in self.path.parent.iterdir() if path.name.endswith(".backup")])

    def damage(self) -> None:
        overwrite_page(self.path, 3)

    def age(self, *, migration_fails: bool = False) -> None:
        second = f"{SECOND}; select raise_an_error()" if migration_fails else SECOND
        newer = (*migrations.MIGRATIONS, second)
        self.monkeypatch.setattr(sqlite, "prepare", partial(opening.prepare, migrations=newer))

    def outdate(self) -> None:
        raw = sqlite3.connect(self.path)
        raw.execute(f"pragma user_version = {len(migrations.MIGRATIONS) + 1}")
        raw.close()

    def lose_power(self) -> None:
        self.path = copy_files(self.path, self.path.parent.with_name("found"))

    def another(self) -> Boot | None:
        return this_process(new_id())

    async def succeed(self, boot: Boot) -> None:
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("begin immediate")
        boots.take_over(other, boot, VirtualClock())
        other.execute("commit")
        other.close()

    @asynccontextmanager
    async def refuse_writes(self, store: Store) -> AsyncIterator[None]:
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("begin immediate")
        other.execute("delete from runs")
        try:
            yield
        finally:
            other.rollback()
            other.close()

    @asynccontextmanager
    async def looked_into(self) -> AsyncIterator[Store]:
        store = SqliteStore(self.path, read_only=True)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


def test_sentences_are_split_at_their_ends_and_lose_their_headings() -> None:
    text = """Do it.

    **Opening.** It opens (e.g. a file). Then `close` closes
    it; both are quick. `limit` bounds it.
    """
    assert sentences_of(text) == [
        "Do it.",
        "It opens (e.g. a file).",
        "Then `close` closes it; both are quick.",
        "`limit` bounds it.",
    ]


def test_a_suite_that_lost_a_case_is_noticed() -> None:
    class Half(TestSqliteStore):
        test_events_without_a_key_are_all_stored = None  # type: ignore[assignment]

    lost = set(sentences_of_contract()) - sentences_kept_by(Half)
    assert lost == {"Store: Events without a key are never duplicates."}


def test_every_abstract_method_of_the_store_is_in_the_contract() -> None:
    places = set(sentences_of_contract().values())
    assert {f"Store.{name}" for name in Store.__abstractmethods__} <= places
    assert all(re.fullmatch(r"[A-Za-z._]+: .+\.", sentence) for sentence in sentences_of_contract())


def test_a_case_is_marked_with_its_sentences() -> None:
    @promise("a", "b")
    def case() -> None: ...

    assert vars(case)["promises"] == ("a", "b")


def test_the_kit_does_not_need_pytest_until_the_suite_is_imported() -> None:
    program = "import sys, engine.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
