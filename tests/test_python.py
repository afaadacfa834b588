"""Python functions run as jobs: what they get, what becomes of what they return, and where they are called."""

from __future__ import annotations

import gc
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.plugin import BadSetting, Event, FunctionContext, Outcome, Secret
from engine.runs import RunState
from plugins.runners.python import Python, pool
from tests.exec_runs import AT, FastClock, lives, until
from tests.python_runs import desk

PLACES = pytest.mark.parametrize("isolate", ["loop", "process", "thread"])


def for_place(isolate: str, source: str) -> str:
    """Return a source whose functions suit a place: those on the loop are async."""
    return source.replace("def work", "async def work") if isolate == "loop" else source


@pytest.fixture(autouse=True)
def no_process_and_no_open_file_stays() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    new = set(os.listdir("/proc/self/fd")) - before
    assert not {name for name in new if os.path.exists(f"/proc/self/fd/{name}")}


# What a function gets


@PLACES
async def test_a_function_gets_its_run_and_returns_its_outputs(tmp_path: Path, isolate: str) -> None:
    source = """
    def work(run):
        run.output(rows=1, kept=True)
        return {"run": [run.run_id, run.job, run.trigger, run.attempt, run.scheduled_for.isoformat()],
                "event": [run.event.type, run.event.subject, run.event.key, run.event.time.isoformat()],
                "data": [run.data, [event.data for event in run.events]], "rows": 2, "cancelled": run.cancelled,
                "traceparent": run.traceparent}
    """
    async with desk(tmp_path, for_place(isolate, source)) as at:
        made = at.context({"n": 2}, attempt=3, scheduled_for=AT)
        first = Event(type="file.created", id="e1", source="files:inbox", data={"n": 1}, http={"method": "POST"})
        made.events = (first, made.event)
        outcome = await at.attempt(made, isolate=isolate)
    assert (outcome.state, outcome.code, outcome.reason) == (RunState.SUCCEEDED, "succeeded", "returned")
    assert outcome.outputs == {
        "run": [made.run_id, "import-csv", "nightly", 3, "2026-03-01T02:00:00+00:00"],
        "event": ["file.created", "a.csv", "k1", "2026-03-01T02:00:00+00:00"],
        "data": [{"n": 2}, [{"n": 1}, {"n": 2}]],
        "rows": 2, "kept": True, "cancelled": False, "traceparent": made.traceparent,
    }  # fmt: skip


@PLACES
async def test_what_an_attempt_was_given_is_gone_with_it_and_waits_for_no_collector(
    tmp_path: Path, isolate: str
) -> None:
    async with desk(tmp_path, for_place(isolate, "def work(run):\n    run.log.info('line')")) as at:
        await at.run(isolate=isolate)  # the first of all makes what stays
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                assert (await at.run(isolate=isolate)).state is RunState.SUCCEEDED
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            of_attempts = [type(one).__name__ for one in gc.garbage if isinstance(one, (FunctionContext, Event))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert of_attempts == []


async def test_what_a_worker_starts_finds_the_trace_of_its_own_run_and_never_that_of_another(tmp_path: Path) -> None:
    source = """
    def work(run):
        child = subprocess.run(["sh", "-c", "echo $TRACEPARENT"], capture_output=True, text=True)
        return {"pid": os.getpid(), "same": child.stdout.strip() == run.traceparent, "is": run.traceparent}
    """
    async with desk(tmp_path, source) as at:
        first, second = await at.run(), await at.run()
    assert first.outputs is not None
    assert second.outputs is not None
    assert first.outputs["pid"] == second.outputs["pid"]  # the worker is used again: nothing of a run stays in it
    assert first.outputs["same"] is second.outputs["same"] is True
    assert first.outputs["is"] != second.outputs["is"]


@PLACES
async def test_a_function_that_takes_nothing_gets_nothing(tmp_path: Path, isolate: str) -> None:
    async with desk(tmp_path, for_place(isolate, "def work(): return 7")) as at:
        outcome = await at.run(isolate=isolate)
    assert outcome == Outcome.succeeded("returned", outputs={"result": 7})


@PLACES
async def test_arguments_are_rendered_and_passed_by_name(tmp_path: Path, isolate: str) -> None:
    source = "def work(run, day, rows, nested, fixed=1): return [run.job, day, rows, nested, fixed]"
    arguments = {"day": "on {{ data.day }}", "rows": "{{ data.rows }}", "nested": {"a": ["{{ data.day }}", 2]}}
    data = {"day": "monday", "rows": [1, 2], "template": "{{ job }}"}
    async with desk(tmp_path, for_place(isolate, source)) as at:
        outcome = await at.run(data=data, isolate=isolate, arguments=arguments)
        assert outcome.outputs == {"result": ["import-csv", "on monday", [1, 2], {"a": ["monday", 2]}, 1]}
        missing = await at.run(data={}, isolate=isolate, arguments=arguments)
    assert (missing.state, missing.code) == (RunState.FAILED, "template_error")


@PLACES
async def test_what_is_logged_goes_to_the_runs_log(tmp_path: Path, isolate: str) -> None:
    source = """
    def work(run):
        run.log.info("a line with %d", 7)
        run.progress(0.25, "a quarter")
        run.progress(0.5, "too soon to be told")
        run.progress(1, "all")
        run.log.debug("not told")
    """
    async with desk(tmp_path, for_place(isolate, source)) as at:
        assert (await at.run(isolate=isolate)).outputs is None
        lines = [line.split(" ", 2)[2] for line in at.logged().splitlines()]
    assert lines == ["INFO a line with 7", "INFO progress 25 %: a quarter", "INFO progress 100 %: all"]


async def test_what_a_worker_process_prints_and_its_programs_write_goes_to_the_runs_log(tmp_path: Path) -> None:
    source = """
    def work(run):
        print("printed \\ud800")
        print("to error", file=sys.stderr)
        logging.getLogger("library").info("told")
        subprocess.run(["echo", "by a program"])
    """
    async with desk(tmp_path, source) as at:
        await at.run()
        lines = at.logged().splitlines()
    assert lines[:2] == ["printed \\ud800", "to error"]
    assert (lines[2].endswith("INFO told"), lines[3]) == (True, "by a program")


async def test_a_worker_process_has_the_variables_that_programs_get_and_those_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "canary")
    env = {"LEVEL": "info", "KEY": Secret("s3cret", "env KEY")}
    async with desk(tmp_path, "def work(run): return dict(os.environ)") as at:
        made = at.context()
        outcome = await at.attempt(made, env=env)
        again = await at.run(env=env)
    assert outcome.outputs is not None
    assert again.outputs is not None
    assert outcome.outputs.items() >= {"LEVEL": "info", "KEY": "s3cret", "ENGINE_RUN_ID": made.run_id}.items()
    assert "DATABASE_PASSWORD" not in outcome.outputs
    assert again.outputs["ENGINE_RUN_ID"] not in (made.run_id, "-" * 36)


async def test_a_worker_has_the_run_and_its_log_and_no_descriptor_of_the_engine(tmp_path: Path) -> None:
    source = """
    def work(run):
        links = [f"/proc/self/fd/{number}" for number in range(256)]
        return [os.readlink(link).split(":")[0] for link in links if os.path.lexists(link)]
    """
    async with desk(tmp_path, source) as at:
        outcome = await at.run()
    log = str(tmp_path / "log")
    assert outcome.outputs == {"result": ["/dev/null", log, log, "socket"]}


async def test_modules_are_found_in_the_folder_of_the_configuration_or_in_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deep.py").write_text("class Tool:\n    @staticmethod\n    def work(): return 'deep'\n")
    async with desk(tmp_path, "def work(): return 'here'") as at:
        assert (await at.run()).outputs == {"result": "here"}
        assert (await at.run("deep:Tool.work", path=(tmp_path / "lib",))).outputs == {"result": "deep"}
        missing = await at.run("deep:Tool.work")
    assert (missing.code, missing.reason) == ("import_error", "deep:Tool.work: there is no module deep")


async def test_two_modules_of_one_name_in_the_engines_process_are_not_taken_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shop.py").write_text("async def work(): return 'the other'\n")
    async with desk(tmp_path, "async def work(): return 'here'") as at:
        assert (await at.run()).outputs == {"result": "here"}
        outcome = await at.run(path=(tmp_path / "lib",))
    assert outcome.code == "import_error"
    assert "was imported from" in outcome.reason


# What becomes of what it returns or raises


@PLACES
@pytest.mark.parametrize(
    ("body", "code", "said", "outputs"),
    [
        ("return None", "succeeded", "returned", None),
        ("return [1, (2, 'x')]", "succeeded", "returned", {"result": [1, [2, "x"]]}),
        ("return {1, 2}", "bad_outputs", "holds a set, which is no JSON value", None),
        ("return {'at': __import__('datetime').datetime.now()}", "bad_outputs", "at 'at' holds a datetime", None),
        ("return {'n': float('nan')}", "bad_outputs", "NaN", None),
        ("return 2**70", "bad_outputs", "beyond 64 bits", None),
        ("a = []; a.append(a); return a", "bad_outputs", "holds itself", None),
        ("return {1: 2}", "bad_outputs", "object key 1", None),
        ("raise ValueError('no stock')", "function_raised", "raised ValueError: no stock (shop.py, line 2)", None),
        ("run.output(a=1); raise KeyError('x')", "function_raised", "KeyError: 'x'", {"a": 1}),
        ("run.output(a={1}); raise KeyError('x')", "function_raised", "KeyError: 'x'", None),
        ("raise type('Odd', (BaseException,), {})('odd')", "function_raised", "raised Odd: odd", None),
        ("raise KeyboardInterrupt", "function_raised", "raised KeyboardInterrupt", None),
        ("raise MemoryError", "out_of_memory", "ran out of memory", None),
        ("sys.exit()", "succeeded", "exited with 0", None),
        ("sys.exit(3)", "exit_code", "exited with 3", None),
        ("sys.exit('no more paper')", "exit_code", "exited with 1: no more paper", None),
        ("return asyncio.sleep(0)", "not_awaited", "returned a coroutine, of which nothing was run", None),
        ("return (n for n in [1])", "not_awaited", "returned a generator", None),
        ("run.progress(2)", "function_raised", "ValueError: 2 is no progress", None),
    ],
)
async def test_what_a_function_returns_or_raises_is_a_clear_outcome(
    tmp_path: Path, isolate: str, body: str, code: str, said: str, outputs: Any
) -> None:
    async with desk(tmp_path, for_place(isolate, f"def work(run): {body}")) as at:
        outcome = await at.run(isolate=isolate)
    assert (outcome.code, said in outcome.reason) == (code, True), outcome.reason
    assert outcome.state is (RunState.SUCCEEDED if code == "succeeded" else RunState.FAILED)
    assert _as_json(outcome.outputs) == outputs
    assert outcome.exit_code == {"exited with 0": 0, "exited with 3": 3}.get(outcome.reason, outcome.exit_code)


def _as_json(value: Any) -> Any:
    """Return outputs as they are stored: within the engine's process tuples are still tuples."""
    return json.loads(json.dumps(value))


@PLACES
async def test_the_traceback_of_what_it_raises_is_in_the_log_and_begins_in_the_users_code(
    tmp_path: Path, isolate: str
) -> None:
    source = "def work(run): deeper()\ndef deeper(): 1 / 0\n"
    async with desk(tmp_path, for_place(isolate, source)) as at:
        outcome = await at.run(isolate=isolate)
        log = at.logged()
    assert outcome.reason == "raised ZeroDivisionError: division by zero (shop.py, line 3)"
    assert log.splitlines()[1] == "Traceback (most recent call last):"
    assert log.splitlines()[2].startswith(f'  File "{tmp_path}/shop.py", line 2')
    assert log.rstrip().endswith("ZeroDivisionError: division by zero")


@PLACES
async def test_a_function_may_return_an_outcome_itself(tmp_path: Path, isolate: str) -> None:
    source = """
    from engine.plugin import Outcome
    def work(run):
        run.output(a=1)
        return Outcome.failed("no_stock", "there is none", retry_after_s=60, outputs={"b": 2})
    """
    async with desk(tmp_path, for_place(isolate, source)) as at:
        outcome = await at.run(isolate=isolate)
    assert outcome == Outcome.failed("no_stock", "there is none", retry_after_s=60, outputs={"a": 1, "b": 2})


def test_a_function_can_be_tested_with_a_context_of_ones_own() -> None:
    told: list[tuple[float, str]] = []
    run = FunctionContext(Event(type="order", data={"n": 1}), on_progress=lambda *told_of: told.append(told_of))
    run.output(a=1)
    run.progress(0.5, "half")
    assert (run.data, run.events, run.outputs, run.cancelled) == ({"n": 1}, (run.event,), {"a": 1}, False)
    assert told == [(0.5, "half")]
    with pytest.raises(ValueError, match="no progress"):
        run.progress(-1)


# Where it is called


async def test_async_functions_are_called_on_the_loop_and_plain_ones_in_a_process(tmp_path: Path) -> None:
    source = """
    async def on_loop(): return os.getpid()
    def plain(): return [os.getpid(), threading.current_thread().name]
    """
    async with desk(tmp_path, source) as at:
        made = at.context()
        on_loop = await at.run("on_loop")
        plain = await at.run("plain")
        in_thread = await at.attempt(made, "plain", isolate="thread")
        in_process = await at.run("on_loop", isolate="process")
    assert on_loop.outputs == {"result": os.getpid()}
    assert in_thread.outputs == {"result": [os.getpid(), f"run {made.run_id} import-csv"]}
    assert plain.outputs is not None
    assert plain.outputs["result"][0] != os.getpid()
    assert in_process.outputs is not None
    assert in_process.outputs["result"] != os.getpid()


async def test_a_worker_is_kept_while_it_is_clean_and_replaced_after_enough_calls(tmp_path: Path) -> None:
    async with desk(tmp_path, "def work(): return os.getpid()") as at:
        kept = [await at.run(recycle=3) for _ in range(7)]
        fresh = [await at.run(recycle=1) for _ in range(3)]
    pids = [outcome.outputs["result"] for outcome in kept if outcome.outputs]
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6]
    assert len({outcome.outputs["result"] for outcome in fresh if outcome.outputs}) >= 2


async def test_as_many_workers_as_runs_at_once(tmp_path: Path) -> None:
    source = """
    def work():
        with open("here", "a") as file: file.write(".")
        while os.path.getsize("here") < 3: time.sleep(0.002)
        return os.getpid()
    """
    source = source.replace('"here"', repr(str(tmp_path / "here")))
    async with desk(tmp_path, source) as at:
        pids: list[Any] = []

        async def one() -> None:
            pids.append((await at.run()).outputs)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
    assert len({outputs["result"] for outputs in pids}) == 3


async def test_a_module_is_imported_once_for_all_workers_unless_it_must_not_be(tmp_path: Path) -> None:
    log = tmp_path / "imports"
    source = f"open({str(log)!r}, 'a').write(f'{{os.getpid()}} ')\ndef work(): return os.getpid()"
    async with desk(tmp_path, source) as at:
        for _ in range(3):
            await at.run(recycle=1)
        # Once to see what it is, and once in the helper.
        assert len(log.read_text().split()) == 2
        outcome = await at.run(preload=False)
        assert outcome.outputs is not None
        assert log.read_text().split()[-1] == str(outcome.outputs["result"])


async def test_a_module_that_starts_threads_is_told_of_and_works_without_being_preloaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = """
    import queue
    asked, answers = queue.Queue(), queue.Queue()
    def serve():
        while True: answers.put(asked.get() + 1)
    threading.Thread(target=serve, daemon=True, name="serving").start()
    sys.stdout = open(os.devnull, "w")
    def work():
        asked.put(1)
        return answers.get(timeout=10)
    """
    async with desk(tmp_path, source) as at:
        await Python(function="shop:work").prepare(at.context())
        await until(lambda: "starts threads (serving)" in caplog.text)
        assert (await at.run(preload=False)).outputs == {"result": 2}


async def test_a_large_event_goes_to_a_worker_and_large_outputs_come_back(tmp_path: Path) -> None:
    source = "def work(run): return {'size': len(run.data['text']), 'text': run.data['text'][:900000]}"
    async with desk(tmp_path, source) as at:
        outcome = await at.run(data={"text": "x" * 3_000_000})
        assert outcome.outputs is not None
        assert (outcome.outputs["size"], len(outcome.outputs["text"])) == (3_000_000, 900_000)


async def test_outputs_without_end_fail_the_attempt_and_not_the_worker(tmp_path: Path) -> None:
    async with desk(tmp_path, "def work(run): return {'text': 'x' * run.data}") as at:
        outcome = await at.run(data=50_000_000)
        assert (outcome.code, (await at.run(data=1)).code) == ("bad_outputs", "succeeded")


async def test_a_function_that_needs_more_memory_than_it_may_have_is_told_so_and_the_next_has_it_again(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, "def work(run): return len(bytearray(run.data))") as at:
        outcome = await at.run(data=200_000_000, memory=64 * 1024 * 1024)
        assert (outcome.state, outcome.code) == (RunState.FAILED, "out_of_memory")
        assert (await at.run(data=10_000_000, memory=64 * 1024 * 1024)).outputs == {"result": 10_000_000}
        assert (await at.run(data=200_000_000)).outputs == {"result": 200_000_000}


async def test_idle_workers_are_ended_but_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The helper goes by the machine's time, and this clock is far ahead of that.
    monkeypatch.setattr(pool, "HANGS_S", math.inf)
    async with desk(tmp_path, "def work(): time.sleep(0.05); return os.getpid()") as at:
        pids: list[int] = []

        async def one() -> None:
            outcome = await at.attempt(at.context(clock=FastClock()))
            assert outcome.outputs is not None
            pids.append(outcome.outputs["result"])

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
        await until(lambda: sum(map(lives, set(pids))) == 1)
        assert (await at.run()).outputs is not None


# Its settings


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"function": "shop.work"}, "function", "names no function"),
        ({"function": "shop:"}, "function", "names no function"),
        ({"function": "../shop:work"}, "function", "names no function"),
        ({"function": "a:b", "arguments": {"not a name": 1}}, "arguments.not a name", "no name"),
        ({"function": "a:b", "env": {"ENGINE_RUN_ID": "x"}}, "env.ENGINE_RUN_ID", "set by the engine"),
        ({"function": "a:b", "env": {"A=B": "x"}}, "env.A=B", "no name of a variable"),
        ({"function": "a:b", "env": {"A": "x\0"}}, "env.A", "NUL"),
        ({"function": "a:b", "isolate": "thread", "memory": 2**30}, "memory", "there is none"),
        ({"function": "a:b", "isolate": "loop", "preload": False}, "preload", "there is none"),
    ],
)
def test_a_setting_that_is_wrong_or_would_have_no_effect_is_refused(settings: Any, field: str, said: str) -> None:
    with pytest.raises(BadSetting, match=said) as caught:
        Python(**settings)
    assert caught.value.field == field


def test_a_template_with_an_unknown_name_is_found_by_check() -> None:
    with pytest.raises(BadSetting, match="dat") as caught:
        Python(function="a:b", arguments={"x": {"y": ["{{ dat.z }}"]}}).check({"data", "event"})
    assert caught.value.field == "arguments.x"
