"""Joins at work: what intake, dispatch and the store make of the events of several sources, also across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from engine.errors import Conflict, StoreUnavailable
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.runs import RunState
from engine.steering import Steering
from engine.store.changes import Accept, Purge
from engine.testing import VirtualClock
from engine.triggers import Dedupe, Input, Join, Rate, Reset, Trigger, Use
from tests.organs import Bench, Heard, Listed, bench, event, trigger

pytestmark = pytest.mark.anyio

SALES = Input(name="sales", source="till", on=Listed(path="till"))
STOCK = Input(name="stock", source="store", on=Listed(path="store"))


def joined(*inputs: Input, window_s: float = 3600.0, **more: Any) -> Trigger:
    """Make a trigger on all of several sources."""
    fields = {name: more.pop(name) for name in ("reset", "key", "max_open", "max_events") if name in more}
    join = Join(window_s=window_s, **fields)
    return trigger(source="all:on-grain", inputs=inputs or (SALES, STOCK), join=join, **more)


def verdict(answer: Accepted) -> tuple[EventOutcome, str]:
    (outcome,) = answer.outcomes
    return outcome.outcome, outcome.code


def run_id(answer: Accepted) -> str:
    (outcome,) = answer.outcomes
    assert outcome.run is not None
    return outcome.run


async def sale(desk: Bench, n: int = 1, **data: Any) -> Accepted:
    return await desk.emit_one(event("sale", data={"n": n, **data}), source="till")


async def count(desk: Bench, n: int = 1, **data: Any) -> Accepted:
    return await desk.emit_one(event("count", data={"n": n, **data}), source="store")


async def outcome_of(desk: Bench, answer: Accepted) -> Outcome:
    stored = await desk.store.event(answer.event)
    assert stored is not None
    return stored.outcomes[0]


async def sound(desk: Bench) -> None:
    """Assert that every event and run is accounted for."""
    await desk.settle()
    assert (await desk.store.ledger()).missing == ()


def given(desk: Bench, run: str) -> list[tuple[str | None, Any]]:
    """Return the events that a run was given, by input."""
    return [(one.input, one.data["n"]) for one in desk.script.events[run]]


async def test_one_event_of_each_input_becomes_one_run(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk)
        assert verdict(first) == (EventOutcome.RUN, "join_waits")
        assert "waits for stock until" in first.outcomes[0].reason
        waiting = await desk.run_of(run_id(first))
        assert (waiting.state, waiting.code) == (RunState.PENDING, "join_waits")
        await desk.advance(3599)
        assert desk.script.begun == []
        second = await count(desk)
        assert verdict(second) == (EventOutcome.JOINED, "join_complete")
        assert run_id(second) == run_id(first)
        await desk.settle()
        assert given(desk, run_id(first)) == [("sales", 1), ("stock", 1)]
        done = await desk.run_of(run_id(first))
        assert [step.code for step in done.trace][:2] == ["join_waits", "started"]
        assert verdict(await count(desk)) == (EventOutcome.RUN, "join_waits")
        await sound(desk)


async def test_an_incomplete_join_expires_at_the_end_of_its_window_and_names_what_was_missing(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk)
        await desk.advance(1800)
        await sale(desk, 2)
        await desk.advance(1799)
        assert (await desk.run_of(run_id(first))).state is RunState.PENDING
        await desk.advance(1)
        over = await desk.run_of(run_id(first))
        assert (over.state, over.code) == (RunState.EXPIRED, "join_incomplete")
        assert over.reason == "expired: stock did not come within 1h of the first event; sales did"
        assert desk.script.begun == []
        assert len(desk.windows) == 0
        assert desk.backlog.total == 0
        assert verdict(await count(desk)) == (EventOutcome.RUN, "join_waits")
        await sound(desk)


async def test_a_later_event_of_an_input_supersedes_the_earlier_one_which_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first, second = await sale(desk, 1), await sale(desk, 2)
        assert verdict(second) == (EventOutcome.RUN, "join_waits")
        over = await outcome_of(desk, first)
        assert (over.outcome, over.code, over.run) == (EventOutcome.DEDUPLICATED, "join_superseded", run_id(second))
        assert second.event in over.reason
        third = await sale(desk, 3)
        assert (await outcome_of(desk, second)).code == "join_superseded"
        await sound(desk)
        await count(desk)
        await desk.settle()
        assert given(desk, run_id(third)) == [("sales", 3), ("stock", 1)]
        assert (await desk.store.run_events(run_id(third)))[0].id == third.event
        assert (await desk.run_of(run_id(third))).event_count == 2
        await sound(desk)


async def test_in_one_change_each_supersedes_the_one_before(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        answers = await desk.emit(*(event("sale", data={"n": n}) for n in range(5)), source="till")
        assert len({run_id(answer) for answer in answers}) == 1
        outcomes = [await outcome_of(desk, answer) for answer in answers]
        assert [one.code for one in outcomes] == ["join_superseded"] * 4 + ["join_waits"]
        await sound(desk)
        await count(desk)
        await desk.settle()
        assert given(desk, run_id(answers[0])) == [("sales", 4), ("stock", 1)]
        await sound(desk)


async def test_an_input_may_use_the_first_of_its_events_or_all(tmp_path: Path) -> None:
    first = Input(name="sales", source="till", on=Listed(path="till"), use=Use.FIRST)
    every = Input(name="stock", source="store", on=Listed(path="store"), use=Use.ALL)
    last = Input(name="prices", source="mill", on=Listed())
    async with bench(tmp_path / "s.db", triggers=[joined(first, every, last, max_events=3)]) as desk:
        opened = await sale(desk, 1)
        dropped = await sale(desk, 2)
        assert verdict(dropped) == (EventOutcome.DEDUPLICATED, "join_superseded")
        assert opened.event in dropped.outcomes[0].reason
        assert [verdict(await count(desk, n)) for n in (1, 2)] == [(EventOutcome.JOINED, "join_waits")] * 2
        assert verdict(await count(desk, 3)) == (EventOutcome.RATE_LIMITED, "join_full")
        await desk.emit_one(event("price", data={"n": 7}))
        await desk.settle()
        assert given(desk, run_id(opened)) == [("sales", 1), ("stock", 1), ("stock", 2), ("prices", 7)]
        await sound(desk)


async def test_a_key_joins_what_belongs_together(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined(key="data.order")]) as desk:
        one, two = await sale(desk, 1, order="a"), await sale(desk, 2, order="b")
        assert run_id(one) != run_id(two)
        assert run_id(await count(desk, 3, order="b")) == run_id(two)
        await desk.settle()
        assert [name for name, *_ in desk.script.begun] == [run_id(two)]
        assert verdict(await count(desk, 4)) == (EventOutcome.FILTERED, "filter_error")
        assert run_id(await count(desk, 5, order="a")) == run_id(one)
        await sound(desk)


async def test_a_join_that_ends_with_its_window_takes_the_last_of_each(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined(reset=Reset.WINDOW)]) as desk:
        first = await sale(desk, 1)
        complete = await count(desk, 1)
        assert verdict(complete) == (EventOutcome.JOINED, "join_complete")
        await desk.advance(1800)
        await count(desk, 2)
        assert (await outcome_of(desk, complete)).code == "join_superseded"
        assert desk.script.begun == []
        await desk.advance(1800)
        assert given(desk, run_id(first)) == [("sales", 1), ("stock", 2)]
        await sound(desk)


async def test_at_most_so_many_joins_wait_and_what_comes_then_is_recorded(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined(key="data.order", max_open=2)]) as desk:
        for order in "ab":
            await sale(desk, order=order)
        assert verdict(await sale(desk, order="c")) == (EventOutcome.RATE_LIMITED, "join_full")
        assert verdict(await count(desk, order="a")) == (EventOutcome.JOINED, "join_complete")
        await desk.settle()
        assert verdict(await sale(desk, order="c")) == (EventOutcome.RUN, "join_waits")
        await sound(desk)


@pytest.mark.parametrize("complete", [True, False])
async def test_a_join_goes_on_after_a_restart_with_its_original_end(tmp_path: Path, complete: bool) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[joined()], clock=clock) as desk:
        first = await sale(desk, 1)
        await desk.advance(1000)
        later = await sale(desk, 2)
    await clock.advance(1000)
    async with bench(tmp_path / "s.db", triggers=[joined()], clock=clock) as desk:
        (window,) = desk.intake.open_joins("on-grain")
        assert (window.used, window.missing) == ({"sales": [later.event]}, ["stock"])
        newest = await sale(desk, 3)
        assert (await outcome_of(desk, later)).code == "join_superseded"
        if complete:
            await count(desk, 1)
            await desk.settle()
            assert given(desk, run_id(first)) == [("sales", 3), ("stock", 1)]
        else:
            await desk.advance(1599)
            assert (await desk.run_of(run_id(newest))).state is RunState.PENDING
            await desk.advance(1)
            assert (await desk.run_of(run_id(newest))).code == "join_incomplete"
        await sound(desk)


async def test_what_was_complete_or_over_while_the_engine_was_away_is_dealt_with_at_the_start(tmp_path: Path) -> None:
    clock, rule = VirtualClock(), joined(key="data.order", reset=Reset.WINDOW)
    async with bench(tmp_path / "s.db", triggers=[rule], clock=clock) as desk:
        whole, half = await sale(desk, order="a"), await sale(desk, order="b")
        await count(desk, order="a")
    await clock.advance(7200)
    async with bench(tmp_path / "s.db", triggers=[rule], clock=clock) as desk:
        assert given(desk, run_id(whole)) == [("sales", 1), ("stock", 1)]
        assert (await desk.run_of(run_id(half))).code == "join_incomplete"
        await sound(desk)


async def test_an_event_after_the_end_begins_another_join(tmp_path: Path) -> None:
    """The engine is away at the end, and the event is there before the run that is over takes note of it."""
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[joined()], clock=clock) as desk:
        first = await sale(desk)
    await clock.advance(3600)
    async with bench(tmp_path / "s.db", triggers=[joined()], clock=clock, dispatching=False) as desk:
        late = await count(desk)
        assert verdict(late) == (EventOutcome.RUN, "join_waits")
        assert run_id(late) != run_id(first)


async def test_a_join_of_a_trigger_that_joins_nothing_any_more_is_not_run(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[joined()], clock=clock) as desk:
        first = await sale(desk)
    async with bench(tmp_path / "s.db", triggers=[trigger()], clock=clock) as desk:
        await desk.emit_one(event())
        await desk.advance(3600)
        over = await desk.run_of(run_id(first))
        assert (over.state, over.code) == (RunState.EXPIRED, "join_incomplete")
        assert "joins nothing any more" in over.reason
        assert len(desk.script.begun) == 1
        await sound(desk)


async def test_a_join_that_is_refused_leaves_no_part_behind(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk, 1)
        desk.store.write_error = StoreUnavailable("the disk is full")
        for send in (sale, count):
            with pytest.raises(StoreUnavailable):
                await send(desk, 9)
        desk.store.write_error = None
        await desk.advance(5)
        (window,) = desk.intake.open_joins("on-grain")
        assert (window.used, window.is_settled) == ({"sales": [first.event]}, True)
        await count(desk, 2)
        await desk.settle()
        assert given(desk, run_id(first)) == [("sales", 1), ("stock", 2)]
        await sound(desk)


async def test_a_part_of_a_join_that_was_cancelled_meanwhile_begins_another(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk)
        run = await desk.run_of(run_id(first))
        # As another writer would: the organs do not know of it.
        await desk.store._writer.execute("update runs set state = 'cancelled' where id = ?", [run.id])  # type: ignore[union-attr]
        await desk.store._writer.commit()  # type: ignore[union-attr]
        answer = await count(desk)
        assert verdict(answer) == (EventOutcome.RUN, "join_waits")
        assert run_id(answer) != run.id


async def test_the_end_of_a_window_waits_for_the_answer_on_its_last_part(tmp_path: Path) -> None:
    """What would make it complete is decided and not durable: the run is not started for what may be refused."""
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk)
        await desk.advance(3599)
        hold = desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(count, desk)
            await desk.settle()
            await desk.advance(10)
            assert desk.script.begun == []
            desk.store.hold = None
            hold.set()
        await desk.advance(1)
        assert given(desk, run_id(first)) == [("sales", 1), ("stock", 1)]
        await sound(desk)


async def test_gates_come_before_a_join(tmp_path: Path) -> None:
    rule = joined(
        filter="data.n > 0", dedupe=Dedupe(key="string(data.n) + event.input", window_s=60.0),
        rate_limit=Rate(limit=3, per_s=60.0, burst=3),
    )  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=[rule]) as desk:
        assert verdict(await sale(desk, 0))[1] == "filter_false"
        assert verdict(await sale(desk, 1))[1] == "join_waits"
        assert verdict(await sale(desk, 1))[1] == "dedupe"
        assert verdict(await count(desk, 1))[1] == "join_complete"
        assert verdict(await sale(desk, 2))[1] == "join_waits"
        assert verdict(await sale(desk, 3))[1] == "rate_limited"
        await sound(desk)


async def test_a_joined_run_waits_at_the_throttle(tmp_path: Path) -> None:
    async with bench(
        tmp_path / "s.db", triggers=[joined(key="data.order", throttle=Rate(limit=1, per_s=60.0, burst=1))]
    ) as desk:
        for order in "ab":
            await sale(desk, order=order)
            await count(desk, order=order)
        await desk.advance(1)
        assert len(desk.script.begun) == 1
        await desk.advance(60)
        assert len(desk.script.begun) == 2
        await sound(desk)


async def test_a_join_is_ended_by_cancel_and_can_not_be_held(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        steering = Steering(
            clock=desk.clock, store=desk.store, journal=desk.journal, hands=desk.dispatch.hands,
            rules=desk.intake._rules, retired={}, ageing_s=60.0, finish=desk.intake.finish,
        )  # fmt: skip
        first = await sale(desk)
        with pytest.raises(Conflict, match="waits for the inputs of its join"):
            await steering.hold(run_id(first))
        moved = await steering.set_priority(run_id(first), 7)
        assert (moved.state, moved.priority) == (RunState.PENDING, 7)
        assert run_id(await sale(desk, 2)) == run_id(first)
        assert (await steering.cancel(run_id(first))).state is RunState.CANCELLED
        assert desk.intake.open_joins("on-grain") == []
        assert run_id(await count(desk)) != run_id(first)
        await sound(desk)


async def test_fired_by_hand_it_runs_at_once_and_leaves_the_join_alone(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        await sale(desk)
        answer = await desk.intake.fire("on-grain", data={"sales": 1, "stock": 2})
        assert verdict(answer) == (EventOutcome.RUN, "fired")
        await desk.settle()
        assert [name for name, *_ in desk.script.begun] == [run_id(answer)]
        (window,) = desk.intake.open_joins("on-grain")
        assert window.missing == ["stock"]
        await sound(desk)


# Inputs


async def test_an_event_comes_by_the_first_input_whose_filter_it_passes(tmp_path: Path) -> None:
    cheap = Input(name="cheap", source="till", on=Listed(), filter="data.n < 10")
    dear = Input(name="dear", source="till", on=Listed(), filter="data.n >= 10")
    async with bench(tmp_path / "s.db", triggers=[joined(cheap, dear)]) as desk:
        first = await sale(desk, 3)
        assert first.outcomes[0].gates[0].saw["input"] == "cheap"
        assert verdict(await sale(desk, 30))[1] == "join_complete"
        broken = await desk.emit_one(event("sale", data={}), source="till")
        assert verdict(broken) == (EventOutcome.FILTERED, "filter_error")
        await desk.settle()
        assert given(desk, run_id(first)) == [("cheap", 3), ("dear", 30)]
        await sound(desk)


async def test_an_event_that_several_inputs_hear_has_one_outcome(tmp_path: Path) -> None:
    one, other = Heard(type="sale"), Heard(type="sale")
    inputs = (
        Input(name="big", source="heard:1", on=one, filter="data.n > 5"), Input(name="all", source="heard:2", on=other),
    )  # fmt: skip
    rule = trigger(source="any:on-grain", inputs=inputs)
    async with bench(tmp_path / "s.db", triggers=[rule], hearing=[("heard:1", one), ("heard:2", other)]) as desk:
        (big,) = await desk.intake.hear([event("sale", data={"n": 9})])
        (small,) = await desk.intake.hear([event("sale", data={"n": 1})])
        await desk.settle()
        assert [given(desk, run_id(answer)) for answer in (big, small)] == [[("big", 9)], [("all", 1)]]
        await sound(desk)


async def test_on_any_each_event_is_a_run_that_knows_its_input_also_read_from_the_store(tmp_path: Path) -> None:
    rule = trigger(source="any:on-grain", inputs=(SALES, STOCK), filter="event.input != 'stock' || data.n > 1")
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[rule], clock=clock, dispatching=False) as desk:
        queued = await count(desk, 2)
        assert verdict(await count(desk, 1))[1] == "filter_false"
    async with bench(tmp_path / "s.db", triggers=[rule], clock=clock) as desk:
        at_once = await sale(desk)
        await desk.settle()
        assert given(desk, run_id(queued)) == [("stock", 2)]
        assert given(desk, run_id(at_once)) == [("sales", 1)]
        await sound(desk)


async def test_senders_of_two_inputs_may_use_the_same_keys(tmp_path: Path) -> None:
    rule = trigger(source="any:on-grain", inputs=(SALES, STOCK))
    async with bench(tmp_path / "s.db", triggers=[rule]) as desk:
        answers = [await desk.emit_one(event(key="k", data={"n": 1}), source=source) for source in ("till", "store")]
        assert [verdict(answer)[0] for answer in answers] == [EventOutcome.RUN] * 2
        again = await desk.emit_one(event(key="k", data={"n": 1}), source="till")
        assert (again.duplicate, run_id(again)) == (True, run_id(answers[0]))
        await sound(desk)


async def test_a_run_that_is_retried_by_hand_knows_its_inputs(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk, 1)
        await count(desk, 2)
        await desk.settle()
        run = await desk.run_of(run_id(first))
        answer = await desk.intake.again(run, await desk.store.run_events(run.id), reason="once more")
        await desk.settle()
        assert given(desk, run_id(answer)) == [("sales", 1), ("stock", 2)]
        await sound(desk)


async def test_a_replayed_event_is_a_part_of_the_join_that_is_open(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk, 1)
        await desk.advance(3600)
        assert (await desk.run_of(run_id(first))).code == "join_incomplete"
        late = await count(desk, 2)
        stored = await desk.store.event(first.event)
        assert stored is not None
        again = await desk.intake.rehearsal.replay(stored, trigger=None, reason="late")
        assert verdict(again) == (EventOutcome.JOINED, "join_complete")
        await desk.settle()
        assert given(desk, run_id(late)) == [("stock", 2), ("sales", 1)]
        await sound(desk)


async def test_an_event_that_was_held_back_before_it_was_asked_by_which_input_it_comes_is_a_part_when_it_is_replayed(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        first = await sale(desk, 1)
        await desk.advance(3600)
        late = await count(desk, 2)
        stored = await desk.store.event(first.event)
        assert stored is not None
        paused = Outcome(trigger="on-grain", outcome=EventOutcome.PAUSED, code="trigger_paused", reason="paused")
        held_back = replace(stored, outcomes=(paused,))
        again = await desk.intake.rehearsal.replay(held_back, trigger=None, reason="the pause is over")
        assert verdict(again) == (EventOutcome.JOINED, "join_complete")
        await desk.settle()
        assert given(desk, run_id(late)) == [("stock", 2), ("sales", 1)]
        await sound(desk)


async def test_a_tried_event_says_what_the_join_would_do_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        test = desk.intake.rehearsal.test
        opens = test("on-grain", Event(type="sale", source="till", data={"n": 1}))
        assert (opens.outcome.code, opens.run is not None) == ("join_waits", True)
        assert opens.data == {"sales": {"n": 1}}
        assert desk.intake.open_joins("on-grain") == []
        first = await sale(desk, 1)
        completes = test("on-grain", Event(type="count", source="stock", data={"n": 1}))
        assert (completes.outcome.code, completes.outcome.run) == ("join_complete", run_id(first))
        assert [seen.gate for seen in completes.outcome.gates] == ["on", "join"]
        assert completes.outcome.gates[1].saw["missing"] == []
        supersedes = test("on-grain", Event(type="sale", source="sales", data={"n": 2}))
        assert supersedes.outcome.gates[1].verdict == "supersede"
        assert test("on-grain", Event(type="sale", source="elsewhere")).outcome.code == "unmatched"
        (window,) = desk.intake.open_joins("on-grain")
        assert (window.used, window.count, window.is_settled) == ({"sales": [first.event]}, 1, True)
        await desk.advance(3600)
        assert (await desk.run_of(run_id(first))).code == "join_incomplete"
        await sound(desk)


async def test_what_is_kept_of_a_join_goes_with_its_run(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[joined()]) as desk:
        old, later = [(await sale(desk), await count(desk)) for _ in range(2)]
        await desk.settle()
        purge = Purge(runs=(run_id(old[0]),), events=tuple(one.event for one in old), before=desk.clock.now())
        await desk.journal.submit(Accept(entries=(), purge=purge))
        rows = await desk.store._read(lambda raw: raw.execute("select distinct run from inputs").fetchall())
        assert rows == [(run_id(later[0]),)]
        await sound(desk)
