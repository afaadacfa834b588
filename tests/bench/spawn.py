"""`spawn`: how many durable runs of /bin/true per second, against starting it without an engine.

The events come in by `POST /api/v1/events`, in batches; the time runs from the first of them to the last recorded
end. Each run is stored, started, logged to a file of its own, reaped and recorded. The baseline starts as many, as
many at a time, with Popen, a pidfd and output to a file, and records nothing.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.material import order
from tests.bench.processes import ROOT, TOKEN, Cpu, Server, start_engine, wait_for
from tests.bench.report import BenchFailed, Figure, Options, Report
from tests.bench.wire import Wire

RUNS, QUICK_RUNS = 3_000, 200
BATCH = 250
AT_ONCE = 32
"""Both ways: eight programs would go in step with the commits, as docs/decisions/0027 tells."""

LONGEST_S = 120.0

CONFIG = f"""\
[engine]
concurrency = {AT_ONCE}
[http]
listen = "127.0.0.1:{{port}}"
[jobs.nothing]
run.exec = ["/bin/true"]
[triggers.heard]
on.event = "bench.spawn"
job = "nothing"
"""


class Turn(Struct, frozen=True, kw_only=True):
    """So many runs in so many seconds, and the processor time that the program itself took (not its children)."""

    runs: int
    seconds: float
    cpu_s: float
    loop_s: float = 0.0
    writer_s: float = 0.0


def measure(options: Options) -> Report:
    """Let the engine and the bare program run as many, in turn."""
    runs = QUICK_RUNS if options.quick else RUNS
    ours: list[Turn] = []
    bare: list[Turn] = []
    folder = options.folder / "engine"
    with start_engine(folder, CONFIG) as engine:
        for number in range(options.rounds):
            ours.append(_engine_turn(engine, folder / "data" / "engine.db", runs))
            bare.append(_bare_turn(options.folder / f"bare-{number}", runs))
    return _report(ours, bare)


def _engine_turn(engine: Server, database: Path, runs: int) -> Turn:
    engine.wait_quiet()
    bodies = [
        msgspec.json.encode([{"type": "bench.spawn", "data": order(number)} for number in range(first, last)])
        for first in range(0, runs, BATCH)
        for last in [min(first + BATCH, runs)]
    ]
    before, begun_s = engine.threads(), time.time()
    with Wire(engine.port) as wire:
        for body in bodies:
            status, answer = wire.ask("POST", "/api/v1/events", body, TOKEN)
            if status != 202:
                raise BenchFailed(f"POST /api/v1/events was answered with {status}: {answer.decode()}")
        wait_for(lambda: engine.unfinished(wire) == 0, "all runs have ended", within_s=LONGEST_S, pause_s=0.05)
    cpu: Cpu = engine.cpu_since(before)
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as raw:
        query = "select state, code, count(*), max(finished_at) from runs where created_at >= ? group by 1, 2"
        ends = raw.execute(query, (int(begun_s * 1e6),)).fetchall()
    if [end[:3] for end in ends] != [("succeeded", "succeeded", runs)]:
        raise BenchFailed(f"of {runs} runs not all succeeded: {ends}")
    last = ends[0][3]
    return Turn(runs=runs, seconds=last / 1e6 - begun_s, cpu_s=cpu.total_s, loop_s=cpu.loop_s, writer_s=cpu.writer_s)


def _bare_turn(folder: Path, runs: int) -> Turn:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.spawning", str(runs), str(AT_ONCE), str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Turn)


def _report(ours: list[Turn], bare: list[Turn]) -> Report:
    rate = Figure(
        title="runs of /bin/true", unit="runs/s", values=[turn.runs / turn.seconds for turn in ours],
        baselines=[turn.runs / turn.seconds for turn in bare], target="ratio 0.70 or more",
    )  # fmt: skip
    cpu = Figure(
        title="processor time", unit="ms/run", values=[turn.cpu_s / turn.runs * 1e3 for turn in ours],
        baselines=[turn.cpu_s / turn.runs * 1e3 for turn in bare],
    )  # fmt: skip
    loop = Figure(title="- event loop", unit="ms/run", values=[turn.loop_s / turn.runs * 1e3 for turn in ours])
    writer = Figure(title="- writer", unit="ms/run", values=[turn.writer_s / turn.runs * 1e3 for turn in ours])
    return Report(
        bench="spawn",
        figures=[rate, cpu, loop, writer],
        extra={
            "runs": ours[0].runs,
            "at_once": AT_ONCE,
            "cpu_ms": cpu.value,
            "cpu_loop_ms": loop.value,
            "cpu_writer_ms": writer.value,
            "baseline_cpu_ms": cpu.baseline,
            "cpu_ratio": cpu.ratio,
        },
    )
