"""How settings are shown: as JSON, and without what is secret."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from engine.http.views import shown
from engine.plugin import Secret


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Secret("s3same-open"), "***"),
        ("key=s3same-open;", "key=***;"),
        ("postgresql+asyncpg://shop:hunter2@db:5432/shop", "postgresql+asyncpg://shop:***@db:5432/shop"),
        (["psql", "postgres://:hunter2@db/x", "redis://u:p@ss@h"], ["psql", "postgres://:***@db/x", "redis://u:***@h"]),
        ("https://example.com:8080/a@b", "https://example.com:8080/a@b"),
        ("sqlite+aiosqlite:///data/shop.db", "sqlite+aiosqlite:///data/shop.db"),
        ({"Authorization": Secret("s3same-open"), "n": 1.5}, {"Authorization": "***", "n": 1.5}),
        ((date(2030, 1, 31), time(2, 0)), ["2030-01-31", "02:00:00"]),
        (datetime(2030, 1, 31, tzinfo=UTC), "2030-01-31T00:00:00+00:00"),
        (Path("in/s3same-open"), "in/***"),
        (frozenset("fbdaec"), ["a", "b", "c", "d", "e", "f"]),
        (object(), "object"),
    ],
)
def test_settings_are_shown_without_secrets_and_passwords_of_urls(value: Any, expected: Any) -> None:
    assert shown(value, {"s3same-open"}) == expected
