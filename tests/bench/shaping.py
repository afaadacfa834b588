"""`shaping`: what an event costs that goes through a filter, a debounce, a dedupe and two conditions to its run.

It is measured against one that meets no gate and runs at once.

One engine has both triggers; events come in by `POST /api/v1/events`, each order a new one, in turns of one and of the
other. Each becomes a run of an async function that does nothing. The cost is processor time of the event loop and the
writer for each event, from before the first is sent until the engine is quiet and all have run.

It is the dear case: each event opens a window and leaves a mark, where most join one or are dropped and store less.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import msgspec
from msgspec import Struct

from tests.bench.material import order
from tests.bench.processes import TOKEN, Cpu, Server, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report
from tests.bench.wire import Wire

EVENTS, QUICK_EVENTS = 5_000, 200
BATCH = 50

FUNCTIONS = """\
async def nothing(run):
    pass
"""

CONFIG = """\
[engine]
concurrency = 256
[http]
listen = "127.0.0.1:{port}"
[conditions.open]
check.window = {}
every = "1h"
[conditions.there]
check.file = "functions.py"
every = "1h"
[jobs.nothing]
run.python = "functions:nothing"
[triggers.plain]
on.event = "bench.plain"
job = "nothing"
[triggers.shaped]
on.event = "bench.shaped"
job = "nothing"
filter = "data.total > 10.0 && data.paid"
debounce = { wait = "50ms", max_events = 100, key = "data.order" }
dedupe = { key = "data.order", window = "1h" }
conditions = ["open", "there"]
"""


class Turn(Struct, frozen=True, kw_only=True):
    """What so many events of one kind took."""

    events: int
    seconds: float
    cpu: Cpu


def measure(options: Options) -> Report:
    """Send events of both kinds in turns."""
    count = QUICK_EVENTS if options.quick else EVENTS
    folder = options.folder / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "functions.py").write_text(FUNCTIONS)
    shaped: list[Turn] = []
    plain: list[Turn] = []
    sent = 0
    with start_engine(folder, CONFIG) as engine, Wire(engine.port) as wire:
        for kind in ("plain", "shaped"):
            _turn(engine, wire, kind, BATCH, sent)
            sent += BATCH
        for number in range(options.rounds):
            turns = [("plain", plain), ("shaped", shaped)]
            for kind, kept in turns if number % 2 == 0 else reversed(turns):
                kept.append(_turn(engine, wire, kind, count, sent))
                sent += count
    with closing(sqlite3.connect(f"{(folder / 'data' / 'engine.db').as_uri()}?mode=ro", uri=True)) as raw:
        (runs,) = raw.execute("select count(*) from runs where state = 'succeeded'").fetchone()
        (marks,) = raw.execute("select count(*) from marks").fetchone()
    if runs != sent or marks != BATCH + count * options.rounds:
        raise BenchFailed(f"{sent} events came to {runs} runs and {marks} marks")
    return _report(shaped, plain)


def _turn(engine: Server, wire: Wire, kind: str, count: int, first: int) -> Turn:
    bodies = [
        msgspec.json.encode(
            [
                {"type": f"bench.{kind}", "source": "bench", "data": order(number)}
                for number in range(first + start, first + min(start + BATCH, count))
            ]
        )
        for start in range(0, count, BATCH)
    ]
    engine.wait_quiet()
    before, begun_s = engine.threads(), time.monotonic()
    for body in bodies:
        status, answer = wire.ask("POST", "/api/v1/events", body, token=TOKEN)
        if status != 202:
            raise BenchFailed(f"the engine answered {status}: {answer.decode()}")
    seconds = time.monotonic() - begun_s
    engine.wait_quiet()
    return Turn(events=count, seconds=seconds, cpu=engine.cpu_since(before))


def _report(shaped: list[Turn], plain: list[Turn]) -> Report:
    def cost(part: str, target: str = "") -> Figure:
        def used_us(turn: Turn) -> float:
            both = turn.cpu.loop_s + turn.cpu.writer_s
            used_s = {"both": both, "loop": turn.cpu.loop_s, "writer": turn.cpu.writer_s}[part]
            return used_s * 1e6 / turn.events

        return Figure(
            title={"both": "cost of a shaped event", "loop": "- event loop", "writer": "- writer"}[part],
            unit="µs/event", values=[used_us(turn) for turn in shaped], baselines=[used_us(turn) for turn in plain],
            target=target,
        )  # fmt: skip

    total, loop, writer = cost("both", "ratio 1.50 or less"), cost("loop"), cost("writer")
    rate = Figure(
        title="shaped events", unit="events/s", values=[turn.events / turn.seconds for turn in shaped],
        baselines=[turn.events / turn.seconds for turn in plain],
    )  # fmt: skip
    return Report(
        bench="shaping",
        figures=[total, loop, writer, rate],
        extra={"loop_us": loop.value, "writer_us": writer.value, "events_per_s": rate.value},
    )
