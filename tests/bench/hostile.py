"""`hostile`: an ordinary sender and a timer beside clients that are slow on purpose, send without end, or flood.

An ordinary sender posts ten times a second, on a new connection each time; a timer is due each second. That is
measured without anybody else, and then beside 500 clients that send a byte a second of a head or of a body, or take
no answer; clients that send a gigabyte of chunks, half of them in chunks of one byte; clients that post 1 MB of gzip
that is a gigabyte; and 16 that post as fast as they can. The engine allows 400 connections, so that the slow have to
make room for the others. Memory is compared with that after a first attack, which has filled what is kept.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection
from typing import Any

import msgspec
from msgspec import Struct

from tests import hostile
from tests.bench.material import order_json
from tests.bench.processes import ROOT, TOKEN, Server, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report, percentile
from tests.bench.wire import HOST, Wire

SECONDS, QUICK_SECONDS = 30.0, 4.0
CALM_SECONDS = 3.0
PAUSE_S = 0.1
BOMB_BYTES, QUICK_BOMB_BYTES = hostile.GIB, 64 << 20
ALL = ("slow", "chunks", "bombs", "flood")
START_S = 30.0

CONFIG = """\
[engine]
shutdown_grace = "0s"
[http]
listen = "127.0.0.1:{port}"
max_connections = 400
[jobs.work]
run.exec = ["/bin/true"]
[jobs.sleeper]
concurrency = 1
run.exec = ["/bin/sleep", "3600"]
[triggers.order]
on.webhook = { path = "order", verify = "none" }
job = "work"
[triggers.flood]
on.webhook = { path = "flood", verify = "none" }
job = "sleeper"
[triggers.tick]
on.interval = "1s"
job = "work"
"""


class Found(Struct, frozen=True, kw_only=True):
    """How an ordinary sender and a timer fared: each answer's time, each run's lateness, both in seconds."""

    answers_s: Sequence[float]
    late_s: Sequence[float]
    failed: int


@contextmanager
def attacked(port: int, seconds: float, kinds: Sequence[str], bomb_bytes: int) -> Iterator[dict[str, Any]]:
    """Have the server attacked by a process of its own; what came of it is in the dictionary afterwards."""
    command = [sys.executable, "-m", "tests.hostile", str(port), str(seconds), ",".join(kinds), str(bomb_bytes)]
    done: dict[str, Any] = {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield done
            output, _ = process.communicate(timeout=seconds + START_S)
        finally:
            process.kill()
    if process.returncode:
        raise BenchFailed(f"the hostile clients ended with {process.returncode}")
    done |= msgspec.json.decode(output)


def fare(server: Server, seconds: float) -> Found:
    """Post for so long as an ordinary sender does; return how that went, and how late the timer's runs began."""
    began = datetime.now().astimezone()
    until_s = time.monotonic() + seconds
    answers_s: list[float] = []
    failed = 0
    while time.monotonic() < until_s:
        begun_s = time.monotonic()
        try:
            with Wire(server.port) as wire:
                status, _ = wire.ask("POST", "/hooks/order", order_json(len(answers_s)))
        except OSError:
            status = 0
        failed += status != 202
        answers_s.append(time.monotonic() - begun_s)
        time.sleep(PAUSE_S)
    return Found(answers_s=answers_s, late_s=_lateness(server, began), failed=failed)


def _lateness(server: Server, since: datetime) -> list[float]:
    connection = HTTPConnection(HOST, server.port, timeout=30)
    connection.request("GET", "/api/v1/triggers/tick/runs?limit=200", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise BenchFailed(f"the runs can't be listed: {answer.status} {body.decode()}")
    found = []
    for run in msgspec.json.decode(body)["items"]:
        due = datetime.fromisoformat(run["scheduled_for"])
        if due >= since and run["started_at"] is not None:
            found.append((datetime.fromisoformat(run["started_at"]) - due).total_seconds())
    if len(found) < 2:
        raise BenchFailed("the timer did not run")
    return found


def measure(options: Options) -> Report:
    """Measure without and with hostile clients, in turn."""
    seconds, bomb_bytes = (QUICK_SECONDS, QUICK_BOMB_BYTES) if options.quick else (SECONDS, BOMB_BYTES)
    calm: list[Found] = []
    beset: list[Found] = []
    grown_mb: list[float] = []
    peaks_mb: list[float] = []
    done: dict[str, Any] = {}
    with start_engine(options.folder / "engine", CONFIG) as server:
        with attacked(server.port, seconds / 4, ALL, bomb_bytes):
            pass
        for _ in range(options.rounds):
            server.wait_quiet()
            calm.append(fare(server, CALM_SECONDS))
            before = server.memory_bytes("VmRSS")
            with attacked(server.port, seconds, ALL, bomb_bytes) as done:
                beset.append(fare(server, seconds))
            peak = server.memory_bytes("VmHWM")
            grown_mb.append((peak - before) / 2**20)
            peaks_mb.append(peak / 2**20)
    return _report(calm, beset, grown_mb, peaks_mb, done)


def _report(
    calm: Sequence[Found], beset: Sequence[Found], grown_mb: list[float], peaks_mb: list[float], done: dict[str, Any]
) -> Report:
    def figure(title: str, field: str, percent: float, target: str = "") -> Figure:
        values, baselines = (
            [percentile(getattr(one, field), percent) * 1e3 for one in those] for those in (beset, calm)
        )
        return Figure(title=title, unit="ms", values=values, baselines=baselines, target=target)

    slowest = figure("an ordinary post, slowest", "answers_s", 100, "below 1,000 ms")
    median = figure("- median", "answers_s", 50)
    late = figure("a timer's run begins late, most", "late_s", 100, "at most 1,000 ms")
    grown = Figure(title="memory, most beyond before", unit="MiB", values=grown_mb, target="flat")
    peak = Figure(title="- most in all", unit="MiB", values=peaks_mb)
    return Report(
        bench="hostile",
        figures=[slowest, median, late, figure("- median", "late_s", 50), grown, peak],
        extra={
            "median_ms": median.value,
            "late_ms": late.value,
            "grown_mb": grown.value,
            "peak_mb": peak.value,
            "posts": sum(len(one.answers_s) for one in beset),
            "failed": sum(one.failed for one in beset),
            "slow_connected": done["slow"]["connected"],
            "chunked_bytes": done["chunks"]["sent_bytes"],
            "bombs": done["bombs"]["answered"],
            "flooded": done["flood"]["answered"],
        },
    )
