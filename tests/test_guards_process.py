"""An engine that is killed in the middle of a storm stays in quarantine; and a program that starts itself is cut."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from tests.crash.process import ROOT, started, wait_for
from tests.crash.site import TOKEN, Job, Site
from tests.test_pauses_process import command

LIMIT = 40
EMIT = [sys.executable, "-m", "engine", "emit", "again", "--token", TOKEN]
TRIGGERS = f"""
[triggers.storm]
on.webhook = {{ path = "storm", verify = "none" }}
job = "quick"
breaker = {{ limit = {LIMIT}, per = "1h" }}
[triggers.tell]
on.event = "engine.quarantined"
job = "quick"
[triggers.loop]
on.event = "again"
job = "again"
max_hops = 2
[jobs.again]
run.exec = {{ command = {json.dumps(EMIT)}, env = {{ PYTHONPATH = "{ROOT}" }} }}
"""


def outcomes(site: Site, trigger: str) -> list[tuple[str, str]]:
    """Return what the events of a trigger came to, in their order, with the event."""
    text = (
        "select o.outcome, o.event from outcomes o join events e on e.id = o.event where o.trigger = ? order by e.seq"
    )
    return [(outcome, event) for outcome, event in site.rows(text, [trigger])]


def test_a_quarantine_outlives_a_kill_in_the_storm_that_brought_it_about(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    answers: list[dict[str, object]] = []

    def rain(count: int) -> None:
        for _ in range(count):
            try:
                answer = site.post("/hooks/storm", {})
            except OSError:
                return
            if answer.status == 202:
                answers.append(answer.body)

    with started(site) as engine:
        drops = [threading.Thread(target=rain, args=(200,)) for _ in range(4)]
        for drop in drops:
            drop.start()
        # At the limit, where the next commit brings the quarantine about, or has just done so.
        wait_for(lambda: len(answers) >= LIMIT, "so many answers")
        engine.kill()
        for drop in drops:
            drop.join()
    before = outcomes(site, "storm")
    assert {str(answer["event"]) for answer in answers} <= {event for _, event in before}
    ran = [outcome for outcome, _ in before if outcome == "run"]
    assert len(ran) <= LIMIT
    assert "quarantined" not in [outcome for outcome, _ in before[:LIMIT]]
    assert "run" not in [outcome for outcome, _ in before[LIMIT:]]
    with started(site) as engine:
        for _ in range(3):
            site.post("/hooks/storm", {})
        now = outcomes(site, "storm")
        assert [outcome for outcome, _ in now].count("run") == LIMIT
        assert now[-1][0] == "quarantined"
        wait_for(lambda: len(outcomes(site, "tell")) == 1 or None, "somebody is told, once")
        shown = site.ask("GET", "/api/v1/triggers/storm").body
        held = len(now) - LIMIT
        assert (shown["state"], shown["quarantine"]["held_back"]) == ("quarantined", held)
        assert site.ask("GET", "/health").body["status"] == "degraded"
        assert "in quarantine" in command(site, "triggers")
        assert "in quarantine" in command(site, "why", "storm")
        engine.kill()
    with started(site) as engine:
        told = wait_for(lambda: log if "Ctrl-C stops" in (log := engine.logged()) else "", "the console is told")
        assert "Needs somebody" in told
        assert [outcome for outcome, _ in outcomes(site, "tell")] == ["run"]
        said = command(site, "release", "storm", "--replay", "--rate", "1000/s", "--reason", "mended")
        assert "Trigger storm is released" in said
        assert f"Replayed {held} event{'' if held == 1 else 's'} at trigger storm" in said
        assert [outcome for outcome, _ in outcomes(site, "storm")].count("run") == LIMIT + held
        assert site.post("/hooks/storm", {}).body["runs"]
        assert "was not in quarantine" in command(site, "release", "storm")


def test_a_program_that_sends_what_starts_it_is_cut(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site):
        site.post("/api/v1/events", {"type": "again"})
        wait_for(lambda: [one for one, _ in outcomes(site, "loop")][3:] or None, "a fourth event", 60)
        assert [outcome for outcome, _ in outcomes(site, "loop")] == ["run", "run", "run", "rejected"]
        (last,) = [event for outcome, event in outcomes(site, "loop") if outcome == "rejected"]
        assert "max_hops is 2: loop → loop → loop → loop" in command(site, "why", last)
