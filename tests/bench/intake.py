"""`intake`: how many webhooks per second get a durable 202, against an aiohttp handler that stores nothing.

A request goes the whole way: it is parsed, matched, stored with its outcome and its run, and answered after the
commit. The job takes one run at a time and its first run sleeps, so that all others queue. When it is over, the
rows in the store must be as many as the 202s. `verified` tells what a signature costs of it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from tests.bench import load, verified
from tests.bench.load import Load
from tests.bench.material import order_json
from tests.bench.processes import Cpu, Server, start_bare, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report

CONNECTIONS = 32
SLICES, SINGLE_SLICES = 3, 2
"""Seconds under load, and with one connection, in each round; engine and baseline take turns by the second."""

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
CONFIG += verified.CONFIG


class Slice(Struct, frozen=True, kw_only=True):
    """What one server did in one second."""

    load: Load
    cpu: Cpu


class Round(Struct, frozen=True, kw_only=True):
    """What one server did in one round: under load, with which processor time, and with one connection."""

    many: Load
    cpu: Cpu
    single: Load


def measure(options: Options) -> Report:
    """Load both servers in turn."""
    body = options.folder / "body.json"
    body.write_bytes(order_json())
    slices, single_slices = (1, 1) if options.quick else (SLICES, SINGLE_SLICES)
    rounds: list[list[Round]] = []
    folder = options.folder / "engine"
    with start_engine(folder, CONFIG) as engine, start_bare(options.folder / "bare") as baseline:
        servers = (engine, baseline)
        warm_up = [_slice(server, body, CONNECTIONS).load for server in servers]
        for _ in range(options.rounds):
            many = [[_slice(server, body, CONNECTIONS) for server in servers] for _ in range(slices)]
            single = [[_slice(server, body, 1) for server in servers] for _ in range(single_slices)]
            rounds.append(
                [
                    _pooled(list(one), list(other))
                    for one, other in zip(zip(*many, strict=True), zip(*single, strict=True), strict=True)
                ]
            )
        signed, signed_accepted = verified.compare(engine, body, options, connections=CONNECTIONS, slices=slices)
    ours, bare = [turn for turn, _ in rounds], [turn for _, turn in rounds]
    accepted = warm_up[0].accepted + sum(turn.many.accepted + turn.single.accepted for turn in ours)
    accepted += signed_accepted
    stored = _stored(folder / "data" / "engine.db")
    if stored < accepted:
        raise BenchFailed(f"{accepted} events were answered with 202, but the store holds {stored} of them")
    return _report(ours, bare, signed, stored)


def _slice(server: Server, body: Path, connections: int) -> Slice:
    server.wait_quiet()
    before = server.threads()
    found = load.post(server.port, PATH, body, connections=connections, seconds=1.0)
    return Slice(load=found, cpu=server.cpu_since(before))


def _pooled(many: list[Slice], single: list[Slice]) -> Round:
    cpu = Cpu(
        loop_s=sum(one.cpu.loop_s for one in many),
        writer_s=sum(one.cpu.writer_s for one in many),
        rest_s=sum(one.cpu.rest_s for one in many),
    )
    return Round(
        many=load.pooled([one.load for one in many]), cpu=cpu, single=load.pooled([one.load for one in single])
    )


def _stored(database: Path) -> int:
    """Return how many events are stored with an outcome and a run."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as raw:
        counts = [raw.execute(f"select count(*) from {table}").fetchone()[0] for table in ("events", "runs")]
    return int(min(counts))


def _report(ours: list[Round], bare: list[Round], signed: list[Figure], stored: int) -> Report:
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
        figures=[rate, single, single_p99, p50, p99, total, loop, writer, *signed],
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
            "broken": sum(turn.many.broken + turn.single.broken for turn in ours),
            "verified_ratio": signed[0].ratio,
            "verified_cpu_ratio": signed[1].ratio,
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
