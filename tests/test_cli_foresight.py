"""simulate and plan on the command line: by the configuration and the store, or by an engine elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec
import pytest

from engine.adaptive import ADAPTIVE_SOURCE
from engine.adaptive.cases import Kept
from engine.config import load
from engine.decide.adaptive import Pace
from engine.jobs import Job
from engine.plugin import Outcome
from engine.runs import Run
from engine.testing import VirtualClock
from engine.triggers import PauseScope
from tests.fakes import SteppedClock
from tests.test_cli import Running, ask, call, here, running
from tests.ticking import ticking

__all__ = ["here", "running"]  # fixtures

CONFIG = """\
[engine]
timezone = "Europe/Berlin"
concurrency = 2
[jobs.import]
run.exec = ["true"]
concurrency = 1
[jobs.report]
run.exec = ["true"]
[triggers.nightly]
on.cron = "0 2 * * *"
job = "import"
[triggers.pull]
on.interval = "10m"
job = "import"
tags = ["office"]
[triggers.heard]
on.event = "order.*"
job = "report"
"""
DAY = ("--from", "2026-11-26", "--to", "1d")


@pytest.fixture
def config(here: Path) -> Path:
    file = here / "config.toml"
    file.write_text(CONFIG)
    return file


def test_simulate_prints_sums_waits_hours_and_windows_in_the_zone_of_the_engine(config: Path) -> None:
    result = call("simulate", *DAY, "--duration", "import=4m", "--quiet", "2h", "--windows", "2")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "From Thu 2026-11-26 00:00 to Fri 2026-11-27 00:00 (Europe/Berlin), 2 slots:"
    assert lines[1] == "  145 due, 145 runs, 1 wait."
    assert "  Thu 2026-11-26 02:00  pull waits 4m for a slot of job import" in lines
    place = lines.index("By hour         due: 9 is 7 an hour        busy: 9 is all slots")
    assert lines[place + 1 : place + 3] == [
        "                0     6     12    18       0     6     12    18",
        "Thu 2026-11-26  889888888888888888888888   222222222222222222222222",
    ]
    place = lines.index("The quietest windows:")
    assert lines[place + 1 : place + 3] == [
        "  Thu 2026-11-26 00:00 to Thu 2026-11-26 02:00  48m of runs, 12 due",
        "  Thu 2026-11-26 02:08 to Thu 2026-11-26 04:08  48m of runs, 12 due",
    ]
    assert "Not foreseen: heard: it is on events, and nobody knows when they come." in lines
    assert all(len(line) <= 92 for line in lines)


def test_windows_that_are_all_as_quiet_are_not_told_as_the_quietest(config: Path) -> None:
    config.write_text(CONFIG.replace('on.cron = "0 2 * * *"', "on.manual = {}"))
    lines = call("simulate", *DAY, "--quiet", "1h", "--durations", "none").output.splitlines()
    place = lines.index("All windows of that length are about as quiet; the first are:")
    assert lines[place + 1].startswith("  Thu 2026-11-26 00:00 to Thu 2026-11-26 01:00")
    assert "The quietest windows:" not in lines


def test_json_is_streamed_whole(config: Path) -> None:
    result = call("simulate", *DAY, "--json", "--durations", "none")
    view = json.loads(result.output)
    assert len(view["items"]) == view["total"]["runs"] == 145
    assert view["next"] is None
    assert {one["duration"]["origin"] for one in view["triggers"]} == {"default"}


def test_lengths_come_from_a_file_and_single_ones_win(config: Path, here: Path) -> None:
    (here / "lengths.toml").write_text('import = "5m"\nreport = "1m"\n')
    result = call("simulate", *DAY, "--durations", "lengths.toml", "--duration", "report=2m", "--json")
    view = json.loads(result.output)
    assert {one["duration"]["seconds"] for one in view["triggers"]} == {300.0}


def test_past_runs_and_pauses_are_read_from_the_store(config: Path, here: Path) -> None:
    loaded = load([config], environment={})
    (here / "data").mkdir()

    async def live() -> None:
        clock = VirtualClock()
        triggers = list(loaded.triggers.values())[:2]
        async with ticking(
            loaded.store.path, *triggers, jobs=list(loaded.jobs.values()), clock=clock
        ) as desk:  # fmt: skip

            async def act(run: Run, job: Job) -> Outcome:
                await clock.sleep(7.0)
                return Outcome.succeeded("done")

            desk.script.act = act
            await desk.advance(1900)
            await desk.pauses.pause(PauseScope.TAG, "office", reason="we move", until=None, who="me")

    anyio.run(live)
    view = json.loads(call("simulate", *DAY, "--json").output)
    triggers = {one["name"]: one for one in view["triggers"]}
    assert triggers["pull"]["duration"] == {
        "seconds": pytest.approx(7.0, abs=0.01), "origin": "past", "runs": 3, "of_job": False
    }  # fmt: skip
    assert (triggers["nightly"]["duration"]["origin"], triggers["nightly"]["duration"]["of_job"]) == ("past", True)
    said = call("simulate", *DAY).output
    assert "7s (3 past runs)\n" in said
    assert "7s (3 past runs of its job)\n" in said
    assert (triggers["pull"]["paused"], triggers["pull"]["runs"]) == (144, 0)
    assert "we move" in view["examples"]["paused"][0]["reason"]


@pytest.mark.parametrize("settings", ["max = '1h'", "max = '1h', mode = 'shadow'"])
def test_intervals_that_are_in_force_are_read_from_the_store(config: Path, here: Path, settings: str) -> None:
    adaptive = f"adaptive = {{ min = '5m', {settings}, duration_max = '1m' }}\n"
    config.write_text(CONFIG.replace('on.interval = "10m"\n', f'on.interval = "10m"\n{adaptive}'))
    loaded = load([config], environment={})
    (here / "data").mkdir()
    kept = Kept(base_s=600.0, pace=Pace(interval_s=1800.0), first=datetime(2026, 11, 25, 23, 10, tzinfo=UTC))

    async def live() -> None:
        async with ticking(loaded.store.path, loaded.triggers["nightly"], jobs=list(loaded.jobs.values())) as desk:
            remember = {"pull": msgspec.to_builtins(kept), "gone": {}, "nightly": {"base_s": "an hour"}}
            await desk.intake.accept(ADAPTIVE_SOURCE, (), remember=remember)

    anyio.run(live)
    items = json.loads(call("simulate", *DAY, "--trigger", "pull", "--json").output)["items"]
    due = [item["due_at"] for item in items[:2]]
    if "shadow" in settings:
        assert (due, len(items)) == (["2026-11-25T23:00:00Z", "2026-11-25T23:10:00Z"], 144)
    else:
        assert (due, len(items)) == (["2026-11-25T23:10:00Z", "2026-11-25T23:40:00Z"], 48)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "soon"), "--from 'soon' is no date or time"),
        (("--from", "2026-11-26", "--to", "2026-11-25"), "is not after the beginning"),
        (("--to", "9999d"), "is no date or time"),
        (("--trigger", "nigthly"), "did you mean nightly?"),
        (("--tag", "ofice"), "did you mean office?"),
        (("--duration", "import"), "is no job and duration"),
        (("--duration", "import=soon"), "is no duration"),
        (("--duration", "imprt=1s"), "did you mean import?"),
        (("--durations", "nowhere.toml"), "name a file, past, or none"),
        (("--down", "2026-11-26"), "is no time from and to"),
        (("--quiet", "3d"), "no longer than the time"),
        (("--quiet", "long"), "is no duration"),
    ],
)
def test_a_wrong_question_ends_with_2_and_says_what_is_right(
    config: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = call("simulate", *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_an_engine_elsewhere_is_asked_where_it_is_named(running: Running) -> None:
    result = ask(running, "simulate", "--from", "2026-11-26", "--to", "1h")
    assert result.exit_code == 0, result.output
    assert "(UTC)" in result.output
    view = json.loads(ask(running, "simulate", *DAY, "--json").output)
    assert [item["trigger"] for item in view["items"]] == ["nightly"]


def test_plan_says_what_moves_and_what_else_changes(config: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.cli.foreseeing.SystemClock", SteppedClock)  # it is noon
    new = CONFIG.replace("0 2 *", "0 3 *").replace("concurrency = 2", "concurrency = 3")
    (here / "new.toml").write_text(new[: new.index("[triggers.heard]")])
    result = call("plan", "new.toml", "--count", "1")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "Trigger heard is removed" in lines
    place = lines.index("Trigger nightly is changed")
    assert lines[place + 1 : place + 3] == [
        '  on.cron.expression: "0 2 * * *" -> "0 3 * * *"', "  Instants: 7 move; 7 before, 7 after",
    ]  # fmt: skip
    assert "(+1h)" in lines[place + 3]
    assert lines[place + 4] == "    … and 6 more"
    assert "Setting engine.concurrency: 2 -> 3" in lines
    assert json.loads(call("plan", "new.toml", "--json").output)["changes"]


def test_plan_tells_of_one_instant_as_one_and_how_far_it_could_compare(
    config: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.foreseeing.SystemClock", SteppedClock)
    text = CONFIG.replace('on.cron = "0 2 * * *"', 'on.cron = "* * * * *"')
    (here / "new.toml").write_text(text.replace("* * * * *", "0 2 * * *"))
    config.write_text(text)
    lines = call("plan", "new.toml", "--count", "1", "--days", "30").output.splitlines()
    assert "    Compared until Sat 2026-11-28 11:40, as there are too many" in lines
    (here / "new.toml").write_text(CONFIG.replace("0 2 * * *", "0 2 * * sat"))
    config.write_text(CONFIG)
    assert "  Instants: 1 vanishes; 1 before, 0 after" in call("plan", "new.toml", "--days", "1").output.splitlines()


def test_plan_of_the_same_says_that_nothing_changes(config: Path) -> None:
    result = call("plan", "config.toml")
    assert (result.exit_code, result.output) == (0, "Nothing changes.\n")


def test_plan_takes_relative_paths_as_they_will_be_meant(config: Path, here: Path) -> None:
    text = CONFIG + '[triggers.dropped]\non.files = { path = "inbox" }\njob = "report"\n'
    config.write_text(text)
    (here / "drafts").mkdir()
    (here / "drafts" / "new.toml").write_text(text)
    assert call("plan", "drafts/new.toml").output == "Nothing changes.\n"


def test_plan_tells_the_mistakes_of_the_new_one_as_check_does(config: Path, here: Path) -> None:
    (here / "new.toml").write_text(CONFIG.replace("0 2 *", "0 99 *"))
    result = call("plan", "new.toml")
    assert result.exit_code == 2
    assert "new.toml:10: triggers.nightly.on.cron" in result.output
    problem = json.loads(call("plan", "new.toml", "--json").output)
    assert (problem["ok"], problem["errors"][0]["line"]) == (False, 10)
    assert call("plan", "missing.toml").exit_code == 2


def test_plan_may_ask_an_engine_elsewhere(running: Running, here: Path) -> None:
    (here / "new.toml").write_text('[jobs.import]\nrun.exec = ["true"]\n')
    result = ask(running, "plan", "new.toml")
    assert result.exit_code == 0, result.output
    assert "Trigger nightly is removed" in result.output
    (here / "bad.toml").write_text("x = 1\n")
    result = ask(running, "plan", "bad.toml")
    assert result.exit_code == 2
    assert "sent.toml:1: x: unknown key" in result.output
