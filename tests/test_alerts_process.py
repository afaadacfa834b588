"""Alerts of an engine as a process: people hear that its store is away while it is, once, and that it is back."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site

ALERTS = """
[notify.ops]
url = "json://127.0.0.1:PORT/"
[alerts.full]
when = { disk_free = "1000TiB" }
clear_for = "0s"
gather = "0s"
notify = ["ops"]
[triggers.go]
on.manual = true
job = "quick"
"""


@contextmanager
def listening() -> Iterator[tuple[int, list[str]]]:
    """Take what is posted; yield the port and the titles."""
    titles: list[str] = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            titles.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["title"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], titles
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.timeout(180)  # alerts are looked for every ten seconds
def test_what_opens_while_the_store_is_locked_is_told_at_once_and_kept_when_it_is_free(tmp_path: Path) -> None:
    with listening() as (port, titles):
        site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=ALERTS.replace("PORT", str(port)))
        with started(site) as engine:
            with closing(sqlite3.connect(site.database, isolation_level=None, timeout=10)) as other:
                other.execute("begin exclusive")
                wait_for(lambda: titles, lambda: f"it is told:\n{engine.logged()}", within_s=40, pause_s=0.1)
                assert "alert_told_past_store" in engine.logged()
                other.execute("rollback")

            def kept() -> bool:
                return any("at once" in one["reason"] for one in site.ask("GET", "/api/v1/deliveries").body["items"])

            wait_for(kept, lambda: f"it is kept:\n{engine.logged()}", pause_s=0.1)
            assert len(titles) == 1
            assert titles[0].startswith("[warning] full: disk ")
            assert engine.stop() == 0
