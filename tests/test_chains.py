"""Whole engines: one job after another, also over a crash; sources with a name; timers at their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from engine import runtime as runtime_module
from engine.cli.client import Client
from engine.cli.why import ask, sentences
from engine.errors import Conflict
from engine.plugin import Event
from engine.runs import RunState
from engine.runtime import Runtime
from engine.store.base import EventFilter, RunFilter
from engine.testing import VirtualClock
from engine.testing.clock import START
from tests.fakes import until
from tests.organs import InlineStore
from tests.test_runtime import (
    Gate,
    Tap,
    comes_to,
    configured,
    crashed_run,
    fire,
    operations,
    running,
    stored_runs,
)

CHAIN = """
[jobs.work]
run.exec = ["sh", "-c", "echo rows=7 >> $ENGINE_OUTPUT"]
[jobs.report]
run.exec = ["sh", "-c", "echo got $1 from $2", "sh", "{{ data.outputs.rows }}", "{{ data.job }}"]
[jobs.alarm]
run.gate = "open"
[triggers.go]
on.manual = true
job = "work"
[triggers.after]
on.run = { job = "work", outcomes = ["succeeded"] }
job = "report"
[triggers.watch]
on.run = { outcomes = ["failed", "timed_out"], ignore = ["alarm"] }
job = "alarm"
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Gate.begun.clear()
    Gate.open.clear()
    Gate.open.add("open")
    Tap.contexts.clear()


async def followed(engine: Runtime, trigger: str) -> str:
    """Wait until a trigger has a run, and return it."""
    while True:
        runs = await operations(engine).store.runs(RunFilter(triggers=frozenset({trigger})), limit=10)
        if runs:
            return runs[0].id
        await anyio.sleep(0.005)


async def test_one_job_after_another_with_its_outputs_and_why(tmp_path: Path) -> None:
    config = configured(tmp_path, CHAIN)
    async with running(config, listen=True) as engine:
        worked = await fire(engine, "go")
        reported = await followed(engine, "after")
        run = await comes_to(engine, reported, RunState.SUCCEEDED)
        assert operations(engine).log_path(reported).read_text() == "got 7 from work\n"
        url = f"http://127.0.0.1:{config.http.port}"
        headers = {"Authorization": f"Bearer {'t' * 43}"}
        async with aiohttp.ClientSession(headers=headers) as client:
            async with client.get(f"{url}/api/v1/events", params={"source": "job:work"}) as answer:
                (event,) = (await answer.json())["items"]
            assert (event["type"], event["subject"], event["key"]) == ("engine.run.succeeded", worked, worked)
            assert [outcome["run"] for outcome in event["outcomes"]] == [reported]
            sent = {"specversion": "1.0", "id": "x", "source": "me", "type": "engine.run.succeeded"}
            async with client.post(f"{url}/api/v1/events", json=sent) as answer:
                assert answer.status == 422

        def why(what: str) -> str:
            return "\n".join(sentences(ask(Client(url, "t" * 43, "a test"), what)))

        told = await anyio.to_thread.run_sync(why, event["id"])
        assert f"run {worked} of job work succeeded" in told
        told = await anyio.to_thread.run_sync(why, reported)
        assert f"about {worked}, from job:work" in told
        assert run.trace[0].reason.startswith(f"matched: run {worked} of job work succeeded")
    assert {each.job for each in await stored_runs(config)} == {"work", "report"}


async def test_a_run_that_a_crash_failed_is_an_end_in_the_commit_that_fails_it(tmp_path: Path) -> None:
    config = configured(tmp_path, CHAIN.replace("[jobs.work]", '[jobs.work]\non_crash = "fail"'))
    crashed = await crashed_run(config)
    async with running(config) as engine:
        alarmed = await followed(engine, "watch")
        await comes_to(engine, alarmed, RunState.SUCCEEDED)
        assert (await comes_to(engine, crashed, RunState.FAILED)).code == "engine_died"
        (context,) = Gate.begun
        assert isinstance(context.event.data, dict)
        assert (context.event.data["run"], context.event.data["code"]) == (crashed, "engine_died")
    # It is told once, however often the engine starts.
    async with running(config) as engine:
        assert operations(engine).ready()[0]
    assert len([run for run in await stored_runs(config) if run.trigger == "watch"]) == 1


async def test_a_run_that_is_repeated_after_a_crash_has_not_ended(tmp_path: Path) -> None:
    config = configured(tmp_path, CHAIN)
    crashed = await crashed_run(config)
    async with running(config) as engine:
        await comes_to(engine, crashed, RunState.SUCCEEDED)
        await comes_to(engine, await followed(engine, "after"), RunState.SUCCEEDED)
        ends = await operations(engine).store.events(EventFilter(source="job:work"), limit=10)
        assert [stored.event.type for stored in ends] == ["engine.run.succeeded"]


SHARED = """
[sources.door.tap]
label = "shared"
[sources.door]
description = "The door"
tags = ["house"]
[sources.idle.tap]
label = "idle"
[sources.closed]
tap = { label = "closed" }
enabled = false
[sources.nightly.cron]
expression = "0 2 * * *"
[jobs.work]
run.gate = "open"
[triggers.one]
on.source = "door"
job = "work"
[triggers.two]
on.source = "door"
job = "work"
[triggers.off]
on.source = "closed"
job = "work"
[triggers.night]
on.source = "nightly"
job = "work"
"""


async def test_a_source_with_a_name_runs_once_and_keeps_its_cursor_when_its_settings_change(tmp_path: Path) -> None:
    async with running(configured(tmp_path, SHARED)) as engine:
        assert set(Tap.contexts) == {"shared"}
        assert Tap.contexts["shared"].name == "tap:door"
        [answer] = await Tap.contexts["shared"].emit(Event(type="rang", key="7"), cursor=7)
        assert len(answer.runs) == 2
        for run_id in answer.runs:
            await comes_to(engine, run_id, RunState.SUCCEEDED)
    async with running(configured(tmp_path, SHARED.replace('"shared"', '"changed"'))):
        await until(lambda: "changed" in Tap.contexts)
        context = Tap.contexts["changed"]
        assert await context.cursor() == 7
        [again] = await context.emit(Event(type="rang", key="7"))
        assert (again.event, again.duplicate) == (answer.event, True)


async def test_a_disabled_source_does_not_run_and_its_triggers_say_why(tmp_path: Path) -> None:
    async with running(configured(tmp_path, SHARED)) as engine:
        view = operations(engine).trigger_view("off")
        assert (view["state"], view["enabled"]) == ("disabled", True)
        assert view["state_reason"] == "trigger off is disabled, as its source closed is"
        assert view["on"] == {"source": "closed"}
        with pytest.raises(Conflict, match="as its source closed is"):
            await fire(engine, "off")
        one = operations(engine).trigger_view("one")
        assert (one["state"], one["state_reason"], one["source"]) == ("active", None, "tap:door")
        sources = {view["name"]: view for view in (await operations(engine).status())["sources"]}
        assert {name: view["state"] for name, view in sources.items()} == {
            "tap:door": "running", "tap:idle": "unused", "tap:closed": "disabled", "nightly": "running",
        }  # fmt: skip
        door = sources["tap:door"]
        assert (door["shared"], door["description"], door["tags"]) == ("door", "The door", ["house"])
        assert operations(engine).trigger_view("night")["next_at"] is not None


async def test_a_trigger_whose_timer_is_at_its_end_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)
    config = configured(tmp_path, f"""
[jobs.work]
run.gate = "open"
[triggers.once]
on.at = {START.replace(hour=START.hour + 1).isoformat()}
job = "work"
[triggers.often]
on.interval = "30m"
job = "work"
""")  # fmt: skip
    clock = VirtualClock()

    async def pass_by(seconds: float) -> None:
        await clock.advance(seconds)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()

    async with running(config, clock=clock) as engine:
        view: dict[str, Any] = operations(engine).trigger_view("once")
        assert (view["state"], view["state_reason"]) == ("active", None)
        assert view["next_at"] is not None
        for _ in range(2):
            await pass_by(1800)
        begun = [context.trigger for context in Gate.begun]
        assert (begun.count("once"), begun.count("often")) == (1, 2)
        view = operations(engine).trigger_view("once")
        assert (view["state"], view["next_at"]) == ("completed", None)
        assert view["state_reason"] == "its timer has no further due instant"
        assert operations(engine).trigger_view("often")["state"] == "active"
        # It can still be fired.
        await fire(engine, "once")
