"""Previews: what a source would emit is shown as it would be, and nothing is changed by that."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from engine import Conflict, Engine, InvalidRequest, NotFound
from engine.errors import PluginError
from engine.plugin import Event, Source, SourceContext
from engine.previews import Preview
from engine.sources import previewing
from tests.embedded import works
from tests.evil_server import json_answer, saying, serving
from tests.fake_operations import FakeOperations
from tests.fake_operations import serving as serving_api
from tests.fakes import until
from tests.http_client import Client, asking
from tests.test_cli import VARIABLES, Running, ask

NEVER = "1h"
CONFIG = f"""
[sources.orders]
redact = ["data.secret"]
[sources.orders.database]
url = "sqlite+aiosqlite:///app.db"
query = "select id, name, name as secret from orders where id > :cursor order by id limit 3"
cursor = "id"
start = "beginning"
min = "{NEVER}"
every = "{NEVER}"
[triggers.ship]
on.source = "orders"
job = "work"
[sources.all]
enabled = false
[sources.all.database]
url = "sqlite+aiosqlite:///app.db"
query = "select id, name from orders"
changes = "hash"
key = "id"
min = "{NEVER}"
every = "{NEVER}"
[triggers.dropped]
on.files = {{ path = "inbox" }}
job = "work"
[jobs.work]
run.exec = ["true"]
"""


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as raw:
        raw.execute("create table orders (id integer primary key, name text)")
        raw.executemany("insert into orders (name) values (?)", [("a",), ("b",)])
        yield raw


@pytest.fixture
async def engine(tmp_path: Path, orders: sqlite3.Connection) -> AsyncIterator[Engine]:
    """An engine that has told of two rows, and of a third that is there now knows nothing."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "config.toml").write_text(f'[engine]\ndata = "{tmp_path}/data"\n{CONFIG}', "utf-8")
    async with Engine(config=tmp_path / "config.toml", shutdown_grace="100ms") as engine:
        await until(lambda: stored(tmp_path)["events"] == 2)
        orders.execute("insert into orders (name) values ('c')")
        yield engine


def stored(path: Path) -> dict[str, Any]:
    """Return what the engine's store holds, by table: how many rows, and how far each source is."""
    with closing(sqlite3.connect(path / "data" / "engine.db")) as raw:
        counts = {name: raw.execute(f"select count(*) from {name}").fetchone()[0] for name in ("events", "runs")}
        return {**counts, "cursors": raw.execute("select * from cursors order by 1").fetchall()}


def shown(preview: Preview) -> list[tuple[str, bool]]:
    return [(one.event.data["name"], one.duplicate) for one in preview.found]


async def test_a_preview_shows_what_the_next_poll_would_emit_and_changes_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    await until(lambda: is_idle(tmp_path))
    before = stored(tmp_path)
    for _ in range(2):
        found = await engine.preview("orders")
        assert shown(found) == [("c", False)]
        (one,) = found.found
        assert (one.event.type, one.event.subject, one.event.source) == ("row.orders", "3", "database:orders")
        assert (found.stored["value"], found.cursor["value"], found.more) == ("2", "3", False)
    assert stored(tmp_path) == before


def is_idle(path: Path) -> bool:
    with closing(sqlite3.connect(path / "data" / "engine.db")) as raw:
        return not raw.execute("select count(*) from runs where state in ('queued', 'running')").fetchone()[0]


async def test_what_is_redacted_is_not_shown_beforehand_either(engine: Engine) -> None:
    found = (await engine.preview("orders")).found
    assert found
    assert all(one.event.data["secret"] != one.event.data["name"] for one in found)


async def test_a_chosen_cursor_is_looked_from_and_what_came_before_is_told_apart(engine: Engine) -> None:
    assert shown(await engine.preview("orders", cursor=1)) == [("b", True), ("c", False)]
    assert shown(await engine.preview("orders", cursor="1")) == [("b", True), ("c", False)]
    assert shown(await engine.preview("orders", cursor="beginning")) == [("a", True), ("b", True), ("c", False)]
    assert shown(await engine.preview("orders", cursor="now")) == []
    assert (await engine.preview("orders", cursor="now")).cursor["value"] == "3"


async def test_of_many_events_some_are_shown_and_it_is_said_that_there_are_more(
    engine: Engine, orders: sqlite3.Connection
) -> None:
    orders.executemany("insert into orders (name) values (?)", [(f"n{number}",) for number in range(20)])
    found = await engine.preview("orders", limit=7)
    assert (len(found.found), found.more, found.cursor) == (7, True, None)
    # Beyond one page of the query, too.
    assert [one.event.data["id"] for one in (await engine.preview("orders", limit=100)).found] == [*range(3, 24)]


async def test_large_events_are_fewer(
    engine: Engine, orders: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previewing, "MOST_BYTES", 2000)
    orders.executemany("insert into orders (name) values (?)", [("x" * 900,) for _ in range(9)])
    found = await engine.preview("orders", limit=100)
    assert (len(found.found), found.more) == (3, True)


async def test_a_source_that_is_disabled_can_be_looked_at_before_it_runs(engine: Engine, tmp_path: Path) -> None:
    before = stored(tmp_path)
    assert (await engine.preview("all")).found == ()
    assert shown(await engine.preview("all", cursor="beginning")) == [("a", False), ("b", False), ("c", False)]
    with pytest.raises(InvalidRequest, match="with `changes` there is none"):
        await engine.preview("all", cursor=1)
    assert stored(tmp_path)["cursors"] == before["cursors"]


async def test_what_can_not_be_previewed_is_said(engine: Engine, orders: sqlite3.Connection) -> None:
    with pytest.raises(InvalidRequest, match="cursor 'abc' is no int, as the column's values are"):
        await engine.preview("orders", cursor="abc")
    with pytest.raises(NotFound, match="there is no source order"):
        await engine.preview("order")
    files = next(view["name"] for view in engine._operations().source_views() if view["plugin"] == "files")
    with pytest.raises(InvalidRequest, match="can't be previewed: files does not tell beforehand"):
        await engine.preview(files)
    orders.execute("drop table orders")
    with pytest.raises(PluginError, match="source database:orders found nothing out: no such table: orders"):
        await engine.preview("orders")


# Plugins that misbehave


class Odd(Source, frozen=True, kw_only=True):
    """A source whose look does what the test wants."""

    name: ClassVar[str] = "odd"
    previews: ClassVar[bool] = True
    may_go: ClassVar[anyio.Event]

    does: str

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()

    async def preview(self, context: SourceContext, cursor: Any) -> None:
        if self.does == "wait":
            await Odd.may_go.wait()
        elif self.does == "raise":
            raise RuntimeError("odd")
        else:
            await context.emit(Event(type="engine.odd"))


@pytest.fixture
async def odd(tmp_path: Path) -> AsyncIterator[Engine]:
    Odd.may_go = anyio.Event()
    engine = Engine(tmp_path / "data", plugins=[Odd], shutdown_grace="100ms")
    works(engine)
    for does in ("wait", "raise", "lie"):
        engine.add_trigger(does, on=Odd(does=does), job="work")
    async with engine:
        yield engine


def id_of(engine: Engine, trigger: str) -> str:
    return next(str(view["name"]) for view in engine._operations().source_views() if trigger in view["triggers"])


async def test_a_look_that_raises_or_emits_what_is_no_event_is_told(odd: Engine) -> None:
    with pytest.raises(PluginError, match="raised RuntimeError: odd"):
        await odd.preview(id_of(odd, "raise"))
    with pytest.raises(Exception, match=r"types that begin with 'engine\.' are the engine's own"):
        await odd.preview(id_of(odd, "lie"))


async def test_one_look_of_a_source_at_a_time_and_none_without_end(
    odd: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = id_of(odd, "wait")
    async with anyio.create_task_group() as group:
        group.start_soon(odd.preview, name)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Conflict, match="is looking for another preview"):
            await odd.preview(name)
        Odd.may_go.set()
    Odd.may_go = anyio.Event()
    monkeypatch.setattr(previewing, "LONGEST_S", 0.01)
    with pytest.raises(PluginError, match="has not looked within 10ms"):
        await odd.preview(name)
    Odd.may_go.set()
    assert (await odd.preview(name)).found == ()


# URLs


async def test_a_url_is_asked_and_told_of_as_a_change_or_not(tmp_path: Path) -> None:
    async with serving(saying(json_answer('{"n": 1}', 'ETag: "v1"'))) as server:
        engine = Engine(tmp_path / "data", shutdown_grace="100ms")
        works(engine)
        engine.add_trigger("watch", http={"url": server.url("/x"), "allow_private": True, "every": NEVER}, job="work")
        async with engine:
            await until(lambda: len(server.requests) == 1)
            name = id_of(engine, "watch")
            with anyio.fail_after(30):
                while (await engine.preview(name)).stored is None:  # noqa: ASYNC110 - each look is a request
                    await anyio.sleep(0.01)
            assert (await engine.preview(name)).found == ()
            assert (await engine.preview(name, cursor='etag:"v1"')).found == ()
            (one,) = (await engine.preview(name, cursor='etag:"v0"')).found
            assert (one.event.type, one.event.data["body"], one.event.key) == ("http.changed", {"n": 1}, '1:etag:"v1"')
            (one,) = (await engine.preview(name, cursor="beginning")).found
            assert one.event.data["body"] == {"n": 1}
            assert (await engine.preview(name, cursor="now")).found == ()
            with pytest.raises(InvalidRequest, match="cursor has to be a version"):
                await engine.preview(name, cursor="v0")


# Faces


@pytest.fixture
async def client(operations: FakeOperations) -> AsyncIterator[Client]:
    async with serving_api(operations) as server, asking(server) as connected:
        yield connected


async def test_the_route_answers_with_events_also_for_names_with_slashes(
    operations: FakeOperations, client: Client
) -> None:
    got = await client.ask("POST", "/api/v1/sources/files:inbox/new/preview", body={"cursor": "7", "limit": 2})
    assert got.status == 200
    assert operations.previewed == [("files:inbox/new", "7", 2)]
    assert (got.json["source"], got.json["from"], got.json["more"]) == ("files:inbox/new", "7", True)
    assert (got.json["stored"], got.json["cursor"]) == ({"value": "1"}, None)
    assert got.json["events"][0] == {
        "type": "row", "subject": "0", "key": "0", "time": None, "data": {"id": 0}, "duplicate": True, "refused": None,
    }  # fmt: skip
    assert (await client.ask("POST", "/api/v1/sources/nightly/preview")).status == 200
    assert operations.previewed[-1] == ("nightly", None, 20)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nightly/preview", {"limit": 0}, 422),
        ("nightly/preview", {"limit": 501}, 422),
        ("nightly/preview", {"cursor": {"a": 1}}, 422),
        ("nightly/preview", {"cursor": True}, 422),
        ("nightly/preview", {"cursor": ""}, 422),
        ("nightly/preview", {"from": 1}, 422),
        ("other/preview", {}, 404),
        ("nightly/look", {}, 405),
        ("nightly", {}, 405),
    ],
)
async def test_what_makes_no_preview_is_refused(client: Client, path: str, body: Any, status: int) -> None:
    assert (await client.ask("POST", f"/api/v1/sources/{path}", body=body)).status == status


async def test_a_look_that_fails_is_the_fault_of_what_was_looked_at(operations: FakeOperations, client: Client) -> None:
    operations.fault = PluginError("source nightly found nothing out: it did not answer")
    got = await client.ask("POST", "/api/v1/sources/nightly/preview")
    assert (got.status, got.json["code"]) == (502, "preview_failed")


def test_the_command_shows_what_would_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path) as engine:
        result = ask(engine, "preview", "nightly", "--cursor", "41")
        assert result.exit_code == 0, result.output
        assert result.output.splitlines() == [
            'row  0  {"id":0}',
            "  came before, and would not be stored again",
            'row  1  {"id":1}',
            'row  2  {"id":2}',
            "  would be refused: too large",
            "1 event would be new, of 3 shown, and there are more; nothing was changed",
        ]
        for text in ("007", "2026-11-26 04:00", "etag:1"):
            ask(engine, "preview", "nightly", "--cursor", text, "--limit", "1")
        asked = [("nightly", 41, 20), *(("nightly", text, 1) for text in ("007", "2026-11-26 04:00", "etag:1"))]
        assert engine.operations.previewed == asked
        assert json.loads(ask(engine, "preview", "nightly", "--json").output)["source"] == "nightly"
        assert ask(engine, "preview", "nowhere").exit_code != 0
