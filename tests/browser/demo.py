"""A lively store and an engine on it: a shop at night, with a week behind it, work in hand, and things gone wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from engine.adaptive.cases import ADAPTIVE_SOURCE, Kept
from engine.adaptive.cases import Change as IntervalChange
from engine.clock import rfc3339
from engine.decide.adaptive import Pace
from engine.store.changes import Memory
from tests.bench.processes import TOKEN, Server, free_port
from tests.browser.past import Habit, fill
from tests.browser.wire import Api

BATCH = 500

HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[31m red \x07<img src=x onerror=alert(2)>\u2066 '\"`--> {{ 7*7 }}"
"""What somebody may send."""

LOUD = """
i=0
while [ $i -lt 40 ]; do
  printf '\\033[2m%s\\033[0m \\033[32mok\\033[0m   loaded part %d of 400, ' "$(date +%T)" $i
  printf '\\033[1m%d rows\\033[0m\\n' $((i*917))
  i=$((i+1))
done
printf '\\033[33mwarning\\033[0m: column \\033[4mregion\\033[24m is empty in 12 rows\\n' >&2
printf '\\033[1;31merror\\033[0m: \\033[38;5;208mpart 40\\033[0m is late, ' >&2
printf '\\033[48;2;40;60;120;97mtrying again\\033[0m\\n' >&2
echo '<b>this is no markup</b>'
exec sleep 900
"""

CONFIG = f"""
[engine]
data = "data"
timezone = "Europe/Berlin"
concurrency = 6
shutdown_grace = "1s"

[http]
listen = "127.0.0.1:PORT"

[security]
api_runners = ["exec"]
api_commands = ["true"]
api_sources = ["cron"]

[defaults]
timeout = "30m"

[pools]
warehouse = 2

[conditions.crm-up]
check.tcp = "127.0.0.1:CLOSED"
every = "20s"

[conditions.night]
check.window = {{ start = "18:00", end = "17:59" }}

[maintenance.storage-move]
from = "BEGAN"
duration = "9h"
scope = {{ tags = ["storage"] }}
description = "disks of the archive are replaced"

[maintenance.weekly]
days = ["sunday"]
start = "02:00"
end = "04:00"

[sources.orders.database]
url = "sqlite+aiosqlite:///shop.db"
query = "select id, total from orders where id > :cursor order by id limit 100"
cursor = "id"
start = "beginning"
every = "5s"

[notify.ops]
url = "json://127.0.0.1:CLOSED/"

[alerts.reports-fail]
when = {{ failures = 1 }}
notify = ["ops"]
severity = "critical"
description = "the board gets no report"

[alerts.slow-queue]
when = {{ queue_age = "5s" }}

[jobs.warehouse-load]
run.exec = ["sh", "-c", '''{LOUD}''']
timeout = "2h"
pools = ["warehouse"]
retry = {{ attempts = 3, delay = "20s" }}
tags = ["warehouse"]
description = "Loads what was sold since the last time"

[jobs.import-csv]
run.exec = ["sh", "-c", "echo importing; sleep 700"]
concurrency = 1
pools = ["warehouse"]
tags = ["warehouse"]

[jobs.sync-crm]
run.exec = ["sh", "-c", "sleep 2; echo synced"]
retry = {{ attempts = 4, delay = "3m" }}

[jobs.archive]
run.exec = ["true"]
tags = ["storage"]

[jobs.report]
run.exec = ["sh", "-c", "echo '<script>alert(3)</script>'; exit 3"]
retry = {{ attempts = 3, delay = "10m", max_delay = "1h" }}

[jobs.thumbnails]
run.exec = ["sleep", "600"]
concurrency = 2

[jobs.bill]
run.exec = ["sh", "-c", "echo invoice=2041 >> $ENGINE_OUTPUT; echo billed"]

[jobs.board]
run.exec = ["sh", "-c", "echo 'no figures for the south' >&2; exit 4"]

[jobs.heartbeat]
run.exec = ["true"]

[triggers.nightly-load]
on.cron = {{ expression = "0 2 * * *", timezone = "America/New_York" }}
job = "warehouse-load"
priority = "high"
misfire = {{ catch_up = "latest", grace = "6h" }}

[triggers.hourly-load]
on.cron = "20 * * * *"
job = "warehouse-load"

[triggers.price-lists]
on.files = {{ path = "inbox", match = ["*.csv"] }}
job = "import-csv"

[triggers.crm]
on.interval = "30m"
job = "sync-crm"
conditions = ["crm-up"]
otherwise = {{ hold = "4h" }}
adaptive = {{ min = "10m", max = "4h", duration_max = "45m" }}
tags = ["crm"]

[triggers.archive-daily]
on.cron = "30 * * * *"
job = "archive"
tags = ["storage"]

[triggers.morning-report]
on.cron = "15 6 * * mon-fri"
job = "report"

[triggers.uploads]
on.webhook = {{ path = "uploads", verify = {{ token = {{ file = "upload.token" }} }} }}
job = "thumbnails"
debounce = {{ wait = "2s", max_wait = "30s", key = "event.subject" }}

[triggers.orders]
on.event = "order.*"
job = "bill"
filter = "data.total > 50"

[triggers.new-rows]
on.source = "orders"
job = "bill"

[triggers.billed]
on.run = {{ job = "bill", outcomes = ["succeeded"] }}
job = "heartbeat"

[triggers.minute]
on.cron = "* * * * *"
job = "heartbeat"

[triggers.stock-taking]
preset = "business_hours_only"
job = "heartbeat"

[triggers.quarterly]
on.cron = "0 9 1 */3 *"
job = "report"
description = "What the board reads"

[triggers.by-hand]
on.manual = true
job = "thumbnails"

[triggers.board]
on.manual = true
job = "board"

[triggers.old-import]
on.interval = "6h"
job = "import-csv"
enabled = false
"""


HABITS = (
    Habit("nightly-load", "warehouse-load", 86_400, 2400, 10, "exited with 2: the warehouse refused part 40"),
    Habit("hourly-load", "warehouse-load", 3600, 420, 6, "exited with 1"),
    Habit("price-lists", "import-csv", 5400, 95, 4, "exited with 65: line 118 of north.csv has 9 columns, not 8"),
    Habit("crm", "sync-crm", 2400, 31, 9, "timed out after 5m"),
    Habit("morning-report", "report", 86_400, 64, 20, "exited with 3"),
    Habit("uploads", "thumbnails", 1300, 12, 2, "killed by SIGKILL: out of memory"),
    Habit("orders", "bill", 700, 0.4, 3, "exited with 1: the ledger is closed for the month"),
    Habit("minute", "heartbeat", 240, 0.02, 0),
)


def _curve(now: datetime) -> Memory:
    """Return what is remembered of an interval that was adapted for a week."""
    told = (
        (160, 1800, 2400, "success_rate", "4 of the last 10 runs failed: slower"),
        (130, 2400, 3600, "success_rate", "5 of the last 10 runs failed: slower"),
        (101, 3600, 2700, "quiet", "the last 20 runs succeeded: quicker"),
        (70, 2700, 1800, "quiet", "the last 20 runs succeeded: quicker"),
        (52, 1800, 1200, "volume", "each run found more than before: quicker"),
        (31, 1200, 5400, "duration_max", "runs took 51 min, longer than 45 min: slower"),
        (9, 5400, 3600, "quiet", "the last 20 runs succeeded: quicker"),
    )
    changes = tuple(
        IntervalChange(at=now - timedelta(hours=hours), old_s=old, new_s=new, rule=rule, why=why)
        for hours, old, new, rule, why in told
    )
    kept = Kept(base_s=1800.0, pace=Pace(interval_s=3600.0), first=now - timedelta(hours=9), changes=changes)
    return Memory(source=ADAPTIVE_SOURCE, values={"crm": msgspec.to_builtins(kept)})


def build(folder: Path, port: int, *, days: float = 7, scale: float = 1) -> None:
    """Make the configuration and the store of the shop in a folder."""
    config = CONFIG.replace("PORT", str(port)).replace("CLOSED", str(free_port()))
    config = config.replace("BEGAN", rfc3339(datetime.now(UTC) - timedelta(hours=1)))
    (folder / "config.toml").write_text(config, "utf-8")
    (folder / "upload.token").write_text("an-upload-token", "utf-8")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "inbox").mkdir(exist_ok=True)
    with closing(sqlite3.connect(folder / "shop.db")) as orders:
        orders.execute("create table orders (id integer primary key, total real)")
        orders.executemany("insert into orders (total) values (?)", [(12.5,), (80,), (230,)])
        orders.commit()
    database = folder / "data" / "engine.db"
    curve = _curve(datetime.now(UTC))
    asyncio.run(fill(database, HABITS, days=days, scale=scale, filtered=60, memory=curve))


def enliven(api: Api, folder: Path) -> None:
    """Have things happen: runs that run, wait, are held and fail, pauses, and what strangers send."""
    for name in ("nightly-load", "hourly-load", "by-hand", "by-hand", "by-hand"):
        api.post(f"/triggers/{name}/fire", {"reason": "asked for by the night shift"})
    (folder / "inbox" / "prices-south.csv").write_text("a,b\n1,2\n", "utf-8")
    (folder / "inbox" / "prices-west.csv").write_text("a,b\n1,2\n", "utf-8")
    for name in ("crm", "crm", "archive-daily", "morning-report", "board", "orders"):
        api.post(f"/triggers/{name}/fire", {"reason": "to see what happens", "data": {"total": 80}})
    api.post("/triggers/minute/pause", {"reason": "the on-call phone is full", "duration": "3h"})
    api.post("/triggers/crm", {"expect": "6h", "reason": "the supplier is slow this week"}, method="PATCH")
    api.post("/jobs", {"name": "tidy-up", "run": {"exec": ["true"]}, "description": "made by the night shift"})
    api.post("/triggers", {"name": "tidy-up", "on": {"cron": "40 4 * * *"}, "job": "tidy-up"})
    events: list[dict[str, Any]] = [
        {"type": "order.placed", "subject": f"order-{number}", "data": {"total": 45 * number, "who": "Grace"}}
        for number in range(4)
    ]
    bare = "".join(one for one in HOSTILE if one.isprintable() or one > "\x9f")
    events.append({"type": f"order.{bare}", "subject": bare, "data": {"total": 99, HOSTILE: HOSTILE}})
    events.append({"type": "order.huge", "subject": "x" * 900, "data": {"total": 1, "text": "<b>" * 250_000}})
    events.append({"type": "stranger.unmatched", "data": None})
    for event in events:
        api.post("/events", {"specversion": "1.0", "id": f"demo-{events.index(event)}", "source": "/shop", **event})


@contextmanager
def shop(folder: Path, *, days: float = 7, scale: float = 1, lively: bool = True) -> Iterator[Api]:
    """Run the shop; what is handed out asks its API as the admin."""
    port = free_port()
    build(folder, port, days=days, scale=scale)
    server = Server(["-m", "engine"], folder, port)
    try:
        api = Api(f"http://127.0.0.1:{port}", TOKEN)
        if lively:
            enliven(api, folder)
        yield api
    finally:
        server.stop()
