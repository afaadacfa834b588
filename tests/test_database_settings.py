"""What the settings of a database source refuse, in which forms its query is asked, and what makes it the same one."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from engine.config import load
from engine.errors import ConfigError
from engine.payload import survey
from engine.plugin import BadSetting, Secret
from plugins.querying.statement import Statement
from plugins.sources.database.source import Database
from plugins.sources.database.values import DEEPEST, plain

URL = "sqlite+aiosqlite:///app.db"
QUERY = "select id, name from orders where id > :cursor order by id limit 500"


def database(**settings: Any) -> Database:
    return Database(**{"url": URL, "query": QUERY, "cursor": "id", **settings})


# Settings


def test_the_example_of_the_contract_is_right_and_errors_name_the_key(tmp_path: Path) -> None:
    text = f'[jobs.j]\nrun.exec = ["true"]\n[triggers.t]\njob = "j"\n[triggers.t.on.database]\nurl = "{URL}"\n'
    rest = f'query = "{QUERY}"\ncursor = "id"\n'
    (tmp_path / "config.toml").write_text(text + rest + 'start = "beginning"\nlook_back = "5s"\nkey = ["id", "name"]\n')
    config = load([tmp_path / "config.toml"], environment={})
    assert config.triggers["t"].source.startswith("database:app-db-")
    (tmp_path / "config.toml").write_text(text + 'query = "delete from orders"\ncursor = "id"\n')
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "config.toml"], environment={})
    (problem,) = caught.value.problems
    assert problem.path == "triggers.t.on.database.query"
    assert "begins with 'delete'" in problem.message


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"url": "junk"}, "url", "no URL of a database"),
        ({"url": "foo://x"}, "url", "SQLAlchemy does not know"),
        ({"url": "sqlite:///app.db"}, "url", "names the driver pysqlite"),
        ({"url": "mysql+aiomysql://host/x"}, "url", "needs the package aiomysql"),
        ({"url": "sqlite+aiosqlite://"}, "url", "in memory"),
        ({"url": "sqlite+aiosqlite:///:memory:"}, "url", "in memory"),
        ({"url": "sqlite+aiosqlite:///file:x?mode=memory&uri=true"}, "url", "in memory"),
        ({"query": ""}, "query", "is empty"),
        ({"query": "-- nothing"}, "query", "is empty"),
        ({"query": "insert into t values (1)"}, "query", "begins with 'insert'"),
        ({"query": "pragma user_version = 5"}, "query", "begins with 'pragma'"),
        ({"query": "with d as (delete from t returning id) select * from d"}, "query", "holds 'delete'"),
        ({"query": "select id into x from t"}, "query", "holds 'into'"),
        ({"query": f"{QUERY} for update"}, "query", "holds 'update'"),
        ({"query": "select 1; select 2"}, "query", "more than one statement"),
        ({"query": "select 'x from t"}, "query", "a quote that is not closed"),
        ({"query": r"select 'it\' s' from t"}, "query", "a backslash before a quote"),
        ({"query": "select (1 from t"}, "query", "parentheses"),
        ({"query": "select id from t where x = :other and id > :cursor order by id"}, "query", "parameter :other"),
        ({"query": "select id from {{ data.table }}"}, "query", "holds a template"),
        ({"query": "select id from t order by id"}, "query", "has no `:cursor`"),
        ({"query": "select id from t where id > :cursor limit 5"}, "query", "does not end with an ascending"),
        ({"query": "select id from t where id > :cursor order by id desc, x"}, "query", "ascending"),
        ({"query": "select id from t where id > :cursor order by id limit 5 offset 2"}, "query", "has an offset"),
        ({"query": "select id from t where id > :cursor order by id limit 2, 5"}, "query", "has an offset"),
        ({"query": "select id from t where id > :cursor order by id limit 0"}, "query", "could never go on"),
        ({"query": "select id from t where id > :cursor order by id limit 1", "key": "k"}, "query", "never go on"),
        ({"query": "select id from t where id > :cursor - 1 order by id"}, "query", "'now' can't be asked for"),
        ({"query": "select id from t where :cursor < id order by id", "start": "beginning"}, "query", "'beginning'"),
        (
            {"query": "select id from t where :cursor < id order by id", "start": 5, "look_back": 5},
            "query", "its last rows can't be read again",
        ),
        ({"cursor": None}, "cursor", "is missing"),
        ({"changes": "hash"}, "changes", "beside `cursor`"),
        ({"cursor": None, "changes": "hash", "query": "select * from t"}, "key", "is missing"),
        ({"cursor": None, "changes": "hash", "key": "id"}, "query", "has `:cursor`"),
        ({"cursor": None, "changes": "hash", "query": "select * from t", "key": "id", "start": 5}, "start", "a value"),
        (
            {"cursor": None, "changes": "hash", "query": "select * from t", "key": "id", "look_back": 5},
            "look_back", "of no use",
        ),
        ({"start": datetime(2026, 1, 1, tzinfo=UTC)}, "start", "SQLite has none"),
        ({"min": 60.0}, "min", "longer than `every`"),
        ({"type": "engine.mine"}, "type", "does not begin with"),
        ({"type": ""}, "type", "1 to 200"),
        ({"key": ()}, "key", "names no column"),
    ],
)  # fmt: skip
def test_settings_that_can_not_work_are_refused(settings: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(BadSetting) as caught:
        database(**settings)
    assert caught.value.field == field
    assert said in str(caught.value)


def test_a_refused_secret_url_is_not_shown() -> None:
    for text in ("postgresql://me:hunter22@db.internal/prod", "hunter22", "hunter22+x://me:hunter22@h/d"):
        with pytest.raises(BadSetting) as caught:
            database(url=Secret(text))
        said = f"{caught.value} {caught.value.hint}"
        assert "hunter22" not in said
        assert "db.internal" not in said


# Forms of the query


@pytest.mark.parametrize(
    ("query", "inclusive", "whole", "unordered"),
    [
        (QUERY, "id >= :cursor", "id is not null order by id limit 500", "orders where id is not null"),
        (
            "with q as (select * from t) select * from q where (a.ts >= cast(:cursor as timestamp)) and x order by ts",
            "(a.ts >= cast(:cursor as timestamp)) and x",
            "(a.ts is not null ) and x order by ts",
            "(a.ts is not null ) and x",
        ),
        (
            "select id from a where id > :cursor union all select id from b where id > :cursor order by 1;",
            "a where id >= :cursor union all select id from b where id >= :cursor order by 1",
            "a where id is not null union all select id from b where id is not null order by 1",
            "from b where id is not null",
        ),
        (
            "select id, (select x from y order by z limit 1) from t where id > :cursor order by id",
            "id >= :cursor order by id",
            "(select x from y order by z limit 1) from t where id is not null order by id",
            "(select x from y order by z limit 1) from t where id is not null",
        ),
    ],
)
def test_a_query_is_asked_in_four_forms(query: str, inclusive: str, whole: str, unordered: str) -> None:
    statement = Statement(query)
    assert statement.is_plain

    def squeezed(text: str) -> str:
        return " ".join(text.split())

    assert squeezed(statement.written()) == query.rstrip(";")
    assert inclusive in squeezed(statement.inclusive())
    assert squeezed(statement.whole()).endswith(whole)
    assert squeezed(statement.unordered()).endswith(unordered)


def test_what_looks_like_a_parameter_in_texts_and_comments_is_none() -> None:
    statement = Statement("""
        select ':other', "a:b", x::text, $$ :x; delete $$ -- :other; delete from t
        from t /* :other {{ */ where "update" is null and t.delete is null and id > :cursor order by id
    """)
    assert statement.is_plain
    assert "\\:other" in statement.written()
    assert "x\\:\\:text" in statement.written()
    assert "--" not in statement.written()
    assert "/*" not in statement.written()


@pytest.mark.parametrize(
    ("end", "limit", "may_be_cut"),
    [
        ("limit 500", 500, False),
        ("fetch first 10 rows only", 10, False),
        ("limit all", None, True),
        ("", None, False),
    ],
)
def test_the_limit_of_a_query_is_known(end: str, limit: int | None, may_be_cut: bool) -> None:
    statement = Statement(f"select id from t where id > :cursor order by id {end}")
    assert (statement.limit, statement.may_be_cut) == (limit, may_be_cut)
    inner = Statement("select * from (select id from t where id > :cursor order by id limit 5) as q order by id")
    assert (inner.limit, inner.may_be_cut) == (None, True)


# Identity and type


def test_pace_page_limit_layout_and_password_make_no_other_source() -> None:
    first = database().identity()
    assert database(page=10, min=0.1, every=90.0, start="beginning", timeout=5.0, key="id").identity() == first
    other = "SELECT id, name -- all\n FROM orders WHERE id >= :cursor ORDER BY id LIMIT 9"
    assert database(query=other).identity() == first
    assert database(query=QUERY.replace("name", "total")).identity() != first
    assert database(key="name").identity() != first
    assert database(url="sqlite+aiosqlite:///other.db").identity() != first


def test_of_a_secret_url_the_identity_tells_nothing(tmp_path: Path) -> None:
    assert database(url=Secret(f"sqlite+aiosqlite:///{tmp_path}/hidden.db")).identity().startswith("sqlite-")


def test_the_type_is_that_of_a_named_source_or_as_it_is_set() -> None:
    source = database()
    assert source.type_for("database:orders") == "row.orders"
    assert source.type_for("orders") == "row.orders"
    assert source.type_for(f"database:{source.identity()}") == "row"
    assert database(type="order.placed").type_for("database:orders") == "order.placed"


# Values


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), (True, True), (5, 5), (1.5, 1.5), ("ä", "ä"),
        (2**63 - 1, 2**63 - 1), (2**63, "9223372036854775808"), (-(2**80), str(-(2**80))),
        (float("nan"), "NaN"), (float("-inf"), "-Infinity"),
        (Decimal("12.50"), "12.50"), (Decimal("NaN"), "NaN"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),  # noqa: DTZ001 - databases have such
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (date(2026, 1, 2), "2026-01-02"), (time(3, 4), "03:04:00"), (timedelta(minutes=1.5), 90.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "AP8="), (memoryview(b"a"), "YQ=="), (bytearray(b"a"), "YQ=="),
        ([1, Decimal(2)], [1, "2"]), ((1, [b"a"]), [1, ["YQ=="]]), ({"a": {1: Decimal(1)}}, {"a": {"1": "1"}}),
        (Colour.RED, "red"), (ip_address("10.0.0.1"), "10.0.0.1"), ("a\ud800", "a?"),
    ],
)  # fmt: skip
def test_values_become_plain_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    survey({"value": plain(value)})


def test_values_that_are_nested_deeper_than_events_may_be_are_text() -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    found = plain({"value": value})
    survey(found)
    for _ in range(DEEPEST - 1):
        found = found["value"] if isinstance(found, dict) else found[0]
    assert isinstance(found[0], str)
