"""What comes after a run: who is told, that nothing told is lost, and that one who does not listen stops nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from engine.aftermath import Aftermath, Counting, Deliverer
from engine.aftermath import deliverer as deliverer_module
from engine.decide.attempts import after_end
from engine.deliveries import DeliveryFilter, Receiver
from engine.jobs import Callback, Job, Notify, RetryPolicy
from engine.journal import Journal
from engine.plugin import Channel, ChannelContext, Message, Mood, Outcome, Receipt
from engine.runnotes import RunNotes
from engine.runs import Run, RunState
from engine.store.changes import Finish
from engine.testing import VirtualClock
from engine.testing.store_contract.material import a_run, accept, an_entry, an_event, make, start
from tests.organs import InlineStore, Works

ALL = frozenset({"succeeded", "failed", "timed_out", "recovered"})


class Ear(Channel, frozen=True, kw_only=True):
    """Hears what it is told, and answers as the test says; `None` never answers."""

    name: ClassVar[str] = "ear"
    pauses_s: ClassVar[tuple[float, ...]] = (10.0, 100.0)
    heard: ClassVar[dict[str, list[Message]]] = {}
    answers: ClassVar[dict[str, Any]] = {}

    who: str = "me"

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        Ear.heard.setdefault(self.who, []).append(message)
        answer = Ear.answers.get(self.who, Receipt.taken("thanks"))
        if answer is None:
            await anyio.sleep_forever()
        if isinstance(answer, BaseException):
            raise answer
        found: Receipt = answer
        return found


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Ear.heard.clear()
    Ear.answers.clear()


class World:
    """A store, a journal and the room, under a clock that the test turns."""

    def __init__(self, store: InlineStore, journal: Journal, clock: VirtualClock, jobs: dict[str, Job]) -> None:
        self.store, self.journal, self.clock, self.jobs = store, journal, clock, jobs
        self.receivers = {name: Receiver(name=name, channel=Ear(who=name)) for name in ("ops", "boss")}
        self.deliverer = Deliverer(
            clock=clock, store=store, submit=journal.submit, jobs=jobs, receivers=self.receivers, base=Path("/"),
            secrets=("hush-hush",),
        )  # fmt: skip
        self.counting = Counting(clock=clock, store=store, submit=journal.submit)
        self.notes = RunNotes(journal.submit)
        self.aftermath = Aftermath(
            notes=self.notes, jobs=jobs, receivers=self.receivers, line=self.deliverer, counts=self.counting,
            secrets=("hush-hush",),
        )  # fmt: skip

    async def load(self) -> None:
        await self.notes.load(self.store)
        await self.counting.load()
        await self.deliverer.load()
        await self.aftermath.load(self.store)

    async def end(
        self, state: RunState = RunState.FAILED, reason: str = "exit 1", job: str = "oven", outputs: Any = None
    ) -> Run:
        """Let a run of a job end."""
        event = an_event()
        run = a_run(event, job=job, attempt=1)
        await make(self.store, accept(an_entry(event, run)), start(run))
        outcome = Outcome(state=state, code=state.value, reason=reason, outputs=outputs)
        now = self.clock.now()
        end = Finish.of(run.id, after_end(run, outcome, RetryPolicy(), now, now))
        then = self.aftermath.of(run, end)
        stored = self.journal.submit(end if then is None else Finish(**{**_fields(end), "then": then}))
        if then is not None:
            stored.add_done_callback(self.aftermath.settled)
        await stored
        return run

    async def told(self, **which: Any) -> list[tuple[str, str, str, int]]:
        found = await self.store.deliveries(DeliveryFilter(**which), limit=100)
        return [(one.target, one.event, one.code, one.attempts) for one in reversed(found)]


def _fields(end: Finish) -> dict[str, Any]:
    return {name: getattr(end, name) for name in end.__struct_fields__}


@asynccontextmanager
async def world(path: Path, *, runs: bool = True, **jobs: Any) -> AsyncIterator[World]:
    """Open a world; the deliverer runs in it where `runs`."""
    clock = VirtualClock()
    store = InlineStore(path / "engine.db", clock)
    await store.open()
    journal = Journal(store, clock)
    made = {name: Job(name=name, runner=Works(), **fields) for name, fields in jobs.items()}
    room = World(store, journal, clock, made)
    await room.load()
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        if runs:
            group.start_soon(room.deliverer.run)
        await clock.advance(0)
        yield room
        group.cancel_scope.cancel()
    await store.close()


def notify(*to: str, on: frozenset[str] = frozenset({"failed", "timed_out", "recovered"})) -> dict[str, Any]:
    return {"notify": Notify(to=to, on=on)}


def callback(who: str = "cb", on: frozenset[str] = ALL) -> dict[str, Any]:
    return {"callback": Callback(channel=Ear(who=who), on=on)}


async def test_failure_and_recovery_are_told_and_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path, oven=notify("ops", "boss")) as room:
        for state in (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT, RunState.SUCCEEDED, RunState.SUCCEEDED):
            await room.end(state)
            await room.clock.advance(1)
        assert [message.type for message in Ear.heard["ops"]] == [
            "engine.run.failed", "engine.run.timed_out", "engine.job.recovered",
        ]  # fmt: skip
        assert [message.mood for message in Ear.heard["ops"]] == [Mood.FAILURE, Mood.FAILURE, Mood.SUCCESS]
        assert [message.title for message in Ear.heard["boss"]] == ["oven failed", "oven timed out", "oven works again"]
        assert "after 2 failures" in Ear.heard["ops"][2].text
        assert Ear.heard["ops"][2].data["failures"] == 2


async def test_the_message_has_the_run_and_its_outputs_for_programs(tmp_path: Path) -> None:
    async with world(tmp_path, oven=callback()) as room:
        run = await room.end(RunState.SUCCEEDED, "exit 0", outputs={"rows": 7})
        await room.clock.advance(1)
        (message,) = Ear.heard["cb"]
        assert (message.type, message.data["run"], message.data["outputs"]) == (
            "engine.run.succeeded", run.id, {"rows": 7},
        )  # fmt: skip
        assert await room.told(run=run.id) == [("callback:oven", "succeeded", "delivered", 1)]
        await room.end(RunState.SUCCEEDED, outputs={"text": "x" * 100_000})
        await room.clock.advance(1)
        assert Ear.heard["cb"][1].data["outputs"] is None
        assert "larger" in Ear.heard["cb"][1].data["outputs_left_out"]


async def test_secrets_are_masked_in_all_that_is_told_and_stored(tmp_path: Path) -> None:
    async with world(tmp_path, oven={**notify("ops"), **callback()}) as room:
        run = await room.end(reason="can't log in with hush-hush", outputs={"hush-hush": ["a hush-hush b"]})
        Ear.answers["ops"] = Receipt.not_now("hush-hush is no password")
        await room.clock.advance(1)
        for one in await room.store.deliveries(DeliveryFilter(run=run.id), limit=10):
            assert "hush-hush" not in str(one)
        assert Ear.heard["cb"][0].data["outputs"] == {"***": ["a *** b"]}


async def test_who_does_not_take_it_is_asked_again_later_and_then_given_up(tmp_path: Path) -> None:
    Ear.answers["cb"] = Receipt.not_now("503")
    async with world(tmp_path, oven=callback()) as room:
        await room.end()
        await room.clock.advance(1)
        assert await room.told() == [("callback:oven", "failed", "waiting", 1)]
        await room.clock.advance(12)
        assert len(Ear.heard["cb"]) == 2
        await room.clock.advance(120)
        assert await room.told() == [("callback:oven", "failed", "given_up", 3)]
        assert len({message.id for message in Ear.heard["cb"]}) == 1
        assert room.deliverer.waiting == {}


async def test_one_that_hangs_or_fails_keeps_up_no_other(tmp_path: Path) -> None:
    Ear.answers |= {"ops": None, "cb": ValueError("broken")}
    async with world(tmp_path, oven={**notify("ops", "boss"), **callback()}) as room:
        for _ in range(3):
            await room.end()
        await room.clock.advance(5)
        assert len(Ear.heard["boss"]) == 3
        assert len(Ear.heard["ops"]) == 1
        assert ("callback:oven", "failed", "waiting", 1) in await room.told()
        # A try that never ends is no answer in the end, and what waits behind it comes to its turn.
        await room.clock.advance(deliverer_module.TRY_WITHIN_S + 1)
        Ear.answers.clear()
        await room.clock.advance(2 * deliverer_module.TRY_WITHIN_S)
        codes = {(target, code) for target, _, code, _ in await room.told() if target != "callback:oven"}
        assert codes == {("notify:ops", "delivered"), ("notify:boss", "delivered")}


async def test_a_receiver_that_is_away_is_not_stormed_by_what_waits_for_it(tmp_path: Path) -> None:
    Ear.answers["cb"] = Receipt.not_now("connection refused")
    async with world(tmp_path, oven=callback()) as room:
        for _ in range(50):
            await room.end()
        await room.clock.advance(60)
        assert len(Ear.heard["cb"]) < 10
        Ear.answers.clear()
        await room.clock.advance(300)
        assert {code for *_, code, _ in await room.told()} == {"delivered"}


async def test_gone_ends_it(tmp_path: Path) -> None:
    Ear.answers["cb"] = Receipt.gone("410 Gone")
    async with world(tmp_path, oven=callback()) as room:
        await room.end()
        await room.clock.advance(500)
        assert await room.told() == [("callback:oven", "failed", "gone", 1)]


async def test_what_was_not_delivered_is_delivered_by_the_next_engine(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={**notify("ops", on=ALL), **callback()}) as room:
        await room.end(RunState.FAILED)
        await room.clock.advance(5)
        assert Ear.heard == {}
    async with world(tmp_path, oven=notify("ops", on=ALL)) as room:
        await room.clock.advance(5)
        assert [message.title for message in Ear.heard["ops"]] == ["oven failed"]
        # The callback was taken out of the configuration meanwhile.
        assert ("callback:oven", "failed", "no_receiver", 0) in await room.told()
        # That it had failed is known, too.
        await room.end(RunState.SUCCEEDED)
        await room.clock.advance(5)
        assert [message.title for message in Ear.heard["ops"]] == ["oven failed", "oven works again"]


async def test_what_is_told_is_stored_with_the_end_or_not_at_all(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven=callback()) as room:
        run = await room.end()
        again = Finish.of(
            run.id, after_end(run, Outcome.failed("x", "x"), RetryPolicy(), room.clock.now(), room.clock.now())
        )
        then = room.aftermath.of(run, again)
        stored = room.journal.submit(Finish(**{**_fields(again), "then": then}))
        stored.add_done_callback(room.aftermath.settled)
        with pytest.raises(Exception, match="is failed"):
            await stored
        assert len(await room.told()) == 1
        assert room.deliverer.waiting == {"callback:oven": 2}
    async with world(tmp_path, oven=callback()) as room:
        room.deliverer.stored(well=False)
        await room.clock.advance(5)
        assert room.deliverer.waiting == {}


async def test_a_line_that_is_full_records_what_comes_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer_module, "MOST_WAITING", 2)
    Ear.answers["cb"] = Receipt.not_now("503")
    async with world(tmp_path, oven=callback(), mill=callback("other")) as room:
        for _ in range(3):
            await room.end()
        await room.end(job="mill")
        await room.clock.advance(1)
        codes = [(target, code) for target, _, code, _ in await room.told()]
        assert codes.count(("callback:oven", "line_full")) == 1
        assert ("callback:mill", "delivered") in codes


async def test_a_store_that_is_away_keeps_what_is_told(tmp_path: Path) -> None:
    from engine.errors import StoreUnavailable

    async with world(tmp_path, oven=callback()) as room:
        await room.end()
        room.store.write_error = StoreUnavailable("away")
        await room.clock.advance(1)
        assert len(Ear.heard["cb"]) == 1
        room.store.write_error = None
        await room.clock.advance(20)
        assert await room.told() == [("callback:oven", "failed", "delivered", 1)]
        assert len(Ear.heard["cb"]) == 1


async def test_what_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path, oven=callback()) as room:
        await room.end()
        await room.clock.advance(1)
        assert len(await room.told()) == 1
        await room.clock.advance(deliverer_module.KEPT.total_seconds() + 2 * deliverer_module.TIDY_S)
        assert await room.told() == []


async def test_jobs_that_tell_nobody_add_nothing_to_the_commit(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        await room.end()
        assert [change.then for change in room.store.changes if isinstance(change, Finish)] == [None]


# Counting


async def test_ends_are_counted_by_trigger_and_job_and_over_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        for state in (RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.FAILED):
            await room.end(state)
        found = await room.counting.statistics(trigger="bake", over=timedelta(hours=1))
        assert found.total == 3
        assert found.success_rate == pytest.approx(2 / 3)
        await room.counting.end()
    async with world(tmp_path, runs=False, oven={}) as room:
        await room.end(RunState.TIMED_OUT)
        for over in (timedelta(hours=1), timedelta(days=30)):
            found = await room.counting.statistics(job="oven", over=over)
            assert found.ends == {RunState.SUCCEEDED: 2, RunState.FAILED: 1, RunState.TIMED_OUT: 1}
        assert (await room.counting.statistics(trigger="other", over=timedelta(days=1))).total == 0


async def test_what_an_engine_had_counted_when_it_died_is_counted_by_the_next_and_once(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        await room.end(RunState.SUCCEEDED)
        await room.clock.advance(1)
        await room.counting.flush()
        for _ in range(2):
            await room.end(RunState.FAILED)
            await room.clock.advance(1)
    for _ in range(2):
        async with world(tmp_path, runs=False, oven={}) as room:
            room.clock.step(10)
            found = await room.counting.statistics(trigger="bake", over=timedelta(hours=1))
            assert found.ends == {RunState.SUCCEEDED: 1, RunState.FAILED: 2}


async def test_an_engine_that_dies_before_it_ever_stored_a_count_has_them_counted_all_the_same(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        await room.end(RunState.FAILED)
    async with world(tmp_path, runs=False, oven={}) as room:
        found = await room.counting.statistics(trigger="bake", over=timedelta(hours=1))
        assert found.ends == {RunState.FAILED: 1}


async def test_hours_and_days_follow_each_other(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        for _ in range(30):
            await room.end(RunState.SUCCEEDED)
            await room.clock.advance(3600)
        assert (await room.counting.statistics(trigger="bake", over=timedelta(hours=5))).total == 5
        assert (await room.counting.statistics(trigger="bake", over=timedelta(days=7))).total == 30
        assert (await room.counting.statistics(trigger="bake", over=timedelta(days=8))).total == 30


async def test_a_clock_that_is_set_back_loses_no_count(tmp_path: Path) -> None:
    async with world(tmp_path, runs=False, oven={}) as room:
        await room.end(RunState.SUCCEEDED)
        await room.counting.flush()
        room.clock.step(-7200)
        await room.end(RunState.SUCCEEDED)
        await room.counting.flush()
        room.clock.step(7200)
        assert (await room.counting.statistics(trigger="bake", over=timedelta(hours=1))).total == 2
