"""Intake: what becomes of an event at each trigger, and that what is not stored leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.firing import Firing
from engine.decide.priority import rank
from engine.decide.rules import Rule
from engine.errors import Conflict, InvalidEvent, NotFound, StoreUnavailable
from engine.events import Accepted, Event, EventOutcome
from engine.intake import LONGEST_NAME
from engine.jobs import Job
from engine.plugin import Outcome
from engine.queue import KEPT_DATA_BYTES
from engine.runs import Lane, Origin, Run, RunState, Step
from engine.store.base import EventFilter, RunFilter
from engine.store.changes import Accept, End
from engine.testing.store_contract.material import a_missed_run
from engine.triggers import Batch, Debounce
from tests.organs import Bench, Heard, Listed, bench, event, job, trigger


async def forever(run: Run, job: Job) -> Outcome:
    await anyio.sleep_forever()
    raise AssertionError("it never ends")


async def all_runs(desk: Bench) -> list[Run]:
    return list(reversed(await desk.store.runs(RunFilter(), limit=1000)))


async def states(desk: Bench) -> list[RunState]:
    return [run.state for run in await all_runs(desk)]


async def nothing_is_in_limbo(desk: Bench) -> None:
    """Everything accepted has an outcome, no slot is taken without a run, and what is stored as running runs."""
    await desk.settle()
    assert (await desk.store.ledger()).missing == ()
    running = {run.id for run in await desk.store.running()}
    assert set(desk.script.going) == running
    assert desk.dispatch.running == len(running)


def only(answer: Accepted) -> tuple[EventOutcome, str, str]:
    [outcome] = answer.outcomes
    return outcome.outcome, outcome.code, outcome.reason


# Outcomes


async def test_an_event_that_passes_becomes_a_run_for_each_of_its_triggers(tmp_path: Path) -> None:
    jobs = [job(), job("weigh")]
    triggers = [trigger(), trigger("on-weight", job="weigh"), trigger("elsewhere", source="field")]
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers) as desk:
        answer = await desk.emit_one(event(data={"n": 1}, subject="sack/7"))
        assert not answer.duplicate
        assert [(each.trigger, each.outcome, each.code) for each in answer.outcomes] == [
            ("on-grain", EventOutcome.RUN, "matched"), ("on-weight", EventOutcome.RUN, "matched"),
        ]  # fmt: skip
        assert [outcome.run for outcome in answer.outcomes] == list(answer.runs)
        stored = await desk.store.event(answer.event)
        assert stored is not None
        assert stored.outcomes == answer.outcomes
        assert (stored.event.source, stored.event.subject, stored.event.data) == ("mill", "sack/7", {"n": 1})
        assert stored.event.time == stored.event.received_at == desk.clock.now()
        await nothing_is_in_limbo(desk)
        assert [(run.job, run.trigger, run.state) for run in await all_runs(desk)] == [
            ("bake", "on-grain", RunState.SUCCEEDED), ("weigh", "on-weight", RunState.SUCCEEDED),
        ]  # fmt: skip
        assert desk.intake.accepted == 1


async def test_an_event_that_meets_no_trigger_is_recorded_as_unmatched(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        answer = await desk.emit_one(event(), source="field")
        assert only(answer)[:2] == (EventOutcome.UNMATCHED, "unmatched")
        assert "field" in only(answer)[2]
        assert "grain.ground" in only(answer)[2]
        assert answer.runs == ()
        await nothing_is_in_limbo(desk)


async def test_a_filter_that_is_false_and_one_that_fails_are_told_apart(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(filter="data.size > 10")]) as desk:
        small = await desk.emit_one(event(data={"size": 3}))
        assert only(small) == (EventOutcome.FILTERED, "filter_false", "filtered: data.size > 10 is false")
        broken = await desk.emit_one(event(data={"weight": 3}))
        assert only(broken)[:2] == (EventOutcome.FILTERED, "filter_error")
        assert "size" in only(broken)[2]
        no_truth = await desk.emit_one(event(data={"size": "large"}))
        assert only(no_truth)[1] == "filter_error"
        nothing = await desk.emit_one(event(data=None))
        assert only(nothing)[1] == "filter_error"
        assert only(nothing)[2].endswith("; the event has no data")
        assert only(await desk.emit_one(event(data={"size": 11})))[0] is EventOutcome.RUN
        await nothing_is_in_limbo(desk)


async def test_a_filter_that_is_neither_true_nor_false_is_an_error_of_the_filter(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(filter="data.size")]) as desk:
        assert only(await desk.emit_one(event(data={"size": 3})))[1] == "filter_error"


async def test_events_at_a_disabled_trigger_or_job_are_recorded_and_run_nothing(tmp_path: Path) -> None:
    jobs = [job(), job("off", enabled=False)]
    triggers = [trigger("asleep", enabled=False), trigger("jobless", job="off"), trigger()]
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers) as desk:
        answer = await desk.emit_one(event())
        assert [(each.outcome, each.code) for each in answer.outcomes] == [
            (EventOutcome.PAUSED, "trigger_disabled"), (EventOutcome.PAUSED, "job_disabled"),
            (EventOutcome.RUN, "matched"),
        ]  # fmt: skip
        assert [each.reason for each in answer.outcomes[:2]] == [
            "paused: trigger asleep is disabled", "paused: job off is disabled",
        ]  # fmt: skip
        await nothing_is_in_limbo(desk)


async def test_what_a_source_rejects_is_recorded_for_each_trigger_that_it_would_have_met(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(), trigger("second")]) as desk:
        answer = await desk.intake.reject("mill", event(key="bad.trigger"), "it is no JSON")
        assert [(each.trigger, each.outcome, each.code, each.reason) for each in answer.outcomes] == [
            ("on-grain", EventOutcome.REJECTED, "invalid", "rejected: it is no JSON"),
            ("second", EventOutcome.REJECTED, "invalid", "rejected: it is no JSON"),
        ]  # fmt: skip
        again = await desk.intake.reject("mill", event(key="bad.trigger"), "it is no JSON")
        assert again.duplicate
        assert again.event == answer.event
        unmet = await desk.intake.reject("field", event(), "it is no JSON")
        assert [each.trigger for each in unmet.outcomes] == [None]
        assert await all_runs(desk) == []
        await nothing_is_in_limbo(desk)


# Slots


async def test_a_run_starts_with_its_event_where_a_slot_is_free_and_waits_where_none_is(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=[job(concurrency=1)], act=forever) as desk:
        first, second = await desk.emit_one(event()), await desk.emit_one(event())
        await desk.settle()
        begun, waits = await all_runs(desk)
        assert (begun.id, waits.id) == (first.runs[0], second.runs[0])
        assert begun.state is RunState.RUNNING
        assert [(step.state, step.code) for step in begun.trace] == [
            (RunState.QUEUED, "matched"), (RunState.RUNNING, "started"),
        ]  # fmt: skip
        # One commit took it from nothing to running.
        assert [len(batch) for batch in desk.store.batches] == [1, 1]
        assert waits.state is RunState.QUEUED
        assert waits.reason == "matched; waits for a slot"
        assert (begun.attempt, waits.attempt) == (1, 0)
        assert begun.boot == "boot-1"
        await nothing_is_in_limbo(desk)


async def test_a_duplicate_gets_the_first_answer_and_gives_back_slot_and_window(tmp_path: Path) -> None:
    triggers = [trigger(), trigger("gathers", debounce=Debounce(wait_s=5.0))]
    async with bench(tmp_path / "s.db", jobs=[job(concurrency=2)], triggers=triggers) as desk:
        first = await desk.emit_one(event(key="delivery-1"))
        await desk.advance(10)
        again = await desk.emit_one(event(key="delivery-1"))
        assert again.duplicate
        assert (again.event, again.runs, again.outcomes) == (first.event, first.runs, first.outcomes)
        assert desk.dispatch.running == 0
        assert len(desk.windows) == 0
        assert (desk.intake.accepted, desk.intake.duplicates) == (1, 1)
        other = await desk.emit_one(event(key="delivery-1"), source="field")
        assert not other.duplicate
        await nothing_is_in_limbo(desk)


async def test_a_duplicate_within_one_batch_is_one_event(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        first, other, again = await desk.emit(event(key="a"), event(key="b"), event(key="a"))
        assert (first.duplicate, other.duplicate, again.duplicate) == (False, False, True)
        assert again.event == first.event
        assert len(await all_runs(desk)) == 2
        await nothing_is_in_limbo(desk)


async def test_a_duplicate_within_one_batch_fills_no_window(tmp_path: Path) -> None:
    triggers = [trigger(batch=Batch(size=3, wait_s=60.0))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        async with anyio.create_task_group() as group:
            group.start_soon(desk.emit, event(key="a"), event(key="a"))
            await anyio.lowlevel.checkpoint()  # it is decided, and not durable yet
            group.start_soon(desk.emit, event(key="b"))
        await desk.settle()
        ((run,),) = [{one.id for one in await all_runs(desk)}]
        found = await desk.run_of(run)
        assert (found.state, found.event_count) == (RunState.PENDING, 2)
        await desk.emit_one(event(key="c"))
        await desk.settle()
        assert (await desk.run_of(run)).event_count == 3
        assert (await desk.run_of(run)).state is RunState.SUCCEEDED


async def test_a_duplicate_that_joined_a_window_does_not_put_it_off(tmp_path: Path) -> None:
    triggers = [trigger(debounce=Debounce(wait_s=5.0))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        answer = await desk.emit_one(event(key="a"))
        await desk.advance(3)
        assert (await desk.emit_one(event(key="a"))).duplicate
        window = desk.windows.of_run(answer.runs[0])
        assert window is not None
        assert window.count == 1
        await desk.advance(2)
        assert (await desk.run_of(answer.runs[0])).state is RunState.SUCCEEDED
        assert desk.script.begun[0][2] == datetime(2026, 1, 5, 12, 0, 5, tzinfo=UTC)


async def test_what_the_store_refuses_leaves_nothing_behind_and_can_be_offered_again(tmp_path: Path) -> None:
    triggers = [trigger(), trigger("gathers", debounce=Debounce(wait_s=5.0))]
    async with bench(tmp_path / "s.db", jobs=[job(concurrency=1)], triggers=triggers) as desk:
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await desk.emit_one(event(key="a"))
        assert desk.dispatch.running == 0
        assert len(desk.windows) == 0
        assert desk.intake.accepted == 0
        desk.store.write_error = None
        await desk.advance(60)
        assert (await desk.emit_one(event(key="a"))).duplicate is False
        await desk.advance(60)
        assert await states(desk) == [RunState.SUCCEEDED] * 2
        await nothing_is_in_limbo(desk)


async def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=[job(concurrency=3)], max_data_bytes=100) as desk:
        with pytest.raises(InvalidEvent, match="100B") as refused:
            await desk.emit(event(data="small"), event(data="x" * 100))
        assert refused.value.status == 413
        # The slot that the first one had is free again.
        assert desk.dispatch.running == 0
        assert await all_runs(desk) == []


async def test_an_event_whose_sender_is_gone_is_stored_and_run_all_the_same(tmp_path: Path) -> None:
    # Found in review: its run stood as running, its slot was given away, and nobody executed it.
    triggers = [trigger(), trigger("gathers", debounce=Debounce(wait_s=5.0)), trigger("full", job="weigh")]
    jobs = [job(), job("weigh", concurrency=1)]
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers) as desk:
        desk.store.hold_answers = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.emit_one, event())
            group.start_soon(desk.emit_one, event())
            await desk.settle()
            group.cancel_scope.cancel()
            desk.store.hold_answers.set()
        desk.store.hold_answers = None
        await desk.advance(10)
        assert await states(desk) == [RunState.SUCCEEDED] * 5
        await nothing_is_in_limbo(desk)


async def test_a_refusal_that_a_cancelled_sender_never_hears_is_undone_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        desk.store.hold = anyio.Event()
        sending = asyncio.ensure_future(desk.emit_one(event()))
        await desk.settle()
        assert desk.dispatch.running == 1
        sending.cancel()
        desk.store.write_error = StoreUnavailable("the disk is full")
        desk.store.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        desk.store.write_error = desk.store.hold = None
        await desk.advance(1)
        assert await all_runs(desk) == []
        await nothing_is_in_limbo(desk)


# Debounce


async def test_events_of_one_key_join_the_run_of_the_first_and_it_gets_them_all(tmp_path: Path) -> None:
    triggers = [trigger(debounce=Debounce(wait_s=5.0, max_wait_s=12.0, key="data.customer"))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        answers = []
        for seconds, customer in ((0, "a"), (4, "a"), (0, "b"), (4, "a"), (3, "a")):
            await desk.advance(seconds)
            answers.append(await desk.emit_one(event(data={"customer": customer}, priority=7)))
        assert [only(answer)[:2] for answer in answers] == [
            (EventOutcome.RUN, "debounce"), (EventOutcome.JOINED, "joined"), (EventOutcome.RUN, "debounce"),
            (EventOutcome.JOINED, "joined"), (EventOutcome.JOINED, "joined"),
        ]  # fmt: skip
        run_a, run_b = answers[0].runs[0], answers[2].runs[0]
        assert [answer.runs[0] for answer in answers] == [run_a, run_a, run_b, run_a, run_a]
        pending = await desk.run_of(run_a)
        assert (pending.state, pending.event_count, pending.due_at, pending.closes_at) == (
            RunState.PENDING, 4, datetime(2026, 1, 5, 12, 0, 12, tzinfo=UTC),
            datetime(2026, 1, 5, 12, 0, 12, tzinfo=UTC),
        )  # fmt: skip
        await desk.advance(60)
        assert [(run_id, at.second) for run_id, _, at in desk.script.begun] == [(run_b, 9), (run_a, 12)]
        assert [each.id for each in desk.script.events[run_a]] == [answers[n].event for n in (0, 1, 3, 4)]
        later = await desk.emit_one(event(data={"customer": "a"}))
        assert later.runs[0] != run_a
        await nothing_is_in_limbo(desk)


async def test_a_join_raises_the_priority_of_its_run_and_never_lowers_it(tmp_path: Path) -> None:
    triggers = [trigger(debounce=Debounce(wait_s=5.0), priority=5, priority_max=8)]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        answer = await desk.emit_one(event())
        await desk.emit_one(event(priority=9))
        await desk.emit_one(event(priority=1))
        assert (await desk.run_of(answer.runs[0])).priority == 8


async def test_a_join_to_a_run_that_the_store_has_moved_on_opens_a_new_one(tmp_path: Path) -> None:
    # The other trigger's slot was claimed for the change that failed, and is claimed anew.
    jobs = [job(), job("weigh", concurrency=1)]
    triggers = [trigger(debounce=Debounce(wait_s=5.0)), trigger("direct", job="weigh")]
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers) as desk:
        first = await desk.emit_one(event())
        direct, gathered = first.outcomes
        assert (direct.trigger, gathered.code) == ("direct", "debounce")
        await desk.settle()
        # As if somebody had ended it in the store alone.
        with desk.store._writer._conn as raw:  # type: ignore[union-attr]
            raw.execute("update runs set state = 'cancelled' where id = ?", (gathered.run,))
        second = await desk.emit_one(event())
        assert [each.code for each in second.outcomes] == ["matched", "debounce"]
        assert not set(second.runs) & set(first.runs)
        await desk.advance(5)
        assert [(await desk.run_of(run)).state for run in second.runs] == [RunState.SUCCEEDED] * 2
        await nothing_is_in_limbo(desk)


async def test_a_join_to_a_window_that_was_not_stored_is_decided_anew(tmp_path: Path) -> None:
    triggers = [trigger(debounce=Debounce(wait_s=5.0))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        known = await desk.emit_one(event(key="a"))
        await desk.advance(5)
        desk.store.hold = anyio.Event()
        answers: dict[str, Accepted] = {}

        async def send(name: str, key: str | None) -> None:
            answers[name] = await desk.emit_one(event(key=key))

        async with anyio.create_task_group() as group:
            # The first opens a window that will not be stored, as its event is a duplicate; the second joins it.
            group.start_soon(send, "duplicate", "a")
            group.start_soon(send, "joins", None)
            await desk.settle()
            assert len(desk.windows) == 1
            desk.store.hold.set()
            desk.store.hold = None
        assert answers["duplicate"].event == known.event
        assert only(answers["joins"])[0] is EventOutcome.RUN
        await desk.advance(5)
        assert (await desk.run_of(answers["joins"].runs[0])).state is RunState.SUCCEEDED
        await nothing_is_in_limbo(desk)


async def test_a_debounce_key_that_fails_is_recorded_and_any_value_can_be_one(tmp_path: Path) -> None:
    triggers = [trigger(debounce=Debounce(wait_s=1.0, key="data.key"))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        assert only(await desk.emit_one(event(data={})))[1] == "filter_error"
        for value in (None, True, 1.5, "text", ["a"], {"a": [1]}, "x" * 5000):
            answer = await desk.emit_one(event(data={"key": value}))
            assert only(answer)[0] is EventOutcome.RUN, value
        assert len(desk.windows) == 7
    odd = [trigger(debounce=Debounce(wait_s=1.0, key="{true: data.a}")), trigger("inf", debounce=Debounce(
        wait_s=1.0, key="[data.a / 0.0]"))]  # fmt: skip
    async with bench(tmp_path / "t.db", triggers=odd) as desk:
        answer = await desk.emit_one(event(data={"a": 1.0}))
        assert [(each.trigger, each.code) for each in answer.outcomes] == [
            ("inf", "filter_error"),
            ("on-grain", "debounce"),
        ]
        await nothing_is_in_limbo(desk)


# Firing by hand


async def test_a_trigger_fired_by_hand_obeys_its_filter_and_says_who_asked(tmp_path: Path) -> None:
    triggers = [trigger(filter="data.go == true", source="field", priority_max=6)]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        filtered = await desk.intake.fire("on-grain", data={"go": False})
        assert only(filtered)[1] == "filter_false"
        fired = await desk.intake.fire("on-grain", data={"go": True}, reason="a test", priority=9)
        run = await desk.run_of(fired.runs[0])
        assert (run.origin, run.priority) == (Origin.MANUAL, 6)
        assert run.trace[0].code == "fired"
        assert run.trace[0].reason == "fired by hand: a test"
        stored = await desk.store.event(fired.event)
        assert stored is not None
        assert (stored.event.type, stored.event.source, stored.event.subject) == ("manual", "manual", "on-grain")
        await nothing_is_in_limbo(desk)


async def test_firing_obeys_the_debounce_unless_it_is_bypassed(tmp_path: Path) -> None:
    # A key that would fail is not even looked at where the debounce is bypassed.
    triggers = [trigger(debounce=Debounce(wait_s=5.0, key="data.customer"))]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        gathered = await desk.intake.fire("on-grain", data={"customer": "a"})
        assert (await desk.run_of(gathered.runs[0])).state is RunState.PENDING
        direct = await desk.intake.fire("on-grain", bypass=frozenset({"debounce"}))
        await desk.settle()
        assert (await desk.run_of(direct.runs[0])).state is RunState.SUCCEEDED
        await nothing_is_in_limbo(desk)


async def test_a_request_id_fires_once_and_not_another_trigger(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(), trigger("second")]) as desk:
        first = await desk.intake.fire("on-grain", request_id="request-1")
        again = await desk.intake.fire("on-grain", request_id="request-1")
        assert again.duplicate
        assert (again.event, again.runs) == (first.event, first.runs)
        with pytest.raises(Conflict, match="request-1"):
            await desk.intake.fire("second", request_id="request-1")
        assert len(await all_runs(desk)) == 1
        await nothing_is_in_limbo(desk)


async def test_what_is_not_there_or_disabled_is_not_fired(tmp_path: Path) -> None:
    jobs = [job(), job("off", enabled=False)]
    triggers = [trigger("asleep", enabled=False), trigger("jobless", job="off")]
    async with bench(tmp_path / "s.db", jobs=jobs, triggers=triggers) as desk:
        with pytest.raises(NotFound, match="no trigger nothing"):
            await desk.intake.fire("nothing")
        with pytest.raises(Conflict, match="trigger asleep is disabled"):
            await desk.intake.fire("asleep")
        with pytest.raises(Conflict, match="job off is disabled"):
            await desk.intake.fire("jobless")
        assert await all_runs(desk) == []


# Events from the API


async def test_events_from_the_api_are_offered_to_the_sources_that_listen(tmp_path: Path) -> None:
    orders, bills = Heard(), Heard(type="bill.paid")
    triggers = [trigger("orders", source="event:1", on=orders), trigger("bills", source="event:2", on=bills),
                trigger("orders-too", source="event:1", on=orders)]  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=[("event:1", orders), ("event:2", bills)]) as desk:
        order, bill, other = await desk.intake.hear(
            [event("order.created", source="shop"), event("bill.paid", source="shop"), event("cat.fed")]
        )
        assert [each.trigger for each in order.outcomes] == ["orders", "orders-too"]
        assert [each.trigger for each in bill.outcomes] == ["bills"]
        assert only(other)[0] is EventOutcome.UNMATCHED
        stored = await desk.store.event(other.event)
        assert stored is not None
        assert stored.event.source == "api"
        await nothing_is_in_limbo(desk)


async def test_equal_keys_of_two_senders_are_two_events_and_two_runs(tmp_path: Path) -> None:
    # Found in review: the second sender's event was taken for the first one's, as both count from 1.
    heard = Heard()
    triggers = [trigger(source="event:1", on=heard)]
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=[("event:1", heard)]) as desk:
        shop, stall, again = await desk.intake.hear(
            [event("order.created", key="1", source=source) for source in ("shop", "stall", "shop")]
        )
        assert (only(shop)[0], only(stall)[0]) == (EventOutcome.RUN, EventOutcome.RUN)
        assert shop.runs != stall.runs
        assert again.duplicate
        await nothing_is_in_limbo(desk)


async def test_types_and_sources_that_are_the_engines_own_are_refused(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        for refused in (
            event("engine.timer"), event(source="manual"), event(source="webhook:github"), event(source="timer:x"),
        ):  # fmt: skip
            with pytest.raises(InvalidEvent, match="own"):
                await desk.intake.hear([event(), refused])
        assert await desk.store.events(EventFilter(), limit=10) == []
        for taken in (event(source="webhook://host/path"), event(source="webhooks"), event(source="urn:x:y")):
            await desk.intake.hear([taken])


class Raises(Heard, frozen=True, kw_only=True):
    """A source that can't tell."""

    def accepts(self, event: Event) -> bool:
        raise RuntimeError("a bug in a plugin")


async def test_a_source_that_raises_on_an_event_keeps_it_from_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Raises(), Heard()
    triggers = [trigger("bad", source="event:1", on=bad), trigger("good", source="event:2", on=good)]
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=[("event:1", bad), ("event:2", good)]) as desk:
        [answer] = await desk.intake.hear([event("order.created")])
        assert [(each.trigger, each.outcome) for each in answer.outcomes] == [("good", EventOutcome.RUN)]
        assert [record.action for record in caplog.records if hasattr(record, "action")] == ["source_raised"]
        await nothing_is_in_limbo(desk)


# The door


class Odd:
    """Something that is no JSON value."""


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _cycle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


BAD_EVENTS: dict[str, dict[str, Any]] = {
    "a type that is no text": {"type": 7},
    "an empty type": {"type": ""},
    "a type without end": {"type": "x" * (LONGEST_NAME + 1)},
    "an empty key": {"key": ""},
    "a key that is no text": {"key": b"raw"},
    "a subject without end": {"subject": "x" * (LONGEST_NAME + 1)},
    "half a character in the subject": {"subject": "\ud800"},
    "half a character in the data": {"data": {"name": "\ud800"}},
    "a number that is none": {"data": float("nan")},
    "a number beyond all": {"data": [float("inf")]},
    "an integer beyond 64 bits": {"data": 2**64},
    "data that is no JSON": {"data": {"at": datetime(2026, 1, 1, tzinfo=UTC)}},
    "an object of Python": {"data": [Odd()]},
    "a member without a name": {"data": {1: 2}},
    "data that holds itself": {"data": _cycle()},
    "data too deep": {"data": _deep(65)},
    "a naive time": {"time": datetime(2026, 1, 1)},  # noqa: DTZ001
    "a time that is none": {"time": "2026-01-01T00:00:00Z"},
    "a time before all dates": {"time": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
    "a time after all dates": {"time": datetime.max.replace(tzinfo=timezone(-timedelta(hours=14)))},
    "a priority too high": {"priority": 10},
    "a priority too low": {"priority": -1},
    "a priority that is no number": {"priority": "high"},
    "a priority that is a truth": {"priority": True},
}


@pytest.mark.parametrize("what", BAD_EVENTS)
async def test_the_door_refuses(tmp_path: Path, what: str) -> None:
    async with bench(tmp_path / "s.db") as desk:
        with pytest.raises(InvalidEvent) as refused:
            await desk.emit(event(), event(**{"type": "grain.ground", **BAD_EVENTS[what]}))
        assert refused.value.status in (400, 413, 422)
        assert desk.store.batches == []
        assert desk.dispatch.running == 0


async def test_what_is_at_the_limit_of_the_door_comes_in_and_out_again(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        east = datetime(2026, 1, 1, 14, 0, tzinfo=timezone(timedelta(hours=14)))
        given = event(
            "x" * LONGEST_NAME, subject="ü" * LONGEST_NAME, key="k" * LONGEST_NAME, time=east, priority=9,
            data={"deep": _deep(62), "large": 2**64 - 1, "small": -(2**63), "text": "\0é\N{GRINNING FACE}"},
        )  # fmt: skip
        stored = await desk.store.event((await desk.emit_one(given)).event)
        assert stored is not None
        assert stored.event.data == given.data
        assert (stored.event.subject, stored.event.key) == (given.subject, given.key)
        assert stored.event.time == datetime(2026, 1, 1, tzinfo=UTC)
        edge = await desk.emit_one(event(time=datetime.min.replace(tzinfo=UTC)))
        assert await desk.store.event(edge.event) is not None
        await nothing_is_in_limbo(desk)


async def test_what_the_engine_gives_an_event_is_not_the_senders_to_choose(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        sent = event(id="mine", source="elsewhere", received_at=datetime(1999, 1, 1, tzinfo=UTC))
        stored = await desk.store.event((await desk.emit_one(sent)).event)
        assert stored is not None
        assert stored.event.id != "mine"
        assert (stored.event.source, stored.event.received_at) == ("mill", desk.clock.now())


# Priority, data and expressions


@pytest.mark.parametrize(("asked", "given"), [(None, 5), (3, 3), (8, 7), (9, 7), (0, 0)])
async def test_an_event_asks_for_a_priority_up_to_the_triggers_bound(
    tmp_path: Path, asked: int | None, given: int
) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(priority=5, priority_max=7)]) as desk:
        run = await desk.run_of((await desk.emit_one(event(priority=asked))).runs[0])
        assert run.priority == given
        assert run.rank == rank(desk.clock.now(), given, 60.0)


async def test_a_triggers_own_priority_stands_above_its_bound(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(priority=9, priority_max=4)]) as desk:
        assert (await desk.run_of((await desk.emit_one(event())).runs[0])).priority == 9


async def test_expressions_see_the_data_as_it_is_merged_and_what_the_engine_knows(tmp_path: Path) -> None:
    merged = trigger(
        data={"fixed": 1}, defaults={"day": "{{ event.subject }}", "size": 3, "both": "x{{ data.given }}y"},
        filter='data.fixed == 1 && data.day == "sack" && data.size == 3 && data.given == 2 && data.both == "x2y" '
        '&& trigger.name == "on-grain" && job.name == "bake" && event.source == "mill" && now == event.received_at '
        '&& event.priority == null && http.method == ""',
    )  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=[merged]) as desk:
        answer = await desk.emit_one(event(data={"given": 2, "fixed": 7}, subject="sack"))
        assert only(answer)[0] is EventOutcome.RUN, only(answer)
        own = await desk.emit_one(event(data={"given": 2, "day": "mine"}, subject="sack"))
        assert only(own)[1] == "filter_false"
        plain = await desk.emit_one(event(data=[1]))
        assert only(plain)[1] == "filter_error"


async def test_a_default_that_fails_or_is_no_json_value_is_handled(tmp_path: Path) -> None:
    failing = trigger("failing", defaults={"name": "{{ data.missing }}"}, filter="true")
    instant = trigger(
        "instant", defaults={"day": "{{ event.time }}"}, filter="[1].exists(n, n == 1) && size(data.day) > 5"
    )
    async with bench(tmp_path / "s.db", triggers=[failing, instant]) as desk:
        answer = await desk.emit_one(event(data={}))
        assert [(each.code, each.outcome) for each in answer.outcomes] == [
            ("filter_error", EventOutcome.FILTERED), ("matched", EventOutcome.RUN),
        ]  # fmt: skip
        assert "default name" in answer.outcomes[0].reason


async def test_filters_see_the_request_and_it_is_never_stored(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(filter='http.headers["x-kind"] == "full"')]) as desk:
        request = {"method": "POST", "headers": {"x-kind": "full"}, "query": {}, "remote": "127.0.0.1"}
        answer = await desk.emit_one(event(http=request))
        assert only(answer)[0] is EventOutcome.RUN
        stored = await desk.store.event(answer.event)
        assert stored is not None
        assert stored.event.http is None
        assert only(await desk.emit_one(event()))[1] == "filter_error"


# In one commit


async def test_events_runs_and_the_cursor_are_one_change(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        await desk.emit(event(key="a"), event(key="b"), cursor={"row": 7})
        [change] = [change for change in desk.store.changes if isinstance(change, Accept)]
        assert (len(change.entries), change.cursor is not None) == (2, True)
        assert await desk.store.cursor("mill") == {"row": 7}
        assert len(await all_runs(desk)) == 2


def firing(key: str, *, source: str = "mill", missed: Sequence[Run] = (), **fields: Any) -> Firing:
    one = event("engine.timer", key=key, time=datetime(2026, 1, 5, 11, 0, tzinfo=UTC))
    return Firing(source=source, cursor=key, missed=tuple(missed), **{"event": one, **fields})


async def test_a_due_instant_its_missed_ones_and_the_cursor_are_one_change(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        missed = a_missed_run("earlier", trigger="on-grain")
        assert await desk.intake.accept_due([firing("a", missed=[missed], reason="3h late")]) == [None]
        [change] = [change for change in desk.store.changes if isinstance(change, Accept)]
        assert (len(change.entries), change.missed, change.cursor is not None) == (1, (missed,), True)
        assert await desk.store.cursor("mill") == "a"
        [run] = [run for run in await all_runs(desk) if run.id != missed.id]
        assert (run.origin, run.scheduled_for) == (Origin.SCHEDULE, datetime(2026, 1, 5, 11, 0, tzinfo=UTC))
        assert (run.trace[0].code, run.trace[0].reason) == ("due", "due: 3h late")


async def test_due_instants_are_handed_in_together_and_each_is_for_itself(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", concurrency=2) as desk:
        only_missed = a_missed_run("earlier", trigger="on-grain")
        too_long = event("engine.timer", key="x" * 2000)
        errors = await desk.intake.accept_due(
            [
                firing("a"), firing("b", event=too_long), firing("c"), firing("c"),
                firing("d", source="else", event=None, missed=[only_missed]),
            ]
        )  # fmt: skip
        assert [type(error) for error in errors] == [type(None), InvalidEvent, *[type(None)] * 3]
        await desk.settle()
        assert {run.key for run in await all_runs(desk)} == {"a", "c", "earlier"}
        assert (await desk.store.cursor("mill"), await desk.store.cursor("else")) == ("c", "d")
        assert desk.dispatch.running == 0
        assert (await desk.store.ledger()).missing == ()


async def test_a_due_instant_that_the_store_refuses_takes_no_slot(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", concurrency=1) as desk:
        desk.store.write_error = StoreUnavailable("the disk is full")
        errors = await desk.intake.accept_due([firing("a"), firing("b")])
        assert [type(error) for error in errors] == [StoreUnavailable] * 2
        assert desk.dispatch.running == 0
        desk.store.write_error = None
        await desk.advance(10)
        assert await desk.intake.accept_due([firing("a")]) == [None]
        await desk.settle()
        assert len(desk.script.begun) == 1


async def test_due_instants_whose_timers_are_told_to_stop_are_run_all_the_same(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        desk.store.hold_answers = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.intake.accept_due, [firing("a"), firing("b")])
            await desk.settle()
            group.cancel_scope.cancel()
            desk.store.hold_answers.set()
        desk.store.hold_answers = None
        await desk.settle()
        assert [run.state for run in await all_runs(desk)] == [RunState.SUCCEEDED] * 2


async def test_a_due_instant_that_joins_a_window_that_is_gone_opens_another(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(debounce=Debounce(wait_s=60.0))]) as desk:
        await desk.intake.accept_due([firing("a")])
        [run] = await all_runs(desk)
        step = Step(at=desk.clock.now(), state=RunState.CANCELLED, code="cancelled", reason="cancelled")
        await desk.journal.submit(End(run=run.id, step=step))
        assert await desk.intake.accept_due([firing("b")]) == [None]
        assert [each.state for each in await all_runs(desk)] == [RunState.CANCELLED, RunState.PENDING]


async def test_the_cursor_moves_without_events_and_with_duplicates_alone(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        assert await desk.emit(cursor=1) == []
        assert await desk.store.cursor("mill") == 1
        await desk.emit(event(key="a"), cursor=2)
        await desk.emit(event(key="a"), cursor=3)
        assert await desk.store.cursor("mill") == 3


async def test_a_run_that_is_there_for_the_same_key_is_not_made_twice(tmp_path: Path) -> None:
    # The trigger's source got other settings: a new source, with the keys of the old one.
    async with bench(tmp_path / "s.db", triggers=[trigger(source="files:1")]) as desk:
        first = await desk.emit_one(event(key="inode-7"), source="files:1")
    async with bench(tmp_path / "s.db", triggers=[trigger(source="files:2", on=Listed(path="there"))]) as desk:
        second = await desk.emit_one(event(key="inode-7"), source="files:2")
        assert not second.duplicate
        assert only(second)[:2] == (EventOutcome.DEDUPLICATED, "run_exists")
        assert second.runs == first.runs
        assert desk.dispatch.running == 0
        await nothing_is_in_limbo(desk)


async def test_a_batch_that_meets_runs_that_are_there_is_stored_though_its_events_would_join_them(
    tmp_path: Path,
) -> None:
    # Found in review: the run of the first was there, so that the joins of the others failed, for ever.
    gathers = Debounce(wait_s=5.0)
    async with bench(tmp_path / "s.db", triggers=[trigger(source="files:1", debounce=gathers)]) as desk:
        await desk.emit(event(key="inode-1"), source="files:1")
        await desk.advance(5)
        clock = desk.clock
    other = trigger(source="files:2", on=Listed(path="there"), debounce=gathers)
    async with bench(tmp_path / "s.db", triggers=[other], clock=clock) as desk:
        first, *rest = await desk.emit(*[event(key=f"inode-{n}") for n in (1, 2, 3)], source="files:2")
        assert only(first)[0] is EventOutcome.DEDUPLICATED
        assert {only(answer)[0] for answer in rest} == {EventOutcome.RUN}
        await desk.advance(10)
        assert await states(desk) == [RunState.SUCCEEDED] * 3
        assert len(desk.windows) == 0
        await nothing_is_in_limbo(desk)


async def test_large_data_is_not_kept_in_memory_while_its_run_waits(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=[job(concurrency=1)], act=forever) as desk:
        await desk.emit_one(event())
        small = await desk.emit_one(event(data="x"))
        large = await desk.emit_one(event(data="x" * KEPT_DATA_BYTES))
        lane = desk.dispatch._line.front.of(Lane.LIVE)._lanes["bake"]
        assert lane.entries[small.runs[0]].event is not None
        assert lane.entries[large.runs[0]].event is None


async def test_what_is_rejected_is_no_larger_than_what_is_accepted(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", max_data_bytes=100) as desk:
        with pytest.raises(InvalidEvent) as refused:
            await desk.intake.reject("mill", event(data="x" * 100), "it is no order")
        assert refused.value.status == 413


# Triggers that come and go


async def test_a_trigger_is_met_from_its_coming_to_its_going(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=(trigger("first"),)) as desk:
        late = Rule(trigger("a-late-one"), job())
        desk.intake.add(late)
        assert [one.trigger for one in (await desk.emit_one(event())).outcomes] == ["a-late-one", "first"]
        assert desk.intake.remove("first") is not None
        assert [one.trigger for one in (await desk.emit_one(event())).outcomes] == ["a-late-one"]
        assert desk.intake.remove("a-late-one") is late
        assert desk.intake.remove("a-late-one") is None
        assert [one.outcome for one in (await desk.emit_one(event())).outcomes] == [EventOutcome.UNMATCHED]


async def test_another_version_of_a_trigger_replaces_it_also_on_another_source(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=(trigger("one"),)) as desk:
        desk.intake.add(Rule(trigger("one", source="bakery"), job()))
        assert (await desk.emit_one(event(), source="mill")).outcomes[0].trigger is None
        assert (await desk.emit_one(event(), source="bakery")).outcomes[0].trigger == "one"


async def test_a_source_hears_while_an_enabled_trigger_is_on_it(tmp_path: Path) -> None:
    heard = Heard()
    named = {"on": heard, "source": "event:1"}
    async with bench(tmp_path / "s.db") as desk:

        async def met() -> list[str | None]:
            (answer,) = await desk.intake.hear([event("order.created")])
            return [one.trigger for one in answer.outcomes]

        desk.intake.add(Rule(trigger("off", enabled=False, **named), job()))
        assert await met() == [None]
        desk.intake.add(Rule(trigger("one", **named), job()))
        desk.intake.add(Rule(trigger("two", **named), job()))
        assert await met() == ["off", "one", "two"]
        desk.intake.remove("one")
        assert await met() == ["off", "two"]
        desk.intake.remove("two")
        assert await met() == [None]


async def test_what_was_decided_before_a_trigger_went_is_made_durable(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.emit, event(key="k"))
            await asyncio.sleep(0)
            desk.intake.remove("on-grain")
            desk.store.hold.set()
        assert [one.outcome for one in (await desk.emit_one(event(key="k"))).outcomes] == [EventOutcome.RUN]
