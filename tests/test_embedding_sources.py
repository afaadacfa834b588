"""Embedding with all kinds of sources: timers, ends of runs, files, rows, and those with a name of config.toml."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from engine import ConfigError, Conflict, Engine, Event, RunContext, RunState
from engine.testing import VirtualClock
from plugins.sources.run import RunEnds
from tests.embedded import Bell, outcome, problems, works
from tests.fakes import until


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "data", shutdown_grace="100ms", plugins=[Bell])


async def pass_until(clock: VirtualClock, condition: Callable[[], object]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await clock.advance(1)
            await anyio.sleep(0.001)


def with_sources(path: Path, text: str) -> Engine:
    (path / "config.toml").write_text(text, "utf-8")
    return Engine(config=path / "config.toml", shutdown_grace="100ms", plugins=[Bell])


# Timers


async def test_an_interval_is_due_again_and_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)
    engine.add_trigger("sync", interval="60s", job="work")
    async with engine:
        began = clock.now()
        await pass_until(clock, lambda: len(seen) == 2)
        assert [run.scheduled_for for run in seen] == [began + timedelta(minutes=1), began + timedelta(minutes=2)]
        assert engine.get("sync").next_at == began + timedelta(minutes=3)


async def test_an_instant_is_due_once_and_the_trigger_is_completed_then(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)
    async with engine:
        engine.add_trigger("once", at=clock.now() + timedelta(seconds=30), job="work")
        assert engine.get("once").state == "active"
        await pass_until(clock, lambda: engine.get("once").state == "completed")
        await until(lambda: len(seen) == 1)
        await engine.pause("once", reason="never mind")
        once = engine.get("once")
        assert (once.state, once.state_reason) == ("completed", "its timer has no further due instant")
        assert once.paused is not None
        await engine.remove("once")
        engine.add_trigger("once", at=clock.now() - timedelta(seconds=1), job="work")
        await until(lambda: engine.get("once").state == "completed")
    assert len(seen) == 1


# Ends of runs


async def test_one_job_after_another_also_for_triggers_that_come_and_go(engine: Engine) -> None:
    @engine.job
    async def bake(run: RunContext) -> int:
        loaves: int = run.data["loaves"]
        return loaves

    @engine.trigger("sales", run=bake)
    @engine.job
    async def sell(run: RunContext) -> None: ...

    billed: list[RunContext] = []

    @engine.job
    async def bill(run: RunContext) -> None:
        billed.append(run)

    async def ends(name: str) -> list[RunState]:
        return [run.state async for run in engine.runs(trigger=name)]

    async def bake_once() -> None:
        await engine.wait(await engine.emit("order", {"loaves": 3}))

    engine.add_trigger("orders", event="order", job=bake)
    async with engine:
        await bake_once()
        engine.add_trigger("bills", run={"job": [bake], "outcomes": ["succeeded"]}, job=bill)
        await bake_once()
        await until(lambda: len(billed) == 1)
        assert (billed[0].event.type, billed[0].data["outputs"]) == ("engine.run.succeeded", {"result": 3})
        await engine.pause("bills", reason="stock-taking")
        await bake_once()
        await engine.resume("bills")
        await bake_once()
        await until(lambda: len(billed) == 2)
        await engine.remove("bills")
        await bake_once()
        await engine.remove("sales")
        await bake_once()
        assert (len(await ends("bills")), len(await ends("sales"))) == (2, 5)
    assert len(billed) == 2


LOOP = "the ends of its own runs start it again, without end: b (job two) → a (job one) → b"


def in_a_loop(engine: Engine) -> None:
    works(engine, "one")
    works(engine, "two")
    engine.add_trigger("a", run="two", job="one")
    engine.add_trigger("b", run="one", job="two")


async def test_a_loop_through_ends_of_runs_is_refused_before_and_while_it_runs(engine: Engine) -> None:
    with pytest.raises(ConfigError) as refused:
        in_a_loop(engine)
    assert problems(refused) == [
        ("triggers.b.on", LOOP, "narrow what one of them follows, or say in on.run that the loop is meant")
    ]
    async with engine:
        with pytest.raises(ConfigError, match="start it again"):
            engine.add_trigger("b", on=RunEnds(job="one"), job="two")
        assert [trigger.name for trigger in engine.list()] == ["a"]
        engine.add_trigger("b", run={"job": "one", "loop": True, "outcomes": ["failed"]}, job="two")


def test_a_loop_by_tags_that_a_job_has_later_is_refused_at_the_start(engine: Engine) -> None:
    engine.add_trigger("round", run={"tags": ["mill"]}, job="grind")

    @engine.job(tags=["mill"])
    async def grind(run: RunContext) -> None: ...

    with pytest.raises(ConfigError, match=r"round \(job grind\) → round"):
        engine.run()


def test_a_loop_of_a_file_and_of_code_has_the_same_sentence(tmp_path: Path) -> None:
    engine = with_sources(tmp_path, "[triggers.a]\non.run = 'two'\njob = 'one'\n")
    works(engine, "one")
    works(engine, "two")
    with pytest.raises(ConfigError) as refused:
        engine.add_trigger("b", run="one", job="two")
    assert problems(refused)[0][1] == LOOP


async def test_jobs_that_are_followed_may_come_later_but_have_to_be_there_at_the_start(tmp_path: Path) -> None:
    engine = with_sources(
        tmp_path,
        "[sources.ends.run]\njob = 'baek'\n[triggers.a]\non.source = 'ends'\njob = 'sell'\n"
        "[triggers.b]\non.run = { trigger = 'order', job = ['bake'] }\njob = 'sell'\n",
    )
    works(engine, "bake")
    works(engine, "sell")
    engine.add_trigger("orders", event="order", job="bake")
    with pytest.raises(ConfigError) as refused:
        async with engine:
            pass
    assert [(problem.path, problem.message, problem.hint, problem.line) for problem in refused.value.problems] == [
        ("sources.ends.run.job", 'found "baek", but there is no such job', 'did you mean "bake"?', 1),
        ("triggers.b.on.run.trigger", 'found "order", but there is no such trigger', 'did you mean "orders"?', 6),
    ]


# Files and rows


async def test_files_are_a_source(engine: Engine, tmp_path: Path) -> None:
    seen = works(engine)
    (tmp_path / "inbox").mkdir()
    engine.add_trigger("dropped", files={"path": tmp_path / "inbox", "match": ["*.csv"], "settle": "0s"}, job="work")
    async with engine:
        (tmp_path / "inbox/a.txt").write_text("no")
        (tmp_path / "inbox/a.csv").write_text("yes")
        await until(lambda: seen)
        assert (seen[0].event.type, seen[0].data["name"]) == ("file.created", "a.csv")
        await engine.remove("dropped")
        assert engine._operations().source_views() == []


async def test_rows_of_a_database_are_a_source_and_their_cursor_stays(engine: Engine, tmp_path: Path) -> None:
    seen = works(engine)
    database = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    database.execute("create table orders (id integer primary key, name text)")
    database.execute("insert into orders (name) values ('ann')")
    rows = {
        "url": f"sqlite+aiosqlite:///{tmp_path / 'app.db'}", "cursor": "id", "start": "beginning", "min": "10ms",
        "query": "select id, name from orders where id > :cursor order by id", "every": "20ms",
    }  # fmt: skip
    engine.add_trigger("rows", database=rows, job="work")
    async with engine:
        await until(lambda: [run.data["name"] for run in seen] == ["ann"])
        await engine.remove("rows")
        database.execute("insert into orders (name) values ('bob')")
        engine.add_trigger("rows", database=rows, job="work")
        await until(lambda: [run.data["name"] for run in seen] == ["ann", "bob"])
    database.close()


# Sources with a name


async def test_triggers_of_code_share_a_source_of_a_file(tmp_path: Path) -> None:
    engine = with_sources(tmp_path, "[sources.front]\nbell = 'front'\n[sources.tick]\ninterval = '1h'\n")
    seen = works(engine)
    async with engine:
        assert "front" not in Bell.ringing
        engine.add_trigger("one", source="front", job="work")
        engine.add_trigger("two", on={"source": {"named": "front"}}, job="work")
        assert (engine.get("one").shared, engine.get("one").source) == ("front", "bell:front")
        await until(lambda: "front" in Bell.ringing)
        (accepted,) = await Bell.ringing["front"].emit(Event(type="ring"))
        await engine.wait(accepted)
        assert {run.trigger for run in seen} == {"one", "two"}
        operations = engine._operations()
        assert operations.source_view("front")["triggers"] == ["one", "two"]
        assert operations.trigger_view("one")["on"] == {"source": "front"}
        await engine.remove("one")
        assert operations.source_view("front")["state"] == "running"
        await engine.remove("two")
        assert (operations.source_view("front")["state"], "front" in Bell.ringing) == ("unused", False)
        assert operations.source_view("tick")["state"] == "unused"
        engine.add_trigger("hourly", source="tick", job="work")
        assert operations.source_view("tick")["state"] == "running"
        await until(lambda: engine.get("hourly").next_at is not None)
        await engine.remove("hourly")
        assert operations.source_view("tick")["state"] == "unused"


async def test_a_trigger_on_a_source_that_is_disabled_says_so_and_starts_nothing(tmp_path: Path) -> None:
    engine = with_sources(
        tmp_path, "[sources.quiet]\nbell = 'quiet'\nenabled = false\n[sources.tick]\ninterval = '1h'\nenabled = false\n"
    )
    works(engine)
    async with engine:
        engine.add_trigger("rings", source="quiet", job="work")
        engine.add_trigger("ticks", source="tick", job="work")
        await engine.pause("rings", reason="both at once")
        for name, source in (("rings", "quiet"), ("ticks", "tick")):
            view = engine.get(name)
            assert (view.state, view.enabled) == ("disabled", True)
            assert view.state_reason == f"trigger {name} is disabled, as its source {source} is"
            assert engine._operations().trigger_view(name)["state_reason"] == view.state_reason
            with pytest.raises(Conflict, match="as its source"):
                await engine.fire(name)
            assert engine._operations().source_view(source)["state"] == "disabled"
        assert not Bell.ringing
        assert engine.get("ticks").next_at is None
        await engine.remove("rings")
        await engine.remove("ticks")


async def test_a_paused_trigger_says_until_when_and_why(engine: Engine) -> None:
    works(engine)
    engine.add_trigger("orders", event="order", job="work")
    async with engine:
        await engine.pause("orders", reason="stock-taking")
        view = engine.get("orders")
        assert (view.state, view.state_reason) == ("paused", "trigger orders is paused: stock-taking")
        assert engine._operations().trigger_view("orders")["state_reason"] == view.state_reason
        assert outcome(await engine.emit("order")) == ("paused", "trigger_paused", f"paused: {view.state_reason}")
        await engine.resume("orders")
        assert engine.get("orders").state_reason is None


def test_there_has_to_be_a_source_of_that_name_and_nobody_takes_its_place(tmp_path: Path) -> None:
    engine = with_sources(tmp_path, "[sources.front]\nbell = 'front'\n[sources.door]\nwebhook.path = 'front-door'\n"
                          "webhook.verify = 'none'\n")  # fmt: skip
    works(engine)
    with pytest.raises(ConfigError) as refused:
        engine.add_trigger("t", source="frnt", job="work")
    assert problems(refused) == [
        ("triggers.t.on.source", 'found "frnt", but there is no such source', 'did you mean "front"?')
    ]
    with pytest.raises(ConfigError, match="webhook path front-door is already that of source door"):
        engine.add_trigger("t", webhook={"path": "front-door", "verify": "none"}, job="work")
    engine.add_trigger("t", webhook={"path": "window", "verify": "none"}, job="work")
    with pytest.raises(ConfigError, match="used with other settings by trigger t"):
        engine.add_trigger("u", webhook={"path": "window", "verify": {"token": "a-secret"}}, job="work")
    engine._definitions.forget("t")
    engine.add_trigger("u", webhook={"path": "window", "verify": {"token": "a-secret"}}, job="work")
