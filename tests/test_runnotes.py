"""What attempts note for themselves outlives the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.errors import InvalidEvent
from engine.runnotes import RunNotes
from engine.runs import RunState
from tests.evil_server import Received, answer, serving
from tests.test_runtime import comes_to, configured, fire, operations, running


async def test_a_note_is_that_of_one_attempt() -> None:
    notes = RunNotes()
    await notes.note("run", 1, {"url": "x"})
    assert (notes.of("run", 1), notes.of("run", 2), notes.of("other", 1)) == ({"url": "x"}, None, None)
    await notes.note("run", 1, None)
    assert notes.of("run", 1) is None
    with pytest.raises(InvalidEvent):
        await notes.note("run", 1, float("nan"))


async def test_a_long_job_of_a_server_is_followed_over_a_restart_of_the_engine_and_begun_once(tmp_path: Path) -> None:
    """The engine is stopped while it asks; the next one asks on."""
    over = False

    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST":
            writer.write(answer("202 Accepted", "", "Location: /jobs/7"))
        else:
            asked.set()
            writer.write(answer("200 OK", "done") if over else answer("202 Accepted"))

    asked = asyncio.Event()
    async with serving(act) as server:
        text = f"""
[engine]
shutdown_grace = "0s"
[jobs.export.run.http]
url = "{server.url("/jobs")}"
allow_private = true
poll = {{ every = "100ms" }}
[triggers.go]
on.manual = true
job = "export"
"""
        config = configured(tmp_path, text)
        async with running(config) as engine:
            run_id = await fire(engine, "go")
            await asked.wait()
        over = True
        async with running(config) as engine:
            run = await comes_to(engine, run_id, RunState.SUCCEEDED)
            assert await operations(engine).store.memory("engine:runs", after=None, limit=10) == {}
    assert [one.method for one in server.requests].count("POST") == 1
    assert (run.attempt, len(run.attempts)) == (1, 2)
