"""`latency`: from an event to its started process, at 20 webhooks per second.

The job is `date +%s.%N`: it writes the wall time at which it ran to the run's log. So for each event
there is the time at which the client began to send it and the time that its process read off the clock; between
them lie the request, the commit, the spawn, and date's own start-up (dynamic linking, locale). That last part is
measured without an engine, from the return of Popen, which comes after exec, to the time that date reads; its
median is taken off. The baseline is the bare spawn, at the same pace: from before Popen to the same point.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from tests.bench.material import order_json
from tests.bench.processes import Server, start_engine, wait_for
from tests.bench.report import BenchFailed, Figure, Options, Report, percentile
from tests.bench.wire import Wire, request

PER_SECOND = 20
EVENTS, QUICK_EVENTS = 60, 10
"""Events of one round."""

COMMAND = ("/bin/date", "+%s.%N")

CONFIG = f"""\
[http]
listen = "127.0.0.1:{{port}}"
[jobs.date]
run.exec = ["{COMMAND[0]}", "{COMMAND[1]}"]
[triggers.hook]
on.webhook = {{ path = "bench", verify = "none" }}
job = "date"
"""


class Turn(Struct, frozen=True, kw_only=True):
    """Milliseconds of each event: to the 202, and to date's reading of the clock."""

    answered_ms: list[float]
    read_ms: list[float]


def measure(options: Options) -> Report:
    """Send events, and spawn without an engine, in turn."""
    count = QUICK_EVENTS if options.quick else EVENTS
    ours: list[Turn] = []
    spawned: list[list[float]] = []
    start_up: list[float] = []
    folder = options.folder / "engine"
    with start_engine(folder, CONFIG) as engine:
        with Wire(engine.port) as wire:
            wire.ask("POST", "/hooks/bench", order_json())  # the first of all makes folders and caches
        for _ in range(options.rounds):
            engine.wait_quiet()
            ours.append(_engine_turn(engine, folder / "data" / "logs", count))
            bare_ms, start_up_ms = _bare_turn(options.folder, count)
            spawned.append(bare_ms)
            start_up += start_up_ms
    return _report(ours, spawned, median(start_up))


def _engine_turn(engine: Server, logs: Path, count: int) -> Turn:
    sent: dict[str, float] = {}
    answered_ms = []
    with Wire(engine.port) as wire:
        data = request("POST", "/hooks/bench", order_json())
        for _ in paced(count):
            begun_s = time.time()
            status, body = wire.send(data)
            answered_ms.append((time.time() - begun_s) * 1e3)
            if status != 202:
                raise BenchFailed(f"the webhook was answered with {status}: {body.decode()}")
            sent[msgspec.json.decode(body)["runs"][0]] = begun_s
    return Turn(
        answered_ms=answered_ms,
        read_ms=[(_time_in(logs, run) - begun_s) * 1e3 for run, begun_s in sent.items()],
    )


def _time_in(logs: Path, run: str) -> float:
    """Return the time that a run's process wrote to its log."""
    texts: list[str] = []

    def look() -> bool:
        texts[:] = [path.read_text() for path in logs.glob(f"*/{run}.log")]
        return bool(texts) and texts[0].endswith("\n")

    wait_for(look, f"the process of run {run} wrote its time", within_s=10.0)
    return float(texts[0])


def _bare_turn(folder: Path, count: int) -> tuple[list[float], list[float]]:
    """Return milliseconds from before Popen to the time that was read, and those from its return on."""
    whole_ms, start_up_ms = [], []
    log = folder / "date.log"
    for _ in paced(count):
        with log.open("wb") as file:
            begun_s = time.time()
            popen = subprocess.Popen(
                COMMAND, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
            started_s = time.time()
        popen.wait()
        read_s = float(log.read_text())
        whole_ms.append((read_s - begun_s) * 1e3)
        start_up_ms.append((read_s - started_s) * 1e3)
    return whole_ms, start_up_ms


def paced(count: int) -> Iterator[None]:
    """Go round `count` times, `PER_SECOND` times a second; a late turn does not move the others."""
    begun_s = time.monotonic()
    for number in range(count):
        time.sleep(max(begun_s + number / PER_SECOND - time.monotonic(), 0.0))
        yield


def _report(ours: list[Turn], spawned: list[list[float]], start_up_ms: float) -> Report:
    started = [[max(time_ms - start_up_ms, 0.0) for time_ms in turn.read_ms] for turn in ours]
    bare = [[max(time_ms - start_up_ms, 0.0) for time_ms in times_ms] for times_ms in spawned]
    every = [time_ms for times_ms in started for time_ms in times_ms]
    every_bare = [time_ms for times_ms in bare for time_ms in times_ms]
    main = Figure(
        title="event to started process, median", unit="ms", values=[median(times) for times in started],
        baselines=[median(times) for times in bare], target="below 3 ms",
    )  # fmt: skip
    p99 = Figure(
        title="- p99 over all rounds", unit="ms", values=[percentile(every, 99)],
        baselines=[percentile(every_bare, 99)], target="below 12 ms",
    )  # fmt: skip
    answered = Figure(title="event to 202, median", unit="ms", values=[median(turn.answered_ms) for turn in ours])
    answered_p99 = Figure(
        title="- p99 over all rounds",
        unit="ms",
        values=[percentile([time_ms for turn in ours for time_ms in turn.answered_ms], 99)],
    )
    return Report(
        bench="latency",
        figures=[main, p99, answered, answered_p99],
        notes=[f"Taken off each time: {start_up_ms:.2f} ms, from exec until date has read the clock (median)."],
        extra={
            "p99": p99.value,
            "baseline_p99": p99.baseline,
            "answered_median_ms": answered.value,
            "answered_p99_ms": answered_p99.value,
            "start_up_ms": start_up_ms,
            "events": len(every),
        },
    )
