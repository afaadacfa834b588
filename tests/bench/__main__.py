"""`python -m tests.bench NAME [--rounds N] [--quick]`: a table for people, and one line of JSON as the last line."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import (
    depth,
    files,
    hostile,
    idle,
    instants,
    intake,
    latency,
    lists,
    pages,
    purge,
    runs,
    shaping,
    simulate,
    spawn,
    timers,
)
from tests.bench.report import BenchFailed, Options, Report

BENCHES: dict[str, tuple[Callable[[Options], Report], str]] = {
    "intake": (intake.measure, "durable 202s per second, against a bare aiohttp handler"),
    "spawn": (spawn.measure, "durable runs of /bin/true per second, against bare spawning"),
    "runs": (runs.measure, "durable runs of Python functions per second, against huey on SQLite"),
    "latency": (latency.measure, "from event to started process at 20 events per second"),
    "lists": (lists.measure, "the first page of each list, with 100,000 runs and 10,000 triggers"),
    "depth": (depth.measure, "the cost of an event and of a dispatch with a million waiting runs"),
    "pages": (pages.measure, "each page with 100,000 runs and 10,000 triggers: how long, and how large"),
    "purge": (purge.measure, "accepting while a million finished runs are removed, against without that"),
    "files": (files.measure, "from a renamed file to its durable event, and 10,000 files at once"),
    "instants": (instants.measure, "one computed due instant, against cronsim; and 100,000 timers"),
    "timers": (timers.measure, "100,000 cron triggers: ready, memory, idling and lateness, against APScheduler 3"),
    "shaping": (shaping.measure, "the cost of an event through filter, debounce and dedupe, against one without"),
    "simulate": (simulate.measure, "a million due instants through all deciders, against the bare schedules"),
    "hostile": (hostile.measure, "an ordinary sender and a timer beside slow clients, endless bodies and a flood"),
    "idle": (idle.measure, "processor time of an engine that has nothing to do"),
}

ROUNDS, QUICK_ROUNDS = 5, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one bench, or list them; return the exit code: 0, 1 (it could not be run), 2 (usage)."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the engine.")
    parser.add_argument("name", nargs="?", choices=list(BENCHES), help="the bench; without one they are listed")
    parser.add_argument("--rounds", type=int, help=f"rounds of engine and baseline (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: whether it works at all")
    given = parser.parse_args(arguments)
    if given.name is None:
        for name, (_, what) in BENCHES.items():
            sys.stdout.write(f"{name:10} {what}\n")
        return 0
    rounds = given.rounds if given.rounds is not None else QUICK_ROUNDS if given.quick else ROUNDS
    if rounds < 1:
        parser.error("--rounds must be 1 or more")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            report = BENCHES[given.name][0](Options(rounds=rounds, quick=given.quick, folder=Path(folder)))
        except BenchFailed as error:
            sys.stderr.write(f"{given.name}: {error}\n")
            return 1
    sys.stdout.write(f"{report.table()}\n{report.line()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
