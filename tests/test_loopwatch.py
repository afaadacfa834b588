"""Who blocks the event loop is noticed, named and counted; who only waits is not."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from engine import loopwatch
from engine.loopwatch import LoopWatch
from engine.testing import VirtualClock
from tests.fakes import until

BLOCK_S = 0.2


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopwatch, "LOOK_S", 0.01)
    monkeypatch.setattr(loopwatch, "BLOCKED_S", 0.05)
    monkeypatch.setattr(loopwatch, "SAMPLE_S", 0.01)
    monkeypatch.setattr(loopwatch, "TROUBLE_S", 0.05)


@asynccontextmanager
async def watching() -> AsyncIterator[LoopWatch]:
    watch = LoopWatch(VirtualClock())
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
        if watch._thread is not None:
            watch._thread.join(10)


def blocks() -> None:
    """Hold the loop up until the watch has surely begun to ask, and then as long again."""
    time.sleep(BLOCK_S)


def waits_with_a_selector() -> None:
    subprocess.run([sys.executable, "-c", f"import time; time.sleep({BLOCK_S})"], capture_output=True, check=True)


def computes() -> None:
    until_s = time.monotonic() + BLOCK_S
    while time.monotonic() < until_s:
        pass


def holds_the_interpreter() -> None:
    """Be in one call of C code that does not give way to other threads."""
    re.match(r"(a+)+$", "a" * 23 + "b")


@pytest.mark.parametrize("how", [blocks, waits_with_a_selector, computes, holds_the_interpreter])
async def test_who_blocks_the_loop_is_named_with_its_place_and_stack(
    how: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def bad() -> None:
        while all(known["name"] != "source bad" for known in watch.view()["culprits"]):
            await asyncio.sleep(0.02)
            how()

    async with watching() as watch:
        with anyio.fail_after(20):
            await asyncio.create_task(bad(), name="source bad")
        # A machine that is busy with other things holds others up, too.
        [culprit] = [known for known in watch.view()["culprits"] if known["name"] == "source bad"]
        assert f"{__file__}:" in culprit["place"]
        assert culprit["place"].endswith(f" in {how.__name__}")
        assert culprit["longest_s"] >= loopwatch.BLOCKED_S
        assert "by source bad at " in (watch.problem() or "")
    record = next(record for record in caplog.records if getattr(record, "task", "") == "source bad")
    assert getattr(record, "action", None) == "loop_blocked"
    assert f"in {how.__name__}" in getattr(record, "stack", "")


async def test_a_callback_without_a_task_is_named_by_its_place() -> None:
    async with watching() as watch:
        asyncio.get_running_loop().call_later(0.02, blocks)
        await until(lambda: any(known["name"].endswith(" in blocks") for known in watch.view()["culprits"]))


async def test_a_loop_that_waits_or_works_in_small_steps_is_not_blocked() -> None:
    asked: list[int] = []

    async with watching() as watch:
        await asyncio.sleep(0.1)
        ask = watch._ask
        watch._ask = lambda: (asked.append(1), ask())[1]  # type: ignore[method-assign, func-returns-value]
        while len(asked) < 3:
            time.sleep(0.002)  # noqa: ASYNC251 - small steps are the point; the watch sees them, not only the waits between
            await asyncio.sleep(0)
        assert watch.view()["blocked"] == 0
        assert watch.problem() is None


async def test_what_takes_long_is_told_of_before_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopwatch, "LONG_S", 0.1)
    told = threading.Event()

    class Tells(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "action", "") == "loop_stuck":
                told.set()

    logging.getLogger("engine.loop").addHandler(handler := Tells())
    try:
        async with watching() as watch:
            await asyncio.sleep(0)
            # Blocked until the very record has been made: nothing else could set this.
            assert told.wait(20)
            await until(lambda: watch.view()["blocked"])
    finally:
        logging.getLogger("engine.loop").removeHandler(handler)
    actions = [getattr(record, "action", "") for record in caplog.records]
    assert actions.index("loop_stuck") < actions.index("loop_blocked")


async def test_health_tells_of_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching() as watch:
        blocks()
        await until(lambda: watch.problem())
        monkeypatch.setattr(loopwatch, "RECENT_S", 0.0)
        assert watch.problem() is None


async def test_what_is_short_is_counted_and_no_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loopwatch, "TROUBLE_S", 100.0)
    with caplog.at_level(logging.INFO):
        async with watching() as watch:
            blocks()
            await until(lambda: watch.view()["blocked"])
            assert watch.problem() is None
    assert {record.levelno for record in caplog.records if getattr(record, "action", "") == "loop_blocked"} == {
        logging.INFO
    }


async def test_culprits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopwatch, "MOST_CULPRITS", 2)
    watch = LoopWatch(VirtualClock())
    for number in range(5):
        watch._count(loopwatch.Sample(task=f"run {number}", place="p", stack=""), 1.0)
    assert {culprit["name"] for culprit in watch.view()["culprits"]} == {"run 0", "run 1", "others"}
    assert watch.view()["blocked"] == 5


FROZEN = """
import asyncio, logging, sys
from engine import loopwatch
from engine.clock import SystemClock
loopwatch.LOOK_S, loopwatch.BLOCKED_S, loopwatch.FROZEN_S = 0.01, 0.05, 0.2
logging.basicConfig(format="%(action)s", stream=sys.stdout)

async def main():
    watch = loopwatch.LoopWatch(SystemClock())
    watch.start()
    print("busy", flush=True)
    while not sys.stdin.readable() or not started():
        await asyncio.sleep(0)
    print(watch.view()["blocked"], flush=True)

def started():
    import os
    return os.path.exists("stop")

asyncio.run(main())
"""


def test_a_process_that_was_stopped_blames_nobody(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(process.pid, signal.SIGCONT)
        (tmp_path / "stop").touch()
        assert process.wait(20) == 0
        lines = process.stdout.read().splitlines()
    assert lines[-1] == "0", lines
    assert "loop_blocked" not in lines
