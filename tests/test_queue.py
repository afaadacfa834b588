"""The queue and the timeline: windows of what waits in the store, in which nothing is lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from datetime import UTC, datetime, timedelta
from types import coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from engine import queue as queue_module
from engine.decide.limits import Block
from engine.errors import StoreUnavailable
from engine.events import Event
from engine.queue import Queue, Timeline, Waiting
from engine.runs import Run, RunState
from engine.store.base import QueuePlace
from engine.testing.store_contract.material import a_run, an_event

SMALL_WINDOW, SMALL_LOW_WATER = 4, 2
START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
JOBS = ("bake", "mill")
KEYS = st.sampled_from([None, "a", "b"])
RANKS = st.integers(0, 9)


@coroutine
def _suspend() -> Generator[None, Any, Any]:
    """Wait until the test goes on with what was read."""
    return (yield)


def go_on(reading: Coroutine[Any, Any, None], rows: Any) -> None:
    """Let a refill that waits for its rows have them, or an error, and see it end."""
    try:
        if isinstance(rows, Exception):
            reading.throw(rows)
        else:
            reading.send(rows)
    except StopIteration:
        return
    raise AssertionError("the refill reads twice")


def begin(reading: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Begin a refill; None where it has nothing to read."""
    try:
        reading.send(None)
    except StopIteration:
        return None
    return reading


def queued(run_id: str, rank: int, job: str = "bake", key: str | None = None) -> Run:
    return a_run(an_event(), id=run_id, rank=rank, job=job, limit_key=key)


def nothing_is_active(run_id: str) -> bool:
    return False


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    set_windows(monkeypatch, SMALL_WINDOW, SMALL_LOW_WATER)


def set_windows(monkeypatch: pytest.MonkeyPatch, window: int, low_water: int) -> None:
    monkeypatch.setattr(queue_module, "WINDOW", window)
    monkeypatch.setattr(queue_module, "LOW_WATER", low_water)
    monkeypatch.setattr(queue_module, "MOST_ASIDE", 4 * window)


class Shelf:
    """What is queued in the store of a test: reads are answered from it at once."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.reads: list[tuple[str, QueuePlace | None, int]] = []
        self.error: Exception | None = None

    def add(self, *runs: Run) -> None:
        self.runs.update({run.id: run for run in runs})

    def head(self, job: str, after: QueuePlace | None, limit: int) -> list[tuple[Run, Event | None]]:
        mine = sorted(
            (run for run in self.runs.values() if run.job == job), key=lambda run: QueuePlace(run.rank, run.id)
        )
        rest = [run for run in mine if after is None or QueuePlace(run.rank, run.id) > after]
        return [(run, None) for run in rest[:limit]]

    async def read(self, job: str, after: QueuePlace | None, limit: int) -> list[tuple[Run, Event | None]]:
        self.reads.append((job, after, limit))
        if self.error is not None:
            raise self.error
        return self.head(job, after, limit)


def a_queue(shelf: Shelf) -> Queue:
    return Queue(shelf.read, nothing_is_active)


def a_shelf_queue() -> tuple[Queue, Shelf]:
    shelf = Shelf()
    return Queue(shelf.read, nothing_is_active), shelf


def taken(queue: Queue) -> list[str]:
    found = []
    while (waiting := queue.take(lambda run: None)) is not None:
        found.append(waiting.run.id)
    return found


# Order


async def test_the_lowest_rank_comes_first_and_then_the_lowest_id_over_all_jobs() -> None:
    queue = a_queue(Shelf())
    for run in (queued("c", 5), queued("a", 9), queued("b", 5, "mill"), queued("d", 1, "mill"), queued("e", 5)):
        queue.offer(run, None)
    assert taken(queue) == ["d", "b", "c", "e", "a"]


async def test_a_job_that_may_not_start_is_passed_over_until_one_of_its_slots_is_free() -> None:
    queue = a_queue(Shelf())
    queue.offer(queued("first", 1), None)
    queue.offer(queued("second", 2, "mill"), None)
    asked: list[str] = []

    def only_mill(run: Run) -> Block | None:
        asked.append(run.job)
        return None if run.job == "mill" else Block.JOB

    def take(allowed: str | None = None) -> str | None:
        waiting = queue.take(only_mill if allowed is None else lambda run: None)
        return None if waiting is None else waiting.run.id

    assert take() == "second"
    assert asked == ["bake", "mill"]
    assert take() is None
    # A parked job is not even asked, whatever comes in for it.
    queue.offer(queued("earlier", 0), None)
    assert take() is None
    assert asked == ["bake", "mill"]
    queue.unpark("bake")
    assert take("any") == "earlier"
    assert take("any") == "first"


async def test_a_run_whose_key_has_no_slot_lets_the_others_of_its_job_pass_and_is_the_next_of_its_key() -> None:
    queue, _ = a_shelf_queue()
    for run in (queued("a1", 1, key="a"), queued("a2", 2, key="a"), queued("b1", 3, key="b"), queued("a3", 4, key="a")):
        queue.offer(run, None)
    full = {"a"}

    def blocks(run: Run) -> Block | None:
        return Block.KEY if run.limit_key in full else None

    def take() -> str | None:
        waiting = queue.take(blocks)
        return None if waiting is None else waiting.run.id

    assert (take(), take()) == ("b1", None)
    assert queue.has("bake")
    assert not queue.has_ready("bake")
    queue.offer(queued("a0", 0, key="a"), None)
    full.clear()
    queue.unpark_key("bake", "a")
    assert [take() for _ in range(5)] == ["a0", "a1", "a2", "a3", None]


async def test_what_stands_behind_the_runs_of_a_full_key_is_read_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MOST_ASIDE", 50)
    queue, shelf = a_shelf_queue()
    shelf.add(*(queued(f"a-{n:02}", n, key="a") for n in range(40)), queued("b", 99, key="b"))
    queue.expect("bake")
    blocks = {"a": Block.KEY}
    found: list[str] = []
    while queue.low():
        await queue.refill("bake")
        while (waiting := queue.take(lambda run: blocks.get(run.limit_key or ""))) is not None:
            found.append(waiting.run.id)
    assert found == ["b"]
    blocks.clear()
    queue.unpark_key("bake", "a")
    while queue.has("bake"):
        found += taken(queue)
        if queue.low():
            await queue.refill("bake")
    assert found == ["b", *(f"a-{n:02}" for n in range(40))]


async def test_no_more_is_set_aside_than_the_bound_and_it_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "MOST_ASIDE", 12)
    queue, shelf = a_shelf_queue()
    shelf.add(*(queued(f"a-{n:02}", n, key="a") for n in range(40)), queued("b", 99, key="b"))
    queue.expect("bake")
    while queue.low():
        await queue.refill("bake")
        assert queue.take(lambda run: Block.KEY) is None
    assert len(queue) <= 12 + 2 * SMALL_WINDOW
    queue.unpark_key("bake", "a")
    found: list[str] = []
    while queue.has("bake"):
        found += taken(queue)
        for run_id in found:
            shelf.runs.pop(run_id, None)
        if queue.low():
            await queue.refill("bake")
    assert found == [*(f"a-{n:02}" for n in range(40)), "b"]


async def test_a_run_is_taken_in_once_and_not_at_all_while_it_is_active() -> None:
    active = {"busy"}
    queue = Queue(Shelf().read, active.__contains__)
    queue.offer(queued("busy", 1), None)
    queue.offer(queued("once", 2), None)
    queue.offer(queued("once", 2), None)
    assert taken(queue) == ["once"]


async def test_a_run_that_was_removed_is_not_taken() -> None:
    queue = a_queue(Shelf())
    queue.offer(queued("gone", 1), None)
    queue.offer(queued("stays", 2), None)
    queue.remove("bake", "gone")
    queue.remove("unknown", "gone")
    assert taken(queue) == ["stays"]


async def test_a_job_has_runs_while_any_are_in_memory_or_in_the_store() -> None:
    queue = a_queue(Shelf())
    assert not queue.has("bake")
    queue.offer(queued("one", 1), None)
    assert queue.has("bake")
    assert taken(queue) == ["one"]
    assert not queue.has("bake")
    queue.expect("bake")
    assert queue.has("bake")
    await queue.refill("bake")
    assert not queue.has("bake")


# The window


async def test_a_queue_from_before_the_start_is_read_window_by_window_in_order() -> None:
    shelf = Shelf()
    shelf.add(*(queued(f"run-{n:02}", n) for n in range(11)))
    queue = a_queue(shelf)
    queue.expect("bake")
    found = []
    while queue.low():
        assert queue.is_low("bake")
        await queue.refill("bake")
        assert len(queue) <= 2 * SMALL_WINDOW
        found += taken(queue)
    assert found == [f"run-{n:02}" for n in range(11)]
    assert [limit for _, _, limit in shelf.reads] == [SMALL_WINDOW] * 3


async def test_memory_holds_two_windows_of_a_queue_that_grows_and_the_rest_comes_back_from_the_store() -> None:
    shelf = Shelf()
    queue = a_queue(shelf)
    for n in range(100):
        shelf.add(queued(f"run-{n:02}", n))
        queue.offer(shelf.runs[f"run-{n:02}"], None)
        assert len(queue) <= 2 * SMALL_WINDOW
    found = []
    while queue.has("bake"):
        for run_id in taken(queue):
            found.append(run_id)
            del shelf.runs[run_id]
        await queue.refill("bake")
    assert found == [f"run-{n:02}" for n in range(100)]


async def test_a_read_that_fails_is_made_again_and_loses_nothing() -> None:
    shelf = Shelf()
    shelf.add(*(queued(f"run-{n}", n) for n in range(3)))
    queue = a_queue(shelf)
    queue.expect("bake")
    shelf.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await queue.refill("bake")
    assert queue.low() == ["bake"]
    shelf.error = None
    await queue.refill("bake")
    assert taken(queue) == ["run-0", "run-1", "run-2"]


async def test_what_is_trimmed_while_a_read_is_under_way_is_not_forgotten() -> None:
    # Found by the machine below: the read went on behind the place where the window had ended before.
    shelf = Shelf()
    shelf.add(*(queued(f"old-{n}", 100 + n) for n in range(5)))
    reading: list[Any] = []

    async def read(job: str, after: QueuePlace | None, limit: int) -> list[tuple[Run, Event | None]]:
        reading.append(shelf.head(job, after, limit))
        rows: list[tuple[Run, Event | None]] = await _suspend()
        return rows

    queue = Queue(read, nothing_is_active)
    queue.expect("bake")
    first = begin(queue.refill("bake"))
    assert first is not None
    go_on(first, reading.pop())
    assert taken(queue) == ["old-0", "old-1", "old-2", "old-3"]
    second = begin(queue.refill("bake"))
    assert second is not None
    urgent = [queued(f"urgent-{n:02}", n) for n in range(3 * SMALL_WINDOW)]
    for run in urgent:
        shelf.add(run)
        queue.offer(run, None)
    go_on(second, reading.pop())
    found: list[str] = []
    for run_id in ("old-0", "old-1", "old-2", "old-3"):
        del shelf.runs[run_id]
    while queue.has("bake"):
        for run_id in taken(queue):
            found.append(run_id)
            del shelf.runs[run_id]
        again = begin(queue.refill("bake"))
        if again is not None:
            go_on(again, reading.pop())
    assert found == [run.id for run in urgent] + ["old-4"]


class QueueMachine(RuleBasedStateMachine):
    """The queue against a plain list: reads take as long as they like, while everything else goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.active: set[str] = set()
        self.committed: list[Run] = []
        self.offered: dict[str, Run] = {}
        self.done: set[str] = set()
        self.moving: set[str] = set()
        self.blocked: set[str] = set()
        self.full: set[tuple[str, str | None]] = set()
        self.parked: set[str] = set()
        self.readings: dict[str, tuple[Coroutine[Any, Any, None], Any]] = {}
        self.snapshot: Any = None
        self.count = 0
        self.queue = Queue(self.read, self.active.__contains__)

    async def read(self, job: str, after: QueuePlace | None, limit: int) -> list[tuple[Run, Event | None]]:
        self.snapshot = self.shelf.head(job, after, limit)
        rows: list[tuple[Run, Event | None]] = await _suspend()
        return rows

    def _commit(self, job: str, rank: int, key: str | None = None) -> Run:
        self.count += 1
        run = queued(f"{self.count:05}", rank, job, key)
        self.shelf.add(run)
        return run

    @rule(job=st.sampled_from(JOBS), rank=RANKS, key=KEYS)
    def commit(self, job: str, rank: int, key: str | None) -> None:
        self.committed.append(self._commit(job, rank, key))

    @precondition(lambda self: self.committed)
    @rule()
    def offer(self) -> None:
        run = self.committed.pop(0)
        self.queue.offer(run, None)
        self.offered[run.id] = run

    @rule(job=st.sampled_from(JOBS), ranks=st.lists(RANKS, min_size=1, max_size=14), key=KEYS)
    def flood(self, job: str, ranks: list[int], key: str | None) -> None:
        self.committed.extend(self._commit(job, rank, key) for rank in ranks)
        while self.committed:
            self.offer()

    @rule(job=st.sampled_from(JOBS))
    def block(self, job: str) -> None:
        self.blocked.add(job)

    @rule(job=st.sampled_from(JOBS))
    def unblock(self, job: str) -> None:
        self.blocked.discard(job)
        self.parked.discard(job)
        self.queue.unpark(job)

    @rule(job=st.sampled_from(JOBS), key=KEYS)
    def fill_key(self, job: str, key: str | None) -> None:
        self.full.add((job, key))

    @rule(job=st.sampled_from(JOBS), key=KEYS)
    def free_key(self, job: str, key: str | None) -> None:
        self.full.discard((job, key))
        self.parked.discard(job)
        self.queue.unpark_key(job, key)

    @rule(job=st.sampled_from(JOBS))
    def change_limits(self, job: str) -> None:
        self.full = {place for place in self.full if place[0] != job}
        self.parked.discard(job)
        self.queue.unpark_all(job)

    def _blocks(self, run: Run) -> Block | None:
        if run.job in self.blocked:
            self.parked.add(run.job)
            return Block.JOB
        return Block.KEY if (run.job, run.limit_key) in self.full else None

    def _note(self, waiting: Waiting) -> None:
        run = waiting.run
        assert run.id in self.shelf.runs, "it was not queued in the store"
        assert run.id not in self.done, "it was taken twice"
        assert run.id not in self.active, "it was taken while active"
        place = QueuePlace(run.rank, run.id)
        ahead = [
            other
            for other in self.offered.values()
            if other.id not in self.done and other.id not in self.moving
            and (other.job, other.limit_key) not in self.full
            and QueuePlace(other.rank, other.id) < place
            and (other.job == run.job or (other.job not in self.parked and self._is_in_view(other.job)))
        ]  # fmt: skip
        assert not ahead, "others were ahead of it"
        self.active.add(run.id)
        self.done.add(run.id)

    def _is_in_view(self, job: str) -> bool:
        """Whether the window has what is to be taken: it does not run low, and not too much in it is aside."""
        aside = len(self.queue._lanes[job].set_aside)
        return job not in self.readings and not self.queue.is_low(job) and aside < queue_module.MOST_ASIDE

    @rule(count=st.integers(1, 6))
    def take(self, count: int) -> None:
        for _ in range(count):
            waiting = self.queue.take(self._blocks)
            if waiting is None:
                break
            assert waiting.run.job not in self.blocked
            self._note(waiting)

    @precondition(lambda self: self.offered.keys() - self.done - self.moving)
    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        run = self.offered[data.draw(st.sampled_from(sorted(self.offered.keys() - self.done - self.moving)))]
        self.active.add(run.id)
        self.moving.add(run.id)
        self.queue.remove(run.job, run.id)

    @precondition(lambda self: self.moving)
    @rule(data=st.data(), rank=RANKS, stays=st.booleans())
    def put_back(self, data: st.DataObject, rank: int, stays: bool) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.moving)))
        self.moving.discard(run_id)
        self.active.discard(run_id)
        if stays:
            run = self.offered[run_id] = self.shelf.runs[run_id] = replace(self.offered[run_id], rank=rank)
            self.queue.offer(run, None)
        else:
            self.done.add(run_id)
            del self.shelf.runs[run_id]

    @precondition(lambda self: self.active - self.moving)
    @rule(data=st.data())
    def start_is_durable(self, data: st.DataObject) -> None:
        # From here on the store does not show it as queued.
        run_id = data.draw(st.sampled_from(sorted(self.active - self.moving)))
        self.shelf.runs.pop(run_id, None)
        self.active.discard(run_id)

    @precondition(lambda self: self.queue.low())
    @rule(data=st.data())
    def begin_read(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.queue.low())))
        reading = begin(self.queue.refill(job))
        assert reading is not None
        self.readings[job] = (reading, self.snapshot)
        # Only one read for a job is ever under way.
        assert begin(self.queue.refill(job)) is None

    @precondition(lambda self: self.readings)
    @rule(data=st.data(), fails=st.booleans())
    def end_read(self, data: st.DataObject, fails: bool) -> None:
        job = data.draw(st.sampled_from(sorted(self.readings)))
        reading, rows = self.readings.pop(job)
        if fails:
            with pytest.raises(StoreUnavailable):
                go_on(reading, StoreUnavailable("away"))
        else:
            go_on(reading, rows)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.queue) <= len(JOBS) * (2 * SMALL_WINDOW + SMALL_WINDOW + queue_module.MOST_ASIDE)

    def teardown(self) -> None:
        # Whatever was going on: all that is queued comes out in the end.
        for job, (reading, rows) in self.readings.items():
            go_on(reading, rows)
            self.queue.unpark(job)
        self.readings.clear()
        self.blocked.clear()
        self.full.clear()
        self.parked.clear()
        while self.committed:
            self.offer()
        for run_id in self.moving:
            self.active.discard(run_id)
            self.queue.offer(self.offered[run_id], None)
        self.moving.clear()
        for job in JOBS:
            self.queue.unpark_all(job)
        for _ in range(1000):
            while (waiting := self.queue.take(lambda run: None)) is not None:
                self._note(waiting)
                self.start_of(waiting.run.id)
            low = self.queue.low()
            if not low:
                break
            for job in low:
                reading_now = begin(self.queue.refill(job))
                assert reading_now is not None
                go_on(reading_now, self.snapshot)
        assert self.done == set(self.offered)

    def start_of(self, run_id: str) -> None:
        self.shelf.runs.pop(run_id, None)
        self.active.discard(run_id)


def test_nothing_is_lost_doubled_or_out_of_order_whatever_the_reads_run_into(monkeypatch: pytest.MonkeyPatch) -> None:
    # The smallest windows, so that they overflow while they are read.
    set_windows(monkeypatch, 2, 1)
    QueueMachine.TestCase.settings = settings(
        max_examples=200, stateful_step_count=40, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    QueueMachine.TestCase("runTest").runTest()


# The timeline


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def pending(run_id: str, due_s: float) -> Run:
    return a_run(an_event(), state=RunState.PENDING, id=run_id, due_at=at(due_s))


class DueShelf:
    """What waits for its time in the store of a test."""

    def __init__(self) -> None:
        self.due: dict[str, tuple[datetime, Run]] = {}

    def rows(self, after: tuple[datetime, str], limit: int) -> list[tuple[datetime, Run]]:
        places = sorted((due_at, run_id) for run_id, (due_at, _) in self.due.items())
        return [self.due[run_id] for due_at, run_id in places if (due_at, run_id) > after][:limit]

    async def read(self, after: tuple[datetime, str], limit: int) -> list[tuple[datetime, Run]]:
        return self.rows(after, limit)

    def add(self, run: Run) -> Run:
        assert run.due_at is not None
        self.due[run.id] = (run.due_at, run)
        return run


async def test_what_is_due_is_taken_in_the_order_of_its_time_and_not_before() -> None:
    timeline = Timeline(DueShelf().read, nothing_is_active)
    await timeline.refill()
    for run_id, due_s in (("b", 2.0), ("a", 1.0), ("c", 3.0)):
        timeline.put(pending(run_id, due_s), at(due_s))
    assert timeline.next_at() == at(1)
    assert [run.id for run in timeline.take_due(at(2))] == ["a", "b"]
    assert timeline.next_at() == at(3)
    assert timeline.take_due(at(2.9)) == []
    assert len(timeline) == 1


async def test_what_is_put_off_is_due_at_its_new_time_alone() -> None:
    timeline = Timeline(DueShelf().read, nothing_is_active)
    await timeline.refill()
    run = pending("run", 1.0)
    timeline.put(run, at(1))
    timeline.put(run, at(5))
    assert timeline.take_due(at(4)) == []
    assert [found.id for found in timeline.take_due(at(5))] == ["run"]
    timeline.put(run, at(6))
    timeline.remove("run")
    assert timeline.next_at() is None


async def test_a_run_that_is_active_does_not_wait_for_its_time() -> None:
    timeline = Timeline(DueShelf().read, {"busy"}.__contains__)
    await timeline.refill()
    timeline.put(pending("busy", 1.0), at(1))
    assert timeline.take_due(at(10)) == []


async def test_a_run_that_is_postponed_stays_in_memory_however_much_waits_before_it() -> None:
    # The store may not have heard of the new time yet: a read could pass the place where the run will be.
    shelf = DueShelf()
    for n in range(SMALL_WINDOW + 2):
        shelf.add(pending(f"run-{n}", n))
    timeline = Timeline(shelf.read, nothing_is_active)
    await timeline.refill()
    [first] = timeline.take_due(at(0))
    del shelf.due[first.id]
    timeline.postpone(first, at(1000))
    while timeline.is_low or timeline.next_at() != at(1000):
        for run in timeline.take_due(at(500)):
            shelf.due.pop(run.id)
        await timeline.refill()
    assert [run.id for run in timeline.take_due(at(1000))] == [first.id]


class TimelineMachine(RuleBasedStateMachine):
    """The timeline against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = DueShelf()
        self.active: set[str] = set()
        self.committed: list[tuple[Run, datetime]] = []
        self.reading: tuple[Coroutine[Any, Any, None], Any] | None = None
        self.moved_on: set[str] = set()
        """What has moved on since it was read: where it is taken as it was read, the store refuses that."""
        self.snapshot: Any = None
        self.count = 0
        self.now_s = 0.0
        self.timeline = Timeline(self.read, self.active.__contains__)

    async def read(self, after: tuple[datetime, str], limit: int) -> list[tuple[datetime, Run]]:
        self.snapshot = self.shelf.rows(after, limit)
        rows: list[tuple[datetime, Run]] = await _suspend()
        return rows

    @rule(waits=st.lists(st.integers(0, 20), min_size=1, max_size=10))
    def commit(self, waits: list[int]) -> None:
        for wait in waits:
            self.count += 1
            run = self.shelf.add(pending(f"{self.count:05}", self.now_s + wait))
            self.committed.append((run, at(self.now_s + wait)))

    @precondition(lambda self: self.committed)
    @rule(count=st.integers(1, 20))
    def put(self, count: int) -> None:
        for _ in range(min(count, len(self.committed))):
            self.timeline.put(*self.committed.pop(0))

    @rule(seconds=st.integers(0, 8))
    def take(self, seconds: int) -> None:
        self.now_s += seconds
        before: datetime | None = None
        for run in self.timeline.take_due(at(self.now_s)):
            if run.id in self.moved_on and self.shelf.due.get(run.id) is None:
                continue
            due_at = self.shelf.due[run.id][0]
            if run.id in self.moved_on and due_at > at(self.now_s):
                continue
            assert due_at <= at(self.now_s), "it was taken before its time"
            assert before is None or before <= due_at, "it was taken out of order"
            before = due_at
            assert run.id not in self.active, "it was taken twice"
            self.active.add(run.id)

    @precondition(lambda self: self.active)
    @rule(data=st.data(), again=st.booleans(), wait=st.integers(1, 20))
    def move_on(self, data: st.DataObject, again: bool, wait: int) -> None:
        # It ran: it is retried later, or it has ended.
        run_id = data.draw(st.sampled_from(sorted(self.active)))
        if not any(run.id == run_id for run, _ in self.committed):
            due_at, run = self.shelf.due.pop(run_id)
            self.active.discard(run_id)
            if self.reading is not None:
                self.moved_on.add(run_id)
            if again:
                due_at = at(self.now_s + wait)
                self.shelf.due[run_id] = (due_at, run)
                self.timeline.put(run, due_at)

    @precondition(lambda self: self.reading is None and self.timeline.is_low)
    @rule()
    def begin_read(self) -> None:
        reading = begin(self.timeline.refill())
        assert reading is not None
        self.reading = (reading, self.snapshot)
        assert not self.timeline.is_low
        assert begin(self.timeline.refill()) is None

    @precondition(lambda self: self.reading is not None)
    @rule(fails=st.booleans())
    def end_read(self, fails: bool) -> None:
        assert self.reading is not None
        (reading, rows), self.reading = self.reading, None
        if fails:
            with pytest.raises(StoreUnavailable):
                go_on(reading, StoreUnavailable("away"))
        else:
            go_on(reading, rows)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.timeline) <= 6 * SMALL_WINDOW

    def teardown(self) -> None:
        if self.reading is not None:
            self.end_read(False)
        self.put(len(self.committed))
        self.now_s += 1000
        for _ in range(1000):
            self.take(0)
            for run_id in sorted(self.active):
                self.shelf.due.pop(run_id, None)
            if not self.timeline.is_low:
                break
            self.begin_read()
            self.end_read(False)
        assert self.shelf.due == {}


def test_nothing_that_waits_for_its_time_is_lost_or_taken_early(monkeypatch: pytest.MonkeyPatch) -> None:
    set_windows(monkeypatch, 2, 1)
    TimelineMachine.TestCase.settings = settings(
        max_examples=200, stateful_step_count=40, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    TimelineMachine.TestCase("runTest").runTest()
