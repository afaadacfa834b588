"""The gates at work: what intake, dispatch and the store make of events together, also across restarts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.clock import to_microseconds
from engine.errors import StoreUnavailable
from engine.events import Accepted, EventOutcome
from engine.jobs import Job
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.testing import VirtualClock
from engine.triggers import Batch, Debounce, Dedupe, Edge, Rate, Take
from tests.organs import Bench, bench, event, job, trigger

pytestmark = pytest.mark.anyio


def verdict(answer: Accepted) -> tuple[EventOutcome, str]:
    (outcome,) = answer.outcomes
    return outcome.outcome, outcome.code


def run_id(answer: Accepted) -> str:
    (outcome,) = answer.outcomes
    assert outcome.run is not None
    return outcome.run


def begun(desk: Bench) -> list[tuple[str, float]]:
    """Return which runs began, and how many seconds after the first event that was."""
    first = min(at for _, _, at in desk.script.begun)
    return [(name, (at - first).total_seconds()) for name, _, at in desk.script.begun]


def order(n: int, **data: Any) -> Any:
    return event(data={"n": n, **data}, subject=f"sack/{n}")


# Dedupe

DEDUPE = Dedupe(key="data.sack", window_s=3600.0)


async def test_of_events_with_an_equal_key_one_is_run_and_the_others_name_its_run(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)]) as desk:
        first, again, other = await desk.emit(*(event(data={"sack": n}) for n in (7, 7, 8)))
        assert [verdict(answer)[0] for answer in (first, again, other)] == ["run", "deduplicated", "run"]
        assert verdict(again) == (EventOutcome.DEDUPLICATED, "dedupe")
        assert run_id(again) == run_id(first)
        assert '"7"' in again.outcomes[0].reason
        await desk.advance(3599)
        assert run_id(await desk.emit_one(event(data={"sack": 7}))) == run_id(first)
        await desk.advance(1)
        assert verdict(await desk.emit_one(event(data={"sack": 7})))[0] == "run"
        assert len(desk.script.begun) == 3
        assert (await desk.store.ledger()).missing == ()


@pytest.mark.parametrize("most_marks", [1000, 1], ids=["known", "read again"])
async def test_a_key_stays_known_after_a_restart_though_nothing_is_in_memory(tmp_path: Path, most_marks: int) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)], clock=clock) as desk:
        first, _ = await desk.emit(event(data={"sack": 7}), event(data={"sack": 8}))
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)], clock=clock, most_marks=most_marks) as desk:
        again = await desk.emit_one(event(data={"sack": 7}))
        assert (verdict(again)[1], run_id(again)) == ("dedupe", run_id(first))
        assert desk.script.begun == []
        assert desk.dispatch.running == 0


async def test_keys_without_end_take_no_more_memory_and_are_all_known(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)], most_marks=10) as desk:
        for start in range(0, 300, 50):
            await desk.emit(*(event(data={"sack": n}) for n in range(start, start + 50)))
        await desk.settle()
        assert len(desk.intake._drafting._marks.known) <= 10
        answers = await desk.emit(*(event(data={"sack": n}) for n in range(0, 300, 7)))
        assert {verdict(answer) for answer in answers} == {(EventOutcome.DEDUPLICATED, "dedupe")}
        assert len(desk.script.begun) == 300


async def test_marks_without_effect_leave_the_store(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)]) as desk:
        for start in range(0, 3000, 500):
            await desk.emit(*(event(data={"sack": n}) for n in range(start, start + 500)))
        await desk.advance(3500)
        assert len(await desk.store.latest_marks(limit=5000)) == 3000
        await desk.advance(200)
        assert await desk.store.latest_marks(limit=5000) == {}


async def test_what_is_not_stored_is_no_first_one(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=DEDUPE)]) as desk:
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.emit_one(event(data={"sack": 7}))
        desk.store.write_error = None
        await desk.advance(10)
        assert verdict(await desk.emit_one(event(data={"sack": 7})))[0] == "run"


async def test_a_repeated_event_and_its_like_in_one_emit_are_told_apart(tmp_path: Path) -> None:
    """The first is there already, so the second can't be deduplicated for it; its key is free again."""
    async with bench(tmp_path / "s.db", triggers=[trigger(dedupe=Dedupe(key="data.sack", window_s=1.0))]) as desk:
        first = await desk.emit_one(event(key="k", data={"sack": 7}))
        await desk.advance(5)
        again, like = await desk.emit(event(key="k", data={"sack": 7}), event(data={"sack": 7}))
        assert (again.duplicate, run_id(again)) == (True, run_id(first))
        assert verdict(like)[0] == "run"
        assert (await desk.store.ledger()).missing == ()
        assert verdict(await desk.emit_one(event(data={"sack": 7})))[1] == "dedupe"


async def test_the_key_of_what_was_dropped_later_is_free(tmp_path: Path) -> None:
    shaped = trigger(dedupe=DEDUPE, rate_limit=Rate(limit=1, per_s=60.0, burst=1))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = await desk.emit(event(data={"sack": 7}), event(data={"sack": 8}))
        assert [verdict(answer)[1] for answer in answers] == ["matched", "rate_limited"]
        await desk.advance(60)
        assert verdict(await desk.emit_one(event(data={"sack": 8})))[0] == "run"


# Rate limit


async def test_what_is_too_much_is_dropped_and_recorded_for_each_key(tmp_path: Path) -> None:
    shaped = trigger(rate_limit=Rate(limit=2, per_s=60.0, burst=2, key="data.mill"))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = await desk.emit(*(event(data={"mill": mill}) for mill in "aaaba"))
        assert [verdict(answer)[0] for answer in answers] == ["run", "run", "rate_limited", "run", "rate_limited"]
        assert answers[2].outcomes[0].run is None
        assert answers[2].outcomes[0].reason.startswith('rate_limited: 2 per 1m of key "a"; the next passes from ')
        await desk.advance(29.9)
        assert verdict(await desk.emit_one(event(data={"mill": "a"})))[0] == "rate_limited"
        await desk.advance(0.1)
        assert verdict(await desk.emit_one(event(data={"mill": "a"})))[0] == "run"


async def test_a_rate_limit_counts_what_came_before_a_restart(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(rate_limit=Rate(limit=2, per_s=60.0, burst=2))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit(event(), event())
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        assert verdict(await desk.emit_one(event()))[0] == "rate_limited"


# Throttle


async def test_a_throttle_lets_runs_wait_in_their_order_and_drops_none(tmp_path: Path) -> None:
    shaped = trigger(throttle=Rate(limit=10, per_s=60.0, burst=2))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = await desk.emit(*(order(n) for n in range(5)))
        assert [verdict(answer)[1] for answer in answers] == ["matched", "matched", "throttle", "throttle", "throttle"]
        assert (await desk.run_of(run_id(answers[4]))).state is RunState.PENDING
        await desk.advance(60)
        assert begun(desk) == [(run_id(answer), at) for answer, at in zip(answers, (0, 0, 6, 12, 18), strict=True)]


async def test_throttled_runs_start_at_their_times_after_a_restart(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(throttle=Rate(limit=1, per_s=10.0, burst=1))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        answers = await desk.emit(*(order(n) for n in range(3)))
        began = desk.script.begun[0][2]
    await clock.advance(4)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        late = await desk.emit_one(order(3))
        await desk.advance(60)
        found = [(name, (at - began).total_seconds()) for name, _, at in desk.script.begun]
        assert found == [(run_id(answers[1]), 10), (run_id(answers[2]), 20), (run_id(late), 30)]


async def test_what_should_have_started_meanwhile_does_not_start_in_a_heap(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(throttle=Rate(limit=1, per_s=10.0, burst=2))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        answers = await desk.emit(*(order(n) for n in range(6)))
        began = desk.script.begun[0][2]
    await clock.advance(25)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        late = await desk.emit_one(order(6))
        await desk.advance(100)
        found = [(name, (at - began).total_seconds()) for name, _, at in desk.script.begun]
        waited = [run_id(answer) for answer in (*answers[2:], late)]
        assert found == list(zip(waited, (25, 35, 45, 55, 65), strict=True))


async def test_keys_are_throttled_apart(tmp_path: Path) -> None:
    shaped = trigger(throttle=Rate(limit=1, per_s=10.0, burst=1, key="data.mill"))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        await desk.emit(*(event(data={"mill": mill}) for mill in "abab"))
        await desk.advance(60)
        assert [at for _, at in begun(desk)] == [0, 0, 10, 10]


async def test_what_has_gathered_meets_the_throttle_when_its_window_is_over(tmp_path: Path) -> None:
    shaped = trigger(debounce=Debounce(wait_s=2.0, key="data.mill"), throttle=Rate(limit=1, per_s=10.0, burst=1))
    async with bench(tmp_path / "s.db", triggers=[shaped], jobs=[job()]) as desk:
        answers = await desk.emit(*(event(data={"mill": mill}) for mill in "abcabc"))
        await desk.advance(12)
        waiting = await desk.run_of(run_id(answers[2]))
        assert (waiting.state, waiting.code, waiting.window) == (RunState.PENDING, "throttle", None)
        await desk.advance(60)
        assert begun(desk) == [(run_id(answers[n]), at) for n, at in ((0, 0), (1, 10), (2, 20))]
        assert all(len(events) == 2 for events in desk.script.events.values())
        codes = [step.code for step in (await desk.run_of(run_id(answers[2]))).trace]
        assert codes == ["debounce", "throttle", "started", "succeeded"]


async def test_a_gathered_run_that_waits_at_the_throttle_survives_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    shaped = trigger(batch=Batch(size=2, wait_s=60.0), throttle=Rate(limit=1, per_s=10.0, burst=1, key="'x'"))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit(*(order(n) for n in range(4)))
        await desk.advance(1)
        assert len(desk.script.begun) == 1
        began = desk.script.begun[0][2]
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.advance(30)
        assert [(at - began).total_seconds() for _, _, at in desk.script.begun] == [10]
        assert [len(events) for events in desk.script.events.values()] == [2]


# Debounce


async def test_the_event_that_fills_a_window_starts_its_run_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(debounce=Debounce(wait_s=60.0, max_events=3))]) as desk:
        answers = await desk.emit(*(order(n) for n in range(4)))
        assert [verdict(answer)[0] for answer in answers] == ["run", "joined", "joined", "run"]
        await desk.advance(0.01)
        assert begun(desk) == [(run_id(answers[0]), 0)]
        assert len(desk.script.events[run_id(answers[0])]) == 3
        await desk.advance(60)
        assert [len(events) for events in desk.script.events.values()] == [3, 1]
        assert (await desk.store.ledger()).missing == ()


async def test_a_window_that_was_full_when_the_engine_died_takes_no_more(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(debounce=Debounce(wait_s=60.0, max_events=2))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock, dispatching=False) as desk:
        first, second = await desk.emit(order(1), order(2))
        assert run_id(second) == run_id(first)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock, dispatching=False) as desk:
        third = await desk.emit_one(order(3))
        assert verdict(third)[0] == "run"
        fourth = await desk.emit_one(order(4))
        assert run_id(fourth) == run_id(third)


@pytest.mark.parametrize("restarts", [False, True])
async def test_the_first_of_what_comes_close_together_runs_at_once_and_no_other(tmp_path: Path, restarts: bool) -> None:
    clock, shaped = VirtualClock(), trigger(debounce=Debounce(wait_s=10.0, max_wait_s=25.0, edge=Edge.LEADING))
    found: list[str] = []
    for steps in [(0,), (6, 6, 6), (6, 6)] if restarts else [(0, 6, 6, 6, 6, 6)]:
        async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
            for seconds in steps:
                await desk.advance(seconds)
                found.append(verdict(await desk.emit_one(event()))[1])
            assert (await desk.store.ledger()).missing == ()
    # At 30 seconds the window has been over since 25.
    assert found == ["matched", *["debounce_leading"] * 4, "matched"]


async def test_with_both_edges_what_follows_the_first_gathers_for_a_run_of_its_own(tmp_path: Path) -> None:
    shaped = trigger(debounce=Debounce(wait_s=10.0, edge=Edge.BOTH))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = []
        for seconds in (0, 5, 5, 20, 20):
            await desk.advance(seconds)
            answers.append(await desk.emit_one(event()))
        assert [verdict(answer)[1] for answer in answers] == ["matched", "debounce", "joined", "matched", "matched"]
        await desk.advance(60)
        assert begun(desk) == [(run_id(answers[n]), at) for n, at in ((0, 0), (1, 20), (3, 30), (4, 50))]


async def test_a_window_stays_open_when_another_event_of_the_same_emit_is_decided_anew(tmp_path: Path) -> None:
    shaped = trigger(debounce=Debounce(wait_s=10.0, edge=Edge.BOTH, key="data.k"))
    async with bench(tmp_path / "s.db", triggers=[shaped], most_marks=1) as desk:
        first = await desk.emit(*(event(data={"k": key}) for key in "aba"))
        then = await desk.emit(*(event(data={"k": key}) for key in "ab"))
        assert (verdict(then[0])[1], run_id(then[0])) == ("joined", run_id(first[2]))
        assert verdict(then[1])[1] == "debounce"


async def test_a_window_that_was_full_takes_more_again_when_what_filled_it_is_decided_anew(tmp_path: Path) -> None:
    shaped = trigger(
        debounce=Debounce(wait_s=10.0, max_events=3, key="data.k"),
        rate_limit=Rate(limit=1, per_s=1.0, burst=3, key="data.k"),
    )
    async with bench(tmp_path / "s.db", triggers=[shaped], most_marks=1) as desk:
        first = await desk.emit(*(event(data={"k": key}) for key in "aab"))
        then = await desk.emit(*(event(data={"k": key}) for key in "aa"))
        assert [verdict(answer)[1] for answer in then] == ["joined", "rate_limited"]
        assert run_id(then[0]) == run_id(first[0])


# Batch


async def test_a_batch_starts_when_it_is_full_or_its_time_is_over(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(batch=Batch(size=3, wait_s=10.0))]) as desk:
        answers = await desk.emit(*(order(n) for n in range(3)))
        await desk.advance(4)
        answers.append(await desk.emit_one(order(3)))
        await desk.advance(9)
        answers.append(await desk.emit_one(order(4)))
        await desk.advance(10)
        assert begun(desk) == [(run_id(answers[0]), 0), (run_id(answers[3]), 14)]
        assert [len(events) for events in desk.script.events.values()] == [3, 2]


async def test_a_batch_that_fills_up_when_its_time_was_over_already_is_due_since_then(tmp_path: Path) -> None:
    shaped = trigger(batch=Batch(size=2, wait_s=10.0), expires_s=60.0)
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        first = await desk.emit_one(order(0))
        opened = desk.clock.now()
        desk.clock.step(15)  # nobody has noticed yet
        assert run_id(await desk.emit_one(order(1))) == run_id(first)
        run = await desk.store.run(run_id(first))
        assert run is not None
        assert run.expires_at == opened + timedelta(seconds=10 + 60)
        await desk.settle()
        assert [len(events) for events in desk.script.events.values()] == [2]


async def test_a_batch_counts_its_bytes_also_after_a_restart(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(batch=Batch(size=100, wait_s=60.0, size_bytes=30))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit(event(data="0123456789"), event(data="0123456"))
        await desk.advance(1)
        assert desk.script.begun == []
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit(event(data="0123456"))
        await desk.advance(0.01)
        assert [len(events) for events in desk.script.events.values()] == [3]
        await desk.emit(event(data="x" * 40))
        await desk.advance(0.01)
        assert len(desk.script.begun) == 2


async def test_a_batch_of_one_runs_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(batch=Batch(size=1, wait_s=10.0))]) as desk:
        assert verdict(await desk.emit_one(event()))[1] == "matched"


async def test_an_open_window_keeps_its_deadline_when_the_engine_is_away(tmp_path: Path) -> None:
    """Fault row A6."""
    clock, shaped = VirtualClock(), trigger(debounce=Debounce(wait_s=10.0, max_wait_s=15.0))
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit(*(order(n) for n in range(5)))
        opened = clock.now()
        await desk.advance(6)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.emit_one(order(6))
        await desk.advance(60)
        assert [(at - opened).total_seconds() for _, _, at in desk.script.begun] == [15]
        assert [len(events) for events in desk.script.events.values()] == [6]


# Expiry


async def test_a_run_that_has_waited_too_long_is_expired_at_its_instant(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def act(run: Run, job: Job) -> Outcome:
        await clock.sleep(100)
        return Outcome.succeeded("done")

    shaped = trigger(expires_s=30.0)
    async with bench(tmp_path / "s.db", triggers=[shaped], concurrency=1, clock=clock, act=act) as desk:
        first, second = await desk.emit(order(1), order(2))
        await desk.advance(29.9)
        assert (await desk.run_of(run_id(second))).state is RunState.QUEUED
        await desk.advance(0.1)
        ended = await desk.run_of(run_id(second))
        assert (ended.state, ended.code) == (RunState.EXPIRED, "expired")
        assert ended.reason == "expired: it had not begun 30s after its event"
        await desk.advance(200)
        assert (await desk.run_of(run_id(first))).state is RunState.SUCCEEDED
        assert len(desk.script.begun) == 1


async def test_what_expired_while_the_engine_was_away_never_begins(tmp_path: Path) -> None:
    clock, shaped = VirtualClock(), trigger(expires_s=30.0)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock, dispatching=False) as desk:
        answer = await desk.emit_one(order(1))
    await clock.advance(31)
    async with bench(tmp_path / "s.db", triggers=[shaped], clock=clock) as desk:
        await desk.advance(5)
        assert (await desk.run_of(run_id(answer))).state is RunState.EXPIRED
        assert desk.script.begun == []


async def test_what_gathers_does_not_expire_before_its_window_is_over(tmp_path: Path) -> None:
    shaped = trigger(debounce=Debounce(wait_s=10.0), expires_s=5.0)
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = []
        for seconds in (0, 8, 8):
            await desk.advance(seconds)
            answers.append(await desk.emit_one(order(seconds)))
        await desk.advance(30)
        assert (await desk.run_of(run_id(answers[0]))).state is RunState.SUCCEEDED


async def test_what_waits_too_long_at_the_throttle_expires(tmp_path: Path) -> None:
    shaped = trigger(throttle=Rate(limit=1, per_s=10.0, burst=1), expires_s=15.0)
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        answers = await desk.emit(*(order(n) for n in range(4)))
        await desk.advance(60)
        states = [(await desk.run_of(run_id(answer))).state for answer in answers]
        assert states == ["succeeded", "succeeded", "expired", "expired"]
        assert (await desk.store.ledger()).waiting == 0


# What a run gets, and what a caller may leave out


@pytest.mark.parametrize("gate", ["debounce", "batch", "throttle", "rate_limit", "dedupe"])
async def test_a_manual_fire_leaves_out_the_gates_that_it_names(tmp_path: Path, gate: str) -> None:
    gates: dict[str, Any] = {
        "debounce": Debounce(wait_s=60.0, key="data.x"), "batch": Batch(size=9, wait_s=60.0, key="data.x"),
        "throttle": Rate(limit=1, per_s=60.0, burst=1, key="data.x"),
        "rate_limit": Rate(limit=1, per_s=60.0, burst=1, key="data.x"), "dedupe": Dedupe(key="data.x", window_s=60.0),
    }  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=[trigger(**{gate: gates[gate]})]) as desk:
        await desk.emit_one(event(data={"x": 1}))
        obeys = await desk.intake.fire("on-grain", data={"x": 1})
        assert verdict(obeys) != (EventOutcome.RUN, "fired")
        free = await desk.intake.fire("on-grain", bypass=frozenset({gate}))
        assert verdict(free) == (EventOutcome.RUN, "fired")
        assert to_microseconds(desk.clock.now()) == to_microseconds(desk.script.begun[-1][2])


def test_a_run_takes_what_its_trigger_says() -> None:
    from engine.decide.shaping import taken

    events = [event(data={"a": 1, "b": 1}), event(data=None), event(data=7), event(data={"b": 2})]
    assert taken(events, Take.LAST) is events[3]
    assert taken(events, Take.FIRST) is events[0]
    assert taken(events, Take.ALL).data == [{"a": 1, "b": 1}, None, 7, {"b": 2}]
    assert taken(events, Take.MERGE).data == {"a": 1, "b": 2, "value": 7}


# Rehearsal


async def test_a_rehearsal_leaves_the_gates_as_they_are(tmp_path: Path) -> None:
    shaped = trigger(dedupe=DEDUPE, rate_limit=Rate(limit=2, per_s=60.0, burst=2), debounce=Debounce(wait_s=10.0))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        first = await desk.emit_one(event(data={"sack": 7}))
        for _ in range(2):
            again = desk.intake.rehearsal.test("on-grain", event(data={"sack": 7}))
            assert (again.outcome.code, again.outcome.run) == ("dedupe", run_id(first))
            assert desk.intake.rehearsal.test("on-grain", event(data={"sack": 8})).outcome.code == "joined"
        assert verdict(await desk.emit_one(event(data={"sack": 8})))[1] == "joined"
        assert desk.intake.rehearsal.test("on-grain", event(data={"sack": 9})).outcome.code == "rate_limited"
        assert [seen.gate for seen in first.outcomes[0].gates] == ["dedupe", "rate_limit", "debounce"]
