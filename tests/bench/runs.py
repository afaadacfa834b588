"""`runs`: durable runs of a Python function per second, against huey on SQLite; and how soon a function is started.

The rate: events come in by `POST /api/v1/events`, in batches; the time runs from the first of them to the last
recorded end. Each event becomes a run of an async function that does nothing; it is stored, started and recorded. The
baseline enqueues as many tasks, one by one as its API has it, while its consumer runs them.

The latency: at 20 events per second, from before a webhook is sent to the time that the function reads off the
clock. And the rate of the same function as a plain one, in worker processes.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from tests.bench import huey_peer
from tests.bench.latency import paced
from tests.bench.material import order, order_json
from tests.bench.processes import TOKEN, Server, start_engine, wait_for
from tests.bench.report import BenchFailed, Figure, Options, Report, percentile
from tests.bench.wire import Wire, request

RUNS, QUICK_RUNS = 10_000, 300
PLAIN_RUNS, QUICK_PLAIN_RUNS = 2_000, 100
HUEY_RUNS = 3_000
EVENTS, QUICK_EVENTS = 60, 10
BATCH = 250
AT_ONCE = 256
"""Async functions on the loop, which wait rather than compute, are run by the hundred. With 64 the slots go in step
with the commits, as docs/decisions/0027 tells: 8,000 to 9,000 runs/s, where 256 give 13,000 to 15,000."""

PLAIN_AT_ONCE = 8
LONGEST_S = 120.0

FUNCTIONS = """\
import time

async def nothing(run):
    pass

def plain():
    pass

async def clock(run):
    return {"at": time.time()}
"""

CONFIG = f"""\
[engine]
concurrency = {AT_ONCE}
[http]
listen = "127.0.0.1:{{port}}"
[jobs.nothing]
run.python = "functions:nothing"
[jobs.plain]
run.python = "functions:plain"
concurrency = {PLAIN_AT_ONCE}
[jobs.clock]
run.python = "functions:clock"
[triggers.nothing]
on.event = "bench.nothing"
job = "nothing"
[triggers.plain]
on.event = "bench.plain"
job = "plain"
[triggers.clock]
on.webhook = {{ path = "bench", verify = "none" }}
job = "clock"
"""


class Turn(Struct, frozen=True, kw_only=True):
    """So many runs in so many seconds, and the processor time of the engine's event loop and writer."""

    runs: int
    seconds: float
    loop_s: float
    writer_s: float

    @property
    def rate(self) -> float:
        """Runs per second."""
        return self.runs / self.seconds


def measure(options: Options) -> Report:
    """Let the engine and huey run functions, in turn; then send single events."""
    if not huey_peer.is_there():
        raise BenchFailed("the baseline, huey, is not installed: install the extra `test`")
    quick, folder = options.quick, options.folder / "engine"
    folder.mkdir()
    (folder / "functions.py").write_text(FUNCTIONS)
    ours: list[Turn] = []
    plain: list[Turn] = []
    theirs: list[float] = []
    started_ms: list[list[float]] = []
    huey_runs = QUICK_RUNS if quick else HUEY_RUNS
    with start_engine(folder, CONFIG) as engine:
        _engine_turn(engine, folder, "bench.nothing", AT_ONCE)  # the first of all makes folders and caches
        _engine_turn(engine, folder, "bench.plain", PLAIN_AT_ONCE)
        for number in range(options.rounds):
            ours.append(_engine_turn(engine, folder, "bench.nothing", QUICK_RUNS if quick else RUNS))
            plain.append(_engine_turn(engine, folder, "bench.plain", QUICK_PLAIN_RUNS if quick else PLAIN_RUNS))
            engine.wait_quiet()
            started_ms.append(_latency_turn(engine, folder, QUICK_EVENTS if quick else EVENTS))
            engine.wait_quiet()
            peer = options.folder / f"huey-{number}"
            theirs.append(huey_runs / huey_peer.seconds_of(peer, [order(each) for each in range(huey_runs)]))
    return _report(ours, plain, theirs, started_ms)


def _engine_turn(engine: Server, folder: Path, kind: str, runs: int) -> Turn:
    engine.wait_quiet()
    bodies = [
        msgspec.json.encode([{"type": kind, "data": order(number)} for number in range(first, last)])
        for first in range(0, runs, BATCH)
        for last in [min(first + BATCH, runs)]
    ]
    before, begun_s = engine.threads(), time.time()
    with Wire(engine.port) as wire:
        for body in bodies:
            status, answer = wire.ask("POST", "/api/v1/events", body, TOKEN)
            if status != 202:
                raise BenchFailed(f"POST /api/v1/events was answered with {status}: {answer.decode()}")
        wait_for(lambda: engine.unfinished(wire) == 0, "all runs have ended", within_s=LONGEST_S, pause_s=0.02)
    cpu = engine.cpu_since(before)
    with closing(sqlite3.connect(f"{(folder / 'data' / 'engine.db').as_uri()}?mode=ro", uri=True)) as raw:
        query = "select state, code, count(*), max(finished_at) from runs where created_at >= ? group by 1, 2"
        ends = raw.execute(query, (int(begun_s * 1e6),)).fetchall()
    if [end[:3] for end in ends] != [("succeeded", "succeeded", runs)]:
        raise BenchFailed(f"of {runs} runs not all succeeded: {ends}")
    return Turn(runs=runs, seconds=ends[0][3] / 1e6 - begun_s, loop_s=cpu.loop_s, writer_s=cpu.writer_s)


def _latency_turn(engine: Server, folder: Path, count: int) -> list[float]:
    """Return milliseconds from before each event was sent to the time that its function read."""
    sent: dict[str, float] = {}
    data = request("POST", "/hooks/bench", order_json())
    with Wire(engine.port) as wire:
        for _ in paced(count):
            begun_s = time.time()
            status, body = wire.send(data)
            if status != 202:
                raise BenchFailed(f"the webhook was answered with {status}: {body.decode()}")
            sent[msgspec.json.decode(body)["runs"][0]] = begun_s
        wait_for(lambda: engine.unfinished(wire) == 0, "all runs have ended", within_s=LONGEST_S)
    with closing(sqlite3.connect(f"{(folder / 'data' / 'engine.db').as_uri()}?mode=ro", uri=True)) as raw:
        marks = ",".join("?" * len(sent))
        rows = raw.execute(f"select id, outputs from runs where id in ({marks})", list(sent)).fetchall()
    return [(msgspec.json.decode(outputs)["at"] - sent[run]) * 1e3 for run, outputs in rows]


def _report(ours: list[Turn], plain: list[Turn], theirs: list[float], started_ms: list[list[float]]) -> Report:
    rate = Figure(
        title="runs of an async function", unit="runs/s", values=[turn.rate for turn in ours], baselines=theirs,
        target="ratio 3.5 or more",
    )  # fmt: skip
    loop = Figure(title="- event loop", unit="us/run", values=[turn.loop_s / turn.runs * 1e6 for turn in ours])
    writer = Figure(title="- writer", unit="us/run", values=[turn.writer_s / turn.runs * 1e6 for turn in ours])
    processes = Figure(
        title="runs of a plain function, in worker processes", unit="runs/s", values=[turn.rate for turn in plain],
        target="600 or more",
    )  # fmt: skip
    every = [time_ms for times_ms in started_ms for time_ms in times_ms]
    started = Figure(
        title="event to started function, median", unit="ms", values=[median(times_ms) for times_ms in started_ms],
        target="below 1.5 ms",
    )  # fmt: skip
    p99 = Figure(title="- p99 over all rounds", unit="ms", values=[percentile(every, 99)])
    return Report(
        bench="runs",
        figures=[rate, loop, writer, processes, started, p99],
        extra={
            "runs": ours[0].runs,
            "at_once": AT_ONCE,
            "loop_us": loop.value,
            "writer_us": writer.value,
            "plain_runs_per_s": processes.value,
            "started_median_ms": started.value,
            "started_p99_ms": p99.value,
        },
    )
