"""The kit for authors: the harness for sources, the check of timers, and the one attempt of a runner."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.plugin import (
    BadSetting,
    Event,
    InvalidEvent,
    Outcome,
    PluginError,
    Refusal,
    Request,
    Response,
    RunContext,
    Runner,
    Source,
    SourceContext,
    StoreUnavailable,
    Timer,
)
from engine.runs import RunState
from engine.testing import SourceHarness, VirtualClock, check_timer, load_plugin, run_once
from engine.testing.clock import START
from plugins.runners.exec import Exec
from plugins.timers.cron import Cron

ROOT = Path(__file__).parent.parent


def test_the_kit_needs_no_pytest() -> None:
    program = "import sys, engine.testing; print('pytest' in sys.modules, '_pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# Sources


class Counts(Source, frozen=True, kw_only=True):
    """Emits numbers, one a second, and remembers how far it came."""

    name = "counts"
    safely: bool = True
    most: int = 1_000

    async def run(self, context: SourceContext) -> None:
        number = await context.cursor() or 0
        context.ready()
        async for _ in context.every(1):
            number += 1
            if number > self.most:
                raise RuntimeError("no more numbers")
            if self.safely:
                await context.emit(Event(type="number", data=number), cursor=number)
            else:  # a bug that only a crash shows: two commits, and no key
                await context.emit(Event(type="number", data=number))
                await context.emit(cursor=number)


def numbers(harness: SourceHarness) -> list[Any]:
    return [event.data for event in harness.events]


async def test_a_source_works_in_virtual_time_and_what_it_emits_is_seen() -> None:
    async with SourceHarness(Counts()) as harness:
        assert numbers(harness) == [1]
        await harness.advance(5)
        assert numbers(harness) == [1, 2, 3, 4, 5, 6]
        assert harness.cursor == 6
        assert harness.events[-1].time == START + timedelta(seconds=5)
        assert harness.context.state.view()["events"] == 6


async def test_a_source_that_is_killed_goes_on_where_the_store_is() -> None:
    async with SourceHarness(Counts()) as harness:
        await harness.advance(2)
        await harness.crash()
        await harness.advance(1)
        await harness.crash_before_answer()
        await harness.restart()
        await harness.advance(1)
        assert numbers(harness) == list(range(1, len(harness.events) + 1))
        assert harness.cursor == len(harness.events) >= 6


async def test_a_bug_that_only_a_crash_shows_is_shown() -> None:
    async with SourceHarness(Counts(safely=False)) as harness:
        await harness.crash_before_answer()
        await harness.advance(0.5)
        assert numbers(harness) == [1, 2, 2]


async def test_nothing_that_a_killed_source_still_says_comes_in() -> None:
    class Clings(Source, frozen=True, kw_only=True):
        name = "clings"

        async def run(self, context: SourceContext) -> None:
            context.ready()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await context.emit(Event(type="last words"))

    async with SourceHarness(Clings()) as harness:
        await harness.crash()
        assert harness.events == []
        # One that is stopped in order may say what it has to.
        await harness.restart()
        assert [event.type for event in harness.events] == ["last words"]


async def test_what_the_source_raises_is_raised_by_what_the_test_waits_with() -> None:
    with pytest.raises(RuntimeError, match="no more numbers"):
        async with SourceHarness(Counts(most=2)) as harness:
            await harness.advance(5)
    with pytest.raises(RuntimeError, match="no more numbers"):
        async with SourceHarness(Counts(most=0)):
            pass


async def test_a_failure_that_is_expected_can_be_waited_for() -> None:
    async with SourceHarness(Counts(most=2)) as harness:
        assert str(await harness.failure()) == "no more numbers"
        assert numbers(harness) == [1, 2]


async def test_a_source_that_ends_by_itself_fails_its_test() -> None:
    class Brief(Source, frozen=True, kw_only=True):
        name = "brief"

        async def run(self, context: SourceContext) -> None:
            context.ready()

    with pytest.raises(AssertionError, match="ended by itself"):
        async with SourceHarness(Brief()) as harness:
            await harness.advance(1)


async def test_a_store_that_is_away_is_that_for_the_block() -> None:
    async with SourceHarness(Counts()) as harness:
        with harness.store_away():
            assert isinstance(await harness.failure(), StoreUnavailable)
        await harness.restart()
        await harness.advance(1)
        assert numbers(harness) == [1, 2, 3]


async def test_the_checks_are_those_of_the_engine() -> None:
    class Junk(Source, frozen=True, kw_only=True):
        name = "junk"
        act: Callable[[SourceContext], Any]

        async def run(self, context: SourceContext) -> None:
            context.ready()
            await context.clock.sleep(1)
            await self.act(context)
            await anyio.sleep_forever()

    for act in (
        lambda context: context.emit(Event(type="engine.mine")),
        lambda context: context.emit(Event(type="x", data="y" * 200)),
        lambda context: context.emit(Event(type="x", time=datetime(2026, 1, 1))),  # noqa: DTZ001
        lambda context: context.emit(Event(type="x"), cursor=float("nan")),
    ):
        async with SourceHarness(Junk(act=act), max_data=100) as harness:
            assert isinstance(await harness.failure(), InvalidEvent)
            assert harness.events == []


class Asks(Source, frozen=True, kw_only=True):
    """Emits what is sent to it, and answers how its run ended."""

    name = "asks"

    async def run(self, context: SourceContext) -> None:
        async def handle(request: Request) -> Response:
            if not request.body:
                raise Refusal(400, "Bad Request", "there is nothing in it")
            if request.body == b"junk":
                return Response(body=(await context.reject(Event(type="junk"), "it is junk")).event)
            [answer] = await context.emit(Event(type="asked", key=request.query.get("key")), remember={"last": "a"})
            context.warn("one is asking")
            [end] = await context.settled(answer)
            return Response(body={"state": end.state, "duplicate": answer.duplicate})

        context.route("POST", "/hooks/ask", handle)
        context.ready()
        await anyio.sleep_forever()


async def test_routes_rejections_memory_warnings_and_the_ends_of_runs_can_be_tested() -> None:
    async with SourceHarness(Asks()) as harness:
        answers: list[Response] = []

        async def ask() -> None:
            answers.append(await harness.request("POST", "/hooks/ask", b"x", query={"key": "k"}))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await harness.until(lambda: harness.events)
            assert answers == []
            harness.settle("k", RunState.FAILED)
        assert answers[0].body == {"state": RunState.FAILED, "duplicate": False}
        assert (harness.memory, harness.warnings) == ({"last": "a"}, ["one is asking"])
        refused = await harness.request("POST", "/hooks/ask")
        assert (refused.status, refused.body["detail"]) == (400, "there is nothing in it")
        await harness.request("POST", "/hooks/ask", b"junk")
        [(event, reason)] = harness.rejected
        assert (event.type, reason) == ("junk", "it is junk")


# Folders


def test_a_plugin_of_a_folder_is_loaded_or_it_is_said_why_not(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("\n1/0")
    assert load_plugin(ROOT / "examples" / "plugins", "lines").__name__ == "Lines"
    with pytest.raises(PluginError, match=r"can't be used: can't be imported: ZeroDivisionError.*line 2"):
        load_plugin(tmp_path, "bad")
    with pytest.raises(PluginError, match="there is no plugin exec in"):
        load_plugin(tmp_path, "exec")


# Timers

INSTANTS = [START + timedelta(hours=5 * number, seconds=number % 61) for number in range(500)]


@pytest.mark.parametrize("expression", ["*/5 * * * *", "30 2 * * *", "0 0 29 2 *", "15 30 */6 * * *"])
def test_a_timer_that_agrees_with_itself_passes_with_its_due_instants(expression: str) -> None:
    due = check_timer(Cron(expression=expression, timezone="Europe/Berlin"), INSTANTS)
    assert due == sorted(set(due))
    assert len(due) >= 2


def test_instants_that_are_due_themselves_pass_too() -> None:
    assert len(check_timer(Cron(expression="0 * * * *"), [START + timedelta(hours=n) for n in range(10)])) == 12


class Bad(Timer, frozen=True, kw_only=True):
    """A timer that is due each hour, but for one fault."""

    name = "bad"
    fault: str

    def next(self, after: datetime) -> datetime | None:
        due = after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        if self.fault == "naive":
            return due.replace(tzinfo=None)
        if self.fault == "skips" and due.hour == 3:
            return due + timedelta(hours=1)
        return after if self.fault == "stands" else due

    def previous(self, before: datetime) -> datetime | None:
        if self.fault == "impure":
            return before - timedelta(seconds=int.from_bytes(os.urandom(4)) + 1)
        due = (before - timedelta(microseconds=1)).replace(minute=0, second=0, microsecond=0)
        return due - timedelta(minutes=1) if self.fault == "apart" else due

    def count(self, after: datetime, upto: datetime) -> int:
        return super().count(after, upto) + (self.fault == "miscounts")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("naive", "no aware instant"),
        ("stands", "not later"),
        ("impure", "a timer is pure"),
        ("skips", "it was said to be due"),
        ("apart", "it was said to be due"),
        ("miscounts", r"count\(.* is \d, not \d: what is due at the later one is counted"),
    ],
)
def test_a_timer_that_does_not_is_told_where(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_timer(Bad(fault=fault), INSTANTS)


def test_the_timer_without_a_fault_passes() -> None:
    assert len(check_timer(Bad(fault="none"), INSTANTS)) > 100


# Runners


class Echo(Runner, frozen=True, kw_only=True):
    """Says what it was given."""

    name = "echo"
    fault: str = ""

    async def run(self, context: RunContext) -> Outcome:
        if self.fault == "raises":
            raise RuntimeError("a bug")
        if self.fault == "hangs":
            await anyio.sleep_forever()
        if self.fault == "wrong":
            return "done"  # type: ignore[return-value]
        os.write(descriptor := context.open_log(), f"{context.event.data} {context.attempt}\n".encode())
        os.close(descriptor)
        context.process_started(4321)
        return Outcome.succeeded("done", outputs={"count": len(context.events), "job": context.job})


async def test_an_attempt_is_executed_as_the_engine_does_and_its_log_and_outputs_are_there() -> None:
    result = await run_once(Echo(), data={"n": 1}, attempt=2, job="bake")
    assert result.outcome.state is RunState.SUCCEEDED
    assert (result.log, result.outputs, result.processes) == ("{'n': 1} 2\n", {"count": 1, "job": "bake"}, (4321,))
    several = await run_once(Echo(), events=[Event(type="a", data=1), Event(type="b", data=2)])
    assert (several.log, several.outputs["count"]) == ("2 1\n", 2)


@pytest.mark.parametrize(("fault", "code"), [("raises", "runner_raised"), ("wrong", "runner_broke_contract")])
async def test_what_a_runner_does_wrong_is_the_outcome_that_the_engine_would_record(fault: str, code: str) -> None:
    assert (await run_once(Echo(fault=fault))).outcome.code == code


async def test_a_call_that_is_cancelled_cancels_the_runner() -> None:
    with anyio.move_on_after(0.01) as scope:
        await run_once(Echo(fault="hangs"))
    assert scope.cancelled_caught


async def test_a_built_in_runner_can_be_run_once_too(tmp_path: Path) -> None:
    command = ("sh", "-c", "pwd; echo rows=7 >> $ENGINE_OUTPUT", "sh", "{{ data.name }}")
    result = await run_once(Exec(command=command), data={"name": "x"}, base=tmp_path)
    assert (result.log, result.outputs) == (f"{tmp_path}\n", {"rows": "7"})
    with pytest.raises(BadSetting):
        await run_once(Exec(command=("echo", "{{ nothing.there }}")))


async def test_only_one_way_to_give_events_is_taken() -> None:
    with pytest.raises(PluginError, match="one of them"):
        await run_once(Echo(), data=1, event=Event(type="x"))


async def test_only_a_virtual_clock_can_be_advanced() -> None:
    from engine.clock import SystemClock

    async with SourceHarness(Counts(), clock=SystemClock()) as harness:
        with pytest.raises(TypeError):
            await harness.advance(1)
    assert isinstance(VirtualClock(), VirtualClock)
