"""How many runs wait: what is counted, caps of triggers, and who is pushed back when too much waits."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from engine.errors import QueueFull
from engine.jobs import Job, RetryPolicy
from engine.plugin import Outcome
from engine.runs import Lane, Run, RunState
from engine.testing import VirtualClock
from engine.triggers import Debounce
from engine.waiting import FlushRequest
from tests.organs import Bench, Heard, bench, event, job, trigger
from tests.test_steering import let_go, new_run, steered

RULES = [trigger("a", source="a"), trigger("b", source="b"), trigger("c", source="c")]


async def forever(run: Run, job: Job) -> Outcome:
    await anyio.sleep_forever()
    raise AssertionError("unreachable")


async def nothing_is_miscounted(desk: Bench) -> None:
    """What is counted is what the store holds."""
    counts = await desk.store.waiting()
    assert {name: desk.backlog.of(name) for name in counts} == counts
    assert desk.backlog.total == sum(counts.values())


async def test_what_is_counted_is_what_waits_whatever_becomes_of_it(tmp_path: Path) -> None:
    async def act(run: Run, job: Job) -> Outcome:
        if run.trigger == "b" and run.attempt == 1:
            return Outcome.failed("no", "no")
        await desk.doors.setdefault(run.id, anyio.Event()).wait()
        return Outcome.succeeded("done")

    rules = [*RULES[:2], trigger("c", source="c", debounce=Debounce(wait_s=5.0))]
    jobs = [job(retry=RetryPolicy(attempts=2, delay_s=1.0))]
    clock = VirtualClock()
    async with steered(tmp_path / "e.db", jobs=jobs, triggers=rules, clock=clock, act=act) as desk:
        runs = [await new_run(desk, source) for source in "abcabcaa"]
        await nothing_is_miscounted(desk)
        await desk.advance(10)
        await nothing_is_miscounted(desk)
        await let_go(desk, runs[0])
        await desk.advance(10)
        await nothing_is_miscounted(desk)
        await desk.steering.hold(runs[6])
        await desk.steering.cancel(runs[7])
        await nothing_is_miscounted(desk)
        assert desk.backlog.of("a") == 2 - (runs[3] in desk.script.going)
    async with steered(tmp_path / "e.db", jobs=jobs, triggers=rules, clock=clock, act=act, boot="boot-2") as desk:
        await nothing_is_miscounted(desk)
        await desk.steering.release(runs[6])
        await desk.steering.flush(FlushRequest(whole=True), reason="enough")
        await nothing_is_miscounted(desk)
        assert desk.backlog.total == 0


async def test_no_more_runs_of_a_trigger_wait_than_may_and_what_is_dropped_is_recorded(tmp_path: Path) -> None:
    rules = [trigger("a", source="a", max_waiting=2), *RULES[1:]]
    async with bench(tmp_path / "e.db", triggers=rules, concurrency=1, act=forever) as desk:
        answers = await desk.emit(*[event() for _ in range(5)], source="a")
        outcomes = [answer.outcomes[0] for answer in answers]
        assert [one.outcome.value for one in outcomes] == ["run", "run", "run", "rate_limited", "rate_limited"]
        assert (outcomes[-1].code, outcomes[-1].run) == ("queue_full", None)
        assert outcomes[-1].reason == "rate_limited: 2 runs of trigger a wait already (max_waiting = 2)"
        (other,) = (await desk.emit(event(), source="b"))[0].outcomes
        assert other.outcome.value == "run"
        fired = await desk.intake.fire("a")
        assert fired.outcomes[0].code == "queue_full"
        await nothing_is_miscounted(desk)
        ledger = await desk.store.ledger()
        assert (ledger.accepted, ledger.missing) == (7, ())


async def test_an_event_still_joins_a_run_that_waits_where_no_other_may(tmp_path: Path) -> None:
    rules = [trigger("a", source="a", max_waiting=1, debounce=Debounce(wait_s=5.0, key="event.subject"))]
    async with bench(tmp_path / "e.db", triggers=rules, act=forever) as desk:
        answers = [(await desk.emit(event(subject=name), source="a"))[0] for name in ("x", "x", "y")]
        assert [answer.outcomes[0].outcome.value for answer in answers] == ["run", "joined", "rate_limited"]
        await nothing_is_miscounted(desk)


async def test_a_draft_that_is_not_stored_is_not_counted(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", triggers=RULES, concurrency=1, act=forever) as desk:
        first = event(key="k")
        await desk.emit(first, event(), source="a")
        repeated = await desk.emit(first, source="a")
        assert repeated[0].duplicate
        await nothing_is_miscounted(desk)


async def test_above_the_high_mark_a_source_is_pushed_back_until_the_low_one(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", triggers=RULES, high=6, low=3) as desk:
        await desk.emit(*[event() for _ in range(7)], source="a")
        await desk.settle()
        with pytest.raises(QueueFull, match="6 runs wait, 6 of them by this source"):
            await desk.emit(event(), source="a")
        stored = len(desk.store.changes)
        for left in (5, 4):
            (going,) = desk.script.going
            await let_go(desk, going)
            assert desk.backlog.total == left
            with pytest.raises(QueueFull):
                await desk.emit(event(), source="a")
        assert len(desk.store.changes) == stored + 4  # an end and a start each
        (going,) = desk.script.going
        await let_go(desk, going)
        assert (await desk.emit(event(), source="a"))[0].runs
        assert not desk.backlog.is_full


async def test_a_flood_of_one_source_is_not_felt_by_the_others(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", triggers=RULES, concurrency=1, act=forever, high=10, low=8) as desk:
        await desk.emit(*[event() for _ in range(11)], source="a")
        for _ in range(4):
            for source in "bc":
                assert (await desk.emit(event(), source=source))[0].runs
            with pytest.raises(QueueFull):
                await desk.emit(event(), source="a")
            if desk.backlog.of("b") >= 8 // 3:
                break
        with pytest.raises(QueueFull):
            await desk.emit(event(), source="b")
        assert desk.backlog.total < 10 + 8
        assert (await desk.intake.fire("a")).runs


async def test_the_senders_of_events_are_pushed_back_by_whose_triggers_they_would_meet(tmp_path: Path) -> None:
    rules = [trigger("heard", source="ears", on=Heard()), *RULES]
    hearing = [("ears", Heard())]
    async with bench(
        tmp_path / "e.db", triggers=rules, hearing=hearing, concurrency=1, act=forever, high=3, low=2
    ) as desk:
        await desk.emit(*[event() for _ in range(4)], source="a")
        order = event("order.created", source="shop")
        assert (await desk.intake.hear([order]))[0].runs
        with pytest.raises(QueueFull):
            await desk.intake.hear([order])
        assert (await desk.intake.hear([event("other", source="shop")]))[0].runs == ()


# Lanes


async def test_a_slot_that_is_kept_for_what_people_fire_is_left_to_them(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", concurrency=3, reserve={Lane.MANUAL: 1}) as desk:
        live = [await new_run(desk) for _ in range(4)]
        assert list(desk.script.going) == live[:2]
        (fired,) = (await desk.intake.fire("on-grain")).runs
        await desk.settle()
        assert list(desk.script.going) == [*live[:2], fired]
        (second,) = (await desk.intake.fire("on-grain", priority=8)).runs
        await desk.settle()
        assert len(desk.script.going) == 3
        await let_go(desk, live[0])
        assert second in desk.script.going, "beyond its share it stands in one line with the others, by rank"
        await let_go(desk, fired)
        await let_go(desk, second)
        assert list(desk.script.going) == [live[1], live[2]]
        assert (await desk.run_of(live[3])).state is RunState.QUEUED


async def test_a_slot_that_is_kept_for_live_work_is_not_taken_by_what_people_fire(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", concurrency=2, reserve={Lane.LIVE: 1}) as desk:
        fired = [(await desk.intake.fire("on-grain")).runs[0] for _ in range(3)]
        await desk.settle()
        assert list(desk.script.going) == fired[:1]
        live = await new_run(desk)
        assert list(desk.script.going) == [fired[0], live]
        await let_go(desk, live)
        assert list(desk.script.going) == [fired[0]]
        await let_go(desk, fired[0])
        assert list(desk.script.going) == [fired[1]]


async def test_both_lanes_are_taken_up_after_a_restart_in_one_line(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with steered(tmp_path / "e.db", clock=clock, dispatching=False) as desk:
        waits = []
        for number in range(6):
            if number % 2:
                waits.append((await desk.intake.fire("on-grain")).runs[0])
            else:
                waits.append(await new_run(desk))
            await desk.advance(1)
    async with steered(tmp_path / "e.db", clock=clock, boot="boot-2") as desk:
        for run_id in waits:
            assert list(desk.script.going) == [run_id]
            await let_go(desk, run_id)
