"""A webhook that is flooded: it is pushed back, and nobody else feels it (fault row E3)."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.bench import load
from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site

HIGH, LOW = 2_000, 1_000

TRIGGERS = f"""
[engine.queue]
high = {HIGH}
low = {LOW}
[triggers.flooded]
on.webhook = {{ path = "flood", verify = "none" }}
job = "slow"
[triggers.ordered]
on.event = "order"
job = "quick"
[triggers.tick]
on.interval = "1s"
job = "quick"
"""

JOBS = {"slow": Job(seconds=60, limit=1), "quick": Job(runner="loop", seconds=0.0)}

LATEST_US = 1_000_000


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.full)])
@pytest.mark.timeout(240)
def test_a_flood_of_one_webhook_is_pushed_back_and_others_go_on(tmp_path: Path, seconds: int) -> None:
    site, body = Site(tmp_path, jobs=JOBS, triggers=TRIGGERS), tmp_path / "body.json"
    body.write_text(json.dumps({"text": "x" * 500}))
    with started(site) as engine, ThreadPoolExecutor(1) as pool:
        wait_for(lambda: site.rows("select 1 from events where source = 'timer:tick'"), "the timer goes")
        flood = pool.submit(load.post, site.port, "/hooks/flood", body, connections=32, seconds=seconds)
        begun_us, orders = time.time_ns() // 1_000, 0
        while not flood.done():
            assert site.post("/api/v1/events", {"type": "order", "source": "shop", "data": {}}).status == 202
            orders += 1
            time.sleep(0.1)
        ended_us, came = time.time_ns() // 1_000, flood.result()
        assert came.broken == 0
        assert came.accepted >= LOW
        assert came.refused > 0
        (count,) = site.rows("select count(*) from runs where trigger = 'flooded'")[0]
        assert count <= came.accepted <= HIGH + LOW
        status, retry_after = _pushed_back(site)
        assert status == 503
        assert retry_after is not None
        assert int(retry_after) > 0
        wait_for(lambda: _succeeded(site, "ordered") == orders, "each order has run")
        # Each instant was dealt with, and the engine can prove it; how late is not said of a machine that others share.
        ticks = site.rows("select time, received_at from events where source = 'timer:tick' and time > ?", [begun_us])
        assert len(ticks) >= seconds / 2
        assert max(at for at, _ in ticks) >= ended_us - 3 * LATEST_US
        doctor = site.ask("GET", "/api/v1/doctor").body
        assert doctor["ok"], doctor
        if seconds >= 60:
            assert not site.rows("select 1 from runs where trigger = 'tick' and state = 'missed'")
            assert max(received - at for at, received in ticks) <= LATEST_US
        engine.kill()


def _pushed_back(site: Site) -> tuple[int, str | None]:
    connection = HTTPConnection("127.0.0.1", site.port, timeout=10.0)
    try:
        connection.request("POST", "/hooks/flood", b"{}", {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("Retry-After")
    finally:
        connection.close()


def _succeeded(site: Site, trigger: str) -> int:
    return int(site.rows("select count(*) from runs where trigger = ? and state = 'succeeded'", [trigger])[0][0])
