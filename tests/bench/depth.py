"""`depth`: what one more event and one more dispatch cost with a million waiting runs, against a thousand.

Two engines, one on each store, are measured in turn. An event is a webhook on one connection, answered when it is
durable. A dispatch is a run of a job that does nothing (`tests/bench/metered`): taken from the queue, recorded as
started and as ended; eight at once. Each round takes as many runs from the queue as it adds. Then both are started
anew, from the process to `/ready`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import anyio
import msgspec
from msgspec import Struct

from tests.bench.material import order_json
from tests.bench.preload import preload
from tests.bench.processes import Server, start_engine, wait_for
from tests.bench.report import BenchFailed, Figure, Options, Report
from tests.bench.wire import Wire, request

DEEP, SHALLOW = 1_000_000, 1_000
QUICK_DEEP, QUICK_SHALLOW = 2_000, 300
EACH, QUICK_EACH = 400, 100
"""Events, and then dispatches, of one round."""

PARTS = 4
"""The dispatches of a round are measured in so many parts, the engines in turn."""

STARTS = 3
CHECKED_S = 300.0
"""How long an engine may take to become quiet: it checks a large store beside its work."""

CONFIG = f"""\
[engine]
concurrency = 8
shutdown_grace = "0s"
plugins = ["{Path(__file__).parent / "metered"}"]
[http]
listen = "127.0.0.1:{{port}}"
[jobs.nothing]
run.metered = "{{folder}}"
[triggers.hook]
on.webhook = {{ path = "bench", verify = "none" }}
job = "nothing"
"""


class Turn(Struct, frozen=True, kw_only=True):
    """What an event and a dispatch cost in one round: milliseconds of time, microseconds of processor time."""

    event_ms: float
    event_cpu_us: float
    dispatch_ms: float
    dispatch_cpu_us: float


class Passed(Struct, frozen=True, kw_only=True):
    """What the meter noted."""

    passed: int
    wall_s: float
    cpu_s: float


class Side:
    """One of the two engines."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._allowed = 0
        folder.mkdir(parents=True)
        anyio.run(
            lambda: preload(
                folder / "data" / "engine.db", count,
                source="webhook:bench", kind="webhook.bench", trigger="hook", job="nothing",
            )
        )  # fmt: skip

    def start(self) -> Server:
        """Start the engine; nothing passes its meter."""
        self._allowed = 0
        for name in ("allowed", "passed"):
            (self._folder / name).unlink(missing_ok=True)
        return start_engine(self._folder, CONFIG.replace("{folder}", str(self._folder)))

    def let_pass(self, count: int) -> Passed:
        """Let so many runs pass, and return what that cost."""
        self._allowed += count
        (self._folder / "allowed.new").write_text(str(self._allowed))
        (self._folder / "allowed.new").rename(self._folder / "allowed")
        wait_for(lambda: self._passed() is not None, f"{count} runs passed", within_s=60.0)
        passed = self._passed()
        if passed is None:
            raise BenchFailed("the meter's note is gone")
        return passed

    def _passed(self) -> Passed | None:
        """Return the meter's note on all that may pass, once it is there."""
        try:
            passed = msgspec.json.decode((self._folder / "passed").read_bytes(), type=Passed)
        except FileNotFoundError:
            return None
        return passed if passed.passed == self._allowed else None


def measure(options: Options) -> Report:
    """Make both stores, and measure both engines in turn."""
    many, few = (QUICK_DEEP, QUICK_SHALLOW) if options.quick else (DEEP, SHALLOW)
    each = QUICK_EACH if options.quick else EACH
    deep, shallow = Side(options.folder / "deep", many), Side(options.folder / "shallow", few)
    with deep.start() as large, shallow.start() as small:
        ready_s, bare_ready_s = [large.ready_s], [small.ready_s]
        checked_s = large.wait_quiet(CHECKED_S)
        for server, count in ((large, many), (small, few)):
            with Wire(server.port) as wire:
                waiting = server.unfinished(wire)
            if waiting != count:
                raise BenchFailed(f"{waiting} runs wait instead of {count}")
        turns = [_round(((deep, large), (shallow, small)), each) for _ in range(options.rounds)]
        resident = large.memory_bytes() / 2**20, small.memory_bytes() / 2**20
    for _ in range(1 if options.quick else STARTS - 1):
        for side, times_s in ((deep, ready_s), (shallow, bare_ready_s)):
            with side.start() as server:
                times_s.append(server.ready_s)
    ours, bare = [turn for turn, _ in turns], [turn for _, turn in turns]
    return _report(ours, bare, resident, ready_s, bare_ready_s, checked_s, many)


def _round(sides: Sequence[tuple[Side, Server]], count: int) -> list[Turn]:
    """Send `count` events to each, one by one in turn; then let as many runs of each pass, some at a time in turn."""
    for _, server in sides:
        server.wait_quiet()
    before = [server.threads() for _, server in sides]
    times_s = _send(tuple(server for _, server in sides), count)
    event_cpu_s = [server.cpu_since(threads).total_s for (_, server), threads in zip(sides, before, strict=True)]
    for _, server in sides:
        server.wait_quiet()
    passed = [[side.let_pass(count // PARTS) for side, _ in sides] for _ in range(PARTS)]
    return [
        Turn(
            event_ms=median(times) * 1e3,
            event_cpu_us=cpu_s / count * 1e6,
            dispatch_ms=median(one.wall_s for one in parts) / (count // PARTS) * 1e3,
            dispatch_cpu_us=median(one.cpu_s for one in parts) / (count // PARTS) * 1e6,
        )
        for times, cpu_s, parts in zip(times_s, event_cpu_s, zip(*passed, strict=True), strict=True)
    ]


def _send(servers: Sequence[Server], count: int) -> list[list[float]]:
    """Send so many events to each server in turn; return for each the seconds to their 202s."""
    times_s: list[list[float]] = [[] for _ in servers]
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(server.port)) for server in servers]
        for number in range(count):
            data = request("POST", "/hooks/bench", order_json(number))
            for wire, times in zip(wires, times_s, strict=True):
                begun_s = time.perf_counter()
                status, body = wire.send(data)
                times.append(time.perf_counter() - begun_s)
                if status != 202:
                    raise BenchFailed(f"the webhook was answered with {status}: {body.decode()}")
    return times_s


def _report(
    ours: list[Turn], bare: list[Turn], resident: tuple[float, float], ready_s: list[float],
    bare_ready_s: list[float], checked_s: float, many: int,
) -> Report:  # fmt: skip
    def figure(field: str, title: str, unit: str, target: str = "") -> Figure:
        return Figure(
            title=title, unit=unit, values=[getattr(turn, field) for turn in ours],
            baselines=[getattr(turn, field) for turn in bare], target=target,
        )  # fmt: skip

    event = figure("event_ms", "one more event, median", "ms", "ratio 1.3 or less")
    event_cpu = figure("event_cpu_us", "- processor time", "µs")
    dispatch = figure("dispatch_ms", "one dispatch", "ms", "ratio 1.3 or less")
    dispatch_cpu = figure("dispatch_cpu_us", "- processor time", "µs")
    memory = Figure(
        title="resident memory, most", unit="MiB", values=[resident[0]], baselines=[resident[1]],
        target="below 250 MB",
    )  # fmt: skip
    ready = Figure(title="process to /ready", unit="s", values=ready_s, baselines=bare_ready_s, target="below 3 s")
    return Report(
        bench="depth",
        figures=[event, event_cpu, dispatch, dispatch_cpu, memory, ready],
        notes=[f"After the first start the engine was busy with itself for {checked_s:.1f} s."],
        extra={
            "depth": many,
            "dispatch_ms": dispatch.value,
            "dispatch_baseline_ms": dispatch.baseline,
            "dispatch_ratio": dispatch.ratio,
            "event_cpu_us": event_cpu.value,
            "event_cpu_ratio": event_cpu.ratio,
            "dispatch_cpu_us": dispatch_cpu.value,
            "dispatch_cpu_ratio": dispatch_cpu.ratio,
            "resident_mb": resident[0],
            "ready_s": ready.value,
            "ready_max_s": max(ready_s),
            "baseline_ready_s": ready.baseline,
            "checked_s": checked_s,
        },
    )
