"""The life of an embedded engine: its block, its failures, its process, and what the package loads."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import engine as package
from engine import (
    Conflict,
    Engine,
    RunContext,
    RunState,
    StoreDamaged,
    StoreInUse,
)
from engine.journal import Journal
from tests.embedded import Bell, works
from tests.fakes import until

ROOT = Path(__file__).parent.parent


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "data", shutdown_grace="100ms", plugins=[Bell])


async def test_it_is_running_in_its_block_and_nothing_is_asked_outside(engine: Engine) -> None:
    works(engine)
    engine.add_trigger("orders", event="a", job="work")
    states = [engine.is_running]
    with pytest.raises(Conflict, match="does not run"):
        await engine.emit("a")
    async with engine:
        states.append(engine.is_running)
        with pytest.raises(Conflict, match="runs already"):
            await engine.__aenter__()
        states.append(engine.is_running)
    states.append(engine.is_running)
    assert states == [False, True, True, False]
    async with engine:
        assert (await engine.emit("a")).runs


async def test_a_data_directory_belongs_to_one_engine_and_two_have_two(tmp_path: Path) -> None:
    first, second, third = Engine(tmp_path / "a"), Engine(tmp_path / "a"), Engine(tmp_path / "b")
    async with first, third:
        with pytest.raises(StoreInUse, match=f"process {os.getpid()}") as error:
            async with second:
                pass
        assert error.value.pid == os.getpid()
        assert not second.is_running
        assert first.is_running
    async with second:
        assert second.is_running


async def test_a_damaged_store_is_refused_with_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "engine.db").write_text("no database at all, but longer than nothing")
    with pytest.raises(StoreDamaged):
        async with Engine(tmp_path):
            pass
    assert (tmp_path / "engine.db").read_text().startswith("no database")


async def test_leaving_the_block_lets_runs_end_and_interrupts_the_others(engine: Engine) -> None:
    @engine.job
    async def endless(run: RunContext) -> None:
        await anyio.sleep_forever()

    @engine.job
    async def short(run: RunContext) -> None:
        await anyio.sleep(0.02)

    engine.add_trigger("long", event="a", job="endless")
    engine.add_trigger("short", event="a", job="short")
    async with engine:
        answer = await engine.emit("a")
    engine.job(name="unused")(lambda run: None)
    await engine.remove("long")
    async with engine:
        states = {run.trigger: run async for run in engine.runs()}
        assert states["short"].state is RunState.SUCCEEDED
        assert len(answer.runs) == 2
        interrupted = await engine.get_run(states["long"].id)
        assert "interrupted" in {step.code for step in interrupted.trace}


async def test_what_the_block_raises_comes_out_and_it_has_stopped(engine: Engine) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with engine:
            raise ValueError("mine")
    assert not engine.is_running
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), engine:
            await anyio.sleep_forever()
    with anyio.move_on_after(0.05) as scope:
        async with engine:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    async with engine:
        assert engine.is_running


async def test_a_failure_of_the_engine_ends_the_block(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Journal] = []
    begin = Journal.__init__

    def remember(self: Journal, *args: Any) -> None:
        begin(self, *args)
        made.append(self)

    monkeypatch.setattr(Journal, "__init__", remember)

    async def live() -> None:
        async with engine:
            made[0].fail(StoreDamaged("page 3 is damaged"))
            await anyio.sleep_forever()

    with pytest.raises(StoreDamaged, match="page 3"):
        await live()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    assert not engine.is_running


async def test_it_may_be_entered_in_one_task_and_left_in_another(engine: Engine) -> None:
    await asyncio.create_task(engine.__aenter__())
    assert engine.is_running
    await asyncio.create_task(engine.__aexit__(None, None, None))
    assert not engine.is_running


async def test_another_thread_is_told_the_way_in(engine: Engine) -> None:
    told: list[str] = []

    @engine.job
    def work(run: RunContext) -> None:
        try:
            engine.add_trigger("t", event="a", job="work")
        except Conflict as error:
            told.append(str(error))
        accepted = anyio.from_thread.run(engine.emit, "done", {"by": run.job})
        run.output(event=accepted.event)

    engine.add_trigger("go", manual=True, job="work")
    async with engine:
        (run,) = await engine.wait(await engine.fire("go"))
        assert run.state is RunState.SUCCEEDED
    assert "anyio.from_thread" in told[0]


async def test_who_waits_when_it_stops_is_told(engine: Engine) -> None:
    @engine.job
    async def endless(run: RunContext) -> None:
        await anyio.sleep_forever()

    engine.add_trigger("go", manual=True, job="endless")
    async with engine:
        waiting = asyncio.create_task(engine.wait(await engine.fire("go")))
        await asyncio.sleep(0)
    with pytest.raises(Conflict, match="stopped before"):
        await waiting


def test_it_works_under_plain_asyncio(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    seen = works(engine)
    engine.add_trigger("t", event="a", job="work")

    async def main() -> None:
        async with engine:
            await engine.wait(await engine.emit("a"))

    asyncio.run(main())
    asyncio.run(main())
    assert len(seen) == 2


# As a process

PROGRAM = """
import asyncio, os, sys
from engine import Engine

engine = Engine("data")

@engine.job
async def work(run):
    with open("attempts", "a") as file:
        print(run.run_id, run.attempt, run.data["n"], file=file, flush=True)
    if "hang" in sys.argv:
        await asyncio.sleep(3600)

engine.add_trigger("orders", event="order", job="work")

async def main():
    async with engine:
        if "hang" in sys.argv:
            await engine.emit("order", {"n": 1}, key="o-1")
            await asyncio.sleep(3600)
        again = await engine.emit("order", {"n": 1}, key="o-1")
        assert again.duplicate
        (run,) = await engine.wait(again)
        print(run.state, run.attempt, [step.code for step in run.trace])

if "serve" in sys.argv:
    @engine.trigger(cron="* * * * * *")
    @engine.job
    def tick(run):
        print("tick", flush=True)
    engine.run()
    print("stopped", engine.is_running)
else:
    asyncio.run(main())
"""


def start(path: Path, *arguments: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    (path / "app.py").write_text(program)
    return subprocess.Popen(
        [sys.executable, "app.py", *arguments], cwd=path, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


async def test_a_run_of_a_killed_program_is_taken_up_and_nothing_is_doubled(tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    with start(tmp_path, "hang") as process:
        await until(lambda: attempts.exists() and attempts.read_text().endswith("\n"), within_s=20)
        process.send_signal(signal.SIGKILL)
    with start(tmp_path) as process:
        printed, _ = await anyio.to_thread.run_sync(process.communicate)
    assert process.returncode == 0
    assert printed.strip() == "succeeded 1 ['matched', 'started', 'engine_died', 'started', 'succeeded']"
    first, second = attempts.read_text().splitlines()
    assert first == second


async def test_a_program_that_runs_it_stops_at_a_signal(tmp_path: Path) -> None:
    with start(tmp_path, "serve") as process:
        assert process.stdout is not None
        assert await anyio.to_thread.run_sync(process.stdout.readline) == "tick\n"
        process.send_signal(signal.SIGTERM)
        rest = await anyio.to_thread.run_sync(process.stdout.read)
    assert process.returncode == 0
    assert rest.endswith("stopped False\n")


STUBBORN = """
import asyncio, logging, sys
from engine import Engine
from engine.plugin import Source

class Stubborn(Source, frozen=True, kw_only=True):
    name = "stubborn"

    async def run(self, context):
        context.ready()
        print("deaf", flush=True)
        while True:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass

engine = Engine("data", plugins=[Stubborn])

@engine.job
async def work(run): ...

engine.add_trigger("one", stubborn={}, job="work")

class Printed(logging.Handler):
    def emit(self, record):
        if record.action == "ended_without":
            print(record.getMessage().partition(":")[0], flush=True)

logging.getLogger("engine").addHandler(Printed())
engine.run()
print("never comes here", flush=True)
"""


async def test_a_program_that_runs_it_ends_without_a_source_that_does_not_stop(tmp_path: Path) -> None:
    with start(tmp_path, program=STUBBORN) as process:
        assert process.stdout is not None
        assert await anyio.to_thread.run_sync(process.stdout.readline) == "deaf\n"
        process.send_signal(signal.SIGTERM)
        rest = await anyio.to_thread.run_sync(process.stdout.read)
    assert (process.returncode, rest) == (0, "Ending without source stubborn\n")


# The package


def test_importing_the_package_loads_nothing_of_the_runtime() -> None:
    program = "import sys, engine, engine.plugin; print(*sorted(m for m in sys.modules if m.startswith('engine.')))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "engine.plugin" in loaded.stdout.split()
    assert not {"engine.runtime", "engine.embedding", "engine.config", "engine.registry"} & set(loaded.stdout.split())


def test_all_that_the_package_exports_is_there_and_nothing_else() -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


TAKEN = """
import sys
from engine import Engine, StoreInUse
try:
    Engine(sys.argv[1]).run()
except StoreInUse as error:
    print(error.pid)
"""


async def test_a_program_whose_directory_is_taken_is_told_so_by_run(tmp_path: Path) -> None:
    async with Engine(tmp_path):
        done = await anyio.run_process([sys.executable, "-c", TAKEN, str(tmp_path)], cwd=ROOT)
    assert done.stdout.decode() == f"{os.getpid()}\n"
