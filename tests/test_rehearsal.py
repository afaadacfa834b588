"""Rehearsal: an event that is tried leaves nothing behind; an event that is run again is a new run of a copy."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from engine.errors import Conflict, NotFound
from engine.events import Accepted, EventOutcome
from engine.intake.rehearsal import Rehearsal
from engine.jobs import Overlap
from engine.replays import REPLAY_KEY, is_copy, replay_of
from engine.runs import Origin, RunState
from engine.store.base import EventFilter, StoredEvent
from engine.triggers import Debounce, Dedupe, Edge, Rate
from tests.organs import Bench, Heard, bench, event, job, trigger


def rehearsal(desk: Bench) -> Rehearsal:
    return desk.intake.rehearsal


async def stored(desk: Bench, accepted: Accepted) -> StoredEvent:
    found = await desk.store.event(accepted.event)
    assert found is not None
    return found


async def nothing_is_left(desk: Bench, commits: int) -> None:
    await desk.settle()
    assert desk.journal.commits == commits
    assert desk.dispatch.running == 0
    assert len(desk.windows) == 0
    assert desk.script.begun == []


async def test_a_tried_event_is_decided_as_a_real_one_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(filter="data.n > 1", defaults={"m": 5})]) as desk:
        commits = desk.journal.commits
        dropped = rehearsal(desk).test("on-grain", event(data={"n": 1}))
        assert dropped.outcome.outcome is EventOutcome.FILTERED
        assert [(seen.gate, seen.verdict) for seen in dropped.outcome.gates] == [("filter", "drop")]
        assert dropped.run is None
        passed = rehearsal(desk).test("on-grain", event(data={"n": 2}))
        assert passed.outcome.outcome is EventOutcome.RUN
        assert passed.run is not None
        assert passed.run.state is RunState.RUNNING
        assert passed.data == {"n": 2, "m": 5}
        broken = rehearsal(desk).test("on-grain", event(data={}))
        assert broken.outcome.code == "filter_error"
        await nothing_is_left(desk, commits)
        with pytest.raises(NotFound):
            rehearsal(desk).test("other", event())


async def test_a_tried_event_opens_no_window_and_puts_no_window_off(tmp_path: Path) -> None:
    gathers = trigger(debounce=Debounce(wait_s=10.0))
    async with bench(tmp_path / "s.db", triggers=[gathers]) as desk:
        commits = desk.journal.commits
        opened = rehearsal(desk).test("on-grain", event())
        assert opened.outcome.code == "debounce"
        await nothing_is_left(desk, commits)
        first = await desk.emit_one(event())
        window = desk.windows.find("on-grain", "")
        assert window is not None
        before = (window.due_at, window.count, window.priority)
        await desk.advance(5)
        joined = rehearsal(desk).test("on-grain", event(priority=8))
        assert joined.outcome.outcome is EventOutcome.JOINED
        assert joined.outcome.run == first.runs[0]
        assert (window.due_at, window.count, window.priority) == before
        await desk.advance(5.5)
        assert len(desk.script.begun) == 1
        assert (await desk.run_of(first.runs[0])).event_count == 1


async def test_a_tried_event_leaves_what_gates_remember_as_it_was(tmp_path: Path) -> None:
    once = Rate(limit=1, per_s=60.0, burst=1)
    shaped = trigger(dedupe=Dedupe(key="data.sack", window_s=60.0), rate_limit=once, throttle=once)
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        commits = desk.journal.commits
        for _ in range(3):
            tried = rehearsal(desk).test("on-grain", event(data={"sack": 1}))
            assert (tried.outcome.outcome, tried.run and tried.run.state) == (EventOutcome.RUN, RunState.RUNNING)
        await nothing_is_left(desk, commits)
        (first,) = await desk.emit(event(data={"sack": 1}))
        await desk.settle()
        assert len(first.runs) == 1
        assert rehearsal(desk).test("on-grain", event(data={"sack": 1})).outcome.code == "dedupe"
        assert rehearsal(desk).test("on-grain", event(data={"sack": 2})).outcome.code == "rate_limited"


async def test_an_event_tried_while_its_first_one_is_stored_lets_the_gates_remember_that(tmp_path: Path) -> None:
    shaped = trigger(
        dedupe=Dedupe(key="data.sack", window_s=60.0), debounce=Debounce(wait_s=10.0, edge=Edge.LEADING)
    )  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        desk.store.hold = anyio.Event()
        answers: list[Accepted] = []

        async def emit() -> None:
            answers.append(await desk.emit_one(event(data={"sack": 1})))

        async with anyio.create_task_group() as group:
            group.start_soon(emit)
            await desk.settle()
            assert rehearsal(desk).test("on-grain", event(data={"sack": 1})).outcome.code == "dedupe"
            group.start_soon(emit)
            await desk.settle()
            desk.store.hold.set()
        assert [answer.outcomes[0].code for answer in answers] == ["matched", "dedupe"]


async def test_a_tried_event_sees_who_is_in_its_way_and_keeps_out_of_the_way(tmp_path: Path) -> None:
    jobs = [job(concurrency=1, overlap=Overlap.SKIP)]
    async with bench(tmp_path / "s.db", jobs=jobs) as desk:
        for _ in range(2):
            free = rehearsal(desk).test("on-grain", event())
            assert free.run is not None
            assert free.run.state is RunState.RUNNING

        async def wait(*_: object) -> None:
            await desk.clock.sleep(60)

        from engine.plugin import Outcome

        async def work(run: object, known: object) -> Outcome:
            await wait()
            return Outcome.succeeded("done")

        desk.script.act = work
        accepted = await desk.emit_one(event())
        met = rehearsal(desk).test("on-grain", event())
        assert met.outcome.code == "overlap"
        assert accepted.runs[0] in met.outcome.reason
        await desk.advance(61)
        assert (await desk.emit_one(event())).outcomes[0].code == "matched"


async def test_a_trigger_that_does_not_listen_to_a_type_says_so(tmp_path: Path) -> None:
    hears = trigger("on-order", source="heard", on=Heard())
    async with bench(tmp_path / "s.db", triggers=[hears]) as desk:
        unheard = rehearsal(desk).test("on-order", event("other"))
        assert unheard.outcome.outcome is EventOutcome.UNMATCHED
        heard = rehearsal(desk).test("on-order", event("order.created"))
        assert heard.outcome.outcome is EventOutcome.RUN


async def test_a_replay_is_a_new_run_of_a_copy_and_says_of_what(tmp_path: Path) -> None:
    triggers = [trigger(), trigger("second", filter="data.n == 1"), trigger("elsewhere", source="farm")]
    async with bench(tmp_path / "s.db", triggers=triggers) as desk:
        first = await desk.emit_one(event(key="k", subject="oats", data={"n": 1}, priority=7))
        await desk.settle()
        again = await rehearsal(desk).replay(await stored(desk, first), trigger=None, reason="it was wrong")
        await desk.settle()
        assert not again.duplicate
        copy = (await stored(desk, again)).event
        assert (copy.source, copy.type, copy.subject, copy.data) == ("mill", "grain.ground", "oats", {"n": 1})
        assert {outcome.trigger for outcome in again.outcomes} == {"on-grain", "second"}
        run = await desk.run_of(again.runs[0])
        assert (run.origin, run.state, run.priority) == (Origin.REPLAY, RunState.SUCCEEDED, 7)
        assert replay_of(run) == first.event
        assert run.trace[0].code == "replayed"
        assert run.trace[0].reason == f"replayed: event {first.event}: it was wrong"
        assert replay_of(await desk.run_of(first.runs[0])) is None
        assert is_copy(copy, ())
        one = await rehearsal(desk).replay(await stored(desk, first), trigger="second", reason="")
        assert [outcome.trigger for outcome in one.outcomes] == ["second"]
        ledger = await desk.store.ledger()
        assert ledger.missing == ()


async def test_the_same_request_replays_once_and_another_one_again(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        event_ = await stored(desk, await desk.emit_one(event()))
        first = await rehearsal(desk).replay(event_, trigger=None, reason="", request_id="r1")
        twice = await rehearsal(desk).replay(event_, trigger=None, reason="", request_id="r1")
        assert (twice.event, twice.runs, twice.duplicate) == (first.event, first.runs, True)
        other = await rehearsal(desk).replay(event_, trigger=None, reason="", request_id="r2")
        assert other.event != first.event
        await desk.settle()
        assert len(await desk.store.events(EventFilter(), limit=10)) == 3
        assert desk.dispatch.running == 0


async def test_one_request_replays_at_one_trigger_and_says_so_where_it_names_another(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(), trigger("second")]) as desk:
        event_ = await stored(desk, await desk.emit_one(event()))
        first = await rehearsal(desk).replay(event_, trigger="on-grain", reason="", request_id="r1")
        with pytest.raises(Conflict, match="has replayed event"):
            await rehearsal(desk).replay(event_, trigger="second", reason="", request_id="r1")
        again = await rehearsal(desk).replay(event_, trigger="on-grain", reason="", request_id="r1")
        assert (again.runs, again.duplicate) == (first.runs, True)
        await desk.settle()


async def test_a_replay_gathers_nothing_and_obeys_the_filter_as_it_is_now(tmp_path: Path) -> None:
    gathers = trigger(debounce=Debounce(wait_s=10.0), filter="data.n < 5")
    async with bench(tmp_path / "s.db", triggers=[gathers]) as desk:
        accepted = await desk.emit_one(event(data={"n": 1}))
        refused = await desk.emit_one(event(data={"n": 7}))
        again = await rehearsal(desk).replay(await stored(desk, accepted), trigger=None, reason="")
        assert again.outcomes[0].code == "replayed"
        dropped = await rehearsal(desk).replay(await stored(desk, refused), trigger=None, reason="")
        assert dropped.outcomes[0].outcome is EventOutcome.FILTERED
        assert (await stored(desk, dropped)).event.key is not None
        assert str((await stored(desk, dropped)).event.key).startswith(REPLAY_KEY)


async def test_what_met_no_trigger_that_works_is_not_replayed(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db") as desk:
        unmatched = await stored(desk, await desk.emit_one(event(), source="nowhere"))
        with pytest.raises(Conflict, match="met any trigger that could run it"):
            await rehearsal(desk).replay(unmatched, trigger=None, reason="")
        rejected = await stored(desk, await desk.intake.reject("mill", event(), "it is broken"))
        with pytest.raises(Conflict):
            await rehearsal(desk).replay(rejected, trigger=None, reason="")
        with pytest.raises(NotFound):
            await rehearsal(desk).replay(unmatched, trigger="none", reason="")


async def test_a_replay_outlives_a_crash_of_the_engine_in_its_place(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", dispatching=False) as desk:
        accepted = await desk.emit_one(event())
        again = await rehearsal(desk).replay(await stored(desk, accepted), trigger=None, reason="", request_id="r")
        run = await desk.run_of(again.runs[0])
        assert run.state is RunState.QUEUED
    async with bench(tmp_path / "s.db", boot="boot-2") as desk:
        await desk.settle()
        assert (await desk.run_of(run.id)).state is RunState.SUCCEEDED
        assert replay_of(await desk.run_of(run.id)) == accepted.event
