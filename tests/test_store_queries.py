"""Each query and statement of the SQLite store finds its rows by an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.backfills import Backfill
from engine.deliveries import DeliveryFilter
from engine.events import EventOutcome
from engine.runs import Lane
from engine.spans import SpanKind
from engine.store import backfills, deliveries, hindsight, line, purging, reads, receipts, spans, tallies
from engine.store.base import EventFilter, HeldPlace, QueuePlace, Receipts, RunFilter
from engine.store.opening import prepare
from engine.store.writes import MOST_ROWS, STATEMENTS, statement
from engine.tallies import Width

SMALL = {
    "runs_queue", "runs_manual_queue", "runs_backfill_queue", "backfills_open", "runs_due", "runs_live",
    "runs_in_the_way", "runs_held", "outcomes_joined",
    "spans_open", "runs_throttled", "runs_expiring", "marks_until",
    "deliveries_due",
}  # fmt: skip
"""Indexes of part of a table: what waits or runs, not what is kept. They may be walked from end to end."""

WALKED = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
TABLES = {
    "events",
    "outcomes",
    "runs",
    "cursors",
    "memory",
    "backfills",
    "spans",
    "marks",
    "deliveries",
    "d",
    "tallies",
    "m",
    "e",
    "o",
    "r",
}
QUERIES = (
    reads.QUERIES
    | backfills.QUERIES
    | line.QUERIES
    | spans.QUERIES
    | hindsight.QUERIES
    | deliveries.QUERIES
    | tallies.QUERIES
    | purging.QUERIES
)

NOT_HOT = {
    "events": "a list walks events from the newest on by their id, and stops at its limit",
    "runs": "a list walks runs from the newest on by their id, and stops at its limit",
    "backfills": "a list walks backfills from the newest on by their id, and stops at its limit",
    "deliveries": "a list walks deliveries from the newest on by their id, and stops at its limit",
    "ledger": "it adds up the whole store, by name",
    "latest_ends": "it reads all runs, once for a round of housekeeping that finds something old",
}
"""Reads that walk more, and why they may; none is between an event and its run."""

SORTS = {
    "backfill_counts": "GROUP BY",  # the runs of one backfill
    "run_events": "ORDER BY",  # the events of one run
    "stats": "GROUP BY",  # the runs of one trigger
    "counts": "GROUP BY",  # what waits or runs, by its state
    "count_due": "GROUP BY",
    "count_live": "GROUP BY",
    "waiting": "GROUP BY",
    "due_by_trigger": "GROUP BY",
    **{f"{lane}_by_trigger": "GROUP BY" for lane in Lane},
}
"""Reads that sort, or gather in groups, what an index has found."""

AT = datetime(2026, 1, 1, tzinfo=UTC)
RECEIPTS = Receipts(triggers=frozenset({"bake", "mow"}), outcomes=frozenset(EventOutcome), since=AT)
BACKFILL = Backfill(id="b1", trigger="bake", from_at=AT, to_at=AT, total=0, created_at=AT)

READS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "find_event": lambda raw: reads.find_event(raw, "mill", "k"),
    "known_keys": lambda raw: reads.known_keys(raw, [("mill", str(n)) for n in range(450)]),
    "event": lambda raw: reads.event(raw, "e1"),
    "run": lambda raw: reads.run(raw, "r1"),
    "run_of_key": lambda raw: reads.run_of_key(raw, "bake", "event", "k"),
    "run_events": lambda raw: reads.run_events(raw, "r1"),
    "nth_before": lambda raw: (reads.nth_before(raw, "runs", "r1", 10), reads.nth_before(raw, "events", None, 10)),
    "queue_head": lambda raw: reads.queue_head(raw, "oven", None, 512),
    "queue_after": lambda raw: reads.queue_head(raw, "oven", QueuePlace(5, "r1"), 512),
    "queued_jobs": reads.queued_jobs,
    "manual_queue_head": lambda raw: reads.queue_head(raw, "oven", None, 512, Lane.MANUAL),
    "backfill_queue_head": lambda raw: reads.queue_head(raw, "oven", None, 512, Lane.BACKFILL),
    "backfill_queue_after": lambda raw: reads.queue_head(raw, "oven", QueuePlace(5, "r1"), 512, Lane.BACKFILL),
    "backfill_queued_jobs": lambda raw: reads.queued_jobs(raw, Lane.BACKFILL),
    "backfill": lambda raw: backfills.backfill(raw, "b1"),
    "backfill_of_request": lambda raw: backfills.backfill_of_request(raw, "r"),
    "open_backfills": backfills.open_backfills,
    "backfill_instants": lambda raw: backfills.backfill_instants(raw, "b1"),
    "backfill_counts": lambda raw: backfills.backfill_counts(raw, BACKFILL),
    "backfill_runs": lambda raw: backfills.backfill_runs(raw, BACKFILL),
    "succeeded_instants": lambda raw: backfills.succeeded_instants(raw, "bake", AT, AT),
    "next_job": lambda raw: reads.next_job(raw, Lane.LIVE, "oven"),
    "line": lambda raw: line.line(raw, list(Lane), None, 50),
    "line_after": lambda raw: line.line(raw, list(Lane), QueuePlace(5, "r1"), 50),
    "ahead": lambda raw: line.ahead(raw, list(Lane), QueuePlace(5, "r1")),
    "spans": lambda raw: spans.spans(raw, SpanKind.ENGINE, None, AT, AT, 9),
    "spans_of": lambda raw: spans.spans(raw, SpanKind.PAUSE, "bake", AT, AT, 9),
    "open_spans": lambda raw: spans.open_spans(raw, SpanKind.TRIGGER, "", 9),
    "first_span": lambda raw: spans.first_span(raw, SpanKind.TRIGGER, "bake"),
    "fired": lambda raw: hindsight.fired(raw, "bake", "timer:bake", AT, AT, 9),
    "missed": lambda raw: hindsight.missed(raw, "bake", AT, AT, 9),
    "recorded_instants": lambda raw: hindsight.recorded_instants(raw, "bake", "timer:bake", AT, AT),
    "met": lambda raw: hindsight.met(raw, "bake", AT, AT, (AT, 1), 9),
    "due": lambda raw: reads.due(raw, None, 512),
    "due_after": lambda raw: reads.due(raw, (AT, "r1"), 512),
    "held": lambda raw: reads.held(raw, None, None, 512),
    "held_after": lambda raw: reads.held(raw, None, HeldPlace("bake", 5, "r1"), 512),
    "held_of": lambda raw: reads.held(raw, "bake", None, 512),
    "held_of_after": lambda raw: reads.held(raw, "bake", HeldPlace("bake", 5, "r1"), 512),
    "held_counts": reads.held_counts,
    "filled": reads.filled,
    "open_windows": reads.open_windows,
    "expiring": lambda raw: reads.expiring(raw, 512),
    "throttled": lambda raw: reads.throttled(raw, AT),
    "marks": lambda raw: reads.marks(raw, [("bake", "dedupe", "k")]),
    "latest_marks": lambda raw: reads.latest_marks(raw, 512),
    "has_marks_before": lambda raw: reads.has_marks_before(raw, AT),
    "running": reads.running,
    "in_the_way": lambda raw: reads.in_the_way(raw, ["oven", "mill"], 512),
    "cursor": lambda raw: reads.cursors(raw, "mill", exact=True),
    "cursors": lambda raw: reads.cursors(raw, "timer:", exact=False),
    "memory": lambda raw: reads.memory(raw, "mill", None, 512),
    "memory_after": lambda raw: reads.memory(raw, "mill", "k", 512),
    "received": lambda raw: receipts.received(raw, RECEIPTS, 9),
    "counts": reads.counts,
    "waiting": reads.waiting,
    "stats": lambda raw: reads.stats(raw, ["bake"]),
    "delivery": lambda raw: deliveries.delivery(raw, "d1"),
    "deliveries_of_run": lambda raw: deliveries.deliveries(raw, DeliveryFilter(run="r1"), 9, None),
    "delivery_heads": deliveries.heads,
    "due_deliveries": lambda raw: deliveries.due(raw, "callback:oven", AT, 20),
    "waiting_deliveries": deliveries.waiting,
    "has_deliveries_before": lambda raw: deliveries.has_before(raw, AT),
    "tallies_of_trigger": lambda raw: tallies.of_trigger(raw, "bake", Width.DAY, AT, AT),
    "tallies_of_job": lambda raw: tallies.of_job(raw, "oven", Width.DAY, AT, AT),
    "tallies_at": lambda raw: tallies.at(raw, Width.HOUR, AT),
    "last_tallies": lambda raw: tallies.last(raw, ["bake", "grind"]),
    "queue_depths": line.depths,
    "first_tally_at": lambda raw: tallies.first_at(raw, Width.HOUR),
    "ended_since": lambda raw: tallies.ended_since(raw, AT, 512),
    "why_not": lambda raw: reads.why_not(raw, "r1"),
    "old_runs": lambda raw: purging.old_runs(raw, AT, 0, 500),
    "old_events": lambda raw: purging.old_events(raw, AT, AT, 0, 500),
    "oldest": purging.oldest,
    "ends_of": lambda raw: purging.ends_of(raw, ["r1", "r2"]),
    "purged": purging.purged,
}


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    prepare(tmp_path / "engine.db")
    connection = sqlite3.connect(tmp_path / "engine.db", isolation_level=None)
    yield connection
    connection.close()


def plan_of(raw: sqlite3.Connection, text: str) -> list[str]:
    return [row[3] for row in raw.execute(f"explain query plan {text}", [None] * text.count("?"))]


def faults(steps: list[str], *, sorts: str = "") -> list[str]:
    """Return the steps of a query plan that walk a whole table, or sort what was read for other than `sorts`."""
    found = []
    for step in steps:
        walked = WALKED.match(step)
        if walked and walked[1] in TABLES and walked[2] not in SMALL:
            found.append(step)
        if "AUTOMATIC" in step or ("TEMP B-TREE" in step and not (sorts and sorts in step)):
            found.append(step)
    return found


def statements_of(raw: sqlite3.Connection, ask: Callable[[sqlite3.Connection], object]) -> list[str]:
    """Return what `ask` runs, with its values in place."""
    seen: list[str] = []
    raw.set_trace_callback(seen.append)
    ask(raw)
    raw.set_trace_callback(None)
    return [text for text in seen if not re.match(r"(begin|commit|--)", text, re.IGNORECASE)]


@pytest.mark.parametrize("name", READS)
def test_a_read_finds_its_rows_by_an_index(raw: sqlite3.Connection, name: str) -> None:
    ran = statements_of(raw, READS[name])
    assert ran
    for text in ran:
        assert faults(plan_of(raw, text), sorts=SORTS.get(name, "")) == [], text


@pytest.mark.parametrize("name", QUERIES)
def test_a_named_query_finds_its_rows_by_an_index(raw: sqlite3.Connection, name: str) -> None:
    text = re.sub(r"\?1", "'x'", QUERIES[name])
    assert faults(plan_of(raw, text), sorts=SORTS.get(name, "")) == []


@pytest.mark.parametrize("rows", [1, MOST_ROWS])
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_finds_its_rows_by_an_index(raw: sqlite3.Connection, name: str, rows: int) -> None:
    steps = plan_of(raw, statement(name, rows))
    assert faults(steps) == []
    if STATEMENTS[name][0].startswith("update runs ") and name != "shift_runs":  # that has an index of its own
        assert any("SEARCH runs USING" in step and "runs_id" in step for step in steps), steps


@pytest.mark.parametrize("which", [RunFilter(), RunFilter(job="oven")], ids=["all", "of a job"])
@pytest.mark.parametrize("before", [None, "r1"])
def test_a_list_of_runs_is_read_in_its_order_without_sorting(
    raw: sqlite3.Connection, which: RunFilter, before: str | None
) -> None:
    (text,) = statements_of(raw, lambda on: reads.runs(on, which, 50, before))
    steps = plan_of(raw, text)
    assert not any("TEMP B-TREE" in step for step in steps), NOT_HOT["runs"]
    assert any("INDEX runs_id" in step for step in steps)


@pytest.mark.parametrize(
    "which",
    [EventFilter(), EventFilter(type="t"), EventFilter(trigger="bake")],
    ids=["all", "of a type", "of a trigger"],
)
@pytest.mark.parametrize("before", [None, "e1"])
def test_a_list_of_events_is_read_in_its_order_without_sorting(
    raw: sqlite3.Connection, which: EventFilter, before: str | None
) -> None:
    (text,) = statements_of(raw, lambda on: reads.events(on, which, 50, before))
    steps = plan_of(raw, text)
    assert not any("TEMP B-TREE" in step for step in steps), NOT_HOT["events"]
    assert any("INDEX events_id" in step for step in steps)


@pytest.mark.parametrize("before", [None, "b1"])
def test_a_list_of_backfills_is_read_in_its_order_without_sorting(raw: sqlite3.Connection, before: str | None) -> None:
    (text,) = statements_of(raw, lambda on: backfills.backfills(on, 50, before))
    steps = plan_of(raw, text)
    assert not any("TEMP B-TREE" in step for step in steps), NOT_HOT["backfills"]
    assert any("INDEX backfills_id" in step for step in steps)


@pytest.mark.parametrize("before", [None, "d1"])
def test_a_list_of_deliveries_is_read_in_its_order_without_sorting(raw: sqlite3.Connection, before: str | None) -> None:
    for which in (DeliveryFilter(), DeliveryFilter(target="callback:oven"), DeliveryFilter(run="r1")):
        (text,) = statements_of(raw, lambda on, which=which: deliveries.deliveries(on, which, 50, before))  # type: ignore[misc]
        steps = plan_of(raw, text)
        assert not any("TEMP B-TREE" in step for step in steps), NOT_HOT["deliveries"]
        assert any("INDEX deliveries_id" in step or "INDEX deliveries_run" in step for step in steps)


def test_every_query_of_the_store_is_looked_at() -> None:
    asked = set(READS) | set(NOT_HOT)
    offered = {
        name
        for module in (reads, backfills, line, hindsight, spans, deliveries, tallies, purging)
        for name, each in vars(module).items()
        if callable(each) and getattr(each, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    helping = {
        "oldest_due",
        "change_row",
        "span_row",
        "snapshot",
        "delivery_row",
        "purge_rows",
        "tried_row",
        "tally_row",
    }
    named = {
        "heads",
        "due",
        "waiting",
        "has_before",
        "of_trigger",
        "of_job",
        "at",
        "first_at",
        "last",
        "depths",
    }  # as they are called in `READS`
    assert offered - asked <= helping | named


def test_a_plan_that_walks_or_sorts_is_noticed() -> None:
    assert faults(["SCAN runs"]) == ["SCAN runs"]
    assert faults(["SCAN e USING INDEX events_id"]) == ["SCAN e USING INDEX events_id"]
    assert faults(["USE TEMP B-TREE FOR ORDER BY"]) == ["USE TEMP B-TREE FOR ORDER BY"]
    assert faults(["SEARCH runs USING INDEX runs_id (id=?)", "SCAN 2 CONSTANT ROWS", "SCAN v"]) == []
    assert faults(["SCAN runs USING COVERING INDEX runs_queue"]) == []
