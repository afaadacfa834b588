"""Lists that are narrowed: what they hold, and that none reads more than its bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.events import Event, EventOutcome, Outcome
from engine.http import slices
from engine.http.slices import page_of
from engine.ids import first_id_at
from engine.runs import Origin, Run, RunState, Step
from engine.store.base import EventFilter, Listed, RunFilter
from engine.store.changes import Accept, Entry
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from tests.fake_operations import FakeOperations
from tests.http_client import Client

V1 = "/api/v1"
CLOCK = VirtualClock()
START = datetime(2026, 11, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


def an_id(minute: int) -> str:
    return f"{first_id_at(at(minute))}-7000-8000-{minute:012x}"


def an_entry(minute: int) -> Entry:
    """An event each minute, with a run; each tenth is of the job `rare` and of a person."""
    rare = minute % 10 == 0
    event = Event(
        id=an_id(minute), type="rare.type" if rare else "plain", source="api", subject=f"Order {minute}",
        received_at=at(minute),
        time=at(minute),
    )  # fmt: skip
    step = Step(at=at(minute), state=RunState.QUEUED, code="ready", reason=f"Queued as number {minute}")
    run = Run(
        id=an_id(minute), trigger="seldom" if rare else "often", job="rare" if rare else "common", event=event.id,
        origin=Origin.MANUAL if rare else Origin.EVENT, state=RunState.QUEUED, code="ready",
        reason=step.reason, created_at=at(minute), key=event.id, priority=5, rank=minute, trace=(step,),
    )  # fmt: skip
    outcome = Outcome(trigger=run.trigger, outcome=EventOutcome.RUN, run=run.id, code="matched", reason="matched")
    return Entry(event=event, data=b"null", outcomes=(outcome,), runs=(run,))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "engine.db")
    await opened.open()
    await opened.apply([Accept(entries=tuple(an_entry(minute) for minute in range(60)))])
    yield opened
    await opened.close()


async def minutes(store: SqliteStore, which: RunFilter) -> list[int]:
    return [int(run.id[-12:], 16) for run in await store.runs(which, limit=100)]


async def test_the_store_narrows_runs_by_origin_text_and_time(store: SqliteStore) -> None:
    assert await minutes(store, RunFilter(origins=frozenset({Origin.MANUAL}))) == [50, 40, 30, 20, 10, 0]
    assert await minutes(store, RunFilter(text="NUMBER 4")) == [49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 4]
    assert await minutes(store, RunFilter(text="RAR", since=an_id(40))) == [50, 40]
    assert await minutes(store, RunFilter(text="%")) == []


async def test_the_store_narrows_events_by_their_triggers_text_and_time(store: SqliteStore) -> None:
    for which in (EventFilter(triggers=frozenset({"seldom"})), EventFilter(text="RARE.")):
        found = await store.events(which, limit=100)
        assert [one.event.subject for one in found] == [f"Order {minute}" for minute in (50, 40, 30, 20, 10, 0)]
    assert [one.event.subject for one in await store.events(EventFilter(text="order 7"), limit=9)] == ["Order 7"]
    assert await store.events(EventFilter(triggers=frozenset()), limit=9) == []
    assert len(await store.events(EventFilter(since=an_id(58)), limit=9)) == 2


async def test_the_store_knows_the_nth_before_an_id(store: SqliteStore) -> None:
    kinds: tuple[Listed, ...] = ("events", "runs")
    for what in kinds:
        assert await store.nth_before(what, None, 1) == an_id(59)
        assert await store.nth_before(what, an_id(59), 9) == an_id(50)
        assert await store.nth_before(what, an_id(9), 10) is None


async def test_a_rare_thing_is_looked_for_in_slices_and_the_next_page_goes_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE", 7)
    monkeypatch.setattr(slices, "SLICES", 2)
    looked: list[tuple[str | None, str | None]] = []

    async def find(*, limit: int, before: str | None, since: str | None) -> list[Run]:
        looked.append((before, since))
        return await store.runs(RunFilter(job="rare", since=since), limit=limit, before=before)

    pages, cursor = [], None
    while True:
        page, cursor = await page_of(
            store, CLOCK, "runs", find, lambda run: run.id, limit=2, before=cursor, since=an_id(15), narrowed=True
        )  # fmt: skip
        pages.append([int(run.id[-12:], 16) for run in page])
        if cursor is None:
            break
    assert [minute for page in pages for minute in page] == [50, 40, 30, 20]
    assert len(looked) > len(pages)
    spans = [(before or an_id(60), since) for before, since in looked]
    assert all(since is not None and int(before[-12:], 16) - int(since[-12:], 16) <= 8 for before, since in spans)


async def test_a_list_that_is_not_narrowed_is_read_at_once(store: SqliteStore) -> None:
    async def find(*, limit: int, before: str | None, since: str | None) -> list[Run]:
        assert since is None
        return await store.runs(RunFilter(), limit=limit, before=before)

    for limit, following in ((60, None), (59, an_id(1))):
        page, cursor = await page_of(
            store, CLOCK, "runs", find, lambda run: run.id, limit=limit, before=None, since=None, narrowed=False
        )  # fmt: skip
        assert (len(page), cursor) == (limit, following)


async def test_triggers_are_narrowed(operations: FakeOperations, client: Client) -> None:
    async def names(query: str) -> list[str]:
        got = await client.ask("GET", f"{V1}/triggers?{query}")
        assert got.status == 200, got.json
        return [item["name"] for item in got.json["items"]]

    for query in ("state=active", "enabled=1", "job=import", "text=NIGHT", "limit=1"):
        assert await names(query) == ["nightly"], query
    for query in ("state=paused", "enabled=false", "job=export", "text=daily", "tag=x", "cursor=nightly"):
        assert await names(query) == [], query
    for query in ("state=asleep", "enabled=yes", "tag=", "text=%00"):
        assert (await client.ask("GET", f"{V1}/triggers?{query}")).status == 422, query


async def test_jobs_are_narrowed(client: Client) -> None:
    for query, count in (("enabled=1", 1), ("enabled=0", 0), ("tag=x", 0), ("text=IMP", 1), ("text=exp", 0)):
        assert len((await client.ask("GET", f"{V1}/jobs?{query}")).json["items"]) == count, query


async def test_runs_are_narrowed_by_tag_origin_time_and_text(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.SUCCEEDED)
    origin = run.origin.value
    for query in (
        "tag=warehouse",
        f"origin={origin}",
        f"text={run.job}",
        "from=2020-01-01T00:00:00Z",
        "to=2999-01-01T00:00:00Z",
    ):
        got = await client.ask("GET", f"{V1}/runs?{query}")
        assert [item["id"] for item in got.json["items"]] == [run.id], query
    for query in ("tag=nobody", "text=zzz", "from=2999-01-01T00:00:00Z", "to=2020-01-01T00:00:00Z"):
        assert (await client.ask("GET", f"{V1}/runs?{query}")).json["items"] == [], query
    assert (await client.ask("GET", f"{V1}/runs?origin=nowhere&from=then")).status == 422
    wrong = await client.ask("GET", f"{V1}/events?outcome=run")
    assert [error["parameter"] for error in wrong.json["errors"]] == ["outcome"]
