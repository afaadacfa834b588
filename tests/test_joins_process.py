"""An engine that is killed while joins wait: they go on with what they had, and end when they were to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site

TRIGGERS = """
[triggers.pairs]
on.all = { sales = { event = "sale" }, stock = { event = "count" } }
job = "quick"
join = { window = "1h", key = "data.order" }
[triggers.soon]
on.all = { left = { event = "left" }, right = { event = "right" } }
job = "quick"
join = "4s"
"""


def send(site: Site, type: str, **data: Any) -> dict[str, Any]:
    """Send an event and return its outcome."""
    sent = site.post("/api/v1/events", {"type": type, "source": "test", "data": data})
    assert sent.status == 202
    outcome: dict[str, Any] = sent.body["outcomes"][0]
    return {**outcome, "event": sent.body["event"]}


def codes(site: Site, *events: dict[str, Any]) -> list[str]:
    """Return the codes of what became of events, as they stand now."""
    return [site.rows("select code from outcomes where event = ?", [one["event"]])[0][0] for one in events]


def test_joins_are_what_they_were_after_a_kill(tmp_path: Path) -> None:
    """Fault rows A6 and A7."""
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site) as engine:
        first, second = send(site, "sale", order="a", n=1), send(site, "sale", order="a", n=2)
        assert (first["run"], second["code"]) == (second["run"], "join_waits")
        other = send(site, "sale", order="b")
        assert other["run"] != first["run"]
        late = send(site, "left")
        ends = site.rows("select id, due_at, closes_at from runs order by id")
        assert codes(site, first, second) == ["join_superseded", "join_waits"]
        engine.kill()
    assert site.rows("select id, due_at, closes_at from runs order by id") == ends
    with started(site) as engine:
        view = site.ask("GET", "/api/v1/triggers/pairs").body
        has = {one["run"]: (one["has"], one["missing"]) for one in view["joins"]["items"]}
        assert has == {
            first["run"]: ({"sales": [second["event"]]}, ["stock"]),
            other["run"]: ({"sales": [other["event"]]}, ["stock"]),
        }
        third = send(site, "sale", order="a", n=3)
        assert codes(site, first, second, third) == ["join_superseded", "join_superseded", "join_waits"]
        complete = send(site, "count", order="a")
        assert (complete["code"], complete["run"]) == ("join_complete", first["run"])
        query = f"select event_count from runs where id = '{first['run']}' and state = 'succeeded'"
        assert wait_for(partial(site.rows, query), "it was joined") == [(2,)]
        events = site.ask("GET", f"/api/v1/runs/{first['run']}").body["events"]
        assert events == [third["event"], complete["event"]]
        query = f"select code, finished_at - created_at from runs where id = '{late['run']}' and state = 'expired'"
        ((code, lasted_us),) = wait_for(partial(site.rows, query), "it expires")
        assert code == "join_incomplete"
        assert lasted_us >= 4_000_000
        engine.kill()
    # What was complete when it died, and what was half of one, is accounted for, too.
    with started(site) as engine:
        found = site.ask("GET", "/api/v1/doctor").body
        assert found["ok"], found
        assert found["ledger"]["missing"] == 0
        assert [
            (one["run"], one["missing"]) for one in site.ask("GET", "/api/v1/triggers/pairs").body["joins"]["items"]
        ] == [(other["run"], ["stock"])]
        assert engine.stop() == 0
