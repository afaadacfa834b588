"""The engine in a program: functions as jobs, and triggers that come, pause and go while it runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import (
    Conflict,
    Engine,
    Event,
    NotFound,
    Outcome,
    RunContext,
    RunState,
)
from engine.errors import ConfigError
from engine.testing import VirtualClock
from engine.triggers import CatchUp, Misfire
from plugins.timers.cron import Cron
from tests.embedded import Bell, outcome, works
from tests.fakes import until


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "data", shutdown_grace="100ms", plugins=[Bell])


# Jobs


async def test_an_adapted_interval_is_shown_frozen_and_reset(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path / "data", clock=clock, plugins=[Bell])

    @engine.trigger(interval="10m", adaptive={"min": "5m", "max": "1h", "success_rate_min": 0.9, "hold": 1})
    @engine.job
    async def sync(run: RunContext) -> None:
        raise ValueError

    works(engine)
    engine.add_trigger("plain", event="a", job="work")
    assert engine.get("sync").adaptive is None
    async with engine:
        while (engine.get("sync").adaptive or {})["interval_s"] == 600:
            await clock.advance(600)
            await asyncio.sleep(0.001)
        adapted = engine.get("sync").adaptive
        assert adapted is not None
        assert adapted["interval_s"] == 900
        frozen = await engine.adapt("sync", "freeze", reason="month end")
        assert frozen["frozen"]["reason"] == "month end"
        assert (await engine.adapt("sync", "reset"))["interval_s"] == 600
        assert (await engine.adapt("sync", "unfreeze"))["frozen"] is None
        assert engine.get("plain").adaptive is None
        with pytest.raises(Conflict, match="not adaptive"):
            await engine.adapt("plain", "reset")
        with pytest.raises(Conflict, match="none of freeze"):
            await engine.adapt("sync", "thaw")  # type: ignore[arg-type]


async def test_a_trigger_whose_job_is_disabled_is_disabled_and_its_instants_say_so(engine: Engine) -> None:
    @engine.trigger(cron="0 2 * * *")
    @engine.job(enabled=False)
    async def nightly(run: RunContext) -> None: ...

    for _ in range(2):
        view = engine.get("nightly")
        assert (view.state, view.state_reason, view.enabled) == ("disabled", "job nightly is disabled", True)
        assert engine.next("nightly")[0].note == "job nightly is disabled"
        if not engine.is_running:
            await engine.__aenter__()
    await engine.__aexit__(None, None, None)


async def test_an_event_runs_a_function_and_what_it_returns_is_there(engine: Engine) -> None:
    @engine.job(retry={"attempts": 3}, timeout="10m", concurrency=1)
    async def ship(run: RunContext) -> dict[str, Any]:
        run.output(carrier="bike", parcels=1)
        return {"parcels": run.data["total"] // 40}

    engine.add_trigger("orders", event="order.*", job="ship", data={"full": True}, priority="high")
    async with engine:
        answer = await engine.emit("order.created", {"total": 120}, key="o-1")
        (run,) = await engine.wait(answer)
        assert (run.state, run.outputs, run.priority) == (RunState.SUCCEEDED, {"carrier": "bike", "parcels": 3}, 8)
        again = await engine.emit("order.created", {"total": 120}, key="o-1")
        assert (again.duplicate, again.runs) == (True, answer.runs)


async def test_a_plain_function_runs_in_a_thread_beside_the_loop(engine: Engine) -> None:
    threads: list[int] = []

    @engine.job
    def plain(run: RunContext) -> int:
        threads.append(threading.get_ident())
        return len(run.events)

    engine.add_trigger("go", manual=True, job=plain)
    async with engine:
        (run,) = await engine.wait(await engine.fire("go"))
    assert run.outputs == {"result": 1}
    assert threads != [threading.get_ident()]


async def test_what_a_function_gets_says_which_attempt_it_is(engine: Engine) -> None:
    seen = works(engine)
    engine.add_trigger("go", manual=True, job="work", debounce="1ms", defaults={"day": "{{ event.subject }}"})
    async with engine:
        answer = await engine.fire("go", {"a": 1})
        await engine.wait(answer)
    (run,) = seen
    assert (run.run_id, run.job, run.trigger, run.attempt, run.scheduled_for) == (*answer.runs, "work", "go", 1, None)
    assert (run.data, run.event.id, len(run.events)) == ({"a": 1, "day": "go"}, answer.event, 1)


async def test_what_a_function_raises_is_a_failed_attempt_and_retried_by_the_policy(engine: Engine) -> None:
    @engine.job(retry={"attempts": 2, "delay": timedelta(milliseconds=1)})
    def shaky(run: RunContext) -> None:
        if run.attempt == 1:
            raise KeyError("total")

    engine.add_trigger("go", manual=True, job="shaky")
    async with engine:
        (run,) = await engine.wait(await engine.fire("go"))
        assert [attempt.code for attempt in run.attempts] == ["function_raised", "succeeded"]
        assert run.attempts[0].reason == "raised KeyError: 'total'"


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), asyncio.CancelledError()])
@pytest.mark.parametrize("plain", [True, False])
async def test_nothing_that_a_function_raises_ends_the_engine(
    engine: Engine, error: BaseException, plain: bool
) -> None:
    if plain:

        @engine.job(name="bad")
        def bad(run: RunContext) -> None:
            raise error
    else:

        @engine.job(name="bad")
        async def bad_too(run: RunContext) -> None:
            raise error

    engine.add_trigger("go", manual=True, job="bad")
    async with engine:
        (run,) = await engine.wait(await engine.fire("go"))
        assert run.state is RunState.FAILED
        assert engine.is_running


async def test_a_function_may_return_an_outcome_and_what_is_no_json_fails(engine: Engine) -> None:
    answers: list[Any] = [Outcome.failed("out_of_paper", "there is no paper"), {"a": object()}, None]

    @engine.job
    def say(run: RunContext) -> Any:
        return answers[run.data]

    engine.add_trigger("go", manual=True, job=say)
    async with engine:
        runs = await engine.wait(*[await engine.fire("go", number) for number in range(3)])
    assert [run.code for run in runs] == ["out_of_paper", "bad_outputs", "succeeded"]


async def test_a_thread_whose_time_is_up_is_told_and_keeps_its_slot_until_it_ends(engine: Engine) -> None:
    told, let_go = threading.Event(), threading.Event()

    @engine.job(timeout="20ms", concurrency=1)
    def slow(run: RunContext) -> None:
        while not run.cancelled:
            let_go.wait(0.002)
        told.set()
        assert let_go.wait(10)

    engine.add_trigger("go", manual=True, job="slow")
    async with engine:
        first, second = await engine.fire("go"), await engine.fire("go")
        await until(told.is_set)
        assert (await engine.get_run(first.runs[0])).state is RunState.RUNNING
        assert (await engine.get_run(second.runs[0])).state is RunState.QUEUED
        let_go.set()
        assert [run.state for run in await engine.wait(first, second)] == [RunState.TIMED_OUT] * 2


async def test_no_two_runs_see_the_same_data_nor_that_of_who_sent_it(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.job
    async def spoil(run: RunContext) -> None:
        seen.append(dict(run.data))
        run.data["spoiled"] = True

    def spoils(event: Event) -> bool:
        event.data["spoiled"] = True
        return True

    engine.add_trigger("one", event="order", job="spoil", filter=spoils)
    engine.add_trigger("two", event="order", job="spoil", filter=spoils)
    mine = {"total": 1}
    async with engine:
        answer = await engine.emit("order", mine)
        mine["total"] = 2
        await engine.wait(answer)
    assert seen == [{"total": 1}, {"total": 1}]


async def test_what_a_job_logs_is_in_its_run_log_and_in_the_programs_log(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.run")

    @engine.job
    def talk(run: RunContext) -> None:
        run.progress(0.4, "two of five")
        run.log.info("hello %s", "you")
        with pytest.raises(ValueError, match="from 0 to 1"):
            run.progress(40)

    engine.add_trigger("go", manual=True, job="talk")
    async with engine:
        (run,) = await engine.wait(await engine.fire("go"))
    (file,) = (tmp_path / "data/logs").rglob(f"{run.id}.log")
    assert [line.split(" ", 2)[2] for line in file.read_text().splitlines()] == [
        "INFO 40 %: two of five", "INFO hello you",
    ]  # fmt: skip
    assert ("engine.run", run.id) in {(record.name, getattr(record, "run", "")) for record in caplog.records}


# Triggers


async def test_a_cron_trigger_runs_at_its_time_and_catches_up_at_the_next_start(tmp_path: Path) -> None:
    clock = VirtualClock()
    ran: list[Any] = []

    def program() -> Engine:
        made = Engine(tmp_path, timezone="Europe/Berlin", clock=clock)

        @made.trigger(cron="0 2 * * *")
        @made.job
        async def nightly(run: RunContext) -> None:
            ran.append(run.scheduled_for)

        return made

    async def until_ran(count: int) -> None:
        while len(ran) < count:
            await clock.advance(600)
            await asyncio.sleep(0.001)

    with anyio.fail_after(30):
        async with program() as running:
            at = running.get("nightly").next_at
            assert at is not None
            assert (at.hour, at.minute) == (1, 0)
            await until_ran(1)
        clock._pass(3 * 86400)
        async with program():
            await until_ran(2)
    assert ran == [at, at + timedelta(days=3)]


async def test_a_filter_may_be_a_function_and_what_it_raises_is_the_events_reason(engine: Engine) -> None:
    works(engine)

    def is_large(event: Event) -> bool:
        return bool(event.data["total"] > 100)

    engine.add_trigger("large", event="order.*", job="work", filter=is_large)
    async with engine:
        assert outcome(await engine.emit("order.created", {"total": 120}))[:2] == ("run", "matched")
        assert outcome(await engine.emit("order.created", {"total": 9})) == (
            "filtered", "filter_false", "filtered: is_large(event) is false",
        )  # fmt: skip
        assert outcome(await engine.emit("order.created", {})) == (
            "filtered", "filter_error", "filtered: is_large(event) raised KeyError: 'total'",
        )  # fmt: skip


async def test_the_key_of_each_gate_may_be_a_function(tmp_path: Path) -> None:
    engine = Engine(data=tmp_path)

    @engine.trigger(
        event="order.*", dedupe={"key": lambda event: event.data["id"], "window": "1h"},
        rate_limit={"limit": 1, "per": "1h", "key": lambda event: event.data["customer"]},
    )  # fmt: skip
    @engine.job
    async def work(run: RunContext) -> None: ...

    async with engine:
        codes = []
        for number, customer in ((1, "ann"), (1, "ann"), (2, "ann"), (3, "ben")):
            answer = await engine.emit("order.created", {"id": number, "customer": customer})
            codes.append(answer.outcomes[0].code)
        assert codes == ["matched", "dedupe", "rate_limited", "matched"]


async def test_the_data_and_the_debounce_key_may_be_functions(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)
    engine.add_trigger(
        "orders", event="order", job="work", data=lambda event: {"twice": event.data["n"] * 2},
        debounce={"wait": "1m", "key": lambda event: event.data["customer"]},
    )  # fmt: skip
    async with engine:
        for n in range(4):
            await engine.emit("order", {"n": n, "customer": n % 2})
        with anyio.fail_after(20):
            while len(seen) < 2:
                await clock.advance(60)
                await asyncio.sleep(0.001)
    assert sorted((run.data["twice"], len(run.events)) for run in seen) == [(4, 2), (6, 2)]


async def test_triggers_come_and_go_while_it_runs(engine: Engine) -> None:
    seen = works(engine)
    async with engine:
        assert outcome(await engine.emit("order"))[0] == "unmatched"
        view = engine.add_trigger("orders", event="order", job="work")
        assert (view.state.value, view.job, engine.list()) == ("active", "work", (view,))
        await engine.wait(await engine.emit("order"))
        await engine.remove("orders")
        assert engine.list() == ()
        assert outcome(await engine.emit("order"))[0] == "unmatched"
        assert [run.trigger async for run in engine.runs(trigger="orders")] == ["orders"]
        engine.add_trigger("orders", event="order", job="work")
        await engine.wait(await engine.emit("order"))
    assert len(seen) == 2


async def test_a_source_runs_while_a_trigger_is_on_it(engine: Engine) -> None:
    seen = works(engine)
    async with engine:
        engine.add_trigger("one", bell="front", job="work")
        engine.add_trigger("two", on=Bell(label="front"), job="work")
        engine.add_trigger("back", on={"bell": {"label": "back"}}, job="work")
        await until(lambda: set(Bell.ringing) == {"front", "back"})
        (accepted,) = await Bell.ringing["front"].emit(Event(type="ring"))
        await engine.wait(accepted)
        assert {run.trigger for run in seen} == {"one", "two"}
        await engine.remove("one")
        assert set(Bell.ringing) == {"front", "back"}
        await engine.remove("two")
        assert set(Bell.ringing) == {"back"}
    assert not Bell.ringing


async def test_a_timer_is_added_and_removed_and_added_again_begins_anew(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    seen = works(engine)

    async def pass_until(condition: Callable[[], object]) -> None:
        with anyio.fail_after(20):
            while not condition():
                await clock.advance(30)
                await asyncio.sleep(0.001)

    async with engine:
        engine.add_trigger("tick", on=Cron(expression="*/5 * * * *"), job="work")
        await pass_until(lambda: seen)
        await engine.remove("tick")
        count = len(seen)
        await clock.advance(3600)
        assert len(seen) == count
        added = clock.now()
        engine.add_trigger("tick", on=Cron(expression="*/5 * * * *"), job="work")
        await pass_until(lambda: len(seen) > count)
        runs = [run async for run in engine.runs(trigger="tick")]
        assert not [run for run in runs if run.state is RunState.MISSED]
        assert runs[0].scheduled_for is not None
        assert runs[0].scheduled_for > added


async def test_runs_of_a_removed_trigger_still_run_with_its_data(engine: Engine) -> None:
    gate, seen = anyio.Event(), []

    @engine.job(concurrency=1)
    async def work(run: RunContext) -> None:
        seen.append(run.data)
        await gate.wait()

    engine.add_trigger("go", manual=True, job="work", data={"full": True})
    async with engine:
        answers = [await engine.fire("go"), await engine.fire("go")]
        await until(lambda: seen)
        await engine.remove("go")
        gate.set()
        assert [run.state for run in await engine.wait(*answers)] == [RunState.SUCCEEDED] * 2
    assert seen == [{"full": True}] * 2


async def test_jobs_of_code_and_triggers_of_a_file_know_each_other(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("""
[engine]
timezone = "Europe/Berlin"
[defaults]
timeout = "7s"
retry = { attempts = 4 }
[triggers.orders]
on.event = "order"
job = "ship"
""")
    engine = Engine(config=tmp_path / "config.toml", concurrency=3)

    @engine.job(retry={"delay": "1s"})
    async def ship(run: RunContext) -> None: ...

    job = engine._definitions.jobs["ship"]
    assert (job.timeout_s, job.retry.attempts, job.retry.delay_s) == (7.0, 4, 1.0)
    assert engine.add_trigger("tick", cron="* * * * *", job="ship").on.timezone == "Europe/Berlin"
    async with engine:
        (run,) = await engine.wait(await engine.emit("order"))
        assert (run.trigger, run.job) == ("orders", "ship")
    assert (tmp_path / "data/engine.db").exists()


# Pauses


async def test_a_pause_outlives_the_engine_and_is_each_events_reason(tmp_path: Path) -> None:
    clock = VirtualClock()

    def program() -> Engine:
        made = Engine(tmp_path, clock=clock)
        works(made)
        made.add_trigger("orders", event="order", job="work")
        return made

    async with program() as engine:
        pause = await engine.pause("orders", reason="stock-taking", minutes=30)
        assert (pause.since, pause.until) == (clock.now(), clock.now() + timedelta(minutes=30))
    async with program() as engine:
        view = engine.get("orders")
        assert (view.state.value, view.paused) == ("paused", pause)
        answer = await engine.emit("order")
        assert outcome(answer) == (
            "paused", "trigger_paused", f"paused: trigger orders is paused until {pause.until:%F %T} UTC: stock-taking",
        )  # fmt: skip
        assert outcome(await engine.fire("orders"))[1] == "trigger_paused"
        assert (await engine.fire("orders", bypass=["pause"])).runs
        again = await engine.pause("orders", reason="longer")
        assert (again.since, again.until, again.reason) == (pause.since, None, "longer")
        assert await engine.resume("orders")
        assert not await engine.resume("orders")
        assert (await engine.emit("order")).runs
    async with program() as engine:
        assert engine.get("orders").paused is None


async def test_the_engine_and_a_tag_are_paused_by_a_program(engine: Engine) -> None:
    @engine.job(tags=["oven"])
    async def work(run: Any) -> None: ...

    engine.add_trigger("orders", event="order", job="work", tags=["shop"])
    engine.add_trigger("bills", event="bill", job="work")
    async with engine:
        await engine.pause(tag="shop", reason="stock-taking", who="ann")
        assert [pause.who for pause in engine.pauses()] == ["ann"]
        assert (engine.get("orders").state.value, engine.get("bills").state.value) == ("paused", "active")
        await engine.pause(tag="oven")
        assert engine.get("bills").state_reason == "tag oven is paused"
        await engine.pause(all=True, reason="move", minutes=5)
        view = engine.get("orders")
        assert view.paused is not None
        assert [pause.scope.value for pause in view.paused.parts] == ["engine", "tag", "tag"]
        assert outcome(await engine.emit("bill"))[1] == "engine_paused"
        assert await engine.resume(all=True)
        assert await engine.resume(tag="oven")
        assert await engine.resume(tag="shop")
        assert engine.pauses() == ()
        assert outcome(await engine.emit("bill"))[0] == "run"
        with pytest.raises(NotFound, match="no trigger, and no job of one, has the tag shpo"):
            await engine.pause(tag="shpo")
        with pytest.raises(Conflict, match="say what to pause or resume"):
            await engine.pause()
        with pytest.raises(Conflict, match="say what to pause or resume"):
            await engine.resume(tag="shop", all=True)


async def test_a_job_of_a_program_may_skip_what_overlaps(engine: Engine) -> None:
    gate = anyio.Event()

    @engine.trigger(event="order")
    @engine.job(overlap="skip")
    async def work(run: Any) -> None:
        await gate.wait()

    async with engine:
        first, second = await engine.emit("order"), await engine.emit("order")
        (skipped,) = await engine.wait(second)
        assert (skipped.state.value, skipped.code) == ("skipped", "overlap")
        assert first.runs[0] in skipped.reason
        gate.set()
        (done,) = await engine.wait(first)
        assert done.state.value == "succeeded"


async def test_a_pause_ends_by_itself(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(tmp_path, clock=clock)
    works(engine)
    engine.add_trigger("orders", event="order", job="work")
    async with engine:
        await engine.pause("orders", until=clock.now() + timedelta(hours=1))
        clock._pass(3599)
        assert outcome(await engine.emit("order"))[0] == "paused"
        clock._pass(1)
        assert outcome(await engine.emit("order"))[0] == "run"
        assert engine.get("orders").state.value == "active"


@pytest.mark.parametrize("end", [{"minutes": 0}, {"minutes": -1}, {"minutes": 1e300}, {"minutes": float("nan")}])
async def test_a_pause_without_a_future_is_refused(engine: Engine, end: dict[str, float]) -> None:
    works(engine)
    engine.add_trigger("orders", event="order", job="work")
    async with engine:
        with pytest.raises(Conflict):
            await engine.pause("orders", **end)  # type: ignore[arg-type]
        assert engine.get("orders").paused is None


async def test_removing_a_trigger_forgets_its_pause(engine: Engine) -> None:
    works(engine)
    async with engine:
        engine.add_trigger("orders", event="order", job="work")
        await engine.pause("orders", reason="for ever")
        await engine.remove("orders")
        assert engine.add_trigger("orders", event="order", job="work").paused is None
    async with engine:
        assert engine.get("orders").paused is None


async def test_a_trigger_says_what_becomes_of_instants_that_it_could_not_run_in_time(tmp_path: Path) -> None:
    engine = Engine(tmp_path)

    @engine.trigger(interval="1m", misfire={"catch_up": "all", "grace": timedelta(hours=6), "max": 5, "rate": "2/s"})
    @engine.job
    async def tick(run: RunContext) -> None:
        """Do nothing."""

    rule = engine._definitions.triggers["tick"].misfire
    assert rule == Misfire(catch_up=CatchUp.ALL, grace_s=6 * 3600.0, max=5, rate_per_s=2.0)
    with pytest.raises(ConfigError, match="has no effect on manual"):
        engine.add_trigger("by-hand", job=tick, manual=True, misfire={"catch_up": "none"})
