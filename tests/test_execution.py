"""Execution: what a runner is given, and that whatever it does becomes an outcome that can be stored."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from engine.attending import Attendant
from engine.decide.rules import Rule
from engine.events import Event
from engine.execution import LARGEST_OUTPUTS_BYTES, LONGEST_REASON, RUN_MARK, Executor
from engine.jobs import Job, RetryPolicy
from engine.plugin import Outcome, RunContext, Runner
from engine.runlogs import RunLogs
from engine.runs import Attempt, Run, RunState
from engine.shared import Shared
from engine.testing import VirtualClock
from engine.testing.store_contract.material import a_run, an_event
from engine.triggers import Trigger
from tests.organs import bench, event, trigger

Act = Callable[[RunContext], Awaitable[Any]]


class Acts(Runner, frozen=True, kw_only=True):
    """A runner that does what the test says."""

    act: Act

    async def run(self, context: RunContext) -> Outcome:
        outcome: Outcome = await self.act(context)
        return outcome


def acting(act: Act, **fields: Any) -> Job:
    return Job(name="bake", runner=Acts(act=act), **fields)


async def execute(
    path: Path, act: Act, *events: Event, run: Run | None = None, rule: Trigger | None = None,
    secrets: Collection[str] = (),
) -> Outcome:  # fmt: skip
    """Execute one attempt of a run by a runner that acts so."""
    worker = acting(act, tags=("nightly",))
    rules = {} if rule is None else {rule.name: Rule(rule, worker)}
    clock = VirtualClock()
    logs = RunLogs(path / "logs")
    executor = Executor(rules=rules, clock=clock, base=path, run_logs=logs, shared=Shared(), secrets=secrets)
    given = events or (an_event(),)
    one = run or a_run(given[0], trigger="on-grain")
    executing = asyncio.ensure_future(executor.execute(replace(one, job="bake"), worker, given, Attendant()))
    await asyncio.sleep(0)
    while not executing.done():
        await clock.advance(1)
    return await executing


def an_attempt() -> Attempt:
    """Make the record of an attempt that the engine did not outlive."""
    at = datetime(2026, 1, 5, tzinfo=UTC)
    return Attempt(
        number=1, started_at=at, finished_at=at, state=RunState.CANCELLED, code="engine_died", reason="it died",
        counted=False,
    )  # fmt: skip


async def seen(path: Path, *events: Event, run: Run | None = None, rule: Trigger | None = None) -> RunContext:
    """Return the context that a runner gets."""
    contexts: list[RunContext] = []

    async def act(context: RunContext) -> Outcome:
        contexts.append(context)
        return Outcome.succeeded("done")

    assert (await execute(path, act, *events, run=run, rule=rule)).state is RunState.SUCCEEDED
    return contexts[0]


# What a runner is given


async def test_a_runner_is_given_run_events_and_the_scope_of_its_templates(tmp_path: Path) -> None:
    first, last = an_event(data={"n": 1}), an_event(data={"n": 2})
    run = a_run(first, trigger="on-grain", attempt=1, scheduled_for=datetime(2026, 1, 5, tzinfo=UTC))
    context = await seen(tmp_path, first, last, run=run, rule=trigger(tags=("t",)))
    assert (context.run_id, context.job, context.trigger, context.attempt) == (run.id, "bake", "on-grain", 1)
    assert context.events == (first, last)
    assert context.event == last
    assert context.scheduled_for == datetime(2026, 1, 5, tzinfo=UTC)
    assert context.base == tmp_path
    assert context.marks == {RUN_MARK: run.id}
    names = context.scope.names
    assert names["data"] == {"n": 2}
    assert names["event"]["id"] == last.id
    assert (names["trigger"], names["job"]) == (
        {"name": "on-grain", "tags": ["t"]}, {"name": "bake", "tags": ["nightly"]},
    )  # fmt: skip
    assert names["now"] == VirtualClock().now()


async def test_each_event_has_its_data_as_the_trigger_merges_it(tmp_path: Path) -> None:
    rule = trigger(data={"fixed": 1}, defaults={"size": 3, "day": "{{ event.time }}", "name": "{{ data.n }}!"})
    context = await seen(tmp_path, an_event(data={"n": 1, "fixed": 9}), an_event(data={"n": 2, "size": 8}), rule=rule)
    day = "2026-01-05T11:59:58.750000Z"
    assert [each.data for each in context.events] == [
        {"n": 1, "fixed": 1, "size": 3, "day": day, "name": "1!"},
        {"n": 2, "fixed": 1, "size": 8, "day": day, "name": "2!"},
    ]  # fmt: skip
    assert context.scope.names["data"] == context.events[1].data


async def test_data_that_is_no_object_is_a_member_where_something_is_merged(tmp_path: Path) -> None:
    assert (await seen(tmp_path, an_event(data=[1]), rule=trigger())).event.data == [1]
    assert (await seen(tmp_path, an_event(data=[1]), rule=trigger(data={"a": 1}))).event.data == {"value": [1], "a": 1}
    assert (await seen(tmp_path, an_event(data=None), rule=trigger(data={"a": 1}))).event.data == {"a": 1}


async def test_a_run_whose_trigger_is_gone_gets_its_events_as_they_came(tmp_path: Path) -> None:
    one = an_event(data={"n": 1})
    context = await seen(tmp_path, one, run=a_run(one, trigger="gone"))
    assert context.events == (one,)
    assert context.scope.names["trigger"] == {"name": "gone", "tags": []}
    assert context.scope.names["data"] == {"n": 1}


async def test_a_default_that_fails_on_an_event_fails_the_attempt_and_says_which(tmp_path: Path) -> None:
    async def act(context: RunContext) -> Outcome:
        raise AssertionError("it was started")

    outcome = await execute(tmp_path, act, an_event(data={}), rule=trigger(defaults={"x": "{{ data.missing }}"}))
    assert (outcome.state, outcome.code) == (RunState.FAILED, "data_error")
    assert "default x" in outcome.reason


@pytest.mark.parametrize("again", [{"attempt": 2}, {"attempt": 1, "attempts": (an_attempt(),)}])
async def test_outputs_that_an_attempt_left_are_not_those_of_the_next(tmp_path: Path, again: dict[str, Any]) -> None:
    one = an_event()
    run = a_run(one, **again)
    stale = RunLogs(tmp_path / "logs").output_path(run.id)
    os.makedirs(os.path.dirname(stale))
    os.close(os.open(stale, os.O_CREAT))

    async def act(context: RunContext) -> Outcome:
        assert context.output_path() == stale
        return Outcome.succeeded("there" if os.listdir(os.path.dirname(stale)) else "gone")

    assert (await execute(tmp_path, act, one, run=run)).reason == "gone"


async def test_what_a_runner_prints_goes_to_the_runs_own_file(tmp_path: Path) -> None:
    async def act(context: RunContext) -> Outcome:
        descriptor = context.open_log()
        os.write(descriptor, b"hello\n")
        os.close(descriptor)
        assert not Path(context.output_path()).exists()  # noqa: ASYNC240 - a look at a file of the test
        return Outcome.succeeded(context.output_path())

    one = an_event()
    run = a_run(one)
    outcome = await execute(tmp_path, act, one, run=run)
    logs = RunLogs(tmp_path / "logs")
    assert logs.path(run.id).read_bytes() == b"hello\n"
    assert outcome.reason == logs.output_path(run.id)


@pytest.mark.parametrize("pid", [0, 1, -5, "7", True, None])
async def test_only_the_id_of_a_process_of_its_own_can_be_a_runs_process(tmp_path: Path, pid: Any) -> None:
    # The engine signals it: 0 is the engine's own group, and 1 the whole machine.
    async def act(context: RunContext) -> Outcome:
        context.process_started(pid)
        return Outcome.succeeded("done")

    outcome = await execute(tmp_path, act)
    assert (outcome.code, "no process id" in outcome.reason) == ("runner_raised", True)


# Whatever a runner does


async def test_an_outcome_is_passed_on(tmp_path: Path) -> None:
    async def act(context: RunContext) -> Outcome:
        return Outcome.failed("exit", "exit code 3", exit_code=3, outputs={"rows": 7})

    assert await execute(tmp_path, act) == Outcome.failed("exit", "exit code 3", exit_code=3, outputs={"rows": 7})


class Silent(Exception):
    """An error that can't even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unheard(BaseException):
    """An error beside the usual ones."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
        (Silent(), "Silent: a Silent that can't be shown"),
        (SystemExit(3), "SystemExit: 3"),
        (Unheard("odd"), "Unheard: odd"),
        (ExceptionGroup("several", [ValueError("one")]), "ExceptionGroup: several"),
        (asyncio.CancelledError("by itself"), "CancelledError: by itself"),
        (RuntimeError("x" * 100_000), "RuntimeError: xxx"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_what_a_runner_raises_is_a_failed_attempt(tmp_path: Path, error: BaseException, said: str) -> None:
    async def act(context: RunContext) -> Outcome:
        raise error

    outcome = await execute(tmp_path, act)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "runner_raised")
    assert outcome.reason.startswith(f"failed: the runner raised {said}")
    assert len(outcome.reason) <= LONGEST_REASON + 100
    outcome.reason.encode()


class Unprintable:
    """What can't be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class NoMapping(Mapping[str, Any]):
    """Outputs that break when they are looked at."""

    def __getitem__(self, key: str) -> Any:
        raise ValueError("a bug in a plugin")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def outcome_with(**fields: Any) -> Outcome:
    return Outcome(**{"state": RunState.SUCCEEDED, "code": "done", "reason": "done", **fields})


RUBBISH: dict[str, tuple[Any, str]] = {
    "nothing": (None, "runner_broke_contract"),
    "a truth": (True, "runner_broke_contract"),
    "what can't be shown": (Unprintable(), "runner_broke_contract"),
    "half a character": ("\ud800", "runner_broke_contract"),
    "a state that is none": (outcome_with(state="perfect"), "runner_broke_contract"),
    "a state that is not the runner's to give": (outcome_with(state=RunState.QUEUED), "runner_broke_contract"),
    "a state that can't be one": (outcome_with(state=["succeeded"]), "runner_broke_contract"),
    "a code that is a sentence": (outcome_with(code="it is done"), "runner_broke_contract"),
    "a code that is half a character": (outcome_with(code="\ud800"), "runner_broke_contract"),
    "no code": (outcome_with(code=None), "runner_broke_contract"),
    "no reason": (outcome_with(reason=None), "runner_broke_contract"),
    "an exit code that is text": (outcome_with(exit_code="1"), "runner_broke_contract"),
    "an exit code beyond all": (outcome_with(exit_code=2**63), "runner_broke_contract"),
    "outputs that are a list": (outcome_with(outputs=[1]), "bad_outputs"),
    "outputs that break": (outcome_with(outputs=NoMapping()), "bad_outputs"),
    "outputs that are no JSON": (outcome_with(outputs={"at": datetime(2026, 1, 1, tzinfo=UTC)}), "bad_outputs"),
    "outputs that are no number": (outcome_with(outputs={"n": float("nan")}), "bad_outputs"),
    "outputs without names": (outcome_with(outputs={1: 2}), "bad_outputs"),
    "outputs without end": (outcome_with(outputs={"text": "x" * LARGEST_OUTPUTS_BYTES}), "bad_outputs"),
}


@pytest.mark.parametrize("what", RUBBISH)
async def test_rubbish_is_a_failed_attempt_that_can_be_stored(tmp_path: Path, what: str) -> None:
    returned, code = RUBBISH[what]

    async def act(context: RunContext) -> Any:
        return returned

    outcome = await execute(tmp_path, act)
    assert (outcome.state, outcome.code, outcome.outputs) == (RunState.FAILED, code, None)
    outcome.reason.encode()
    assert len(outcome.reason) <= LONGEST_REASON


async def test_a_state_given_as_text_and_half_characters_in_a_reason_are_put_right(tmp_path: Path) -> None:
    async def act(context: RunContext) -> Any:
        return outcome_with(state="succeeded", reason="caf\ud800" + "x" * 5000, outputs=None)

    outcome = await execute(tmp_path, act)
    assert type(outcome.state) is RunState
    assert outcome.reason.startswith("caf\\ud800xxx")
    assert len(outcome.reason) == LONGEST_REASON


@pytest.mark.parametrize("raises", [True, False])
async def test_secrets_are_masked_in_reasons_also_where_these_are_cut(tmp_path: Path, raises: bool) -> None:
    # Found in review: the log masked what a function had raised with a secret in it, the store and the API did not.
    secret = "s3cret-of-the-shop"
    text = f"https://shop/{secret}: refused " + "x" * (LONGEST_REASON - 80) + secret * 9

    async def act(context: RunContext) -> Outcome:
        if raises:
            raise ValueError(text)
        return Outcome.failed("refused", text)

    outcome = await execute(tmp_path, act, secrets={secret})
    assert "https://shop/***: refused" in outcome.reason
    assert not any(secret[:length] in outcome.reason for length in range(6, len(secret)))


async def test_a_cancellation_that_was_asked_for_passes_through(tmp_path: Path) -> None:
    clock = VirtualClock()
    executor = Executor(rules={}, clock=clock, base=tmp_path, run_logs=RunLogs(tmp_path), shared=Shared())

    async def act(context: RunContext) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError("it never ends")

    one = an_event()
    ended: list[Outcome] = []

    async def run() -> None:
        ended.append(await executor.execute(a_run(one), acting(act), (one,), Attendant()))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await clock.advance(1)
    assert ended == []


# Within dispatch


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), SystemExit(1), ValueError("\ud800"), Unheard()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_what_one_runner_does_harms_no_other_run(tmp_path: Path, error: BaseException) -> None:
    # Found in review: an attempt that raised CancelledError by itself ended dispatch, without a word.
    gate = anyio.Event()

    async def act(context: RunContext) -> Outcome:
        await gate.wait()
        raise error

    async def waits(context: RunContext) -> Outcome:
        await gate.wait()
        return Outcome.succeeded("done")

    jobs = [acting(act, retry=RetryPolicy(attempts=1)), Job(name="weigh", runner=Acts(act=waits))]
    triggers = [trigger(), trigger("weighs", job="weigh", source="scales")]
    rules = {each.name: Rule(each, jobs[number]) for number, each in enumerate(triggers)}
    clock = VirtualClock()
    executor = Executor(rules=rules, clock=clock, base=tmp_path, run_logs=RunLogs(tmp_path), shared=Shared())
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers, execute=executor.execute, clock=clock) as desk:
        bad = await desk.emit_one(event())
        good = await desk.emit_one(event(), source="scales")
        await desk.settle()
        gate.set()
        await desk.advance(60)
        assert (await desk.run_of(bad.runs[0])).code == "runner_raised"
        assert (await desk.run_of(good.runs[0])).state is RunState.SUCCEEDED
        later = await desk.emit_one(event(), source="scales")
        await desk.settle()
        assert (await desk.run_of(later.runs[0])).state is RunState.SUCCEEDED
        assert desk.dispatch.running == 0


async def test_a_time_out_of_a_real_attempt_is_told_as_one(tmp_path: Path) -> None:
    async def act(context: RunContext) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError("it never ends")

    jobs = [acting(act, timeout_s=5.0)]
    clock = VirtualClock()
    executor = Executor(rules={}, clock=clock, base=tmp_path, run_logs=RunLogs(tmp_path), shared=Shared())
    async with bench(tmp_path / "s.db", jobs=jobs, execute=executor.execute, clock=clock) as desk:
        answer = await desk.emit_one(event())
        await desk.advance(4.9)
        assert (await desk.run_of(answer.runs[0])).state is RunState.RUNNING
        await desk.advance(1)
        assert (await desk.run_of(answer.runs[0])).state is RunState.TIMED_OUT
