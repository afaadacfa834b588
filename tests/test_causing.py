"""Chains of runs, one caused by the other: what is known of them, what is claimed, and where they are cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Engine, RunContext
from engine.causing import CURRENT, MOST_NAMED, Causes, caused_by, deeper, run_of
from engine.errors import StoreUnavailable
from engine.events import Accepted, Cause, EventOutcome
from engine.ids import new_id
from engine.plugin import RunEnd, Source, SourceContext
from engine.runs import Run, RunState
from engine.store.base import EventFilter, RunFilter, StoredEvent
from engine.testing import VirtualClock
from engine.triggers import MAX_HOPS, Debounce
from tests.fakes import until
from tests.organs import Bench, Heard, bench, event, job, trigger

pytestmark = pytest.mark.anyio


class Follows(Source, frozen=True, kw_only=True):
    """A source on all ends of runs."""

    follows_runs = True

    def follows(self, end: RunEnd) -> bool:
        return True

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


HEARD = Heard(type="order.created")
HEARING = [("event:o", HEARD)]


def parent(run_id: str) -> str:
    return f"00-{run_id.replace('-', '')}-00f067aa0ba902b7-01"


def code_of(answer: Accepted) -> str:
    return answer.outcomes[0].code


async def runs_of(desk: Bench) -> list[Run]:
    """Return all runs, the oldest first."""
    return (await desk.store.runs(RunFilter(), limit=100))[::-1]


async def cut(desk: Bench) -> list[StoredEvent]:
    """Return the events at which a chain was cut."""
    found = await desk.store.events(EventFilter(), limit=100)
    return [stored for stored in found if any(outcome.code == "loop" for outcome in stored.outcomes)]


# Pure


@given(st.text(max_size=80))
def test_rubbish_is_of_no_run(text: str) -> None:
    assert run_of(text) is None or len(text) >= 55


def test_a_traceparent_of_a_run_names_it_and_those_of_others_do_not() -> None:
    run_id = new_id()
    assert run_of(parent(run_id)) == run_id
    assert run_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") is None
    for broken in ("", "00-1", parent(run_id)[:-1], parent(run_id).upper(), f"x{parent(run_id)}", parent(run_id) + "x"):
        assert run_of(broken) is None


@given(st.integers(1, 40), st.integers(1, 40))
def test_of_two_chains_the_longer_counts(one: int, other: int) -> None:
    first, second = Cause(run="a", hops=one, via=()), Cause(run="b", hops=other, via=())
    found = deeper(first, second)
    assert found is not None
    assert found.hops == max(one, other)
    assert deeper(first, None) is first
    assert deeper(None, second) is second


# The ends of runs


@pytest.mark.parametrize(("own", "engine", "most"), [(None, 3, 3), (5, 3, 5), (1, 9, 1), (0, 9, 0), (None, 0, 0)])
async def test_a_trigger_that_follows_itself_runs_as_often_as_it_may(
    tmp_path: Path, own: int | None, engine: int, most: int
) -> None:
    follows = Follows()
    loops = trigger("again", source="ends", on=follows, max_hops=own)
    async with bench(
        tmp_path / "s.db", triggers=[trigger(), loops], following=[("ends", follows)], max_hops=engine
    ) as desk:
        await desk.emit_one(event())
        await desk.settle()
        runs = await runs_of(desk)
        assert [run.trigger for run in runs] == ["on-grain"] + ["again"] * most
        assert [0 if run.cause is None else run.cause.hops for run in runs] == list(range(most + 1))
        (last,) = await cut(desk)
        (outcome,) = last.outcomes
        assert (outcome.outcome, outcome.code, outcome.run) == (EventOutcome.REJECTED, "loop", None)
        chain = " → ".join(["on-grain", *["again"] * (most + 1)][-(MOST_NAMED + 1) :])
        assert chain in outcome.reason
        assert f"max_hops is {most}" in outcome.reason
        assert runs[-1].id in outcome.reason
        assert outcome.gates[0].saw["hops"] == most + 1
        assert (await desk.store.ledger()).missing == ()


async def test_a_chain_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    follows, clock = Follows(), VirtualClock()
    given: dict[str, Any] = {
        "triggers": [trigger(), trigger("again", source="ends", on=follows)], "following": [("ends", follows)],
        "clock": clock, "max_hops": 4,
    }  # fmt: skip

    async def stands(run: Run, job: Any) -> Any:
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", **given) as desk:
        normal = desk.script.act
        ends = 0

        async def twice(run: Run, job: Any) -> Any:
            nonlocal ends
            ends += 1
            return await (normal if ends < 3 else stands)(run, job)

        desk.script.act = twice
        await desk.emit_one(event())
        await desk.settle()
        assert len(await runs_of(desk)) == 3
    async with bench(tmp_path / "s.db", **given, boot="boot-2") as desk:
        left = [run for run in await runs_of(desk) if run.state is not RunState.SUCCEEDED]
        assert [run.cause.hops if run.cause is not None else 0 for run in left] == [2]


# What is claimed


async def test_what_a_runs_process_sends_is_one_hop_further(tmp_path: Path) -> None:
    triggers = [trigger("loop", source="event:o", on=HEARD, max_hops=2)]
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=HEARING) as desk:
        sent = event("order.created")
        (answer,) = await desk.intake.hear([sent])
        for hops in (1, 2):
            (answer,) = await desk.intake.hear([event("order.created", traceparent=parent(answer.runs[0]))])
            run = await desk.run_of(answer.runs[0])
            assert run.cause is not None
            assert (run.cause.hops, run.cause.via) == (hops, ("loop",) * hops)
        (answer,) = await desk.intake.hear([event("order.created", traceparent=parent(answer.runs[0]))])
        assert code_of(answer) == "loop"
        stored = await desk.store.event(answer.event)
        assert stored is not None
        assert stored.event.cause == Cause(run=run.id, hops=3, via=("loop",) * 3)


@pytest.mark.parametrize(
    "claim", ["rubbish", parent("0198b0c0-0000-7000-8000-000000000009"), "00-" + "7" * 32 + "-" + "1" * 16 + "-01"]
)
async def test_a_claim_of_no_run_is_none(tmp_path: Path, claim: str) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(max_hops=0)]) as desk:
        answer = await desk.emit_one(event(traceparent=claim))
        assert code_of(answer) == "matched"


async def test_an_event_that_says_itself_what_caused_it_is_not_believed(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        first = await desk.emit_one(event(cause=Cause(run="x", hops=99, via=())))
        assert code_of(first) == "matched"
        stored = await desk.store.event(first.event)
        assert stored is not None
        assert stored.event.cause is None


async def test_sources_and_fires_take_claims_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(max_hops=0)]) as desk:
        first = await desk.emit_one(event())
        claim = parent(first.runs[0])
        assert code_of(await desk.emit_one(event(traceparent=claim))) == "loop"
        assert code_of(await desk.intake.fire("on-grain", traceparent=claim)) == "loop"


async def test_a_claim_never_makes_a_known_chain_shorter(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        first = await desk.run_of((await desk.emit_one(event())).runs[0])
        second = await desk.run_of((await desk.emit_one(event(traceparent=parent(first.id)))).runs[0])
        causes = Causes(desk.store)
        token = CURRENT.set(second)
        try:
            for claim in (None, parent(first.id), parent(second.id), "rubbish"):
                found = await causes.find(claim)
                assert found is not None
                assert (found.hops, found.run) == (2, second.id)
        finally:
            CURRENT.reset(token)
        assert await causes.find(parent(first.id)) == caused_by(first)


async def test_a_claim_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        first = await desk.emit_one(event())
        desk.store.read_error = StoreUnavailable("away")
        with pytest.raises(StoreUnavailable):
            await desk.emit_one(event(traceparent=parent(first.runs[0])))


# What gathers


async def test_a_run_that_gathers_has_the_longest_chain_of_its_events_also_after_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    gathers = trigger("gathers", source="event:o", on=HEARD, debounce=Debounce(wait_s=60.0))
    given: dict[str, Any] = {"triggers": [trigger(), gathers], "hearing": HEARING, "clock": clock}
    async with bench(tmp_path / "s.db", **given) as desk:
        root = await desk.emit_one(event())
        deep = await desk.emit_one(event(traceparent=parent(root.runs[0])))
        (opened,) = await desk.intake.hear([event("order.created")])
        (joined,) = await desk.intake.hear([event("order.created", traceparent=parent(deep.runs[0]))])
        assert (joined.outcomes[0].code, joined.runs) == ("joined", opened.runs)
        await desk.intake.hear([event("order.created", traceparent=parent(root.runs[0]))])
        desk.store.write_error = StoreUnavailable("the disk is full")
        lost = await desk.store.events(EventFilter(), limit=1)
        with pytest.raises(StoreUnavailable):
            await desk.intake.hear([event("order.created", traceparent=parent(deep.runs[0]))])
        desk.store.write_error = None
        assert await desk.store.events(EventFilter(), limit=1) == lost
    async with bench(tmp_path / "s.db", **given) as desk:
        window = desk.windows.find("gathers", "")
        assert window is not None
        assert window.cause is not None
        await desk.advance(61)
        run = await desk.run_of(opened.runs[0])
        assert run.state is RunState.SUCCEEDED
        assert run.cause is not None
        assert (run.cause.hops, run.cause.run) == (2, deep.runs[0])


async def test_what_people_run_again_begins_a_chain_of_its_own_and_a_retry_goes_on_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", jobs=[job()], triggers=[trigger()]) as desk:
        root = await desk.emit_one(event())
        deep = await desk.emit_one(event(traceparent=parent(root.runs[0])))
        stored = await desk.store.event(deep.event)
        assert stored is not None
        replayed = await desk.intake.rehearsal.replay(stored, trigger=None, reason="")
        assert (await desk.run_of(replayed.runs[0])).cause is None
        await desk.settle()
        again = await desk.intake.again(await desk.run_of(deep.runs[0]), [stored.event], reason="once more")
        assert (await desk.run_of(again.runs[0])).cause == stored.event.cause


# Within a program


async def looped(engine: Engine) -> bool:
    """Tell whether a chain was cut."""
    found = await engine._operations().store.events(EventFilter(trigger="loop", outcome=EventOutcome.REJECTED), limit=9)
    return [stored.outcomes[0].code for stored in found] == ["loop"]


async def test_a_function_that_sends_what_starts_it_is_cut_without_a_claim(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    seen: list[RunContext] = []

    @engine.job
    async def work(run: RunContext) -> None:
        seen.append(run)
        async with anyio.create_task_group() as group:
            group.start_soon(engine.emit, "order.created")

    engine.add_trigger("loop", event="order.created", job="work", max_hops=3)
    async with engine:
        await engine.emit("order.created")
        with anyio.fail_after(20):
            await until(lambda: len(seen) == 4)
            while not await looped(engine):  # noqa: ASYNC110 - the store tells nobody
                await anyio.sleep(0.01)
        assert len([run async for run in engine.runs()]) == 4
        # Outside of it nothing is caused by a run.
        accepted = await engine.emit("order.created")
        assert accepted.outcomes[0].code == "matched"


def test_sixteen_is_the_default() -> None:
    assert MAX_HOPS == 16
