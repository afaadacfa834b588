"""What a program gets wrong is told as the configuration's mistakes are, with the place in the program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from engine import (
    ConfigError,
    Conflict,
    Engine,
    Event,
    InvalidEvent,
    NotFound,
    Outcome,
    RunContext,
)
from engine.config import load
from engine.plugin import Runner, Source, SourceContext
from tests.docs_tables import DOCS
from tests.embedded import Bell, problems, works
from tests.test_docs import blocks


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "data", shutdown_grace="100ms", plugins=[Bell])


def test_mistakes_are_told_as_those_of_a_file_with_the_place_in_the_program(engine: Engine) -> None:
    works(engine)
    with pytest.raises(ConfigError) as error:
        engine.add_trigger("tick", cron="61 * * * *", job="work")
    (told,) = error.value.problems
    assert (Path(told.file).name, told.line, told.path) == (Path(__file__).name, here() - 2, "triggers.tick.on.cron")
    with pytest.raises(ConfigError) as error:

        @engine.job(timeout=10, retry={"attempst": 3})  # type: ignore[call-overload, untyped-decorator]
        async def late(run: RunContext) -> None: ...

    assert problems(error) == [
        ("jobs.late.timeout", _DURATION, 'durations have a unit: "10s"'),
        ("jobs.late.retry.attempst", "unknown key", 'did you mean "attempts"?'),
    ]


_DURATION = 'found 10, expected a duration such as "500ms", "5s", "30m", "1h30m" or "1d"'


def here() -> int:
    return sys._getframe(1).f_lineno


@pytest.mark.parametrize(
    ("settings", "path", "message", "hint"),
    [
        ({"corn": "* * * * *"}, "triggers.t.corn", "unknown key", 'did you mean "cron"?'),
        ({"event": "a", "filtre": "true"}, "triggers.t.filtre", "unknown key", 'did you mean "filter"?'),
        ({}, "triggers.t.on", "missing; expected a table with one source or timer and its settings", None),
        ({"event": "a", "filter": "dta.x"}, "triggers.t.filter", "unknown name `dta`", None),
        ({"event": "a", "on": {"cron": "* * * * *"}}, "triggers.t", "found on and event, expected one of them", None),
        ({"event": "a", "debounce": "2 parsecs"}, "triggers.t.debounce", "2 parsecs", None),
        ({"event": "a", "priority": "hihg"}, "triggers.t.priority", "hihg", None),
        ({"on": object()}, "triggers.t.on", "expected a table with one source or timer", None),
        ({"event": "a", "filter": lambda: True}, "triggers.t.filter", "can't be called with one argument", None),
        ({"event": "a", "data": {"x": object()}}, "triggers.t.data", "which is no JSON value", None),
    ],
)
def test_a_wrong_trigger_is_refused_and_is_not_there(
    engine: Engine, settings: dict[str, Any], path: str, message: str, hint: str | None
) -> None:
    works(engine)
    with pytest.raises(ConfigError) as error:
        engine.add_trigger("t", job="work", **settings)
    (told,) = error.value.problems
    assert told.path == path
    assert message in told.message
    assert hint is None or told.hint == hint
    assert engine.list() == ()


def test_nested_settings_that_hold_themselves_are_refused(engine: Engine) -> None:
    works(engine)
    data: dict[str, Any] = {}
    data["data"] = data
    with pytest.raises(ConfigError, match="holds itself"):
        engine.add_trigger("t", event="a", job="work", data=data)


def test_a_runner_is_no_source(engine: Engine) -> None:
    works(engine)

    class Runs(Runner, frozen=True, kw_only=True):
        name: ClassVar[str] = "runs"

        async def run(self, context: Any) -> Outcome:
            return Outcome.succeeded("done")

    with pytest.raises(ConfigError, match="it is no source or timer"):
        engine.add_trigger("t", on=Runs(), job="work")  # type: ignore[arg-type]


def test_names_are_given_once_and_the_error_says_where(engine: Engine) -> None:
    works(engine)
    engine.add_trigger("t", event="a", job="work")
    with pytest.raises(ConfigError, match=r"of that name already, in .*test_embedding_mistakes.py:\d+"):
        engine.add_trigger("t", event="b", job="work")
    with pytest.raises(ConfigError, match="there is a job of that name already"):
        works(engine)


@pytest.mark.parametrize("bad", [lambda: 1, lambda a, b: 1, 7, "text"])
def test_what_can_be_no_job_is_refused(engine: Engine, bad: Any) -> None:
    with pytest.raises(ConfigError):
        engine.job(name="bad")(bad)


def test_a_generator_and_an_asynchronous_filter_are_refused(engine: Engine) -> None:
    def generates(run: RunContext) -> Any:
        yield run

    async def later(event: Event) -> bool:
        return True

    with pytest.raises(ConfigError, match="is a generator"):
        engine.job(generates)
    works(engine)
    with pytest.raises(ConfigError, match="is asynchronous"):
        engine.add_trigger("t", event="a", job="work", filter=later)


def test_a_trigger_stands_on_a_job(engine: Engine) -> None:
    def loose(run: RunContext) -> None: ...

    with pytest.raises(ConfigError, match="loose is no job"):
        engine.trigger(cron="* * * * *")(loose)
    with pytest.raises(ConfigError, match="loose is no job"):
        engine.add_trigger("t", cron="* * * * *", job=loose)


async def test_a_job_may_come_after_its_trigger_but_not_after_the_start(engine: Engine) -> None:
    engine.add_trigger("one", event="a", job="wrok")
    engine.add_trigger("two", event="a", job="later")
    works(engine)
    works(engine, "later")
    with pytest.raises(ConfigError) as error:
        async with engine:
            pass
    assert problems(error) == [("triggers.one.job", 'found "wrok", but there is no such job', 'did you mean "work"?')]
    await engine.remove("one")
    async with engine:
        with pytest.raises(ConfigError, match='found "nope"'):
            engine.add_trigger("three", event="a", job="nope")
        assert [view.name for view in engine.list()] == ["two"]
        works(engine, "nope")
        engine.add_trigger("three", event="a", job="nope")
        assert (await engine.emit("a")).runs


async def test_unknown_names_come_with_a_near_miss(engine: Engine) -> None:
    works(engine)
    engine.add_trigger("orders", event="a", job="work")
    with pytest.raises(NotFound, match=r'there is no trigger "order" .did you mean "orders"'):
        engine.get("order")
    async with engine:
        for ask in (engine.pause, engine.resume, engine.remove, engine.fire):
            with pytest.raises(NotFound, match="did you mean"):
                await ask("order")
        with pytest.raises(NotFound, match='did you mean "failed"'):
            [run async for run in engine.runs(state="faild")]
        with pytest.raises(NotFound, match='did you mean "high"'):
            await engine.emit("a", priority="hihg")
        with pytest.raises(NotFound, match="there is no run"):
            await engine.wait("01a21497-05f6-74ed-b7a0-a48b759b1bb6")
        with pytest.raises(InvalidEvent, match="no JSON value"):
            await engine.emit("a", object())
        with pytest.raises(InvalidEvent, match="the engine's own"):
            await engine.emit("engine.timer")


def test_the_settings_of_the_engine_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Engine(tmp_path, concurrency=0, timezone="Europe/Berln", shutdown_grace="soon")
    assert {path for path, _, _ in problems(error)} == {
        "engine.concurrency", "engine.timezone", "engine.shutdown_grace",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="can't be read"):
        Engine(config=tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match=r"plugins\[0\]"):
        Engine(tmp_path, plugins=[int])  # type: ignore[list-item]


def test_triggers_of_a_file_without_code_still_name_jobs_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[triggers.t]\non.event = "a"\njob = "nope"\n')
    with pytest.raises(ConfigError, match="there is no such job"):
        load([tmp_path / "config.toml"], environment={})


class Post(Source, frozen=True, kw_only=True):
    """A source that is the same one as long as its box is."""

    name: ClassVar[str] = "post"

    box: str
    size: int = 1

    def identity(self) -> str:
        return self.box

    async def run(self, context: SourceContext) -> None:
        context.ready()


async def test_triggers_on_one_source_share_its_settings(engine: Engine) -> None:
    works(engine)
    engine.add_trigger("one", on=Post(box="a"), job="work")
    engine.add_trigger("two", on=Post(box="a"), job="work")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"post a is already used with other settings by trigger (one|two)"):
            engine.add_trigger("other", on=Post(box="a", size=2), job="work")
        await engine.remove("one" if "one" in {view.name for view in engine.list()} else "two")
    engine.add_trigger("other", on=Post(box="a", size=2), job="work")


def test_the_mistake_that_the_page_shows_is_told_so(engine: Engine) -> None:
    (line,) = blocks(DOCS / "embedding.md", "text")
    works(engine, "ship")
    with pytest.raises(ConfigError) as error:
        engine.add_trigger("orders", event="order.*", job="ship", debounce="2 sec")
    assert str(error.value).partition(": ")[2] == line.strip().partition(": ")[2]


async def test_a_job_is_not_left_behind_where_the_engine_can_not_take_it(engine: Engine) -> None:
    refused: list[str] = []
    begun = anyio.Event()

    @engine.job
    async def last(run: RunContext) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:  # by now it stops
            try:
                works(engine, "late")
            except Conflict as error:
                refused.append(str(error))

    engine.add_trigger("go", manual=True, job="last")
    async with engine:
        await engine.fire("go")
        await begun.wait()
    assert refused == ["the engine is stopping"]
    works(engine, "late")
