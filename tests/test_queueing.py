"""The queue as people see it: positions, expected starts, a run once more; and how long any run can wait."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Conflict, Engine, FlushRequest, NotFound, RunContext, RunState
from engine.decide.expected import Going, Lengths, Prospect
from engine.decide.lanes import Shares, starved
from engine.decide.priority import rank
from engine.ids import new_id
from engine.runs import Lane
from tests.embedded import works

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def lengths(**known: float) -> Lengths:
    made = Lengths()
    for job, length_s in known.items():
        made.note(job, length_s)
    return made


def test_what_runs_and_what_stands_ahead_is_shared_by_the_slots() -> None:
    line = Prospect(
        lengths=lengths(bake=10, mill=4), going=[Going("bake", 4.0), Going("mill", 9.0)], ahead={"bake": 3}, slots=2,
        limits={},
    )  # fmt: skip
    assert line.wait_s("mill") == (6 + 0 + 30) / 2
    assert line.wait_s("bake") == (6 + 0 + 30 + 4) / 2


def test_the_limit_of_a_job_counts_where_it_takes_longer() -> None:
    line = Prospect(
        lengths=lengths(bake=10, mill=1), going=[Going("bake", 0.0)], ahead={"bake": 1}, slots=8, limits={"bake": 1}
    )
    assert line.wait_s("bake") == 20
    assert line.wait_s("mill") == 0


def test_a_run_waits_for_its_pools_as_much_as_it_weighs() -> None:
    line = Prospect(
        lengths=lengths(pick=10, lift=4, look=1), going=[Going("pick", 4.0)], ahead={"lift": 1}, slots=9, limits={},
        pools={"hall": 3, "yard": 1}, needs={"pick": {"hall": 1}, "lift": {"hall": 2}, "haul": {"yard": 2}},
    )  # fmt: skip
    assert line.wait_s("look") == 0
    assert line.wait_s("pick") == (6 + 4 * 2) / 3
    assert line.wait_s("lift") == (6 + 4 * 2 + 10) / 3
    assert line.wait_s("haul") is None  # it weighs more than there is


def test_where_a_limit_is_by_key_nothing_can_be_told() -> None:
    line = Prospect(lengths=lengths(bake=10), going=[], ahead={}, slots=2, limits={}, keyed={"bake"})
    assert line.wait_s("bake") is None
    assert line.wait_s("mill") == 0


def test_what_was_never_run_can_not_be_told_and_what_is_free_is_free() -> None:
    line = Prospect(lengths=lengths(bake=10), going=[], ahead={}, slots=2, limits={})
    assert [line.wait_s(job) for job in ("bake", "new", "bake")] == [0, 0, None]


def test_the_latest_runs_tell_the_most_of_how_long_the_next_takes() -> None:
    known = lengths(bake=10)
    for _ in range(20):
        known.note("bake", 20)
    assert 19 < (known.of("bake") or 0) < 20


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 9), st.floats(0.1, 30)), min_size=1, max_size=60),
    st.integers(1, 3),
    st.sampled_from([1.0, 10.0, 60.0]),
)
def test_no_run_waits_for_more_than_what_was_ready_within_its_bound(
    arrivals: list[tuple[float, int, float]], slots: int, ageing_s: float
) -> None:
    # The slow and obvious model: slots that always take the lowest rank of what has come.
    jobs = sorted((at_s, -number, level, length_s) for number, (at_s, level, length_s) in enumerate(arrivals))
    free = [0.0] * slots
    queue: list[tuple[int, int, float, int, float]] = []
    started: dict[int, tuple[float, int, float, float]] = {}
    now_s = 0.0
    while jobs or queue:
        now_s = max(now_s, heapq.heappop(free))
        if not queue:
            now_s = max(now_s, jobs[0][0])
        while jobs and jobs[0][0] <= now_s:
            at_s, number, level, length_s = jobs.pop(0)
            heapq.heappush(
                queue, (rank(NOON + timedelta(seconds=at_s), level, ageing_s), number, at_s, level, length_s)
            )
        _, number, at_s, level, length_s = heapq.heappop(queue)
        started[number] = (at_s, level, now_s, length_s)
        heapq.heappush(free, now_s + length_s)
    longest_s = max(length_s for *_, length_s in arrivals)
    for at_s, level, start_s, _ in started.values():
        bound_s = at_s + (9 - level) * ageing_s
        # Only what became ready before the bound can have been taken before it.
        before = [one for one in started.values() if one[2] < start_s]
        assert all(other_at <= max(bound_s, at_s) + 1e-5 for other_at, *_ in before if other_at > at_s)
        ahead_s = sum(length_s for other_at, *_, length_s in started.values() if other_at <= bound_s + 1e-5)
        assert start_s <= at_s + ahead_s / slots + longest_s + 1e-3


@given(
    st.integers(1, 6), st.dictionaries(st.sampled_from(list(Lane)), st.integers(0, 4)),
    st.lists(st.tuples(st.sampled_from(list(Lane)), st.booleans()), max_size=60),
)  # fmt: skip
def test_what_is_kept_for_a_lane_is_there_when_it_comes(
    most: int, kept: dict[Lane, int], steps: list[tuple[Lane, bool]]
) -> None:
    if starved(most, kept):
        return
    shares, taken = Shares(most, kept), dict.fromkeys(Lane, 0)
    for lane, comes in steps:
        if not comes and taken[lane]:
            shares.give(lane)
            taken[lane] -= 1
        elif comes:
            free = most - sum(taken.values())
            others = sum(max(count - taken[other], 0) for other, count in kept.items() if other is not lane)
            assert shares.may_take(lane) == (free > others)
            if shares.may_take(lane):
                shares.take(lane)
                taken[lane] += 1
        assert sum(taken.values()) <= most
    # Whatever was taken before: no lane is without a slot for ever, once the others have ended.
    assert all(Shares(most, kept).may_take(lane) for lane in Lane)


async def test_a_program_sees_and_steers_its_queue(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", concurrency=1)
    go_on = anyio.Event()
    done: list[str] = []

    @engine.job
    async def slow(run: RunContext) -> None:
        await go_on.wait()
        done.append(run.run_id)

    engine.add_trigger("asked", job="slow", event="wanted")
    with pytest.raises(Conflict):
        _ = engine.queue
    async with engine:
        runs = [(await engine.emit("wanted", n)).runs[0] for n in range(5)]
        page = await engine.queue.page(limit=3)
        assert [run.id for run, _ in page.items] == runs[1:4]
        assert [standing.position for _, standing in page.items] == [1, 2, 3]
        assert (page.more, page.slots, page.counts[RunState.QUEUED]) == (True, 1, 4)
        await engine.queue.set_priority(runs[4], 8, who="ann")
        assert (await engine.queue.page(limit=1)).items[0][0].id == runs[4]
        await engine.queue.hold(runs[1])
        await engine.queue.cancel(runs[2], reason="no")
        flushed = await engine.queue.flush(
            FlushRequest(trigger="asked", states=frozenset({RunState.HELD})), reason="no"
        )
        assert flushed.runs == (runs[1],)
        with pytest.raises(NotFound):
            await engine.queue.flush(FlushRequest(trigger="askd"), reason="no")
        with pytest.raises(Conflict, match="has not ended"):
            await engine.queue.retry(runs[0])
        await engine.queue.cancel(runs[0])
        go_on.set()
        await engine.wait(*runs)
        assert done == [runs[4], runs[3]]
        again = await engine.queue.retry(runs[0], who="ann", request_id="r")
        assert (await engine.queue.retry(runs[0], request_id="r")).runs == again.runs
        (run,) = await engine.wait(again)
        assert (run.state, run.origin) == ("succeeded", "replay")
        await engine.pause("asked")
        with pytest.raises(Conflict, match="is paused"):
            await engine.queue.retry(runs[0])
        with pytest.raises(NotFound):
            await engine.queue.retry(new_id())


async def test_an_expected_start_is_told_once_runs_of_the_job_have_ended(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", concurrency=1)
    works(engine, "quick")
    hang = anyio.Event()

    @engine.job
    async def slow(run: RunContext) -> None:
        await hang.wait()

    engine.add_trigger("fast", job="quick", event="fast")
    engine.add_trigger("slow", job="slow", event="slow")
    async with engine:
        await engine.wait(await engine.emit("fast"))
        first = await engine.emit("slow")
        await engine.emit("fast")
        ((_, standing),) = (await engine.queue.page()).items
        assert standing.expected_start_at is None
        hang.set()
        await engine.wait(first)
        hang = anyio.Event()
        await engine.emit("slow")
        await engine.emit("fast")
        ((_, standing),) = (await engine.queue.page()).items
        assert standing.expected_start_at is not None
        hang.set()
