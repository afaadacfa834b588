"""An engine that is killed while its gates are at work: windows, keys, rates and places are what they were."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site

TRIGGERS = """
[triggers.gathers]
on.event = "gathers"
job = "quick"
debounce = { wait = "4s", max_wait = "6s", key = "data.sack" }
[triggers.batches]
on.event = "batches"
job = "quick"
batch = { size = 3, wait = "1h" }
[triggers.once]
on.event = "once"
job = "quick"
dedupe = { key = "data.sack", window = "1h" }
[triggers.few]
on.event = "few"
job = "quick"
rate_limit = { limit = 1, per = "1h" }
[triggers.spread]
on.event = "spread"
job = "quick"
throttle = { limit = 1, per = "2s" }
[triggers.soon]
on.event = "soon"
job = "quick"
throttle = { limit = 1, per = "1h" }
expires = "3s"
"""


def send(site: Site, type: str, **data: Any) -> dict[str, Any]:
    """Send an event and return its outcome."""
    sent = site.post("/api/v1/events", {"type": type, "source": "test", "data": data})
    assert sent.status == 202
    outcome: dict[str, Any] = sent.body["outcomes"][0]
    return outcome


def starts(site: Site, trigger: str) -> list[float]:
    """Return when runs of a trigger started, in seconds since the first event was received."""
    ((first,),) = site.rows("select min(received_at) from events where type = ?", [trigger])
    query = "select started_at from runs where trigger = ? and started_at is not null order by started_at"
    return [(row[0] - first) / 1e6 for row in site.rows(query, [trigger])]


def test_gates_are_what_they_were_after_a_kill(tmp_path: Path) -> None:
    """Fault rows A6 and A7."""
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site) as engine:
        opened = [send(site, "gathers", sack=7) for _ in range(4)]
        assert {outcome["run"] for outcome in opened} == {opened[0]["run"]}
        half_full = [send(site, "batches") for _ in range(2)]
        first = send(site, "once", sack=7)
        assert send(site, "few")["outcome"] == "run"
        waiting = [send(site, "spread", n=n) for n in range(4)]
        assert [outcome["code"] for outcome in waiting] == ["matched", "throttle", "throttle", "throttle"]
        send(site, "soon")
        late = send(site, "soon")
        deadline = site.rows("select due_at, closes_at from runs where id = ?", [opened[0]["run"]])
        engine.kill()
    assert site.rows("select due_at, closes_at from runs where id = ?", [opened[0]["run"]]) == deadline
    with started(site) as engine:
        joined = send(site, "batches")
        assert (joined["outcome"], joined["run"]) == ("joined", half_full[0]["run"])
        again = send(site, "once", sack=7)
        assert (again["outcome"], again["code"], again["run"]) == ("deduplicated", "dedupe", first["run"])
        limited = send(site, "few")
        assert (limited["outcome"], limited["run"]) == ("rate_limited", None)
        for run, count in ((opened[0]["run"], 4), (half_full[0]["run"], 3)):
            query = f"select event_count from runs where id = '{run}' and state = 'succeeded'"
            assert wait_for(partial(site.rows, query), "it has gathered") == [(count,)]
        wait_for(lambda: len(starts(site, "spread")) == 4, "all have started")
        ids = site.rows("select id from runs where trigger = 'spread' order by started_at")
        assert [row[0] for row in ids] == [outcome["run"] for outcome in waiting]
        spread = starts(site, "spread")
        assert all(later - earlier > 1.9 for earlier, later in pairwise(spread[1:]))
        wait_for(
            lambda: site.rows("select 1 from runs where id = ? and state = 'expired'", [late["run"]]), "it expires"
        )
        assert engine.stop() == 0
