"""The kill storm: an engine under load from all sources, killed at random moments, restarted, added up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.audit import Sum, add_up
from tests.crash.feeders import Load
from tests.crash.outside import LOOK_S
from tests.crash.process import EngineProcess, NotInTime, started, wait_for
from tests.crash.reaper import Reaper
from tests.crash.site import Job, Site

AGAIN = '{ attempts = 4, delay = "100ms", on = { codes = ["signal"] } }'
"""What is killed is tried again, and nothing else is."""

POOLS = {"warehouse": 3}

JOBS = {
    "single": Job(limit=1, seconds=0.03),
    "pair": Job(limit=2, seconds=0.05),
    "plain": Job(seconds=0.05),
    "slow": Job(limit=4, seconds=0.8),
    "flaky": Job(seconds=0.02, failing=1, retry='{ attempts = 3, delay = "200ms", jitter = 0.1 }'),
    "fragile": Job(limit=2, seconds=1.0, on_crash="fail"),
    "called": Job(runner="process", limit=3, seconds=0.03),
    "awaited": Job(runner="loop", limit=3, seconds=0.4, on_crash="fail"),
    "keyed": Job(limit=1, key="string(data.n % 3)", seconds=0.15, retry=AGAIN),
    "heavy": Job(pool="warehouse", weight=2, seconds=0.2, retry=AGAIN),
    "light": Job(pool="warehouse", limit=2, key="string(data.n % 2)", seconds=0.1, on_crash="fail", retry=AGAIN),
    "kept": Job(limit=2, seconds=1.5, on_crash="adopt"),
    "reawaited": Job(runner="loop", seconds=0.05, failing=1, retry='{ attempts = 2, delay = "100ms" }'),
}
TRIGGERS = """
[triggers.tick]
on.cron = "* * * * * *"
job = "slow"
[triggers.dropped]
on.trigger_dir = "inbox"
job = "single"
[triggers.hook]
on.webhook = { path = "hook", verify = "none" }
job = "pair"
[triggers.gather]
on.webhook = { path = "gather", verify = "none" }
debounce = { wait = "300ms", max_wait = "2s", key = "data.group" }
job = "plain"
[triggers.heard]
on.event = "crash.*"
job = "flaky"
[triggers.heard-too]
on.event = "crash.*"
filter = "data.n % 2 == 0"
job = "plain"
[triggers.by-hand]
on.manual = true
job = "fragile"
[triggers.keyed]
on.webhook = { path = "keyed", verify = "none" }
job = "keyed"
[triggers.heavy]
on.webhook = { path = "heavy", verify = "none" }
job = "heavy"
[triggers.light]
on.webhook = { path = "light", verify = "none" }
job = "light"
[triggers.kept]
on.webhook = { path = "kept", verify = "none" }
job = "kept"
[sources.watched.files]
path = "watched"
complete = "rename"
[triggers.watched]
on.source = "watched"
job = "called"
[triggers.claimed]
on.files = { path = "claims", settle = "100ms", claim = true }
job = "awaited"
[sources.orders.database]
url = "sqlite+aiosqlite:///shop.db"
query = "select id, placed from orders where placed > :cursor order by placed, id limit 40"
cursor = "placed"
key = "id"
look_back = 20
start = "beginning"
min = "100ms"
every = "1s"
[triggers.ordered]
on.source = "orders"
job = "called"
[sources.stock.database]
url = "sqlite+aiosqlite:///shop.db"
query = "select item, amount from stock"
key = "item"
changes = "hash"
start = "beginning"
min = "200ms"
every = "1s"
[triggers.stocked]
on.source = "stock"
job = "reawaited"
[sources.feed.http]
url = "http://127.0.0.1:{port}/"
every = "1s"
start = "beginning"
backoff_max = "1s"
allow_private = true
[triggers.fed]
on.source = "feed"
job = "plain"
[triggers.after]
on.run = { job = ["fragile", "awaited"] }
job = "reawaited"
"""

EARLIEST_S, LATEST_S = 0.05, 1.5
"""When an engine is killed, counted from when it is ready."""

KILLS_AT_START = 0.15
"""How many of the kills come while the engine starts, at up to START_S after its exec."""

START_S = 0.6

STOPS = 0.2
"""How many of the kills come while the engine stops, at up to STOP_S after SIGTERM."""

STOP_S = 0.3

LONG_AWAY, AWAY_S = 0.05, 2.5
"""How often, and how long, the engine stays away, so that due seconds are missed."""

MOST_WAITING = 1_000
"""Where more runs wait, nothing new comes: an hour of a busy machine's backlog would take another one to drain."""

DRAIN_S = 300.0


def make_site(path: Path) -> Site:
    """Make a site with every kind of source and runner, and jobs with limits, retries and every crash policy."""
    return Site(path, jobs=JOBS, triggers=TRIGGERS, concurrency=8, pools=POOLS)


def storm(
    path: Path, *, kills: int, seed: int, minutes: float = 0.0, tell: Callable[[int], None] = lambda _: None
) -> Sum:
    """Kill an engine under load `kills` times, and for so many minutes at least, and programs that it runs all the
    while; let it drain, and add up. `tell` hears of each kill of the engine."""
    chance = random.Random(seed)
    site = make_site(path)
    load = Load(site, seed=seed)
    reaper = Reaper(site, seed=seed)
    engine = started(site)
    load.start()
    reaper.start()
    findings: list[str] = []
    until_s = time.monotonic() + 60.0 * minutes
    number = -1
    try:
        while (number := number + 1) < kills or time.monotonic() < until_s:
            time.sleep(chance.uniform(EARLIEST_S, LATEST_S))
            if chance.random() < STOPS:
                engine.terminate()
                time.sleep(chance.uniform(0.0, STOP_S))
            engine.kill()
            while chance.random() < KILLS_AT_START:
                engine = EngineProcess(site)
                time.sleep(chance.uniform(0.0, START_S))
                if engine.exit_code is not None:
                    findings.append(f"the engine ended by itself at a start: {engine.logged()}")
                engine.kill()
            if chance.random() < LONG_AWAY:
                time.sleep(AWAY_S)
            engine = started(site)
            load.rest(for_now=(site.unfinished() or 0) > MOST_WAITING)
            tell(number + 1)
        reaper.finish()
        result = settle(site, load, engine, reaper)
    except BaseException:
        reaper.finish()
        engine.kill()
        raise
    result.findings[:0] = findings
    return result


def settle(site: Site, load: Load, engine: EngineProcess, reaper: Reaper | None = None) -> Sum:
    """Let the senders finish and the engine drain, stop it, and add up."""
    load.finish()
    findings = []
    for _ in range(3):
        try:
            wait_for(lambda: site.unfinished() == 0, "all runs end", DRAIN_S, LOOK_S)
        except NotInTime as late:
            findings.append(f"{late}: {site.unfinished()} have not")
        if (code := engine.stop()) != 0:
            findings.append(f"the engine ended with {code} at SIGTERM: {engine.logged()[-2000:]}")
        # A second that came due at the last moment may be queued: the next start takes it up.
        if not site.rows("select 1 from runs where state in ('queued', 'running', 'pending', 'retrying')"):
            break
        engine = started(site)
    engine.stop()
    load.close()
    result = add_up(site, load, killed=frozenset() if reaper is None else reaper.killed)
    result.findings[:0] = findings + _tracebacks(site)
    return result


def _tracebacks(site: Site) -> list[str]:
    lines = site.log.read_text(errors="replace").splitlines()
    return [f"a traceback in the log: {lines[-1]}"] if any(line.startswith("Traceback") for line in lines) else []
