"""Cases on reading events, runs and sums."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from msgspec.structs import replace

from engine.events import EventOutcome, Outcome
from engine.ids import first_id_at, new_id
from engine.runs import ENDED, Lane, Origin, RunState
from engine.store.base import Depth, EventFilter, Listed, RunFilter, Store
from engine.store.changes import Cursor, Enqueue, Finish, Memory, Start
from engine.testing.store_contract.material import (
    a_join,
    a_missed_run,
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    answers,
    end,
    enqueue,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

MANY_ENDED, MANY_QUEUED = 10_000, 30_000
"""Runs of a store that is large enough for a walk over all of them to show."""

_CHEAP_S = 0.0003
"""What a cheap read may take longer in a large store than twice what it takes in an empty one."""

_LEDGER_COUNTS = (
    "Ledger: `accepted` counts pairs of event and trigger (and events that met none); `ended` those "
    "whose story is over, `waiting` those whose run is yet to end, `purged` those that were removed after their time."
)


class ReadingCases(Place):
    """What the reading methods of the contract return."""

    @promise(
        "Store.event: Return an event with its outcomes, or None.",
        "StoredEvent: An event with its outcomes.",
    )
    @pytest.mark.parametrize(
        "data", [None, True, 0, -1.5, "", "ü\n\u2028\0", [], {}, {"a": [1, {"b": None}]}, 2**64 - 1, -(2**63)]
    )
    async def test_an_event_comes_back_as_it_was_accepted_with_its_outcomes(self, store: Store, data: object) -> None:
        event = replace(an_event(key="k", data=data), http={"method": "POST"})
        filtered = Outcome(trigger="b", outcome=EventOutcome.FILTERED, code="filter_false", reason="data.x is false")
        paused = Outcome(trigger="c", outcome=EventOutcome.PAUSED, code="paused", reason="paused: stock-taking")
        entry = an_entry(event, a_run(event, trigger="a"), outcomes=[filtered, paused])
        await make(store, accept(entry))
        found = await store.event(event.id)
        assert found is not None
        assert found.event == replace(event, http=None)
        assert found.outcomes == entry.outcomes
        assert await store.event(new_id()) is None

    @promise("Store.find_event: Return the answer that the event of this source and key got, as a duplicate, or None.")
    async def test_an_answer_is_found_by_source_and_key(self, store: Store) -> None:
        event = an_event(key="k")
        (result,) = await make(store, accept(an_entry(event, a_run(event))))
        assert await store.find_event("mill", "k") == replace(answers(result)[0], duplicate=True)
        assert await store.find_event("mill", "other") is None
        assert await store.find_event("farm", "k") is None

    @promise(
        "Store.events: Return at most `limit` events, the newest first; those before the id `before` "
        "where it is "
        "given.",
        "EventFilter: Which events a list holds; what is None does not restrict.",
    )
    async def test_events_are_listed_newest_first_by_pages_and_filters(self, store: Store) -> None:
        events = [an_event("mill" if n % 2 else "farm", type=f"t.{n % 3}") for n in range(12)]
        runs = [a_run(event, trigger="bake") if n % 4 == 0 else None for n, event in enumerate(events)]
        await make(store, *(accept(an_entry(e, *([r] if r else []))) for e, r in zip(events, runs, strict=True)))
        newest = events[::-1]

        async def ids(which: EventFilter, limit: int = 100, before: str | None = None) -> list[str]:
            found = await store.events(which, limit=limit, before=before)
            assert all(stored.outcomes for stored in found)
            return [stored.event.id for stored in found]

        assert await ids(EventFilter()) == [event.id for event in newest]
        assert await ids(EventFilter(), limit=5) == [event.id for event in newest[:5]]
        assert await ids(EventFilter(), limit=5, before=newest[4].id) == [event.id for event in newest[5:10]]
        assert await ids(EventFilter(), before=newest[-1].id) == []
        mill = [event.id for event in newest if event.source == "mill"]
        assert await ids(EventFilter(source="mill")) == mill
        assert await ids(EventFilter(source="mill"), limit=2, before=mill[1]) == mill[2:4]
        assert await ids(EventFilter(type="t.1")) == [event.id for event in newest if event.type == "t.1"]
        assert await ids(EventFilter(trigger="bake")) == [events[n].id for n in (8, 4, 0)]
        both = EventFilter(source="farm", type="t.0", trigger="bake")
        assert await ids(both) == [events[0].id]
        assert await ids(EventFilter(trigger="none")) == []

    @promise(
        "Store.events_after: Return at most `limit` events later than the id `after`, the oldest first; those before "
        "`before`, if given.",
        "Store.events_after: `after` and `before` may also be what `engine.ids.first_id_at` gives.",
    )
    async def test_events_after_an_id_or_an_instant_are_listed_oldest_first(self, store: Store) -> None:
        began_at = datetime.now(UTC) - timedelta(seconds=5)
        events = [an_event("mill" if n % 2 else "farm") for n in range(6)]
        await make(store, *(accept(an_entry(event)) for event in events))
        ids = [event.id for event in events]

        async def after(
            first: str, before: str | None = None, limit: int = 100, source: str | None = None
        ) -> list[str]:  # fmt: skip
            found = await store.events_after(EventFilter(source=source), after=first, before=before, limit=limit)
            return [stored.event.id for stored in found]

        assert await after("") == ids
        assert await after(ids[1], limit=2) == ids[2:4]
        assert await after(ids[0], before=ids[4]) == ids[1:4]
        assert await after("", source="mill") == ids[1::2]
        assert await after(first_id_at(began_at)) == ids
        assert await after(first_id_at(began_at), before=first_id_at(began_at + timedelta(seconds=1))) == []
        assert await after(first_id_at(began_at + timedelta(days=1))) == []

    @promise("Store.run: Return a run with its trace and attempts, or None.")
    async def test_a_run_comes_back_with_its_trace_and_attempts(self, store: Store) -> None:
        _, run, change = accept_run()
        failed, done = finish(run, RunState.RETRYING), finish(run, number=2, seconds=9)
        steps: list[Enqueue | Start | Finish] = [start(run), failed, enqueue(run), start(run, 2, 8), done]
        await make(store, change, *steps)
        found = await store.run(run.id)
        assert found is not None
        assert found.attempts == (failed.attempt, done.attempt)
        assert found.trace == run.trace + tuple(step.step for step in steps)
        assert await store.run(new_id()) is None

    @promise(
        "Store.runs: Return at most `limit` runs, the newest first; those before the id `before` where it is given.",
        "RunFilter: Which runs a list holds; what is None does not restrict.",
    )
    async def test_runs_are_listed_newest_first_by_pages_and_filters(self, store: Store) -> None:
        runs = []
        for n in range(12):
            _, run, change = accept_run(job="oven" if n % 2 else "mixer", trigger=f"t{n % 3}")
            await make(store, change, *([start(run)] if n % 4 == 0 else []))
            runs.append(run)
        newest = runs[::-1]

        async def ids(which: RunFilter, limit: int = 100, before: str | None = None) -> list[str]:
            return [run.id for run in await store.runs(which, limit=limit, before=before)]

        assert await ids(RunFilter()) == [run.id for run in newest]
        assert await ids(RunFilter(), limit=5, before=newest[4].id) == [run.id for run in newest[5:10]]
        assert await ids(RunFilter(states=frozenset({RunState.RUNNING}))) == [runs[n].id for n in (8, 4, 0)]
        either = frozenset({RunState.RUNNING, RunState.QUEUED})
        assert len(await ids(RunFilter(states=either))) == 12
        assert await ids(RunFilter(job="oven"), limit=2) == [runs[11].id, runs[9].id]
        assert await ids(RunFilter(triggers=frozenset({"t1"}))) == [runs[n].id for n in (10, 7, 4, 1)]
        all_of_it = RunFilter(states=frozenset({RunState.QUEUED}), job="mixer", triggers=frozenset({"t1", "t2"}))
        assert await ids(all_of_it) == [runs[n].id for n in (10, 2)]
        assert await ids(RunFilter(triggers=frozenset())) == []
        assert await ids(RunFilter(states=frozenset())) == []

    @promise(
        "RunFilter: `text` stands somewhere in the names, the code or the trace, whatever its case (of ASCII letters).",
        "RunFilter: `since` is the id from which on they are, or what `engine.ids.first_id_at` gives.",
        "EventFilter: They met one of `triggers`; `text` stands somewhere in the source, the type, the subject or the "
        "key, whatever its case (of ASCII letters); `since` is as in `RunFilter`.",
    )
    async def test_lists_are_narrowed_by_text_and_from_an_id_on(self, store: Store) -> None:
        texts = (
            {"type": "Order.MADE"}, {"subject": "an Order.made"}, {"key": "order.made-7"}, {"source": "order.madeup"},
        )  # fmt: skip
        events, runs = [], []
        for n, fields in enumerate((*texts, {"type": "other"})):
            event = replace(an_event(), **fields)
            run = a_run(event, trigger=f"t{n}", job="Mixer" if n < 2 else "oven", code=f"so_said{n}")
            await make(store, accept(an_entry(event, run)))
            events.append(event.id)
            runs.append(run.id)

        async def found(which: EventFilter) -> list[str]:
            return [one.event.id for one in await store.events(which, limit=100)]

        async def ran(which: RunFilter) -> list[str]:
            return [run.id for run in await store.runs(which, limit=100)]

        assert await found(EventFilter(text="oRDER.made")) == events[3::-1]
        assert await found(EventFilter(text="order%made")) == []
        assert await found(EventFilter(triggers=frozenset({"t1", "t4", "none"}))) == [events[4], events[1]]
        assert await found(EventFilter(since=events[3])) == [events[4], events[3]]
        assert await found(EventFilter(since=events[1], text="ORDER", triggers=frozenset({"t0", "t2"}))) == [events[2]]
        assert await ran(RunFilter(text="mIX")) == [runs[1], runs[0]]
        assert await ran(RunFilter(text="T3")) == [runs[3]]
        assert await ran(RunFilter(since=runs[3])) == [runs[4], runs[3]]
        assert await ran(RunFilter(since=first_id_at(datetime(2999, 1, 1, tzinfo=UTC)))) == []
        assert await ran(RunFilter(text="So_Said4")) == [runs[4]]
        assert await ran(RunFilter(text="Made by A case", since=runs[2])) == runs[:1:-1]  # the trace says so

    @promise(
        "Store.nth_before: Return the id of the n-th event or run before an id, or from the newest on; None where "
        "there are fewer.",
        "Store.nth_before: A list that is narrowed is looked for in so many at a time, so that it never reads them "
        "all.",
    )
    async def test_the_nth_event_or_run_before_an_id_is_known(self, store: Store) -> None:
        events, runs = [], []
        for _ in range(7):
            event, run, change = accept_run()
            await make(store, change)
            events.append(event.id)
            runs.append(run.id)
        kinds: dict[Listed, list[str]] = {"events": events[::-1], "runs": runs[::-1]}
        for what, newest in kinds.items():
            for n in (1, 3, 7):
                assert await store.nth_before(what, None, n) == newest[n - 1]
            assert await store.nth_before(what, None, 8) is None
            assert await store.nth_before(what, newest[2], 1) == newest[3]
            assert await store.nth_before(what, newest[2], 4) == newest[6]
            assert await store.nth_before(what, newest[2], 5) is None
            assert await store.nth_before(what, newest[6], 1) is None

    @promise("Store.run_events: Return all events of a run, oldest first.")
    async def test_all_events_of_a_run_are_read_oldest_first(self, store: Store) -> None:
        events = [an_event(data={"n": n}) for n in range(5)]
        run = a_run(events[0], state=RunState.PENDING, window="w")
        await make(store, accept(an_entry(events[0], run), an_entry(an_event())))
        await make(store, accept(*(an_entry(event, joins=[a_join(event, run)]) for event in events[1:])))
        assert await store.run_events(run.id) == tuple(events)
        await make(store, enqueue(run), start(run), finish(run))
        assert await store.run_events(run.id) == tuple(events)
        assert await store.run_events(new_id()) == ()

    @promise(
        "Store.cursor: Return a source's cursor, or None.",
        "Store.cursors: Return the cursors of all sources whose id begins with `prefix`.",
    )
    async def test_cursors_are_read_alone_and_by_prefix(self, store: Store) -> None:
        kept = {
            "timer:a": 1,
            "timer:b": {"x": [None]},
            "timer": "t",
            "timers": True,
            "time_:": None,
            "db%": 1.5,
        }
        await make(store, *(accept(cursor=Cursor(source=name, value=value)) for name, value in kept.items()))
        for name, value in kept.items():
            assert await store.cursor(name) == value
        assert await store.cursor("timer:") is None
        assert await store.cursors("timer:") == {"timer:a": 1, "timer:b": {"x": [None]}}
        assert await store.cursors("timer") == {n: v for n, v in kept.items() if n.startswith("timer")}
        assert await store.cursors("") == kept
        assert await store.cursors("%") == {}
        assert await store.cursors("TIMER") == {}

    @promise(
        "Store.memory: Return at most `limit` of the values that a source remembers, in the order of their keys.",
        "Store.memory: `after` None means from the first key on, else from the first key later than that one.",
    )
    async def test_memory_is_read_in_pages_in_the_order_of_its_keys(self, store: Store) -> None:
        values = {"b": 1, "a": None, "é": "x", "c": [2], "a/1": False}
        await make(store, accept(memory=Memory(source="db", values=values)))
        await make(store, accept(memory=Memory(source="db2", values={"z": 1})))
        assert list((await store.memory("db", after=None, limit=3)).items()) == [("a/1", False), ("b", 1), ("c", [2])]
        assert await store.memory("db", after="c", limit=3) == {"é": "x"}
        assert await store.memory("db", after="é", limit=3) == {}

    @promise(
        "Store.counts: Return how many runs stand in each state that is not an end; cheap at any size of the store."
    )
    async def test_counts_tell_the_runs_in_each_state_that_is_not_an_end(self, store: Store) -> None:
        assert sum((await store.counts()).values()) == 0
        expected = {
            RunState.QUEUED: 3,
            RunState.RUNNING: 2,
            RunState.PENDING: 4,
            RunState.HELD: 1,
            RunState.RETRYING: 2,
        }
        for state, count in {**expected, **dict.fromkeys(ENDED - {RunState.MISSED}, 2)}.items():
            for _ in range(count):
                made = state in (RunState.QUEUED, RunState.PENDING, RunState.HELD)
                _, run, change = accept_run(state=state if made else RunState.QUEUED)
                await make(store, change)
                if state in (RunState.RUNNING, RunState.RETRYING):
                    await make(store, start(run))
                if state is RunState.RETRYING:
                    await make(store, finish(run, state))
                if state in (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT):
                    await make(store, start(run), finish(run, state))
                elif state in ENDED:
                    await make(store, end(run, state))
        counts = await store.counts()
        assert {state: counts.get(state, 0) for state in RunState if state not in ENDED} == expected
        assert not set(counts) & ENDED

    @promise(
        "Store.queue_depths: Return how many runs are queued in each lane, and which was made first.",
        "Store.queue_depths: Reads an index of all of these.",
        "Depth: How many runs are queued in a lane, and the id of the one of them that was made first; None: there is "
        "none.",
    )
    async def test_each_lane_of_the_queue_has_a_depth_and_an_oldest_run(self, store: Store) -> None:
        assert await store.queue_depths() == {lane: Depth(count=0) for lane in Lane}
        made: dict[Origin, list[str]] = {}
        for origin in (Origin.MANUAL, Origin.EVENT, Origin.MANUAL, Origin.SCHEDULE, Origin.EVENT):
            # Who is first in the line need not have been made first.
            _, run, change = accept_run(origin=origin, rank=-len(made))
            await make(store, change)
            made.setdefault(origin, []).append(run.id)
        depths = await store.queue_depths()
        assert depths[Lane.MANUAL] == Depth(count=2, oldest=made[Origin.MANUAL][0])
        assert depths[Lane.LIVE] == Depth(count=3, oldest=made[Origin.EVENT][0])
        assert depths[Lane.BACKFILL] == Depth(count=0)

    @promise(
        "Store.counts: Return how many runs stand in each state that is not an end; cheap at any size of the store.",
        "Store.queued_jobs: Return the names of all jobs that have queued runs in a lane, at a cost that does not grow "
        "with their number.",
    )
    async def test_counts_and_queued_jobs_do_not_cost_more_in_a_larger_store(self, store: Store) -> None:
        async def cost_s(ask: str) -> float:
            best = float("inf")
            for _ in range(20):
                began = time.perf_counter()
                await getattr(store, ask)()
                best = min(best, time.perf_counter() - began)
            return best

        small = {ask: await cost_s(ask) for ask in ("counts", "queued_jobs")}
        for _ in range(MANY_ENDED // 500):
            ended = [accept_run() for _ in range(500)]
            await make(store, *(change for _, _, change in ended), *(end(run) for _, run, _ in ended))
        assert await cost_s("counts") < 2 * small["counts"] + _CHEAP_S
        for _ in range(MANY_QUEUED // 500):
            await make(store, *(accept_run()[2] for _ in range(500)))
        assert await cost_s("queued_jobs") < 2 * small["queued_jobs"] + _CHEAP_S

    @promise(
        "Store.stats: Return statistics for each of the triggers.",
        "TriggerStats: How the runs of one trigger ended.",
        "TriggerStats: A missed run counts as the `instants` of its outputs, if it has such.",
    )
    async def test_statistics_tell_how_the_runs_of_a_trigger_ended(self, store: Store) -> None:
        made = [accept_run(trigger="bake") for _ in range(4)] + [accept_run(trigger="other")]
        await make(store, *(change for _, _, change in made))
        one, two, three, four, _ = [run for _, run, _ in made]
        await make(store, start(one), finish(one, seconds=3), start(two), finish(two, RunState.FAILED, seconds=7))
        await make(store, end(three))
        gap = replace(a_missed_run("gap", trigger="late"), outputs={"instants": 43_100})
        await make(store, accept(missed=[gap, a_missed_run("one", trigger="late")]))
        assert dict((await store.stats(["late"]))["late"].by_state) == {RunState.MISSED: 43_101}
        missed = await store.run(gap.id)
        assert missed is not None
        assert missed.outputs == {"instants": 43_100}
        stats = await store.stats(["bake", "other", "none"])
        assert set(stats) == {"bake", "other", "none"}
        assert dict(stats["bake"].by_state) == {
            RunState.SUCCEEDED: 1, RunState.FAILED: 1, RunState.CANCELLED: 1, RunState.QUEUED: 1,
        }  # fmt: skip
        assert stats["bake"].duration_mean_s == pytest.approx(4.0)
        assert stats["bake"].last_run == four.id
        assert stats["other"].duration_mean_s is None
        assert (dict(stats["none"].by_state), stats["none"].last_run) == ({}, None)
        assert await store.stats([]) == {}

    @promise(
        "Ledger: The sum of all promises: each accepted event comes to one outcome for each trigger that it met.",
        _LEDGER_COUNTS,
        "Store.ledger: Add up all events and runs; see `Ledger`.",
        "Store.ledger: Reads the whole store.",
        "Ledger: `triggers` are the sums for each trigger, by name.",
        "TriggerLedger: The sums of a `Ledger` for one trigger; for events that met none its name is empty.",
    )
    async def test_the_ledger_adds_up(self, store: Store) -> None:
        assert await store.ledger() == replace(
            await store.ledger(), accepted=0, ended=0, waiting=0, missing=(), triggers=()
        )
        unmatched, first, second = an_event(), an_event(), an_event()
        gathering, queued = a_run(first, state=RunState.PENDING, window="w"), a_run(first, trigger="b")
        dropped = Outcome(trigger="c", outcome=EventOutcome.FILTERED, code="filter_false", reason="false")
        await make(
            store,
            accept(an_entry(unmatched), an_entry(first, gathering, queued, outcomes=[dropped])),
            accept(an_entry(second, joins=[a_join(second, gathering)])),
        )
        ledger = await store.ledger()
        assert (ledger.accepted, ledger.ended, ledger.waiting, ledger.missing) == (5, 2, 3, ())
        await make(store, enqueue(gathering), start(gathering), finish(gathering))
        ledger = await store.ledger()
        assert (ledger.accepted, ledger.ended, ledger.waiting, ledger.missing) == (5, 4, 1, ())
        assert [(one.trigger, one.accepted, one.ended, one.waiting) for one in ledger.triggers] == [
            ("", 1, 1, 0), ("b", 1, 0, 1), ("bake", 2, 2, 0), ("c", 1, 1, 0)
        ]  # fmt: skip

    @promise("Ledger: `missing` tells, in words, of the rows that break the rule: of each kind the first hundred.")
    async def test_the_ledger_names_what_breaks_the_rule(self, store: Store) -> None:
        silent, haunted, phantom = an_event(), an_event(), an_event()
        lost = a_run(phantom)
        names_no_run = Outcome(trigger="t", outcome=EventOutcome.RUN, run=lost.id, code="run", reason="it matched")
        no_event = a_run(phantom, key="other", trigger="b")
        await make(
            store,
            accept(replace(an_entry(silent), outcomes=())),
            accept(an_entry(haunted, outcomes=[names_no_run])),
            accept(replace(an_entry(an_event(), no_event))),
        )
        ledger = await store.ledger()
        assert len(ledger.missing) == 3
        for row in (silent.id, haunted.id, no_event.id):
            assert sum(row in line for line in ledger.missing) == 1
        assert ledger.accepted > ledger.ended + ledger.waiting

    @promise(
        "Store.check: Check the store's whole integrity; return what is wrong, in words.",
        "Store.check: Reads the whole store.",
    )
    async def test_the_check_finds_nothing_in_a_sound_store_and_tells_of_damage(self, store: Store) -> None:
        await make(store, *(accept_run()[2] for _ in range(200)))
        assert await store.check() == []
        await store.close()
        self.damage()
        async with self.looked_into() as damaged:
            assert await damaged.check() != []

    @promise(
        "Store: Reads see what was durable when they began.",
        "Store: They never wait for a writer for longer than it takes to commit.",
    )
    async def test_reads_answer_while_another_holds_the_store_for_writing(self, store: Store) -> None:
        event, run, change = accept_run()
        await make(store, change)
        async with self.refuse_writes(store):
            with anyio.fail_after(2):
                assert await store.event(event.id) is not None
                assert [found.id for found, _ in await store.queue_head("oven", after=None, limit=5)] == [run.id]
                assert (await store.counts())[RunState.QUEUED] == 1
                assert (await store.ledger()).waiting == 1
                assert len(await store.runs(RunFilter(), limit=5)) == 1

    @promise("Store: Reads see what was durable when they began.")
    async def test_reads_see_a_call_of_apply_whole_or_not_at_all(self, store: Store) -> None:
        async def write() -> None:
            for _ in range(15):
                made = [accept_run() for _ in range(10)]
                await make(store, *(change for _, _, change in made), *(start(run) for _, run, _ in made[:5]))

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            seen = 0
            while seen < 150:
                counts = await store.counts()
                seen = sum(counts.values())
                assert counts.get(RunState.RUNNING, 0) == counts[RunState.QUEUED]
                assert (await store.ledger()).missing == ()
                assert len(await store.runs(RunFilter(), limit=1000)) % 10 == 0
