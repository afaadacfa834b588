"""The whole engine: started from a configuration, worked, stopped, broken and started again."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import anyio
import pytest
from msgspec.structs import replace

from engine import runtime as runtime_module
from engine.config import Config, load
from engine.errors import Conflict, EngineError, NotFound, StoreDamaged, StoreInUse, StoreUnavailable
from engine.execution import RUN_MARK
from engine.jobs import Job
from engine.operations import Operations
from engine.plugin import Event, Outcome, PrepareContext, Request, Response, RunContext, Runner, Source, SourceContext
from engine.registry import Registry
from engine.runs import Lane, Run, RunState
from engine.runtime import Runtime
from engine.settling import Changes
from engine.store.base import RunFilter
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.testing.store_contract.material import a_run, accept, an_entry, an_event, make
from engine.triggers import PauseScope
from tests.fakes import until
from tests.organs import InlineStore

ROOT = Path(__file__).parent.parent
IN_TIME_S = 20.0


class Gate(Runner, frozen=True, kw_only=True):
    """Notes that it began, waits until the test opens the gate of its name, and succeeds."""

    name: ClassVar[str] = "gate"
    main: ClassVar[str | None] = "gate"
    begun: ClassVar[list[RunContext]] = []
    open: ClassVar[set[str]] = set()

    gate: str = "open"
    look_s: float = 0.005  # each look is a step of a virtual clock: a test that turns it by minutes looks more rarely

    async def run(self, context: RunContext) -> Outcome:
        Gate.begun.append(context)
        while self.gate not in Gate.open:
            await context.clock.sleep(self.look_s)
        return Outcome.succeeded("done")


class Tap(Source, frozen=True, kw_only=True):
    """Emits what the test asks for."""

    name: ClassVar[str] = "tap"
    contexts: ClassVar[dict[str, SourceContext]] = {}

    label: str = "tap"

    async def run(self, context: SourceContext) -> None:
        Tap.contexts[self.label] = context
        context.ready()
        await anyio.sleep_forever()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Gate.begun.clear()
    Gate.open.clear()
    Gate.open.add("open")
    Tap.contexts.clear()


def a_registry() -> Registry:
    registry = Registry.discover()
    registry.add(Gate)
    registry.add(Tap)
    return registry


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def configured(path: Path, text: str, *, port: int | None = None) -> Config:
    """Write a configuration and read it."""
    file = path / "config.toml"
    file.write_text(f'http.listen = "127.0.0.1:{port or free_port()}"\n{text}', "utf-8")
    return load([file], environment={}, registry=a_registry(), create_secrets=True)


@asynccontextmanager
async def running(
    config: Config, *, clock: VirtualClock | None = None, listen: bool = False,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Runtime]:  # fmt: skip
    """Run an engine while the block lasts, and stop it as a signal does."""
    ready = anyio.Event()
    engine = Runtime(
        config, registry=a_registry(), clock=clock, listen=listen,
        environment={"ENGINE_ADMIN_TOKEN": "t" * 43, **(environment or {})}, on_ready=lambda _: ready.set(),
    )  # fmt: skip
    with anyio.fail_after(IN_TIME_S):
        async with anyio.create_task_group() as group:
            group.start_soon(engine.run)
            await ready.wait()
            yield engine
            engine.stop()


def operations(engine: Runtime) -> Operations:
    assert engine.operations is not None
    return engine.operations


async def fire(engine: Runtime, trigger: str, data: Any = None) -> str:
    """Fire a trigger and return its run."""
    answer = await operations(engine).fire(
        trigger, data=data, reason="", priority=None, bypass=frozenset(), request_id=None
    )
    return answer.runs[0]


async def comes_to(engine: Runtime, run_id: str, state: RunState) -> Run:
    """Wait until a run is in a state, and return it."""
    while True:
        run = await operations(engine).store.run(run_id)
        if run is not None and run.state is state:
            return run
        await asyncio.sleep(0.005)


async def stored_runs(config: Config) -> list[Run]:
    """Return all runs of a store that no engine has open."""
    store = SqliteStore(config.store.path, read_only=True)
    await store.open()
    try:
        ledger = await store.ledger()
        assert ledger.missing == ()
        return list(reversed(await store.runs(RunFilter(), limit=1000)))
    finally:
        await store.close()


BY_HAND = """
[engine]
shutdown_grace = "100ms"
[jobs.work]
run.gate = "closed"
[triggers.go]
on.manual = true
job = "work"
"""

QUICK = """
[jobs.work]
run.gate = "open"
[triggers.go]
on.manual = true
job = "work"
"""


# Work


async def test_a_fired_trigger_runs_a_program_and_all_of_it_is_there_afterwards(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.hello]
run.exec = ["sh", "-c", "echo hello $1; echo rows=7 >> $ENGINE_OUTPUT", "sh", "{{ data.name }}"]
[triggers.go]
on.manual = true
job = "hello"
""")  # fmt: skip
    async with running(config) as engine:
        run = await comes_to(engine, await fire(engine, "go", {"name": "you"}), RunState.SUCCEEDED)
        assert (run.exit_code, run.outputs) == (0, {"rows": "7"})
        assert operations(engine).log_path(run.id).read_text() == "hello you\n"
        assert operations(engine).health()["status"] == "ok"
        assert operations(engine).ready() == (True, [])
    assert [each.id for each in await stored_runs(config)] == [run.id]
    assert (config.engine.data / "engine.lock").read_text() == ""


async def test_a_webhook_comes_in_over_http_and_runs(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.hook]
on.webhook = { path = "orders", verify = "none" }
job = "work"
""")  # fmt: skip
    async with running(config, listen=True) as engine, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{config.http.port}"
        headers = {"Idempotency-Key": "delivery-1"}
        async with client.post(f"{url}/hooks/orders", json={"n": 1}, headers=headers) as answer:
            assert answer.status == 202
            accepted = await answer.json()
        async with client.post(f"{url}/hooks/orders", json={"n": 1}, headers=headers) as answer:
            again = await answer.json()
        assert again == {**accepted, "duplicate": True}
        await comes_to(engine, accepted["runs"][0], RunState.SUCCEEDED)
        assert Gate.begun[0].event.data == {"n": 1}
        async with client.get(f"{url}/ready") as answer:
            assert answer.status == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as client, client.get(f"{url}/live"):
            pass


async def test_a_cron_entry_is_run_at_its_time(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.often]
on.cron = "* * * * * *"
job = "work"
""")  # fmt: skip
    async with running(config):
        await until(lambda: len(Gate.begun) >= 2)
    instants = [context.scheduled_for for context in Gate.begun]
    assert all(instant is not None and instant.microsecond == 0 for instant in instants)
    assert len(set(instants)) == len(instants)
    assert {run.state for run in await stored_runs(config)} <= {RunState.SUCCEEDED, RunState.QUEUED}


async def test_the_whole_engine_runs_under_a_virtual_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.hourly]
on.cron = "0 * * * *"
job = "work"
""")  # fmt: skip
    clock = VirtualClock()
    async with running(config, clock=clock) as engine:
        for hour in range(1, 7):
            await clock.advance(3600)
            await until(lambda: len(Gate.begun) == hour)  # noqa: B023 - awaited at once
        assert [context.scheduled_for for context in Gate.begun] == [START + timedelta(hours=n) for n in range(1, 7)]
        assert (await operations(engine).status())["uptime_s"] == 6 * 3600


async def test_triggers_on_the_same_source_share_it_and_disabled_ones_start_none(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.one]
on.tap = { label = "shared" }
job = "work"
[triggers.two]
on.tap = { label = "shared" }
job = "work"
[triggers.off]
on.tap = { label = "off" }
job = "work"
enabled = false
""")  # fmt: skip
    async with running(config) as engine:
        assert set(Tap.contexts) == {"shared"}
        [answer] = await Tap.contexts["shared"].emit(Event(type="drop"))
        assert len(answer.runs) == 2
        for run_id in answer.runs:
            await comes_to(engine, run_id, RunState.SUCCEEDED)
        assert [state["state"] for state in (await operations(engine).status())["sources"]] == ["running"]


# Stopping


async def test_a_run_may_end_within_the_grace_of_a_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="engine")
    config = configured(tmp_path, BY_HAND.replace("100ms", "15s"))
    async with running(config) as engine:
        await fire(engine, "go")
        await until(lambda: Gate.begun)
        engine.stop()
        await until(lambda: operations(engine).state == "stopping")
        assert "Stopping: 1 run has up to 15s to end" in caplog.messages
        Gate.open.add("closed")
    [run] = await stored_runs(config)
    assert run.state is RunState.SUCCEEDED


async def test_what_a_stop_interrupts_is_run_again_at_the_next_start_without_losing_an_attempt(tmp_path: Path) -> None:
    config = configured(tmp_path, BY_HAND)
    async with running(config) as engine:
        run_id = await fire(engine, "go")
        await until(lambda: Gate.begun)
    [run] = await stored_runs(config)
    assert (run.id, run.state, run.code, run.attempt) == (run_id, RunState.QUEUED, "interrupted", 0)
    Gate.open.add("closed")
    async with running(config) as engine:
        run = await comes_to(engine, run_id, RunState.SUCCEEDED)
        assert (run.attempt, [attempt.counted for attempt in run.attempts]) == (1, [False, True])


async def test_a_stop_ends_the_whole_group_of_a_program(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    config = configured(tmp_path, f"""
[engine]
shutdown_grace = "0s"
[jobs.work]
run.exec = ["sh", "-c", "sleep 300 & echo $! > {pids}; sleep 300"]
[triggers.go]
on.manual = true
job = "work"
""")  # fmt: skip
    async with running(config) as engine:
        run_id = await fire(engine, "go")
        await until(lambda: pids.exists() and pids.read_text().strip())
    [run] = await stored_runs(config)
    assert (run.id, run.state) == (run_id, RunState.QUEUED)
    await until(lambda: not Path(f"/proc/{pids.read_text().strip()}").exists())


async def test_an_engine_that_is_told_to_stop_before_it_runs_stops(tmp_path: Path) -> None:
    engine = Runtime(configured(tmp_path, QUICK), registry=a_registry(), listen=False, environment={})
    engine.stop()
    with anyio.fail_after(IN_TIME_S):
        await engine.run()


async def test_open_windows_go_on_where_they_were(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.gathers]
on.event = "order.*"
debounce = { wait = "1h", key = "data.customer" }
job = "work"
""")  # fmt: skip

    async def order(engine: Runtime, customer: str) -> str:
        data = {"customer": customer}
        [answer] = await operations(engine).hear([Event(type="order.created", source="shop", data=data)])
        return answer.runs[0]

    async with running(config) as engine:
        first = await order(engine, "a")
    async with running(config) as engine:
        assert await order(engine, "a") == first
        assert await order(engine, "b") != first
    runs = await stored_runs(config)
    assert [(run.state, run.event_count) for run in runs] == [(RunState.PENDING, 2), (RunState.PENDING, 1)]


# After a crash


async def crashed_run(config: Config, *, pid: int | None = None, started: int | None = None) -> str:
    """Leave a store as an engine leaves it that was killed while a run was going on."""
    config.engine.data.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(config.store.path)
    await store.open()
    event = an_event(source="manual")
    fields = {"job": "work", "attempt": 1, "boot": "an-earlier-one", "started_at": START}
    run = a_run(event, state=RunState.RUNNING, trigger="go", **fields)
    await make(store, accept(an_entry(event, run)))
    await store.close()
    return run.id


def left_by(run_id: str) -> subprocess.Popen[bytes]:
    """Start a process as one of a run that nobody looks after any more."""
    return subprocess.Popen(["sleep", "300"], env={**os.environ, RUN_MARK: run_id}, start_new_session=True)


async def test_what_a_crash_left_running_is_ended_before_it_is_run_again(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK)
    run_id = await crashed_run(config)
    with left_by(run_id) as left:
        async with running(config) as engine:
            assert left.wait(10) == -signal.SIGTERM
            run = await comes_to(engine, run_id, RunState.SUCCEEDED)
    assert (run.attempt, [(each.code, each.counted) for each in run.attempts]) == (
        1, [("engine_died", False), ("succeeded", True)],
    )  # fmt: skip
    assert "1 of its processes ended" in run.trace[1].reason
    # It waits from when it was queued again, not from when it was made, days ago.
    assert (run.trace[2].at - run.trace[1].at).total_seconds() < IN_TIME_S
    assert re.fullmatch(r"started: waited (\d+ms|\d+s|\d+s\d+ms|0s)", run.trace[2].reason)


@pytest.mark.parametrize("count", [1, 7])
async def test_runs_that_a_crash_left_running_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    config = configured(tmp_path, QUICK)
    ids = [await crashed_run(config) for _ in range(count)]
    async with running(config) as engine:
        await comes_to(engine, ids[-1], RunState.SUCCEEDED)
    [told] = [record.getMessage() for record in caplog.records if vars(record).get("action") == "settled"]
    assert sum(f"{one} of job work (queued)" in told for one in ids) == min(count, 5)
    assert told.startswith(f"Settled {count} run{'s' if count > 1 else ''} that ")
    assert told.endswith(" and 2 more") is (count == 7)


async def test_a_run_that_is_not_to_be_repeated_is_failed_after_a_crash(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK.replace("[jobs.work]", '[jobs.work]\non_crash = "fail"'))
    run_id = await crashed_run(config)
    async with running(config) as engine:
        run = await comes_to(engine, run_id, RunState.FAILED)
        assert run.code == "engine_died"
        assert Gate.begun == []


# What goes wrong


async def test_a_second_engine_on_the_same_data_is_refused_and_told_whose_it_is(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK)
    async with running(config) as engine:
        with pytest.raises(StoreInUse, match=str(os.getpid())) as refused:
            await Runtime(config, registry=a_registry(), listen=False, environment={}).run()
        assert refused.value.pid == os.getpid()
        await comes_to(engine, await fire(engine, "go"), RunState.SUCCEEDED)


def causes(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


async def test_a_port_that_is_taken_fails_the_start_and_all_is_closed_and_recorded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = configured(tmp_path, BY_HAND, port=taken.getsockname()[1])
        async with running(config) as engine:
            run_id = await fire(engine, "go")
            await until(lambda: Gate.begun)
        with anyio.fail_after(IN_TIME_S):
            with pytest.raises(BaseException) as failed:  # noqa: PT011
                await Runtime(config, registry=a_registry(), environment={"ENGINE_ADMIN_TOKEN": "t" * 43}).run()
    [cause] = causes(failed.value)
    assert type(cause) is EngineError
    assert str(config.http.port) in str(cause)
    # The run that had been started from the queue meanwhile was interrupted, as at any stop.
    [run] = await stored_runs(config)
    assert (run.id, run.state, run.code) == (run_id, RunState.QUEUED, "interrupted")
    Gate.open.add("closed")
    async with running(config) as engine:
        await comes_to(engine, run_id, RunState.SUCCEEDED)


async def test_a_store_that_turns_out_damaged_ends_the_engine_and_closes_the_listener(tmp_path: Path) -> None:
    config = configured(tmp_path, BY_HAND)

    async def break_it() -> None:
        async with running(config, listen=True) as engine:
            await fire(engine, "go")
            await until(lambda: Gate.begun)
            operations(engine)._journal.fail(StoreDamaged("a page is torn"))
            await anyio.sleep_forever()

    with anyio.fail_after(IN_TIME_S), pytest.raises(BaseException) as failed:  # noqa: PT011
        await break_it()
    assert {type(cause) for cause in causes(failed.value)} == {StoreDamaged}
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", config.http.port))
    [run] = await stored_runs(config)
    assert run.state is RunState.RUNNING


class Loud(Source, frozen=True, kw_only=True):
    """Raises at once, whenever it is started."""

    name: ClassVar[str] = "loud"

    async def run(self, context: SourceContext) -> None:
        raise RuntimeError("no route to host")


def with_another(path: Path, plugin: type[Source]) -> Config:
    """Return a configuration with one more trigger, on a source of a plugin."""
    registry = a_registry()
    registry.add(plugin)
    file = path / "config.toml"
    listen = f"http.listen = '127.0.0.1:{free_port()}'\n"
    file.write_text(f"{listen}{QUICK}\n[triggers.another]\non.{plugin.name} = {{}}\njob = 'work'\n", "utf-8")
    return load([file], environment={}, registry=registry)


async def test_a_source_that_fails_keeps_nothing_from_starting_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "ROUTES_S", 3600.0)  # it has had its chance as soon as it failed
    async with running(with_another(tmp_path, Loud)) as engine:
        await comes_to(engine, await fire(engine, "go"), RunState.SUCCEEDED)
        assert operations(engine).ready() == (True, [])
        [problem] = operations(engine).unhealthy()
        assert problem.startswith("source ")
        assert problem.endswith(" failed: RuntimeError: no route to host")
        health = operations(engine).health()
        assert health["status"] == "degraded"
        assert [check["detail"] for check in health["checks"] if not check["ok"]] == [problem]


class Slow(Source, frozen=True, kw_only=True):
    """Answers at a path once its gate is open."""

    name: ClassVar[str] = "slow"

    async def run(self, context: SourceContext) -> None:
        async def answer(request: Request) -> Response:
            return Response(status=202)

        await until(lambda: "slow" in Gate.open)
        context.route("POST", "/hooks/slow", answer)
        context.ready()
        await anyio.sleep_forever()


async def test_a_source_that_starts_slowly_is_waited_for_and_its_senders_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "ROUTES_S", 0.05)
    config = with_another(tmp_path, Slow)
    url = f"http://127.0.0.1:{config.http.port}"
    async with running(config, listen=True) as engine, aiohttp.ClientSession() as client:
        async with client.get(f"{url}/ready") as answer:
            assert (answer.status, await answer.json()) == (503, {
                "ready": False,
                "waiting_for": operations(engine).unhealthy(),
                "unhealthy": operations(engine).unhealthy(),
            })  # fmt: skip
        async with client.post(f"{url}/hooks/slow") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        Gate.open.add("slow")
        await until(lambda: operations(engine).ready() == (True, []))
        async with client.post(f"{url}/hooks/slow") as answer:
            assert answer.status == 202
        async with client.post(f"{url}/hooks/other") as answer:
            assert answer.status == 404


# Those who look on


async def test_systemd_hears_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK)
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def listen() -> list[str]:
            while True:
                try:
                    said.append(listener.recv(100).decode())
                except BlockingIOError:
                    return said

        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "20000"}
        async with running(config, environment=environment):
            await until(lambda: listen().count("WATCHDOG=1") >= 3)
            assert "STOPPING=1" not in said
        listen()
    assert said[0] == "READY=1"
    assert said[-1] == "STOPPING=1"


async def test_who_waits_for_a_run_is_told_and_leaves_nothing_behind() -> None:
    changes = Changes()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(changes.wait, "run-1", 60.0)
            await anyio.wait_all_tasks_blocked()
            changes.tell("run-2")
            changes.tell("run-1")
        await changes.wait("run-3", 0.01)
    assert changes._watched == {}


async def test_one_that_stops_waiting_does_not_stop_the_others() -> None:
    changes = Changes()
    told = anyio.Event()

    async def wait() -> None:
        await changes.wait("run-1", 60.0)
        told.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await changes.wait("run-1", 0.01)
        changes.tell("run-1")
        with anyio.fail_after(5):
            await told.wait()


# The process


SERVE = "import sys; from engine.runtime import serve; sys.exit(serve(sys.argv[1:]))"


class Process:
    """`serve` in a process of its own."""

    def __init__(self, path: Path, code: str = SERVE) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ENGINE", "NOTIFY"))}
        environment |= {"PYTHONPATH": str(ROOT), "ENGINE_ADMIN_TOKEN": "t" * 43}
        self.log = path / "log.txt"
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", code], cwd=path, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8")

    async def says(self, words: str) -> None:
        await until(lambda: words in self.text or self.popen.poll() is not None, within_s=IN_TIME_S)
        assert words in self.text

    async def ends(self) -> int:
        await until(lambda: self.popen.poll() is not None, within_s=IN_TIME_S)
        code = self.popen.returncode
        assert code is not None
        return code

    def end(self) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait(10)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start processes that end with the test."""
    processes: list[Process] = []

    def begin(text: str, code: str = SERVE) -> Process:
        (tmp_path / "config.toml").write_text(text, "utf-8")
        processes.append(Process(tmp_path, code))
        return processes[-1]

    yield begin
    for process in processes:
        process.end()


Start = Callable[..., Process]


def served(port: int | None = None) -> str:
    return f"""
http.listen = "127.0.0.1:{port or free_port()}"
[engine]
shutdown_grace = "0s"
plugins = ["plugins"]
[jobs.work]
run.exec = ["true"]
[triggers.go]
on.manual = true
job = "work"
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_process_with_0(start: Start, tmp_path: Path, number: int) -> None:
    (tmp_path / "plugins").mkdir()
    process = start(served())
    await process.says("The engine runs")
    process.popen.send_signal(number)
    assert await process.ends() == 0
    assert "Stopped" in process.text


async def test_a_mistake_in_the_configuration_ends_the_process_with_2(start: Start) -> None:
    process = start("[jobs.work]\nrun.exc = ['true']\n")
    assert await process.ends() == 2
    assert "config.toml:2" in process.text
    assert "Traceback" not in process.text


async def test_a_port_that_is_taken_ends_the_process_with_1_and_a_sentence(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(served(port))
        assert await process.ends() == 1
    assert f"127.0.0.1:{port}" in process.text
    assert "Traceback" not in process.text


async def test_data_that_another_process_has_end_it_with_1_and_name_that_one(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    first = start(served())
    await first.says("The engine runs")
    second = start(served())
    assert await second.ends() == 1
    assert f"in use by process {first.popen.pid}" in second.text
    assert "Traceback" not in second.text


NEVER_STOPS = """
import anyio
from typing import ClassVar
from engine.plugin import Source, SourceContext

class Stubborn(Source, frozen=True, kw_only=True):
    name: ClassVar[str] = "stubborn"

    async def run(self, context: SourceContext) -> None:
        context.ready()
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()
"""


async def test_a_source_that_never_stops_is_named_and_the_process_ends_all_the_same(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stubborn.py").write_text(NEVER_STOPS)
    hurry = SERVE.replace("sys.exit", "import engine.runtime as r; r.STOP_HTTP_S = r.STOP_PLUGINS_S = 0.2; sys.exit")
    process = start(served() + "\n[triggers.never]\non.stubborn = {}\njob = 'work'\n", hurry)
    await process.says("The engine runs")
    process.popen.send_signal(signal.SIGTERM)
    assert await process.ends() == 1
    assert "Not stopped in time (source stubborn:" in process.text


async def test_a_stop_says_what_it_waits_for_and_that_a_second_signal_ends_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    port = free_port()
    work = '["sh", "-c", "touch began-$ENGINE_RUN_ID; sleep 60"]'
    process = start(served(port).replace('"0s"', '"1m30s"').replace('["true"]', work))
    await process.says("The engine runs")
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {'t' * 43}"}) as session:
        for _ in range(2):
            await session.post(f"http://127.0.0.1:{port}/api/v1/triggers/go/fire", json={})
    await until(lambda: len(list(tmp_path.glob("began-*"))) == 2, within_s=IN_TIME_S)
    process.popen.send_signal(signal.SIGINT)
    await process.says("Stopping: 2 runs have up to 1m30s to end; a second signal (Ctrl-C) ends them now")
    process.popen.send_signal(signal.SIGINT)
    assert await process.ends() == 128 + signal.SIGINT


async def test_a_second_signal_ends_the_process_at_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stubborn.py").write_text(NEVER_STOPS)
    process = start(served() + "\n[triggers.never]\non.stubborn = {}\njob = 'work'\n")
    await process.says("The engine runs")
    process.popen.send_signal(signal.SIGTERM)
    await process.says("Stopping")
    process.popen.send_signal(signal.SIGTERM)
    assert await process.ends() == 128 + signal.SIGTERM


# Triggers that come, pause and go


async def test_a_trigger_or_source_that_is_not_there_is_answered_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK + "[sources.orders.tap]\n[triggers.tap]\non.source = 'orders'\njob = 'work'\n")
    async with running(config) as engine:
        with pytest.raises(NotFound, match=r'there is no trigger taps; did you mean "tap"\?'):
            await fire(engine, "taps")
        with pytest.raises(NotFound, match="there is no trigger nothing-like-it; known: go, tap"):
            operations(engine).trigger_view("nothing-like-it")
        with pytest.raises(NotFound, match=r'there is no source tap:order; did you mean "tap:orders"\?'):
            operations(engine).source_view("tap:order")


async def test_a_trigger_that_can_not_be_removed_now_is_there_as_before(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK + "[triggers.tap]\non.tap = {}\njob = 'work'\n"
                        "[triggers.tick]\non.cron = '0 2 * * *'\njob = 'work'\n")  # fmt: skip
    async with running(config) as engine:
        asked = operations(engine)
        context = Tap.contexts["tap"]
        engine_journal = asked._journal
        engine_journal.failure = StoreUnavailable("the disk is full")
        for name in ("go", "tap", "tick"):
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await asked.remove_trigger(name)
        engine_journal.failure = None
        assert sorted(asked.trigger_names()) == ["go", "tap", "tick"]
        (answer,) = await context.emit(Event(type="poured"))
        assert answer.outcomes[0].trigger == "tap"
        await comes_to(engine, await fire(engine, "go"), RunState.SUCCEEDED)
        await until(lambda: asked.next_at("tick") is not None)
        await asked.remove_trigger("tick")
        assert sorted(asked.trigger_names()) == ["go", "tap"]


async def test_a_source_stops_with_its_last_trigger_also_where_who_removed_it_is_gone(tmp_path: Path) -> None:
    config = configured(tmp_path, QUICK + "[triggers.tap]\non.tap = {}\njob = 'work'\n")
    async with running(config) as engine:
        asked = operations(engine)
        [tap] = [view["name"] for view in asked.source_views() if view["plugin"] == "tap"]
        async with anyio.create_task_group() as group:
            group.start_soon(asked.remove_trigger, "tap")
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert asked.trigger_names() == ["go"]
        await until(lambda: tap not in [view["name"] for view in asked.source_views()])


class Readies(Runner, frozen=True, kw_only=True):
    """Makes itself ready ahead of its runs."""

    name: ClassVar[str] = "readies"
    ready: ClassVar[list[str]] = []

    async def prepare(self, context: PrepareContext) -> None:
        Readies.ready.append(context.job)

    async def run(self, context: RunContext) -> Outcome:
        return Outcome.succeeded("done")


async def test_a_job_that_comes_while_the_engine_runs_is_prepared_and_those_on_it_run_it(tmp_path: Path) -> None:
    async with running(configured(tmp_path, QUICK)) as engine:
        asked = operations(engine)
        asked.add_job(Job(name="late", runner=Readies()))
        asked.add_job(Job(name="off", runner=Readies(), enabled=False))
        await until(lambda: Readies.ready == ["late"])
        asked.add_job(Job(name="work", runner=Readies(), tags=("new",)))
        await until(lambda: Readies.ready == ["late", "work"])
        run = await comes_to(engine, await fire(engine, "go"), RunState.SUCCEEDED)
        assert "done" in run.reason


async def test_a_trigger_of_the_configuration_is_paused_over_http(tmp_path: Path) -> None:
    port = free_port()
    headers = {"Authorization": f"Bearer {'t' * 43}"}
    config = configured(tmp_path, QUICK, port=port)
    url = f"http://127.0.0.1:{port}/api/v1/triggers/go"
    async with running(config, listen=True), aiohttp.ClientSession(headers=headers) as client:
        async with client.post(f"{url}/pause", json={"reason": "not now", "duration": "1h"}) as answer:
            assert (answer.status, (await answer.json())["state"]) == (200, "paused")
        async with client.post(f"{url}/pause", json={"until": "2001-01-01T00:00:00Z"}) as answer:
            assert answer.status == 409
    async with running(config, listen=True), aiohttp.ClientSession(headers=headers) as client:
        async with client.post(f"{url}/fire") as answer:
            (outcome,) = (await answer.json())["outcomes"]
            assert (outcome["outcome"], outcome["code"]) == ("paused", "trigger_paused")
            assert outcome["reason"].endswith("UTC: not now")
        async with client.post(f"{url}/resume") as answer:
            assert (await answer.json())["paused"] is None
        async with client.post(f"{url}/fire") as answer:
            assert len((await answer.json())["runs"]) == 1


async def test_a_pause_of_the_engine_holds_what_waits_over_a_restart_until_it_is_over(tmp_path: Path) -> None:
    port = free_port()
    headers = {"Authorization": f"Bearer {'t' * 43}"}
    config = configured(tmp_path, QUICK, port=port)
    url = f"http://127.0.0.1:{port}/api/v1"
    async with running(config, listen=True), aiohttp.ClientSession(headers=headers) as client:
        async with client.post(f"{url}/pause", json={"reason": "move", "tag": "nobody-has-it"}) as answer:
            assert answer.status == 404
        async with client.post(f"{url}/pause", json={"reason": "move"}) as answer:
            assert (await answer.json())["triggers"] == ["go"]
        async with client.post(f"{url}/triggers/go/fire") as answer:
            assert (await answer.json())["outcomes"][0]["code"] == "engine_paused"
        async with client.get(f"{url}/triggers/go") as answer:
            shown = await answer.json()
            assert (shown["state"], shown["state_reason"]) == ("paused", "the engine is paused: move")
    async with running(config, listen=True) as engine, aiohttp.ClientSession(headers=headers) as client:
        async with client.get(f"{url}/status") as answer:
            status = await answer.json()
            assert (status["paused"]["reason"], status["paused"]["who"]) == ("move", "admin token")
        async with client.get(f"http://127.0.0.1:{port}/health") as answer:
            health = await answer.json()
            assert health["status"] == "ok"
            assert {"name": "pauses", "ok": True, "detail": "the engine is paused: move"} in health["checks"]
        dispatch = engine._dispatch
        assert dispatch is not None
        assert not dispatch.claim("new", "work", Lane.LIVE)
        async with client.post(f"{url}/resume") as answer:
            assert (await answer.json())["resumed"] is True
        async with client.post(f"{url}/triggers/go/fire") as answer:
            (run,) = (await answer.json())["runs"]
        await comes_to(engine, run, RunState.SUCCEEDED)


async def test_what_was_removed_is_forgotten_once_its_runs_have_ended(tmp_path: Path) -> None:
    async with running(configured(tmp_path, BY_HAND)) as engine:
        asked = operations(engine)
        run = await fire(engine, "go")
        await comes_to(engine, run, RunState.RUNNING)
        rule = asked._rules["go"]
        await asked.remove_trigger("go")
        assert set(asked._retired) == {"go"}
        Gate.open.add("closed")
        await comes_to(engine, run, RunState.SUCCEEDED)
        asked.add_trigger(replace(rule.trigger, name="other"))
        with pytest.raises(Conflict):
            asked.add_trigger(replace(rule.trigger, name="other"))
        await asked.remove_trigger("other")
        assert not asked._retired


async def test_the_future_is_asked_of_the_engine_as_it_is_now(tmp_path: Path) -> None:
    """Foresight knows the pauses that hold, and the interval that is in force in place of the configured one."""
    config = configured(
        tmp_path,
        """
        [jobs.bake]
        run.gate = "open"
        [triggers.often]
        on.interval = "60m"
        job = "bake"
        """,
    )
    async with running(config) as engine:
        known = operations(engine)
        await known.pause(PauseScope.TRIGGER, "often", reason="we move")
        now = known.clock.now()
        known._timers.set_interval("often", 60.0, now)
        world = known.foresight.world()
        trigger = world.triggers["often"]
        assert world.pauses["often"].reason == "we move"
        first = trigger.schedule.next(now)
        assert trigger.schedule.next(first) - first == timedelta(seconds=60)
