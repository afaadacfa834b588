"""`intake`: how many webhooks per second get a durable 202, against an aiohttp handler that stores nothing.

A request goes the whole way: it is parsed, matched, stored with its outcome and its run, and answered after the
commit. The job takes one run at a time and its first run sleeps, so that all others queue. When it is over, the
rows in the store must be as many as the 202s.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from tests.bench import load
from tests.bench.material import order_json
from tests.bench.processes import Cpu, Server, start_bare, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report

CONNECTIONS = 32
SECONDS, SINGLE_SECONDS = 3.0, 2.0
WARM_UP_S = 1.0
PATH = "/hooks/bench"

CONFIG = """\
[engine]
shutdown_grace = "0s"
[http]
listen = "127.0.0.1:{port}"
[jobs.sleeper]
concurrency = 1
run.exec = ["/bin/sleep", "3600"]
[triggers.hook]
on.webhook = { path = "bench", verify = "none" }
job = "sleeper"
"""


class Round(Struct, frozen=True, kw_only=True):
    """What one server did in one round: under load, and with one connection."""

    many: load.Load
    cpu: Cpu
    single: load.Load


def measure(options: Options) -> Report:
    """Load both servers in turn."""
    body = options.folder / "body.json"
    body.write_bytes(order_json())
    seconds, single_s = (1.0, 1.0) if options.quick else (SECONDS, SINGLE_SECONDS)
    ours: list[Round] = []
    bare: list[Round] = []
    folder = options.folder / "engine"
    accepted = 0
    with start_engine(folder, CONFIG) as engine, start_bare(options.folder / "bare") as baseline:
        if not options.quick:
            for server in (engine, baseline):
                warm_up = load.post(server.port, PATH, body, connections=CONNECTIONS, seconds=WARM_UP_S)
                accepted += warm_up.accepted if server is engine else 0
        for _ in range(options.rounds):
            ours.append(_round(engine, body, seconds, single_s))
            bare.append(_round(baseline, body, seconds, single_s))
    accepted += sum(turn.many.accepted + turn.single.accepted for turn in ours)
    stored = _stored(folder / "data" / "engine.db")
    if stored < accepted:
        raise BenchFailed(f"{accepted} events were answered with 202, but the store holds {stored} of them")
    return _report(ours, bare, stored)


def _round(server: Server, body: Path, seconds: float, single_s: float) -> Round:
    server.wait_quiet()
    before = server.threads()
    many = load.post(server.port, PATH, body, connections=CONNECTIONS, seconds=seconds)
    cpu = server.cpu_since(before)
    server.wait_quiet()
    single = load.post(server.port, PATH, body, connections=1, seconds=single_s)
    return Round(many=many, cpu=cpu, single=single)


def _stored(database: Path) -> int:
    """Return how many events are stored with an outcome and a run."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as raw:
        counts = [raw.execute(f"select count(*) from {table}").fetchone()[0] for table in ("events", "runs")]
    return int(min(counts))


def _report(ours: list[Round], bare: list[Round], stored: int) -> Report:
    rate = Figure(
        title="accepted", unit="requests/s", values=[turn.many.rate for turn in ours],
        baselines=[turn.many.rate for turn in bare], target="ratio 0.40 or more",
    )  # fmt: skip
    single = Figure(
        title="one connection, median", unit="ms", values=[turn.single.p50_ms for turn in ours],
        baselines=[turn.single.p50_ms for turn in bare], target="below 1 ms",
    )  # fmt: skip
    single_p99 = Figure(
        title="one connection, p99", unit="ms", values=[turn.single.p99_ms for turn in ours],
        baselines=[turn.single.p99_ms for turn in bare],
    )  # fmt: skip
    p50 = Figure(
        title=f"{CONNECTIONS} connections, median", unit="ms", values=[turn.many.p50_ms for turn in ours],
        baselines=[turn.many.p50_ms for turn in bare],
    )  # fmt: skip
    p99 = Figure(
        title=f"{CONNECTIONS} connections, p99", unit="ms", values=[turn.many.p99_ms for turn in ours],
        baselines=[turn.many.p99_ms for turn in bare],
    )  # fmt: skip
    total, loop, writer = (_cpu_figure(ours, bare, part) for part in ("total", "loop", "writer"))
    return Report(
        bench="intake",
        figures=[rate, single, single_p99, p50, p99, total, loop, writer],
        extra={
            "median_ms": p50.value,
            "p99_ms": p99.value,
            "baseline_median_ms": p50.baseline,
            "baseline_p99_ms": p99.baseline,
            "single_median_ms": single.value,
            "single_p99_ms": single_p99.value,
            "baseline_single_median_ms": single.baseline,
            "baseline_single_p99_ms": single_p99.baseline,
            "cpu_us": total.value,
            "cpu_loop_us": loop.value,
            "cpu_writer_us": writer.value,
            "baseline_cpu_us": total.baseline,
            "cpu_ratio": total.ratio,
            "refused": sum(turn.many.refused + turn.single.refused for turn in ours),
            "stored": stored,
            "client": "wrk" if load.has_wrk() else "own",
        },
    )


def _cpu_figure(ours: list[Round], bare: list[Round], part: str) -> Figure:
    def used_us(turn: Round) -> float:
        return float(getattr(turn.cpu, f"{part}_s")) * 1e6 / turn.many.requests

    return Figure(
        title={"total": "processor time", "loop": "- event loop", "writer": "- writer"}[part],
        unit="µs/request",
        values=[used_us(turn) for turn in ours],
        baselines=[] if part == "writer" else [used_us(turn) for turn in bare],
    )
