"""The crash harness adds up what it did itself: what is left out, told twice or told wrongly is a finding."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.runs import RunState
from tests.crash.audit import Attempt, StoredRun, _followed
from tests.crash.folders import ClaimedFolder, WatchedFolder
from tests.crash.outside import Outside, Told
from tests.crash.polled import Feed, Orders, Stock
from tests.crash.site import Site

Telling = Callable[[list[Told]], None]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, jobs={}, triggers='[triggers.after]\non.run = "awaited"\n')


@pytest.fixture
def made(site: Site, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a feeder's changes, without an engine; what is told of them is up to the test."""
    feeders: list[Outside] = []

    def make(kind: type[Outside], changes: int) -> tuple[Any, Telling]:
        feeder = kind(site, per_second=1.0)
        feeders.append(feeder)
        for number in range(1, changes + 1):
            feeder.make(number)
            feeder.made = number
        return feeder, lambda events: monkeypatch.setattr(feeder, "told", lambda: events)

    yield make
    for feeder in feeders:
        feeder.close()


def event(kind: str, key: str = "", run: str | None = None, **data: Any) -> Told:
    return Told(type=kind, key=key, data=data, run=run)


def findings(feeder: Outside) -> list[str]:
    return list(feeder.findings())


def test_rows_are_told_once_each(made: Any) -> None:
    orders, tell = made(Orders, 3)
    whole = [event("row.orders", id=row) for (row,) in orders.rows("select id from orders")]
    tell(whole)
    assert findings(orders) == []
    for wrong in (whole[1:], [*whole, whole[0]], [*whole, event("row.orders", id=99)]):
        tell(wrong)
        assert len(findings(orders)) == 1


def test_changes_of_rows_are_told_in_their_order_up_to_the_last(made: Any) -> None:
    stock, tell = made(Stock, 0)
    with closing(sqlite3.connect(stock._shop)) as shop, shop:
        shop.execute("insert into stock values ('a', 3)")
    inserted = event("row.stock.inserted", "1:a", item="a", amount=1)
    updated = event("row.stock.updated", "2:a", item="a", amount=3)
    deleted = event("row.stock.deleted", "3:a", item="a")
    tell([inserted, updated])
    assert findings(stock) == []
    again = event("row.stock.updated", "3:a", item="a", amount=3)
    for wrong in ([inserted], [inserted, updated, deleted], [inserted, updated, again], [updated], [inserted, again]):
        tell(wrong)
        assert findings(stock)


def test_versions_of_an_answer_are_told_up_to_the_last(made: Any) -> None:
    feed, tell = made(Feed, 3)
    first, last = (event("http.changed", f"{n}:x", body={"version": v}) for n, v in ((1, 0), (2, 3)))
    tell([first, last])
    assert findings(feed) == []
    for wrong in ([first], [last], [last, first], [first, last, last]):
        tell(wrong)
        assert findings(feed)


def test_contents_of_watched_files_are_told_once_each_where_they_stay(made: Any, site: Site) -> None:
    folder, tell = made(WatchedFolder, 1)
    folder.make(3)
    told = [event("file.created", name="1.csv", size=11), event("file.created", name="3.csv", size=12)]
    tell(told)
    assert findings(folder) == []
    strange = event("file.created", name="2.csv", size=11)
    deleted = event("file.deleted", name="1.csv", size=11)
    other = event("file.modified", name="1.csv", size=99)
    for wrong in (told[1:], [*told, told[0]], [*told, strange], [*told, deleted], [*told, other]):
        tell(wrong)
        assert findings(folder)
    (site.path / "watched" / "1.csv").unlink()
    folder._files[0].is_gone = True
    tell([*told, deleted])
    assert findings(folder) == []
    tell(told)
    assert findings(folder) == ["watched file 1.csv is told 0 times as deleted, not 1 times"]


def test_a_file_that_was_told_and_then_moved_is_moved(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tell = made(WatchedFolder, 1)
    monkeypatch.setattr(folder, "_is_told", lambda file: True)
    folder.make(4)
    created = event("file.created", name="1.csv", size=11)
    moved = event("file.moved", name="4-moved.csv", size=11)
    deleted = event("file.deleted", name="1.csv", size=11)
    tell([created, moved])
    assert findings(folder) == []
    anew = event("file.created", name="4-moved.csv", size=11)
    for wrong in ([created], [created, moved, deleted], [created, anew, deleted], [created, anew]):
        tell(wrong)
        assert findings(folder)


def test_a_claimed_file_ends_where_its_run_sends_it_and_nowhere_else(
    made: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tell = made(ClaimedFolder, 1)
    states = [("run", "succeeded")]
    monkeypatch.setattr(site, "rows", lambda *_: states)
    created = event("file.created", run="run", size=101)
    tell([created])
    assert findings(folder) == ["claimed file 1 is in [''], and should be in ['done']"]
    (claimed,) = (site.path / "claims").iterdir()
    done, failed = (site.path / "claims" / name for name in ("done", "failed"))
    done.mkdir()
    failed.mkdir()
    claimed.rename(done / "1.csv")
    assert findings(folder) == []
    for wrong in ([], [created, created], [event("file.created", run="run", size=102)]):
        tell(wrong)
        assert findings(folder)
    tell([created])
    states[:] = [("run", "failed")]
    assert findings(folder) == ["claimed file 1 is in ['done'], and should be in ['failed']"]
    (done / "1.csv").rename(failed / "1.csv")
    assert findings(folder) == ["claimed file 1 is in ['failed without a reason'], and should be in ['failed']"]
    (failed / "1.csv.error").write_text("why")
    assert findings(folder) == []


def test_each_end_of_a_run_that_is_followed_is_one_event(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str, int]] = []
    monkeypatch.setattr(site, "rows", lambda *_: told)
    runs = {name: run(name, job) for name, job in (("one", "awaited"), ("two", "fragile"), ("three", "plain"))}
    told[:] = [("job:awaited", "engine.run.succeeded", "one", 1), ("job:fragile", "engine.run.succeeded", "two", 1)]
    assert list(_followed(site, runs)) == []
    for wrong in (
        told[1:],
        [*told[1:], ("job:awaited", "engine.run.succeeded", "one", 2)],
        [*told, ("job:awaited", "engine.run.failed", "one", 1)],
        [*told, ("job:plain", "engine.run.succeeded", "three", 1)],
    ):
        monkeypatch.setattr(site, "rows", lambda *_, wrong=wrong: wrong)
        assert list(_followed(site, runs))


def run(name: str, job: str) -> StoredRun:
    attempt = Attempt(number=1, started_s=0.0, finished_s=1.0, state="succeeded", code="succeeded")
    return StoredRun(
        id=name, job=job, trigger="any", origin="event", key=name, first_event="event", event_count=1,
        state=RunState.SUCCEEDED, code="succeeded", scheduled_for=None, limit_key=None, trace=[], attempts=[attempt],
    )  # fmt: skip
