"""Python functions that misbehave: each is a clear outcome, harms no other run, and leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.plugin import Outcome
from engine.processes import find_marked
from engine.runs import RunState
from plugins.runners.python import pool, processes
from tests.exec_runs import Context, FastClock, lives, pids_in, until
from tests.python_runs import Desk, desk


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# What ends its process, or breaks it


@pytest.mark.parametrize(
    ("body", "code", "said", "exit_code"),
    [
        ("os._exit(0)", "process_exited", "its process exited with 0 before the function returned", 0),
        ("os._exit(7)", "process_exited", "exited with 7", 7),
        ("ctypes.string_at(0)", "signal", "its process was ended by SIGSEGV", None),
        ("os.abort()", "signal", "SIGABRT", None),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", "SIGKILL", None),
        ("os.closerange(3, 256)", "worker_lost", "closed, replaced or wrote to descriptors", None),
        ("os.closerange(3, 256); [open(os.devnull) for _ in range(9)]; globals().update(locals())",
         "worker_lost", "closed, replaced", None),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(3600)", "signal", "ended by SIGTERM", None),
        ("os.execvp('true', ['true'])", "process_exited", "exited with 0", 0),
        ("p = '/dev/fd/%d'; s = [n for n in range(3, 9) if os.path.lexists(p % n) and 'sock' in os.readlink(p % n)]; "
         "os.write(s[0], b'\\xff' * 8); time.sleep(3600)",
         "worker_lost", "wrote to descriptors", None),
    ],
)  # fmt: skip
async def test_a_function_that_breaks_its_process_fails_its_attempt_and_the_next_run_has_another(
    tmp_path: Path, body: str, code: str, said: str, exit_code: int | None
) -> None:
    source = f"def work(): {body}\ndef good(): return os.getpid()"
    async with desk(tmp_path, source) as at:
        before = await at.run("good")
        outcome = await at.run()
        after = await at.run("good")
    assert (outcome.state, outcome.code, outcome.exit_code) == (RunState.FAILED, code, exit_code)
    assert said in outcome.reason
    assert before.outputs != after.outputs
    assert after.state is RunState.SUCCEEDED


@pytest.mark.parametrize(
    "body",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.alarm(3600)",
        "os.chdir('/')",
        "os.environ['LEFT'] = 'behind'",
        "sys.path.insert(0, '/nowhere')",
        "sys.stdout.close()",
        "sys.stderr = open(os.devnull, 'w')",
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
        "subprocess.Popen(['sleep', '3600'])",
    ],
)
async def test_what_a_function_changes_is_not_there_for_the_next_one(tmp_path: Path, body: str) -> None:
    source = f"""
    def work(): {body}
    def good(): return [os.getpid(), os.getcwd(), signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN]
    """
    async with desk(tmp_path, source) as at:
        before, outcome, after = await at.run("good"), await at.run(), await at.run("good")
    assert outcome.state is after.state is RunState.SUCCEEDED
    assert before.outputs is not None
    assert after.outputs is not None
    assert before.outputs["result"][0] != after.outputs["result"][0]
    assert before.outputs["result"][1:] == after.outputs["result"][1:]


async def test_a_function_that_forks_and_comes_back_twice_has_one_outcome(tmp_path: Path) -> None:
    source = "def work():\n    pid = os.fork()\n    return pid == 0\n"
    async with desk(tmp_path, source) as at:
        outcomes = [await at.run() for _ in range(5)]
    assert outcomes == [Outcome.succeeded("returned", outputs={"result": False})] * 5


@pytest.mark.parametrize("way", ["setsid sleep 3600", "trap '' TERM; sleep 3600", "(setsid sleep 3600 &) ; sleep 3600"])
async def test_what_a_function_leaves_running_is_ended_with_it(tmp_path: Path, way: str) -> None:
    source = f"""
    def work(run):
        program = subprocess.Popen(["sh", "-c", {f"echo $$ >> pids; {way}"!r}], cwd={str(tmp_path)!r})
        while not os.path.exists({str(tmp_path / "pids")!r}): time.sleep(0.002)
        return program.pid
    """
    async with desk(tmp_path, source) as at:
        made = at.context()
        outcome = await at.attempt(made)
        assert find_marked("ENGINE_RUN_ID", {made.run_id}) == {}
        assert "left processes running" in at.logged()
    assert outcome.state is RunState.SUCCEEDED
    assert not any(map(lives, pids_in(tmp_path / "pids")))


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_what_a_process_that_ended_itself_left_is_ended_too_also_in_a_session_of_its_own(
    tmp_path: Path, end: str
) -> None:
    source = f"""
    def work(run):
        first = subprocess.Popen(["sleep", "3600"])
        second = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        with open({str(tmp_path / "pids")!r}, "w") as file: file.write(f"{{first.pid}} {{second.pid}}")
        {end}
    """
    async with desk(tmp_path, source) as at:
        await at.run()
        await until(lambda: not any(map(lives, pids_in(tmp_path / "pids"))))
        assert len(pids_in(tmp_path / "pids")) == 2


async def test_a_hundred_megabytes_of_output_stay_out_of_memory(tmp_path: Path) -> None:
    async with desk(tmp_path, "def work():\n    for _ in range(100): print('x' * 1_000_000)\n") as at:
        assert (await at.run()).state is RunState.SUCCEEDED
    assert (tmp_path / "log").stat().st_size == 100 * 1_000_001


async def test_a_function_that_blocks_holds_up_no_other_run(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = f"""
    def work():
        while not os.path.exists({str(gate)!r}): pass
    async def other(): open({str(gate)!r}, "w").close()
    """
    async with desk(tmp_path, source) as at:
        for isolate in ("process", "thread"):
            gate.unlink(missing_ok=True)
            outcomes: list[Outcome] = []

            async def one(isolate: str, outcomes: list[Outcome]) -> None:
                outcomes.append(await at.run(isolate=isolate))

            async with anyio.create_task_group() as group:
                group.start_soon(one, isolate, outcomes)
                await anyio.sleep(0.05)
                await at.run("other")
            assert [outcome.state for outcome in outcomes] == [RunState.SUCCEEDED]


# Timed out, cancelled, interrupted


async def begin_and_cancel(at: Desk, made: Context, function: str = "work", **settings: Any) -> None:
    """Run an attempt until its function has begun, then cancel it and wait for its end."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:

            async def attempt() -> None:
                await at.attempt(made, function, **settings)
                raise AssertionError("it was not cancelled")

            group.start_soon(attempt)
            await until(lambda: (at.base / "begun").exists())
            group.cancel_scope.cancel()


BEGIN = "open(os.path.join(os.path.dirname(__file__), 'begun'), 'w').close()"


async def test_a_function_in_a_process_is_interrupted_and_cleans_up(tmp_path: Path) -> None:
    source = f"""
    def work(run):
        try:
            {BEGIN}
            time.sleep(3600)
        finally:
            print("put right")
    """
    async with desk(tmp_path, source) as at:
        made = at.context()
        await begin_and_cancel(at, made)
        assert "put right" in at.logged()
        assert "RunCancelled" in at.logged()
    assert not any(map(lives, made.started))


async def test_a_function_that_looks_whether_it_is_cancelled_ends_by_itself(tmp_path: Path) -> None:
    source = f"""
    def work(run):
        while not run.cancelled:
            {BEGIN}
            time.sleep(0.002)
        print("saw it")
    """
    async with desk(tmp_path, source) as at:
        await begin_and_cancel(at, at.context())
        assert at.logged() == "saw it\n"
        (tmp_path / "begun").unlink()
        await begin_and_cancel(at, at.context(), isolate="thread")


@pytest.mark.parametrize(
    "body", ["signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.pthread_sigmask(signal.SIG_BLOCK, {15})"]
)
async def test_a_function_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path, body: str) -> None:
    source = f"""
    def work(run):
        {body}
        program = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 3600"], start_new_session=True)
        with open({str(tmp_path / "pids")!r}, "w") as file: file.write(f"{{program.pid}} {{os.getpid()}}")
        {BEGIN}
        while True: time.sleep(1)
    """
    async with desk(tmp_path, source) as at:
        made = at.context(clock=FastClock())
        await begin_and_cancel(at, made)
        assert not lives(made.started[0])
        await until(lambda: not any(map(lives, pids_in(tmp_path / "pids"))))


async def test_a_stopped_process_is_ended_too(tmp_path: Path) -> None:
    async with desk(tmp_path, f"def work(): {BEGIN}; os.kill(os.getpid(), signal.SIGSTOP)") as at:
        made = at.context(clock=FastClock())
        await begin_and_cancel(at, made)
    assert not lives(made.started[0])


async def test_an_async_function_is_cancelled_and_what_it_does_instead_does_not_count(tmp_path: Path) -> None:
    source = f"""
    async def work(run):
        {BEGIN}
        try: await asyncio.sleep(3600)
        except asyncio.CancelledError: run.log.info("cancelled: %s", run.cancelled)
        return "all the same"
    async def other(run):
        try: return await work(run)
        finally: raise ValueError("instead")
    """
    async with desk(tmp_path, source) as at:
        for function in ("work", "other"):
            (tmp_path / "begun").unlink(missing_ok=True)
            await begin_and_cancel(at, at.context(), function)
        assert at.logged().count("INFO cancelled: True") == 2


async def test_an_async_function_in_a_process_is_cancelled_within(tmp_path: Path) -> None:
    source = f"""
    async def work(run):
        {BEGIN}
        try: await asyncio.sleep(3600)
        finally: print("put right")
    """
    async with desk(tmp_path, source) as at:
        await begin_and_cancel(at, at.context(), isolate="process")
        assert "put right" in at.logged()


async def test_a_thread_keeps_its_slot_until_it_ends_and_the_log_says_so(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = f"""
    def work(run):
        {BEGIN}
        while not os.path.exists({str(gate)!r}): time.sleep(0.002)
    """
    async with desk(tmp_path, source) as at:
        ended: list[str] = []

        async def attempt() -> None:
            try:
                await at.run(isolate="thread")
            finally:
                ended.append("ended")

        async with anyio.create_task_group() as group:
            group.start_soon(attempt)
            await until(lambda: (tmp_path / "begun").exists())
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: "its run keeps its slot" in at.logged())
                assert ended == []
                gate.touch()
        assert ended == ["ended"]


async def test_an_attempt_that_is_cancelled_before_its_worker_is_there_leaves_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path, "def work(): return 1") as at:
        for _ in range(3):
            with anyio.move_on_after(0):
                await at.run(recycle=1)
        assert (await at.run(recycle=1)).state is RunState.SUCCEEDED


# The helper


async def test_when_the_helper_is_killed_its_runs_fail_and_the_next_has_another_helper(tmp_path: Path) -> None:
    async with desk(tmp_path, f"def work(): {BEGIN}; time.sleep(3600)\ndef good(): return os.getppid()") as at:
        first = await at.run("good")
        made, outcomes = at.context(), []

        async def attempt() -> None:
            outcomes.append(await at.attempt(made))

        async with anyio.create_task_group() as group:
            group.start_soon(attempt)
            await until(lambda: (tmp_path / "begun").exists())
            assert first.outputs is not None
            os.kill(first.outputs["result"], signal.SIGKILL)
        assert [(outcome.code, outcome.state) for outcome in outcomes] == [("worker_lost", RunState.FAILED)]
        await until(lambda: not lives(made.started[0]))
        second = await at.run("good")
        assert second.state is RunState.SUCCEEDED
        assert second.outputs != first.outputs


async def test_a_helper_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_S", 0.01)
    monkeypatch.setattr(processes, "STOP_S", 0.1)
    async with desk(tmp_path, f"def work(): {BEGIN}; time.sleep(3600)\ndef good(): return os.getppid()") as at:
        first = await at.run("good")
        assert first.outputs is not None
        monkeypatch.setattr(pool, "HANGS_S", 0.1)
        os.kill(first.outputs["result"], signal.SIGSTOP)
        made = at.context(clock=FastClock())
        await begin_and_cancel(at, made)
        await until(lambda: not lives(made.started[0]))
        monkeypatch.undo()
        assert (await at.run("good")).state is RunState.SUCCEEDED


async def test_an_idle_worker_that_was_killed_is_not_used(tmp_path: Path) -> None:
    async with desk(tmp_path, "def work(): return os.getpid()") as at:
        first = await at.run()
        assert first.outputs is not None
        os.kill(first.outputs["result"], signal.SIGKILL)
        assert (await at.run()).state is RunState.SUCCEEDED


async def test_the_mark_of_a_worker_is_that_of_its_run_while_it_has_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = f"""
    def work():
        program = subprocess.Popen(["sleep", "3600"])
        {BEGIN}
        while not os.path.exists({str(gate)!r}): time.sleep(0.002)
        program.kill()
        program.wait()
    def other(): pass
    """
    async with desk(tmp_path, source) as at:
        await at.run("other")
        made = at.context()
        async with anyio.create_task_group() as group:
            group.start_soon(at.attempt, made)
            await until(lambda: (tmp_path / "begun").exists())
            # The worker, and the program that it started.
            assert len(find_marked("ENGINE_RUN_ID", {made.run_id})[made.run_id]) == 2
            assert made.started[0] in find_marked("ENGINE_RUN_ID", {made.run_id})[made.run_id]
            gate.touch()
        assert find_marked("ENGINE_RUN_ID", {made.run_id}) == {}
        assert lives(made.started[0])
        # Nor does it hold the log of the run that ended.
        assert os.readlink(f"/proc/{made.started[0]}/fd/1") == os.devnull
