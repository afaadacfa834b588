"""The room that the file of a SQLite store takes, and giving back what is free of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.store.base import StoreSize

SHRUNK_PAGES = 64
"""So many pages are given back at once: each that is moved is written anew, and nothing else is written meanwhile."""

INCREMENTAL = 2


def size_of(raw: sqlite3.Connection, path: Path) -> StoreSize:
    """Return how large the file and its log are, and how much of the file is free."""
    page_bytes = _value(raw, "page_size")
    log = path.with_name(path.name + "-wal")
    unused = _value(raw, "freelist_count") * page_bytes
    try:
        log_bytes = log.stat().st_size
    except FileNotFoundError:
        log_bytes = 0
    return StoreSize(
        total=_value(raw, "page_count") * page_bytes + log_bytes,
        # The log is written over and over.
        free=unused + log_bytes, unused=unused,
        shrinks=_value(raw, "auto_vacuum") == INCREMENTAL,
    )  # fmt: skip


def shrink(raw: sqlite3.Connection) -> tuple[int, int]:
    """Give some free pages back to the disk; return how many bytes and pages."""
    before = _value(raw, "page_count")
    raw.execute(f"pragma incremental_vacuum({SHRUNK_PAGES})").fetchall()
    pages = before - _value(raw, "page_count")
    return pages * _value(raw, "page_size"), pages


def _value(raw: sqlite3.Connection, pragma: str) -> int:
    (value,) = raw.execute(f"pragma {pragma}").fetchone()
    return int(value)
