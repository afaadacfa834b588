"""Triggers on several sources in a program: sources, timers and ends of runs as inputs, by all that shows them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from engine import ConfigError, Engine, Event, RunContext
from engine.testing import VirtualClock
from tests.embedded import Bell, outcome, problems, works
from tests.fakes import until
from tests.test_embedding_sources import pass_until


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "data", shutdown_grace="100ms", plugins=[Bell])


async def ring(label: str, data: object = None) -> None:
    await until(lambda: label in Bell.ringing)
    await Bell.ringing[label].emit(Event(type="rung", data=data))


async def test_a_join_gives_a_member_for_each_input_under_and_over_the_triggers_own(engine: Engine) -> None:
    seen = works(engine)
    engine.add_trigger(
        "reconcile", job="work", join={"window": "1h", "key": "data.day"}, data={"full": True},
        defaults={"sum": "{{ data.sales.n + data.stock[0].n }}", "sales": "none"},
        all={"sales": Bell(label="till"), "stock": {"event": "stock.counted", "use": "all"}},
    )  # fmt: skip
    async with engine:
        await ring("till", {"day": 1, "n": 1})
        await ring("till", {"day": 2, "n": 5})
        answer = await engine.emit("stock.counted", {"day": 2, "n": 2})
        (run,) = await engine.wait(answer)
        assert run.state == "succeeded"
        (only,) = seen
        assert only.data == {
            "sales": {"day": 2, "n": 5}, "stock": [{"day": 2, "n": 2}], "full": True, "sum": 7,
        }  # fmt: skip
        assert [one.input for one in only.events] == ["sales", "stock"]
        assert [one.data["n"] for one in only.events] == [5, 2]
        assert only.event.input is None


async def test_functions_stand_for_the_key_of_a_join(engine: Engine) -> None:
    seen = works(engine)
    engine.add_trigger(
        "pairs", job="work", all={"a": {"event": "a"}, "b": {"event": "b"}},
        join={"window": timedelta(hours=1), "key": lambda event: event.data[f"{event.input}_id"]},
    )  # fmt: skip
    async with engine:
        await engine.emit("a", {"a_id": 1})
        await engine.emit("a", {"a_id": 2})
        await engine.wait(await engine.emit("b", {"b_id": 2}))
        assert [run.data for run in seen] == [{"a": {"a_id": 2}, "b": {"b_id": 2}}]


async def test_timers_are_inputs_with_cursors_of_their_own(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)
    async with engine:
        began = clock.now()
        engine.add_trigger("both", any={"often": {"interval": "60s"}, "seldom": {"interval": "180s"}}, job="work")
        await until(lambda: engine.get("both").next_at == began + timedelta(seconds=60))
        await pass_until(clock, lambda: len(seen) >= 4)
        at = [(run.event.input, run.event.subject, run.scheduled_for) for run in seen[:4]]
        assert {name for name, subject, _ in at} == {"often", "seldom"}
        # Both are due at the third minute: two runs.
        assert [(due - began).total_seconds() for _, _, due in at if due is not None] == [60, 120, 180, 180]
        assert {subject for _, subject, _ in at} == {"both"}
        await engine.pause("both", reason="enough")
        before = len(seen)
        for _ in range(200):
            await clock.advance(1)
        assert len(seen) == before
        await engine.resume("both")
        await pass_until(clock, lambda: len(seen) > before)
        await engine.remove("both")


async def test_a_timer_and_an_event_are_joined_and_the_clock_ends_what_is_incomplete(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)
    engine.add_trigger(
        "report", all={"due": {"interval": "100s"}, "done": {"event": "import.done"}}, join="50s", job="work"
    )
    async with engine:
        await pass_until(clock, lambda: len(engine.get("report").joins) == 1)
        (waiting,) = engine.get("report").joins
        assert (list(waiting.has), waiting.missing) == (["due"], ("done",))
        answer = await engine.emit("import.done", {"n": 1})
        assert outcome(answer)[1] == "join_complete"
        await until(lambda: len(seen) == 1)
        assert seen[0].data["done"] == {"n": 1}
        assert seen[0].data["due"]["scheduled_for"]
        assert engine.get("report").joins == ()
        late = await engine.emit("import.done", {"n": 2})
        (waiting,) = engine.get("report").joins
        assert (waiting.run, waiting.until) == (late.runs[0], clock.now() + timedelta(seconds=50))
        await pass_until(clock, lambda: clock.now() >= waiting.until)
        (run,) = await engine.wait(late)
        assert (run.state, run.code) == ("expired", "join_incomplete")


async def test_ends_of_runs_are_inputs(engine: Engine) -> None:
    @engine.job
    async def bake(run: RunContext) -> int:
        return 3

    @engine.job
    async def brew(run: RunContext) -> int:
        return 4

    seen = works(engine)
    engine.add_trigger("bakes", event="bake", job=bake)
    engine.add_trigger("brews", event="brew", job=brew)
    engine.add_trigger(
        "breakfast", all={"bread": {"run": bake}, "tea": {"run": {"job": [brew]}}}, join="1h", job="work"
    )
    async with engine:
        await engine.emit("bake")
        await engine.emit("brew")
        await until(lambda: len(seen) == 1)
        assert {name: end["outputs"] for name, end in seen[0].data.items()} == {
            "bread": {"result": 3}, "tea": {"result": 4},
        }  # fmt: skip


async def test_a_trigger_with_inputs_comes_and_goes_with_its_sources(engine: Engine) -> None:
    seen = works(engine)
    engine.add_trigger("other", bell="shared", job="work")
    async with engine:
        engine.add_trigger("several", any={"a": {"bell": "shared"}, "b": {"bell": "own"}}, job="work")
        await ring("own")
        await ring("shared")
        await until(lambda: len(seen) == 3)
        await engine.remove("several")
        assert "own" not in Bell.ringing
        await ring("shared")
        await until(lambda: len(seen) == 4)
        engine.add_trigger("several", any={"a": {"event": "x"}, "b": {"bell": "own"}}, job="work")
        await ring("own")
        await until(lambda: len(seen) == 5)


async def test_mistakes_name_the_input(engine: Engine) -> None:
    works(engine)
    with pytest.raises(ConfigError) as caught:
        engine.add_trigger("t", all={"a": {"bell": 3}, "b": {"event": "x"}}, join="1h", job="work")
    assert [path for path, *_ in problems(caught)] == ["triggers.t.on.all.a.bell"]
    with pytest.raises(ConfigError) as caught:
        engine.add_trigger("t", any={"a": Bell(label="x"), "b": Bell(label="x")}, job="work")
    assert "is the same as input a" in problems(caught)[0][1]
    engine.add_trigger("t", any={"a": {"run": "nobody"}, "b": {"event": "x"}}, job="work")
    with pytest.raises(ConfigError) as caught, anyio.fail_after(20):
        async with engine:
            pass
    assert problems(caught)[0][0] == "triggers.t.on.any.a.run.job"
