"""`timers`: 100,000 cron triggers: the time to be ready, memory, idling, and how late 1,000 that are due at once begin.

The store exists and holds the cursors of all of them. The triggers are made by a program, as an application that
embeds the engine does it, in a process of its own (`tests/bench/timed_engine`): to read 100,000 tables of TOML is
another matter, and takes longer. Ready counts from the start of that process, so the making of the triggers is in it.
Runs are async Python functions; each is stored, with its event, before it begins.

The baseline is APScheduler 3 with its jobs in memory, which stores nothing; ready counts from the first job that is
added, without the start of Python. Last, an engine with 1,000 triggers that are due each minute is started after 30
days: until it is ready, and until of each trigger the latest run and all missed minutes are in the store.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec

from engine.clock import rfc3339
from engine.store.changes import Accept, Cursor
from engine.store.sqlite import SqliteStore
from tests.bench import apscheduler_peer
from tests.bench.processes import ROOT
from tests.bench.report import BenchFailed, Figure, Options, Report

COUNT, QUICK_COUNT = 100_000, 1_000
DUE, QUICK_DUE = 1_000, 50
LEAD_S, QUICK_LEAD_S = 22.0, 9.0
AWAY, QUICK_AWAY = 1_000, 20
AWAY_FOR = timedelta(days=30)
LONGEST_S = 240.0


def measure(options: Options) -> Report:
    """Measure the engine and APScheduler in turn."""
    if not apscheduler_peer.is_there():
        raise BenchFailed("the baseline is not installed: pip install 'apscheduler>=3.10,<4'")
    count, due, lead_s = (QUICK_COUNT, QUICK_DUE, QUICK_LEAD_S) if options.quick else (COUNT, DUE, LEAD_S)
    ours: list[Mapping[str, float]] = []
    theirs: list[Mapping[str, float]] = []
    away: list[Mapping[str, float]] = []
    for number in range(options.rounds):
        folder = options.folder / f"round-{number}"
        names = [f"due-{one}" for one in range(due)] + [f"t-{one}" for one in range(count - due)]
        _store_cursors(folder, names, datetime.now(UTC))
        ours.append(_found("timed_engine", folder, count, due, lead_s))
        theirs.append(_found("apscheduler_peer", count, due))
        minutely = QUICK_AWAY if options.quick else AWAY
        behind = options.folder / f"away-{number}"
        _store_cursors(behind, [f"away-{one}" for one in range(minutely)], datetime.now(UTC) - AWAY_FOR)
        away.append(_found("away_engine", behind, minutely))
    return _report(ours, theirs, away, count, due)


def _store_cursors(folder: Path, names: Sequence[str], at: datetime) -> None:
    """Make a store in which all these timers are known since an instant."""
    (folder / "data").mkdir(parents=True)

    async def write() -> None:
        store = SqliteStore(folder / "data" / "engine.db")
        await store.open()
        cursors = tuple(Cursor(source=f"timer:{name}", value=rfc3339(at)) for name in names)
        await store.apply([Accept(entries=(), cursors=cursors)])
        await store.close()

    anyio.run(write)


def _found(module: str, *arguments: object) -> Mapping[str, float]:
    """Run a module, with when it was started as its last argument; return what it prints."""
    begun_s = time.monotonic()
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments), str(begun_s)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"{module} took longer than {LONGEST_S:g} s") from None
    if done.returncode:
        raise BenchFailed(f"{module} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


def _report(
    ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]], away: Sequence[Mapping[str, float]],
    count: int, due: int,
) -> Report:  # fmt: skip
    def figure(field: str, title: str, unit: str, target: str = "") -> Figure:
        baselines = [one[field] for one in theirs if field in one]
        return Figure(title=title, unit=unit, values=[one[field] for one in ours], baselines=baselines, target=target)

    def behind(field: str, title: str, target: str = "") -> Figure:
        return Figure(title=title, unit="s", values=[one[field] for one in away], target=target)

    figures = [
        figure("ready_s", f"{count:,} triggers: ready", "s", "below 4 s"),
        figure("runtime_ready_s", "- of it, the engine itself", "s"),
        figure("resident_mb", "resident memory", "MiB", "below 250 MB"),
        figure("peak_mb", "- most, at the end", "MiB"),
        figure("idle_percent", "idle", "% of a core", "below 1 %"),
        figure("p50_ms", f"{due:,} due in one second: median lateness", "ms", "below 150 ms"),
        figure("p99_ms", "- 99th percentile", "ms", "below 300 ms"),
        behind("ready_s", "30 days away, due each minute: ready", "below 5 s"),
        behind("dealt_with_s", "- all of it in the store"),
    ]
    names = ("ready_s", "runtime_ready_s", "resident_mb", "peak_mb", "idle_percent", "p50_ms", "p99_ms")
    extra: dict[str, float | int | str | None] = {"triggers": count, "due": due}
    for name, one in zip(names, figures, strict=False):
        extra |= {name: one.value, f"baseline_{name}": one.baseline}
    extra |= {"away_ready_s": figures[-2].value, "away_dealt_with_s": figures[-1].value}
    return Report(bench="timers", figures=figures, extra=extra)
