"""Rows of a database are events once each, whenever the engine is killed; with a real engine as a process."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.crash.audit import add_up
from tests.crash.process import EngineProcess, end_marked, started, wait_for
from tests.crash.site import Job, Site
from tests.crash.steps import strace_is_there

TIES = 7
"""So many rows share a value of the cursor."""

LATE_S = 300.0

needs_strace = pytest.mark.skipif(
    not strace_is_there(), reason="strace is not installed: it kills the engine at its Nth system call"
)
SIZES = [1_000, pytest.param(100_000, marks=[pytest.mark.full, pytest.mark.timeout(900)])]

FOLLOWING = """
url = "sqlite+aiosqlite:///app.db"
query = "select id, at from orders where at > :cursor order by at, id"
cursor = "at"
key = "id"
look_back = "10s"
start = "beginning"
"""
COMPARING = """
url = "sqlite+aiosqlite:///app.db"
query = "select id, at from orders"
changes = "hash"
key = "id"
start = "beginning"
"""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A directory for a site, of whose processes none is left."""
    yield tmp_path / "site"
    database = tmp_path / "site" / "data" / "engine.db"
    if database.exists():
        with closing(sqlite3.connect(database)) as raw:
            end_marked({run for (run,) in raw.execute("select id from runs")})


def make_site(path: Path, settings: str, rows: int) -> Site:
    """Make a site with a table of rows, of which a few are run; a second source has no database at all."""
    triggers = (
        f'[triggers.rows]\njob = "work"\nfilter = "data.id % 500 == 0"\n'
        f'[triggers.rows.on.database]\nmin = "10ms"\nevery = "50ms"\npage = 100\n{settings}\n'
        f'[triggers.nothing]\njob = "work"\n[triggers.nothing.on.database]\nmin = "10ms"\nevery = "50ms"\n'
        f"{settings.replace('app.db', 'missing.db')}\n"
    )
    site = Site(path, jobs={"work": Job(seconds=0.01)}, triggers=triggers)
    with closing(sqlite3.connect(site.path / "app.db")) as raw, raw:
        raw.execute("pragma journal_mode = wal")
        raw.execute("create table orders (id integer primary key, at text)")
    add(site, range(1, rows + 1))
    return site


def add(site: Site, ids: range, *, before_s: int = 0) -> None:
    """Add rows, `before_s` earlier than is their turn."""
    with closing(sqlite3.connect(site.path / "app.db", timeout=30)) as raw, raw:
        raw.executemany(
            "insert into orders values (?, datetime('2026-11-21', ? || ' seconds'))",
            [(number, (number // TIES) - before_s) for number in ids],
        )


def told(site: Site) -> int:
    """Return how many rows are events."""
    if not site.database.exists():
        return 0
    try:
        return int(site.rows("select count(*) from events")[0][0])
    except sqlite3.OperationalError:  # the engine has not made its tables yet
        return 0


def check(site: Site, rows: int) -> None:
    """Check that each row is one event, and that nothing else is out of order."""
    counts = Counter(json.loads(data)["id"] for (data,) in site.rows("select data from events"))
    assert set(counts) == set(range(1, rows + 1))
    assert set(counts.values()) == {1}
    assert add_up(site).findings == []


def run_to_the_end(site: Site, rows: int) -> None:
    with started(site) as engine:
        wait_for(lambda: told(site) >= rows, "all rows are told of", LATE_S)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        assert engine.stop() == 0


@pytest.mark.parametrize("settings", [FOLLOWING, COMPARING])
@pytest.mark.parametrize("rows", SIZES)
def test_rows_are_events_once_each_over_kills_in_the_midst_of_polls(path: Path, settings: str, rows: int) -> None:
    site = make_site(path, settings, rows)
    for part in range(1, 4):
        with started(site) as engine:
            wait_for(lambda part=part: told(site) > rows * part // 4, "some rows are told of", LATE_S)  # type: ignore[misc]
            engine.kill()
    # Others commit late, with values that were passed already.
    add(site, late := range(rows + 1, rows + 9), before_s=9)
    run_to_the_end(site, rows + len(late))
    check(site, rows + len(late))


@needs_strace
@pytest.mark.timeout(600)
@pytest.mark.parametrize("settings", [FOLLOWING, COMPARING])
@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("pwrite64", 97),
        pytest.param("fdatasync", 1, marks=pytest.mark.full),
        pytest.param("pwrite64", 11, marks=pytest.mark.full),
    ],
)
def test_rows_are_events_once_each_over_kills_at_the_steps_of_commits(
    path: Path, settings: str, call: str, step: int
) -> None:
    rows = 1_000
    site = make_site(path, settings, rows)
    kills = 0
    for number in itertools.count(1, step):
        strace = ["-f", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
        with EngineProcess(site, strace=strace) as traced:
            wait_for(lambda: traced.exit_code is not None or told(site) >= rows, "it dies, or is done", 60.0)
            kills += traced.exit_code is not None
            if traced.exit_code is None:
                break
    assert kills > 2
    run_to_the_end(site, rows)
    check(site, rows)
