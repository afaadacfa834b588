"""SIGHUP while events come: nothing is lost, and a bad file changes nothing (fault row G2)."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site
from tests.test_pauses_process import command

TRIGGERS = """
[triggers.by-hand]
on.manual = true
job = "quick"
"""


def test_sighup_while_events_come_loses_none(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    file = site.path / "config.toml"
    good = file.read_text("utf-8").replace("[engine]\n", "[engine]\nwatch = false\n", 1)
    file.write_text(good, "utf-8")
    answers: list[Any] = []
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            answers.append(site.post("/api/v1/triggers/by-hand/fire", {}))

    def reloads() -> Any:
        return site.ask("GET", "/api/v1/config").body["reload"]

    with started(site) as engine:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            for number in range(3):
                file.write_text(f'{good}tags = ["{number}"]\n', "utf-8")
                os.kill(engine.pid, signal.SIGHUP)
                shown = f"reload {number}"
                wait_for(
                    lambda: site.ask("GET", "/api/v1/triggers/by-hand").body["tags"] == [str(number)],  # noqa: B023
                    shown,
                )
            file.write_text(good + "odd = 1\n", "utf-8")
            os.kill(engine.pid, signal.SIGHUP)
            wait_for(lambda: (told := reloads()) and not told["ok"], "the bad file is told of")
        finally:
            over.set()
            sender.join()
        assert reloads()["who"] == "SIGHUP"
        assert reloads()["errors"][0]["path"] == "triggers.by-hand.odd"
        assert "config_rejected" in engine.logged()
        assert site.ask("GET", "/api/v1/triggers/by-hand").body["tags"] == ["2"]
        assert all(answer.status == 202 and len(answer.body["runs"]) == 1 for answer in answers)
        file.write_text(good, "utf-8")
        assert "triggers changed: by-hand" in command(site, "reload")
        assert "read " in command(site, "reload", "--status")
        wait_for(
            lambda: site.rows("select count(*) from runs where state = 'succeeded'")[0][0] == len(answers),
            "all that was taken is run",
        )
        assert engine.stop() == 0


DEFINED = """
[jobs.by-api]
run.exec = ["/bin/true"]

[triggers.by-api]
on.manual = true
job = "by-api"
description = "defined by a command"
"""


def test_definitions_are_imported_exported_and_outlive_a_kill(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    file = site.path / "config.toml"
    opened = 'api_runners = ["exec"]\napi_commands = ["/bin/true"]\napi_sources = ["manual"]\n'
    file.write_text(file.read_text("utf-8") + f"\n[security]\n{opened}", "utf-8")
    (site.path / "defined.toml").write_text(DEFINED, "utf-8")
    with started(site) as engine:
        trial = command(site, "import", "defined.toml", "--dry-run")
        assert "added: jobs.by-api, triggers.by-api\nNothing is changed" in trial
        assert "Trigger by-api is added" in trial
        assert command(site, "import", "defined.toml") == "added: jobs.by-api, triggers.by-api\n"
        first = command(site, "export")
        engine.kill()
    with started(site) as engine:
        fired = site.post("/api/v1/triggers/by-api/fire", {}).body["runs"][0]
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{fired}").body["state"] == "succeeded", "it runs")
        assert command(site, "export", "-o", "out.toml") == "out.toml: written\n"
        (site.path / "empty.toml").write_text("", "utf-8")
        assert "removed: jobs.by-api, triggers.by-api" in command(site, "import", "empty.toml", "--replace")
        command(site, "import", "out.toml")
        assert command(site, "export") == first == (site.path / "out.toml").read_text("utf-8")
        assert command(site, "import", "definitions", "out.toml") == "Nothing differs\n"
        assert engine.stop() == 0
