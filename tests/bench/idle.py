"""`idle`: the processor time of an engine with ten triggers and nothing to do.

The baseline is the least that a scheduler which polls would do: an asyncio program in which ten tasks look at the
clock once a second. Both are measured over the same seconds, as neither disturbs the other.
"""

from __future__ import annotations

import time

from tests.bench.processes import start_bare, start_engine
from tests.bench.report import Figure, Options, Report

SECONDS = 20.0
"""In all rounds together, and at least `SHORTEST_S` in each."""

SHORTEST_S = 2.5
"""The bare program looks once a second: a round that holds no look would compare with nothing."""

SETTLE_S = 2.0

CONFIG = """\
[http]
listen = "127.0.0.1:{port}"
[jobs.nothing]
run.exec = ["/bin/true"]
[triggers.nightly]
on.cron = { expression = "0 2 29 2 *", timezone = "America/New_York" }
job = "nothing"
[triggers.weekly]
on.cron = { expression = "30 4 29 2 *", timezone = "Europe/Berlin" }
job = "nothing"
[triggers.monthly]
on.cron = "15 6 29 2 *"
job = "nothing"
[triggers.yearly]
on.cron = "0 0 29 2 *"
job = "nothing"
[triggers.dropped]
on.trigger_dir = "first"
job = "nothing"
[triggers.dropped-too]
on.trigger_dir = "second"
job = "nothing"
[triggers.hook]
on.webhook = { path = "one", verify = "none" }
job = "nothing"
[triggers.hook-too]
on.webhook = { path = "two", verify = "none" }
job = "nothing"
debounce = "2s"
[triggers.heard]
on.event = "order.*"
job = "nothing"
[triggers.heard-too]
on.event = "parcel.*"
job = "nothing"
"""


def measure(options: Options) -> Report:
    """Watch both doing nothing."""
    seconds = SHORTEST_S if options.quick else max(SECONDS / options.rounds, SHORTEST_S)
    shares: list[float] = []
    baselines: list[float] = []
    wakes: list[float] = []
    bare_wakes: list[float] = []
    folder = options.folder / "engine"
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)
    with (
        start_engine(folder, CONFIG) as engine,
        start_bare(options.folder / "bare", "tests.bench.polling") as polling,
    ):
        time.sleep(SETTLE_S)
        for _ in range(options.rounds):
            begun_s = time.monotonic()
            before = [(server.threads(), server.switches()) for server in (engine, polling)]
            time.sleep(seconds)
            took_s = time.monotonic() - begun_s
            for server, (threads, switches), used, woken in zip(
                (engine, polling), before, (shares, baselines), (wakes, bare_wakes), strict=True
            ):
                used.append(server.cpu_since(threads).total_s / took_s * 100)
                woken.append((server.switches() - switches) / took_s)
        memory = engine.memory_bytes("VmRSS") / 2**20
    share = Figure(title="processor time", unit="% of a core", values=shares, baselines=baselines, target="below 0.5 %")
    woken_up = Figure(title="wake-ups", unit="per second", values=wakes, baselines=bare_wakes)
    resident = Figure(title="resident memory", unit="MiB", values=[memory])
    return Report(
        bench="idle",
        figures=[share, woken_up, resident],
        extra={
            "seconds": seconds * options.rounds,
            "wakeups_per_s": woken_up.value,
            "baseline_wakeups_per_s": woken_up.baseline,
            "resident_mb": memory,
        },
    )
