"""What follows from the end of a run: in the same commit, whatever store, limits, windows and plugins do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.rules import Rule
from engine.errors import InvalidEvent, StoreUnavailable
from engine.events import Event, EventOutcome
from engine.jobs import Job, RetryPolicy
from engine.plugin import Outcome, RunEnd, Source, SourceContext
from engine.runs import OUTCOMES, Origin, Run, RunState, Step
from engine.store.base import EventFilter, RunFilter, StoredEvent
from engine.store.changes import End, Finish
from engine.triggers import Debounce, Trigger
from tests.organs import Bench, bench, event, job, trigger


class Follows(Source, frozen=True, kw_only=True):
    """Follows the ends of one job's runs."""

    follows_runs = True
    job: str = "bake"
    outcomes: frozenset[RunState] = OUTCOMES

    def follows(self, end: RunEnd) -> bool:
        asked.append(end)
        return end.job == self.job and end.outcome in self.outcomes

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Raises(Follows, frozen=True, kw_only=True):
    """A source with a fault."""

    def follows(self, end: RunEnd) -> bool:
        raise KeyError("oven")


asked: list[RunEnd] = []


@pytest.fixture(autouse=True)
def _nobody_was_asked() -> None:
    asked.clear()


def following(name: str = "after", **fields: Any) -> Trigger:
    """Make a trigger of the job `sell` on the ends of `bake`."""
    return trigger(name, **{"job": "sell", "source": "ends", "on": Follows(), **fields})


@asynccontextmanager
async def bakery(
    path: Path, *more: Trigger, source: Source | None = None, bake: Job | None = None,
    act: Callable[[Run, Job], Awaitable[Outcome]] | None = None, **fields: Any,
) -> AsyncIterator[Bench]:  # fmt: skip
    """Run a small engine that bakes on an event, and sells when it has baked."""
    jobs = (bake or job("bake", tags=("oven",)), job("sell"))
    triggers = (trigger(), *(more or (following(),)))
    async with bench(
        path, jobs=jobs, triggers=triggers, following=[("ends", source or Follows())], act=act, **fields
    ) as desk:
        yield desk


async def ends_in(desk: Bench) -> list[StoredEvent]:
    """Return the events of runs' ends, the oldest first."""
    found = await desk.store.events(EventFilter(source="job:bake"), limit=100)
    return found[::-1]


async def runs_of(desk: Bench, name: str) -> list[Run]:
    return (await desk.store.runs(RunFilter(triggers=frozenset({name})), limit=100))[::-1]


def fails_with(code: str) -> Callable[[Run, Job], Awaitable[Outcome]]:
    async def act(run: Run, job: Job) -> Outcome:
        return Outcome.failed(code, "burnt", exit_code=3) if run.job == "bake" else Outcome.succeeded("done")

    return act


async def test_a_run_s_end_is_an_event_with_what_became_of_it(tmp_path: Path) -> None:
    async def act(run: Run, job: Job) -> Outcome:
        await desk.clock.sleep(2)
        return Outcome.succeeded("exited with 0", exit_code=0, outputs={"loaves": 3})

    async with bakery(tmp_path / "e.db", act=act) as desk:
        answer = await desk.emit_one(event())
        await desk.advance(2)
        (stored,) = await ends_in(desk)
        (baked,) = answer.runs
        run = await desk.run_of(baked)
        assert stored.event.type == "engine.run.succeeded"
        assert (stored.event.subject, stored.event.key, stored.event.time) == (baked, baked, run.finished_at)
        assert stored.event.data == {
            "job": "bake", "outcome": "succeeded", "outputs": {"loaves": 3}, "outputs_left_out": None, "run": baked,
            "trigger": "on-grain", "origin": "event", "code": "succeeded", "reason": "exited with 0", "exit_code": 0,
            "attempts": 1, "duration_s": 2.0, "event": answer.event, "scheduled_for": None,
        }  # fmt: skip
        (outcome,) = stored.outcomes
        assert (outcome.trigger, outcome.outcome) == ("after", EventOutcome.RUN)
        (sold,) = await runs_of(desk, "after")
        assert (outcome.run, sold.job, sold.origin) == (sold.id, "sell", Origin.EVENT)
        assert sold.trace[0].reason == f"matched: run {baked} of job bake succeeded; waits for a slot"
        assert desk.script.events[sold.id] == (stored.event,)
        await desk.advance(2)
        assert (await desk.run_of(sold.id)).state is RunState.SUCCEEDED
        assert (await desk.store.ledger()).missing == ()


async def test_the_end_and_what_follows_are_one_change(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db") as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        finishes = [change for change in desk.store.changes if isinstance(change, Finish) and change.run == baked]
        (sold,) = await runs_of(desk, "after")
        (finish,) = finishes
        assert finish.then is not None
        assert [run.id for run in finish.then.entries[0].runs] == [sold.id]
        # What nobody follows is a plain change, and no event.
        (plain,) = [change for change in desk.store.changes if isinstance(change, Finish) and change.run == sold.id]
        assert plain.then is None
        assert len(await desk.store.events(EventFilter(), limit=10)) == 2


async def test_each_kind_of_end_is_asked_for_once(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db") as desk:
        for _ in range(3):
            await desk.emit_one(event())
            await desk.settle()
        baked = RunEnd(job="bake", trigger="on-grain", outcome=RunState.SUCCEEDED, tags=frozenset({"oven"}))
        sold = RunEnd(job="sell", trigger="after", outcome=RunState.SUCCEEDED)
        assert asked == [baked, sold]
        assert len(await runs_of(desk, "after")) == 3


async def test_an_attempt_that_is_tried_again_is_no_end(tmp_path: Path) -> None:
    retried = job("bake", retry=RetryPolicy(attempts=3, delay_s=5, factor=1, jitter=0))
    async with bakery(tmp_path / "e.db", bake=retried, act=fails_with("burnt")) as desk:
        await desk.emit_one(event())
        await desk.advance(5)
        assert await ends_in(desk) == []
        await desk.advance(5)
        (stored,) = await ends_in(desk)
        assert stored.event.type == "engine.run.failed"
        assert isinstance(stored.event.data, dict)
        assert stored.event.data["attempts"] == 3
        assert (stored.event.data["code"], stored.event.data["exit_code"]) == ("burnt", 3)


async def test_a_time_out_is_an_end_and_an_interruption_is_none(tmp_path: Path) -> None:
    async def act(run: Run, job: Job) -> Outcome:
        if run.job == "bake":
            await anyio.sleep_forever()
        return Outcome.succeeded("done")

    async with bakery(tmp_path / "e.db", bake=job("bake", timeout_s=10), act=act) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.advance(10)
        (stored,) = await ends_in(desk)
        assert stored.event.type == "engine.run.timed_out"
        (sold,) = await runs_of(desk, "after")
        assert sold.trace[0].reason.startswith(f"matched: run {baked} of job bake timed out")
        (second,) = (await desk.emit_one(event())).runs
        await desk.settle()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.dispatch.drain, 0.0)
            await desk.settle()
        assert (await desk.run_of(second)).state is RunState.QUEUED
        assert len(await ends_in(desk)) == 1


async def test_only_the_outcomes_that_a_source_names_are_followed(tmp_path: Path) -> None:
    source = Follows(outcomes=frozenset({RunState.FAILED}))
    async with bakery(tmp_path / "e.db", following(on=source), source=source) as desk:
        await desk.emit_one(event())
        await desk.settle()
        assert await ends_in(desk) == []
        desk.script.act = fails_with("burnt")
        await desk.emit_one(event())
        await desk.settle()
        assert [stored.event.type for stored in await ends_in(desk)] == ["engine.run.failed"]


async def test_filters_windows_and_switches_hold_for_ends_as_for_any_event(tmp_path: Path) -> None:
    triggers = (
        following("filtered", filter="data.outputs.loaves > 5"),
        following("gathered", debounce=Debounce(wait_s=10)),
        following("off", enabled=False),
    )

    async def act(run: Run, job: Job) -> Outcome:
        return Outcome.succeeded("done", outputs={"loaves": 3})

    async with bakery(tmp_path / "e.db", *triggers, act=act) as desk:
        for _ in range(2):
            await desk.emit_one(event())
            await desk.settle()
        first, second = await ends_in(desk)
        assert [(one.trigger, one.code) for one in first.outcomes] == [
            ("filtered", "filter_false"), ("gathered", "debounce"), ("off", "trigger_disabled"),
        ]  # fmt: skip
        assert [one.outcome for one in second.outcomes][1] is EventOutcome.JOINED
        await desk.advance(10)
        (gathered,) = await runs_of(desk, "gathered")
        assert gathered.state is RunState.SUCCEEDED
        assert desk.script.events[gathered.id] == (first.event, second.event)
        assert await runs_of(desk, "filtered") == await runs_of(desk, "off") == []
        assert (await desk.store.ledger()).missing == ()


async def test_the_event_of_a_gathered_run_s_end_names_its_latest_event(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    jobs = (job("bake"), job("sell"))
    triggers = (trigger(debounce=Debounce(wait_s=5)), following())
    async with bench(path, jobs=jobs, triggers=triggers, following=[("ends", Follows())]) as desk:
        await desk.emit_one(event())
        last = await desk.emit_one(event())
        await desk.advance(5)
        (stored,) = await ends_in(desk)
        assert isinstance(stored.event.data, dict)
        assert stored.event.data["event"] == last.event


async def test_with_one_slot_what_follows_takes_it_after_what_it_follows(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db", concurrency=1) as desk:
        for _ in range(3):
            await desk.emit_one(event())
        await desk.advance(1)
        assert desk.script.most == 1
        assert {run.state for run in await desk.store.runs(RunFilter(), limit=10)} == {RunState.SUCCEEDED}
        assert len(await runs_of(desk, "after")) == 3


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("outputs", "why"), [({"text": "x" * 2000}, "an event's data is at most"), ({"deep": nested(63)}, "deep")]
)
async def test_outputs_that_no_event_can_hold_are_left_out_and_the_run_ends(
    tmp_path: Path, outputs: dict[str, Any], why: str
) -> None:
    async def act(run: Run, job: Job) -> Outcome:
        return Outcome.succeeded("done", outputs=outputs)

    async with bakery(tmp_path / "e.db", act=act, max_data_bytes=1000) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        run = await desk.run_of(baked)
        assert (run.state, run.outputs) == (RunState.SUCCEEDED, outputs)
        (stored,) = await ends_in(desk)
        assert isinstance(stored.event.data, dict)
        assert stored.event.data["outputs"] is None
        assert why in stored.event.data["outputs_left_out"]
        assert len(await runs_of(desk, "after")) == 1


async def test_a_limit_that_holds_not_even_the_rest_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db", max_data_bytes=10) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        assert (await desk.run_of(baked)).state is RunState.SUCCEEDED
        assert len(await runs_of(desk, "after")) == 1


async def test_an_end_waits_with_what_follows_until_the_store_is_back(tmp_path: Path) -> None:
    held = anyio.Event()

    async def act(run: Run, job: Job) -> Outcome:
        if run.job == "bake":
            await held.wait()
        return Outcome.succeeded("done")

    async with bakery(tmp_path / "e.db", act=act) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        held.set()
        await desk.advance(20)
        assert (await desk.run_of(baked)).state is RunState.RUNNING
        assert desk.dispatch.running == 0
        desk.store.write_error = None
        await desk.advance(20)
        assert (await desk.run_of(baked)).state is RunState.SUCCEEDED
        (sold,) = await runs_of(desk, "after")
        assert sold.state is RunState.SUCCEEDED
        assert len(await ends_in(desk)) == 1


async def test_a_stop_while_the_store_is_away_does_not_wait_for_what_follows(tmp_path: Path) -> None:
    path, held = tmp_path / "e.db", anyio.Event()

    async def act(run: Run, job: Job) -> Outcome:
        if run.job == "bake":
            await held.wait()
        return Outcome.succeeded("done")

    async with bakery(path, act=act) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        held.set()
        await desk.settle()
        with anyio.fail_after(5):
            await desk.dispatch.drain(0.0)
            desk.dispatch.stop()
        assert (await desk.run_of(baked)).state is RunState.RUNNING
        assert await ends_in(desk) == []


async def test_what_would_join_a_window_that_was_never_stored_is_decided_anew(tmp_path: Path) -> None:
    held = anyio.Event()

    async def act(run: Run, job: Job) -> Outcome:
        if run.job == "bake":
            await held.wait()
        return Outcome.succeeded("done")

    gathering = following("gathered", debounce=Debounce(wait_s=60))
    async with bakery(tmp_path / "e.db", gathering, act=act) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        # A window is opened by an event that the store then refuses; the run's end comes in between and joins it.
        gate = desk.store.hold = anyio.Event()
        desk.store.write_error = StoreUnavailable("the disk is full")
        async with anyio.create_task_group() as group:

            async def refused() -> None:
                with pytest.raises(StoreUnavailable):
                    await desk.emit(event(), source="ends")

            group.start_soon(refused)
            await desk.settle()
            assert len(desk.windows) == 1
            held.set()
            await desk.settle()
            gate.set()
            desk.store.hold = None
        desk.store.write_error = None
        await desk.advance(10)
        assert (await desk.run_of(baked)).state is RunState.SUCCEEDED
        (gathered,) = await runs_of(desk, "gathered")
        assert gathered.state is RunState.PENDING
        await desk.advance(60)
        assert (await desk.run_of(gathered.id)).state is RunState.SUCCEEDED
        assert len(desk.windows) == 0


async def test_an_end_that_can_not_be_is_told_once_and_nothing_follows(tmp_path: Path) -> None:
    held = anyio.Event()

    async def act(run: Run, job: Job) -> Outcome:
        await held.wait()
        return Outcome.succeeded("done")

    async with bakery(tmp_path / "e.db", act=act) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        raw = desk.store._writer
        assert raw is not None
        await raw.execute("update runs set state = 'cancelled', boot = null where id = ?", (baked,))
        held.set()
        await desk.settle()
        assert await ends_in(desk) == []
        assert desk.dispatch.running == 0


async def test_a_run_that_ends_before_it_starts_is_an_end_too(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db", bake=job("bake", enabled=True, concurrency=1)) as desk:
        held = anyio.Event()

        async def act(run: Run, job: Job) -> Outcome:
            if run.job == "bake":
                await held.wait()
            return Outcome.succeeded("done")

        desk.script.act = act
        await desk.emit_one(event())
        (waiting,) = (await desk.emit_one(event())).runs
        step = Step(at=desk.clock.now(), state=RunState.CANCELLED, code="by_hand", reason="cancelled: nobody is hungry")
        run = await desk.run_of(waiting)
        await desk.intake.finish(run, End(run=waiting, step=step))
        desk.dispatch._line.front.remove("bake", waiting)
        await desk.settle()
        (stored,) = await ends_in(desk)
        assert stored.event.type == "engine.run.cancelled"
        assert isinstance(stored.event.data, dict)
        assert (stored.event.data["attempts"], stored.event.data["duration_s"]) == (0, None)
        (sold,) = await runs_of(desk, "after")
        assert sold.trace[0].reason.startswith(f"matched: run {waiting} of job bake was cancelled")
        held.set()
        await desk.settle()


async def test_a_source_that_raises_is_not_told_and_the_run_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bakery(tmp_path / "e.db", source=Raises()) as desk:
        (baked,) = (await desk.emit_one(event())).runs
        await desk.settle()
        assert (await desk.run_of(baked)).state is RunState.SUCCEEDED
        assert await ends_in(desk) == []
        assert "KeyError" in caplog.text


async def test_ends_can_not_be_sent_from_outside(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db", own_sources=frozenset({"job"})) as desk:
        with pytest.raises(InvalidEvent, match="engine's own"):
            await desk.intake.hear([Event(type="engine.run.succeeded", source="somebody")])
        with pytest.raises(InvalidEvent, match="engine's own"):
            await desk.intake.hear([Event(type="order", source="job:bake", key="k")])


async def test_every_end_has_its_one_follow_up_among_many(tmp_path: Path) -> None:
    async with bakery(tmp_path / "e.db", concurrency=3) as desk:
        answers = await desk.emit(*(event(key=str(number)) for number in range(50)))
        await desk.advance(5)
        baked = {run for answer in answers for run in answer.runs}
        ends = await ends_in(desk)
        assert {stored.event.key for stored in ends} == baked
        assert len(ends) == 50
        sold = await runs_of(desk, "after")
        assert len({run.event for run in sold}) == len(sold) == 50
        ledger = await desk.store.ledger()
        assert (ledger.missing, ledger.waiting) == ((), 0)


# Triggers and jobs that come and go


def late(name: str = "late", **fields: Any) -> Rule:
    return Rule(following(name, **fields), job("sell"))


async def sold(desk: Bench) -> list[str | None]:
    """Bake once; return who met the end of that."""
    await desk.emit(event())
    await desk.settle()
    found = await ends_in(desk)
    return [outcome.trigger for outcome in found[-1].outcomes] if found else []


async def test_a_trigger_follows_from_its_coming_to_its_going(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=(job("bake"), job("sell")), triggers=(trigger(),)) as desk:
        assert await sold(desk) == []
        desk.intake.add(late())
        assert await sold(desk) == ["late"]
        desk.intake.add(late("more"))
        assert await sold(desk) == ["late", "more"]
        desk.intake.remove("late")
        assert await sold(desk) == ["more"]
        desk.intake.remove("more")
        await sold(desk)
        assert len(await ends_in(desk)) == 3


async def test_another_version_of_a_trigger_follows_what_it_says_now(tmp_path: Path) -> None:
    async with bakery(tmp_path / "s.db") as desk:
        assert await sold(desk) == ["after"]
        desk.intake.add(late("after", on=Follows(job="grind"), source="other ends"))
        await sold(desk)
        assert len(await ends_in(desk)) == 1
        desk.intake.add(late("after"))
        assert await sold(desk) == ["after"]


async def test_a_source_with_disabled_triggers_alone_is_not_followed(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=(job("bake"), job("sell")), triggers=(trigger(),)) as desk:
        desk.intake.add(late("off", enabled=False))
        assert await sold(desk) == []
        desk.intake.add(late("on"))
        assert await sold(desk) == ["off", "on"]
        desk.intake.remove("on")
        await sold(desk)
        assert len(await ends_in(desk)) == 1


class Tagged(Follows, frozen=True, kw_only=True):
    """Follows the jobs with a tag."""

    def follows(self, end: RunEnd) -> bool:
        return "sweet" in end.tags


async def test_a_job_that_gets_a_tag_is_followed_from_then_on(tmp_path: Path) -> None:
    async with bakery(tmp_path / "s.db", following("after", on=Tagged()), source=Tagged()) as desk:
        assert await sold(desk) == []
        desk.dispatch.add_job(job("bake", tags=("sweet",)))
        desk.intake.renew(job("bake", tags=("sweet",)))
        assert await sold(desk) == ["after"]


async def test_what_was_decided_before_a_follower_went_is_made_durable(tmp_path: Path) -> None:
    async with bakery(tmp_path / "s.db") as desk:
        await desk.emit(event())
        desk.store.hold = anyio.Event()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        desk.intake.remove("after")
        desk.store.hold.set()
        await desk.settle()
        assert len(await runs_of(desk, "after")) == 1
