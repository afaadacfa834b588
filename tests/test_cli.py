"""The command line, against a real listener with an engine without organs behind it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.text import Text
from typer.testing import CliRunner, Result

from engine.cli.app import app
from engine.cli.firing import _resume
from engine.cli.output import local, say_table, terminal_safe
from engine.cli.upcoming import local_text
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.http.server import HttpServer
from engine.http.tokens import token_path
from engine.ids import new_id
from engine.runs import RunState
from engine.store.opening import Lock
from engine.triggers import PauseScope
from engine.units import format_span
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.fakes import SteppedClock

VARIABLES = ("ENGINE_URL", "ENGINE_TOKEN", "ENGINE_CONFIG", "ENGINE_ADMIN_TOKEN")


class Running:
    """An engine's HTTP, on an event loop in a thread of its own."""

    def __init__(self, base: Path) -> None:
        self.operations = FakeOperations(base)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._server: HttpServer | None = None
        self._thread = threading.Thread(target=self._run)

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    def do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(5)

    def _run(self) -> None:
        async def serve() -> None:
            async with serving(self.operations) as self._server:
                self._started.set()
                await self._stop.wait()

        self._loop.run_until_complete(serve())
        self._loop.close()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._started.wait(5)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        # The loop ended with its thread: a socket that it had no turn left to close is no leak of the engine's.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def running(here: Path) -> Iterator[Running]:
    with Running(here) as engine:
        yield engine


def call(*arguments: str, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=given)


def ask(engine: Running, *arguments: str, given: str | bytes | None = None) -> Result:
    return call("--url", engine.url, "--token", TOKEN, *arguments, given=given)


def test_fire_hands_over_its_options_and_prints_the_ids(running: Running, here: Path) -> None:
    (here / "data.json").write_text('{"a": 1}')
    options = ("--reason", "because", "--priority", "8", "--bypass", "debounce")
    result = ask(running, "fire", "nightly", "--data", "@data.json", *options)
    assert result.exit_code == 0, result.output
    (fired,) = running.operations.fired
    assert (fired["data"], fired["reason"], fired["priority"]) == ({"a": 1}, "because", 8)
    assert fired["bypass"] == {"debounce"}
    (run,) = running.operations.memory.kept
    assert run in result.output
    assert json.loads(ask(running, "fire", "nightly", "--json").output)["duplicate"] is False


def test_fire_fails_and_tells_the_way_on_where_no_run_comes_of_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    what = Outcome(trigger="nightly", outcome=EventOutcome.PAUSED, code="paused", reason="trigger nightly is paused")

    async def fire(name: str, **given: Any) -> Accepted:
        return Accepted(event=new_id(), outcomes=(what,))

    monkeypatch.setattr(running.operations, "fire", fire)
    ask(running, "pause", "nightly")
    result = ask(running, "fire", "nightly")
    assert (result.exit_code, "  nightly: paused: trigger nightly is paused" in result.stdout) == (1, True)
    assert "fire nightly --bypass pause to run it all the same; resume nightly to end it" in result.stderr
    waited = ask(running, "fire", "nightly", "--wait")
    assert (waited.exit_code, "--bypass pause" in waited.stderr) == (1, True)
    what = replace(what, outcome=EventOutcome.QUARANTINED)
    assert (
        "--bypass quarantine to run it all the same; release nightly to end it"
        in ask(running, "fire", "nightly").stderr
    )
    what = replace(what, outcome=EventOutcome.FILTERED)
    result = ask(running, "fire", "nightly", "--json")
    assert (result.exit_code, result.stderr, json.loads(result.stdout)["runs"]) == (1, "", [])


@pytest.mark.parametrize(
    ("pause", "way"),
    [({"scope": "engine", "name": ""}, "resume --all"), ({"scope": "tag", "name": "t"}, "resume --tag t"),
     ({"scope": "trigger", "name": "n"}, "resume n")],
)  # fmt: skip
def test_each_pause_is_ended_by_a_command_of_its_own(pause: dict[str, Any], way: str) -> None:
    assert _resume(pause) == way


def test_fire_reads_standard_input(running: Running) -> None:
    assert ask(running, "fire", "nightly", "--data", "@-", given="[1, 2]").exit_code == 0
    assert running.operations.fired[0]["data"] == [1, 2]


@pytest.mark.parametrize(("state", "code"), [(RunState.SUCCEEDED, 0), (RunState.FAILED, 1), (RunState.TIMED_OUT, 1)])
def test_fire_wait_tells_how_the_run_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch, state: RunState, code: int
) -> None:
    add_run = running.operations.add_run
    monkeypatch.setattr(running.operations, "add_run", lambda **given: add_run(**{**given, "state": state}))
    result = ask(running, "fire", "nightly", "--wait", "--json")
    assert result.exit_code == code
    (run,) = running.operations.memory.kept
    assert json.loads(result.output)["states"] == {run: state.value}


@pytest.mark.parametrize(("state", "code"), [(RunState.SUCCEEDED, 0), (RunState.FAILED, 1)])
def test_emit_wait_tells_how_the_run_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch, state: RunState, code: int
) -> None:
    run = running.operations.add_run(state=state)
    accepted = Accepted(event=run.event, runs=(run.id,))

    async def hear(events: Sequence[Event]) -> list[Accepted]:
        return [accepted]

    monkeypatch.setattr(running.operations, "hear", hear)
    result = ask(running, "emit", "order.created", "--wait", "--json")
    assert (result.exit_code, json.loads(result.output)["states"]) == (code, {run.id: state.value})
    assert run.reason in ask(running, "emit", "order.created", "--wait").output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("fire", "nobody"), 1, "there is no trigger 'nobody'"),
        (("fire", "nightly", "--data", "{"), 2, "--data: the text is not valid JSON"),
        (("fire", "nightly", "--data", "@missing"), 2, "missing can't be read: No such file"),
        (("fire", "nightly", "--priority", "11"), 2, "0 to 9"),
        (("fire", "nightly", "--bypass", "debonce"), 2, "did you mean 'debounce'?"),
        (("fire",), 2, "Missing argument"),
        (("emit", "engine.timer"), 2, "can't be sent from outside"),
        (("runs", "--state", "faild"), 2, "did you mean 'failed'?"),
        (("run", "1"), 1, "no run"),
        (("run", "../../live"), 1, "there is no"),
        (("why", "00000000-0000-7000-8000-000000000000"), 1, "no run and no event"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_said_with_its_exit_code(
    running: Running, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = ask(running, *arguments)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_emit_sends_an_event_and_says_what_met_it(running: Running) -> None:
    result = ask(running, "emit", "order.created", "--data", '{"a":1}', "--subject", "s", "--key", "k")
    assert result.exit_code == 0, result.output
    assert "no trigger: unmatched: no trigger hears it" in result.output
    (event,) = running.operations.heard
    assert (event.type, event.data, event.subject, event.key) == ("order.created", {"a": 1}, "s", "k")


def test_lists_are_plain_when_piped_and_json_on_request(running: Running) -> None:
    run = running.operations.add_run(state=RunState.FAILED)
    running.operations.add_run(state=RunState.SUCCEEDED)
    lines = ask(running, "runs", "--state", "failed").output.splitlines()
    assert lines[0].split() == ["RUN", "TRIGGER", "JOB", "STATE", "CREATED", "REASON"]
    assert lines[1].startswith(f"{run.id}  nightly  import  failed")
    assert len(lines) == 2
    assert "2026-11-21 " in lines[1]
    assert len(json.loads(ask(running, "runs", "--json").output)["items"]) == 2
    assert "nightly" in ask(running, "triggers").output
    assert json.loads(ask(running, "triggers", "--json").output)["items"][0]["name"] == "nightly"
    shown = ask(running, "run", run.id).output
    assert "exit 0" in shown
    assert json.loads(ask(running, "run", run.id, "--json").output)["id"] == run.id
    running.operations.memory.kept[run.id] = replace(run, outputs={"file": "Größe.csv", "ok": True})
    assert 'outputs        {"file": "Größe.csv", "ok": true}' in ask(running, "run", run.id).output
    used = replace(run.attempts[0], cpu_s=1.25, peak_bytes=300 * 2**20)
    running.operations.memory.kept[run.id] = replace(run, attempts=(used,))
    shown = ask(running, "run", run.id).output
    assert "attempt        1 used 1.2s of processor time, at most 300MiB of memory" in shown


def test_triggers_are_listed_by_tag_and_by_how_they_are(running: Running) -> None:
    def names(*options: str) -> list[str]:
        result = ask(running, "triggers", "--json", *options)
        assert result.exit_code == 0, result.output
        return [one["name"] for one in json.loads(result.output)["items"]]

    (first, *_) = json.loads(ask(running, "triggers", "--json").output)["items"]
    assert first["name"] in names("--enabled", "--state", "active")
    assert first["name"] not in names("--disabled")
    assert names("--tag", "no-such") == []
    ask(running, "pause", "nightly")
    assert names("--state", "paused") == ["nightly"]
    assert ask(running, "triggers", "--state", "asleep").exit_code == 2


def test_events_are_listed_with_what_became_of_them(running: Running) -> None:
    run = running.operations.add_run(state=RunState.SUCCEEDED)
    lost = running.operations.keep(Event(type="order.created", subject="ID-1"))
    lines = ask(running, "events").output.splitlines()
    assert lines[0].split() == ["EVENT", "TYPE", "SOURCE", "SUBJECT", "RECEIVED", "OUTCOMES"]
    told = {line.split()[0]: line for line in lines[1:]}
    assert told[lost.event].split()[1:4] == ["order.created", "api", "ID-1"]
    assert told[lost.event].endswith("  unmatched")
    assert told[run.event].endswith("  nightly: run")
    assert [line.split()[0] for line in ask(running, "events", "--type", "order.created").output.splitlines()[1:]] == [
        lost.event
    ]
    for arguments in (("--trigger", "nightly"), ("--source", "manual")):
        assert [line.split()[0] for line in ask(running, "events", *arguments).output.splitlines()[1:]] == [run.event]
    assert len(ask(running, "events", "--limit", "1").output.splitlines()) == 2
    assert len(json.loads(ask(running, "events", "--json").output)["items"]) == 2


def test_sources_are_listed_and_one_is_shown_by_its_name(running: Running) -> None:
    lines = ask(running, "sources").output.splitlines()
    assert lines[0].split()[:4] == ["SOURCE", "STATE", "TRIGGERS", "EVENTS"]
    assert lines[1].startswith("files inbox/new  running  nightly ")
    assert lines[2].startswith("nightly ")
    assert "name             files:inbox/new" in ask(running, "sources", "files inbox/new").output
    assert "there is no source nobody" in ask(running, "sources", "nobody").output
    assert "triggers         nightly" in ask(running, "sources", "files:inbox/new").output
    assert json.loads(ask(running, "--json", "sources", "nightly").output)["name"] == "nightly"
    assert [one["name"] for one in json.loads(ask(running, "--json", "sources").output)["items"]][1] == "nightly"


def test_what_became_of_an_event_at_first_does_not_read_as_the_state_of_its_run_now(running: Running) -> None:
    memory = running.operations.memory
    run = running.operations.add_run(state=RunState.SUCCEEDED)
    (first,) = memory.stored[run.event].outcomes
    gathered = replace(first, code="debounce", reason="pending: gathers events for 2s (debounce)")
    memory.stored[run.event] = replace(memory.stored[run.event], outcomes=(gathered,))
    told = ask(running, "why", run.event).output
    assert f"run, run {run.id}: pending at first: gathers events for 2s (debounce) [debounce]" in told
    assert ": pending: " not in told


def test_why_tells_the_story_of_a_run_an_event_and_a_trigger(running: Running) -> None:
    run = running.operations.add_run(state=RunState.SUCCEEDED)
    told = ask(running, "why", run.id).output
    assert f"Run {run.id} of job import, by trigger nightly (manual): succeeded: exit 0" in told
    assert "queued: fired by hand [fired]" in told
    assert f"It is for event {run.event} of type manual about nightly" in told
    told = ask(running, "why", run.event).output
    assert f"trigger nightly: run, run {run.id}: it is time [matched]" in told
    assert f"Run {run.id}" in told
    other = running.operations.keep(Event(type="Order.Created", subject="ID-1"))
    told = ask(running, "why", other.event).output
    assert f"Event {other.event} of type Order.Created about ID-1, from api, was received" in told
    told = ask(running, "why", "nightly").output
    assert "Trigger nightly is active and runs job import." in told
    assert f"run {run.id} succeeded: exit 0" in told
    assert set(json.loads(ask(running, "why", run.id, "--json").output)) == {"run", "events", "gone"}


def test_why_tells_that_an_attempt_was_interrupted_and_does_not_count(running: Running) -> None:
    run = running.operations.add_run(state=RunState.SUCCEEDED)
    [attempt] = run.attempts
    died = replace(attempt, code="engine_died", state=RunState.CANCELLED, counted=False)
    running.operations.memory.kept[run.id] = replace(run, attempts=(died, attempt))
    told = [line for line in ask(running, "why", run.id).output.splitlines() if "ttempt 1" in line]
    assert len(told) == 2
    assert "was interrupted by the engine's death" in told[0]
    assert told[0].endswith("it does not count")
    assert "and succeeded" in told[1]


def test_control_characters_of_others_are_escaped(running: Running) -> None:
    evil = "\x1b]0;owned\x07 \x9b31m\r\nsecond"
    run = running.operations.add_run(state=RunState.FAILED, reason=evil)
    running.operations.keep(Event(type="t", subject=evil))
    for arguments in (("runs",), ("run", run.id), ("why", run.id), ("why", "nightly"), ("runs", "--json")):
        output = ask(running, *arguments).output
        assert "owned" in output
        assert not {"\x1b", "\x07", "\x9b", "\r"} & set(output), arguments
    assert terminal_safe("a\x1b[2J\n\tb") == "a\\x1b[2J\n\tb"


def test_logs_are_printed_as_they_are_when_piped(running: Running) -> None:
    run = running.operations.add_run(state=RunState.SUCCEEDED)
    running.operations.log_path(run.id).write_bytes(b"one\n\x1b[31mtwo\n")
    assert ask(running, "logs", run.id).stdout_bytes == b"one\n\x1b[31mtwo\n"
    assert ask(running, "logs", run.id, "--tail", "1", "-f").stdout_bytes == b"\x1b[31mtwo\n"
    assert json.loads(ask(running, "logs", run.id, "--json").output)["log"].startswith("one")
    assert ask(running, "logs", new_id()).exit_code == 1


@pytest.mark.parametrize(
    ("state", "started", "said"),
    [
        (RunState.SUCCEEDED, True, "wrote nothing, or its log was removed after its time"),
        (RunState.RUNNING, True, "has written nothing so far"),
        (RunState.QUEUED, False, "has not started, so that it wrote nothing: queued"),
        (RunState.SKIPPED, False, "was never started, so that it wrote nothing: skipped"),
    ],
)
def test_of_an_empty_log_it_is_said_why_beside_the_output(
    running: Running, state: RunState, started: bool, said: str
) -> None:  # fmt: skip
    run = running.operations.add_run(state=state)
    if not started:
        running.operations.memory.kept[run.id] = replace(run, attempts=(), started_at=None)
    for arguments in ((), ("--tail", "5")):
        result = ask(running, "logs", run.id, *arguments)
        assert (result.exit_code, result.stdout) == (0, "")
        assert said in " ".join(result.stderr.split())
        assert run.id in result.stderr
    assert ask(running, "logs", run.id, "--tail", "0").output == "", "nothing was asked for"
    assert json.loads(ask(running, "logs", run.id, "--json").stdout) == {"run": run.id, "log": ""}


def test_a_run_and_an_event_are_named_by_the_last_digits_of_their_ids(running: Running) -> None:
    run = running.operations.add_run(state=RunState.HELD)
    running.operations.add_run(state=RunState.SUCCEEDED)
    event, tail = run.event, run.id[-8:]
    running.operations.log_path(run.id).write_bytes(b"one\n")
    assert json.loads(ask(running, "run", tail.upper(), "--json").stdout)["id"] == run.id
    assert ask(running, "logs", run.id[-20:]).stdout == "one\n"
    assert json.loads(ask(running, "logs", tail, "--json").stdout)["run"] == run.id
    assert json.loads(ask(running, "why", tail, "--json").stdout)["run"]["id"] == run.id
    assert json.loads(ask(running, "why", event[-8:], "--json").stdout)["event"]["id"] == event
    assert ask(running, "release", tail).exit_code == 0
    assert ask(running, "cancel", tail, "--detach").exit_code == 0
    for arguments in (("run", "0" * 8), ("why", "0" * 8), ("cancel", "0" * 8)):
        result = ask(running, *arguments)
        assert result.exit_code == 1
        assert "none of the latest 1,000 runs has an id that ends with 00000000" in " ".join(result.output.split())
    assert "of that id" in ask(running, "run", tail[-7:]).output, "seven digits are no tail"


def test_of_several_ids_that_end_alike_more_is_asked_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    ids = [f"0197a3f4-5b6c-7d8e-9f0{number}-23456789abcd" for number in range(2)]
    for one in ids:
        run = running.operations.add_run()
        running.operations.memory.kept[one] = replace(run, id=one)
        del running.operations.memory.kept[run.id]
    result = ask(running, "run", "56789abcd")
    assert (result.exit_code, all(one in result.output for one in ids)) == (2, True), result.output
    assert json.loads(ask(running, "run", "1-23456789abcd", "--json").stdout)["id"] == ids[1]


def test_followed_logs_end_with_the_run(running: Running) -> None:
    run = running.operations.add_run(state=RunState.RUNNING)
    running.operations.log_path(run.id).write_bytes(b"one\n")
    results: list[Result] = []
    follower = threading.Thread(target=lambda: results.append(ask(running, "logs", run.id, "-f")))
    follower.start()
    with running.operations.log_path(run.id).open("ab") as file:
        file.write(b"two\n")
    running.do(running.operations.change_run(run.id, RunState.FAILED))
    follower.join(10)
    assert results[0].stdout_bytes == b"one\ntwo\n"
    assert results[0].exit_code == 0


def test_doctor_asks_the_engine_and_fails_where_it_is_not_well(running: Running) -> None:
    result = ask(running, "doctor")
    assert (result.exit_code, "ok   loop: 1 ms" in result.output) == (0, True)
    running.operations.memory.missing = ("event 1 has no outcome",)
    result = ask(running, "doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["ledger"]["missing"] == 1


def test_options_stand_before_and_after_the_command_and_in_the_environment(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("runs", "--url", running.url, "--token", TOKEN).exit_code == 0
    monkeypatch.setenv("ENGINE_URL", running.url + "/")
    monkeypatch.setenv("ENGINE_TOKEN", TOKEN)
    assert call("runs").exit_code == 0
    assert call("runs", "--token", "wrong").exit_code == 1


def test_a_refused_token_is_told_by_its_origin_and_not_shown(
    running: Running, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call("runs", "--url", running.url, "--token", "a-wrong-secret")
    assert (result.exit_code, "refused the token from --token" in result.output) == (1, True)
    monkeypatch.setenv("ENGINE_TOKEN", "a-wrong-secret")
    assert "the environment variable ENGINE_TOKEN" in call("runs", "--url", running.url).output
    monkeypatch.delenv("ENGINE_TOKEN")
    configure(here, running.url)
    token_path(here / "data").parent.mkdir()
    token_path(here / "data").write_text("a-wrong-secret")
    token_path(here / "data").chmod(0o600)
    result = call("runs")
    assert f"the file {here / 'data' / 'admin.token'}" in result.output
    assert "a-wrong-secret" not in result.output
    for odd in ("a\nb", "é\u2026"):
        result = call("runs", "--token", odd)
        assert (result.exit_code, "is no token" in result.output) == (2, True)


def configure(here: Path, url: str = "http://127.0.0.1:1", more: str = "") -> None:
    listen = url.removeprefix("http://")
    (here / "config.toml").write_text(f'[http]\nlisten = "{listen}"\n{more}')


def test_the_configuration_says_where_the_engine_and_its_token_are(running: Running, here: Path) -> None:
    configure(here, running.url)
    result = call("runs")
    assert (result.exit_code, "there is no admin token" in result.output) == (1, True)
    token_path(here / "data").parent.mkdir()
    token_path(here / "data").write_text(TOKEN)
    token_path(here / "data").chmod(0o600)
    assert call("runs").exit_code == 0


@pytest.mark.parametrize(
    "rest",
    [
        '[triggers.a]\njob = "nobody"\non.webhook = { path = "a", verify = { github = { env = "NOT_SET" } } }\n',
        "[jobs.half]\nrun.exec = [\n",
        '[engine]\nplugins = ["folder"]\nconcurency = 3\n',
    ],
    ids=["a secret that is not set", "no TOML", "an unknown key and a broken plugin"],
)
def test_a_client_needs_of_the_configuration_where_the_engine_is_alone(
    running: Running, here: Path, capfd: pytest.CaptureFixture[str], rest: str
) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "broken.py").write_text("raise RuntimeError('broken plugin')")
    (here / "data").mkdir()
    token_path(here / "data").write_text(TOKEN)
    token_path(here / "data").chmod(0o600)
    configure(here, running.url, rest)
    assert call("check").exit_code == 2
    capfd.readouterr()
    result = call("runs")
    assert (result.exit_code, "Traceback" in result.output + capfd.readouterr().err) == (0, False), result.output
    assert str(here / "data") in call("token").output


def test_where_just_the_address_is_wrong_all_mistakes_are_told(here: Path) -> None:
    configure(here, "http://nowhere", '[jobs.a]\ntimeout = "soon"\n')
    result = call("runs")
    assert result.exit_code == 2
    assert "config.toml:2: http.listen" in result.output
    assert "jobs.a.timeout" in result.output


def test_overrides_and_later_files_say_where_the_engine_is(
    running: Running, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(here)
    (here / "later").mkdir()
    (here / "later" / "more.toml").write_text('[engine]\ndata = "kept"\n')
    (here / "later" / "kept").mkdir()
    token_path(here / "later" / "kept").write_text(TOKEN)
    token_path(here / "later" / "kept").chmod(0o600)
    monkeypatch.setenv("ENGINE__HTTP__LISTEN", running.url.removeprefix("http://"))
    monkeypatch.setenv("ENGINE__JOBS__NONE__TIMEOUT", "1s")
    files = ("--config", "config.toml", "--config", "later/more.toml")
    assert call("runs", *files).exit_code == 0
    monkeypatch.setenv("ENGINE__ENGINE__DATA", "elsewhere")
    assert f"there is no admin token in {here / 'elsewhere'}" in call("runs", *files).output


def test_the_admin_token_of_this_machine_goes_nowhere_else(here: Path) -> None:
    configure(here)
    result = call("runs", "--url", "http://192.0.2.1:8080")
    assert (result.exit_code, "give a token for http://192.0.2.1:8080" in result.output) == (2, True)


def test_where_no_engine_answers_the_way_out_is_said(here: Path) -> None:
    result = call("runs", "--url", "http://127.0.0.1:1", "--token", "x")
    assert result.exit_code == 1
    assert "no engine answers at http://127.0.0.1:1" in result.output
    assert "start it with python -m engine" in result.output
    configure(here, more=NIGHTLY)
    assert "--from 1h" not in call("why", "nightly", "--url", "http://127.0.0.1:1", "--token", "x").output
    said = call("why", "nightly", "--token", "x").output
    assert "`why nightly --from 1h` tells without it" in said
    assert "there is no store yet" in call("why", "nightly", "--from", "1h", "--token", "x").output
    result = call("runs", "--url", "nowhere", "--token", "x")
    assert (result.exit_code, "is no URL" in result.output) == (2, True)


def test_check_prints_every_problem_with_its_place(here: Path) -> None:
    configure(here, more='[jobs.a]\ntimeout = "soon"\n[trigers.x]\n')
    result = call("check")
    assert result.exit_code == 2
    assert "config.toml:4: jobs.a.timeout" in result.output
    assert "triggers" in result.output
    found = json.loads(call("check", "--json").output)
    assert found["ok"] is False
    assert {"file", "line", "path", "message", "hint"} == set(found["errors"][0])
    configure(here)
    assert call("check").exit_code == 0
    assert json.loads(call("check", "--json").output) == {"ok": True, "errors": [], "notes": [], "next": []}
    result = call("check", "--config", "missing.toml")
    assert (result.exit_code, "missing.toml" in result.output) == (2, True)


@pytest.mark.parametrize("settings", ['[engine]\ndata = "f/data"\n', '[store]\nurl = "sqlite:///f/engine.db"\n'])
def test_a_directory_that_cannot_be_made_is_one_sentence_with_the_way_out(here: Path, settings: str) -> None:
    (here / "f").touch()
    configure(here, more=settings)
    done = subprocess.run([sys.executable, "-m", "engine"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [told] = [line for line in done.stderr.splitlines() if "critical" in line]
    assert "can't be used: there is a file in place of a directory" in told
    assert "or name another one in the configuration" in told


def test_check_notes_a_timer_that_is_never_due_again(here: Path) -> None:
    configure(here, more='[jobs.a]\nrun.exec = ["true"]\n[triggers.once]\non.at = 2020-01-01T00:00:00Z\njob = "a"\n')
    said = "trigger once: its timer has no further due instant: its last instant was 2020-01-01T00:00:00Z"
    assert said in call("check").output
    assert json.loads(call("check", "--json").output) == {"ok": True, "errors": [], "notes": [said], "next": []}


NIGHTLY = """
[jobs.a]
run.exec = ["true"]
[triggers.nightly]
on.cron = { expression = "30 2 * * *", timezone = "Europe/Berlin" }
job = "a"
[triggers.once]
on.at = 2020-01-01T00:00:00Z
job = "a"
[triggers.by-hand]
on.manual = {}
job = "a"
"""


def test_check_tells_when_each_timer_is_due_next_and_what_clocks_will_do_to_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cli.upcoming.SystemClock", SteppedClock)
    configure(here, more=NIGHTLY)
    found = json.loads(call("check", "--json").output)
    (one,) = found["next"]
    assert one["trigger"] == "nightly"
    assert one["local"].endswith("[Europe/Berlin]")
    assert one["at"] == "2026-11-22T01:30:00Z"
    told = call("check").output
    assert f"  nightly  next {local_text(one['local'])} Europe/Berlin, {one['at'].replace('T', ' ')}" in told
    assert "scheduled for 02:30, runs at 03:00: the clock skips from 02:00 to 03:00" in told
    assert sum("trigger nightly, " in note for note in found["notes"]) in (2, 3)  # within 366 days


def test_next_works_without_an_engine_from_the_configuration(here: Path) -> None:
    configure(here, more=NIGHTLY)
    result = call("next", "nightly", "-n", "3", "--after", "2027-03-26T12:00:00+01:00")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == "Trigger nightly is due, in Europe/Berlin:"
    assert "Sat 2027-03-27 02:30:00+01:00  2027-03-27 01:30:00Z\n" in result.output
    assert "Sun 2027-03-28 03:00:00+02:00  2027-03-28 01:00:00Z  scheduled for 02:30, runs at 03:00" in result.output
    found = json.loads(call("next", "nightly", "--json").output)
    assert len(found) == 10
    assert set(found[0]) == {"at", "local", "note", "fires_at"}
    result = call("next", "once")
    assert (result.exit_code, "Trigger once: its timer has no further due instant" in result.output) == (0, True)


def test_a_trigger_whose_job_is_disabled_is_not_foretold_as_if_it_ran(here: Path) -> None:
    configure(here, more=NIGHTLY.replace('run.exec = ["true"]', 'run.exec = ["true"]\nenabled = false', 1))
    assert "job a is disabled" in call("next", "nightly").output
    assert json.loads(call("check", "--json").output)["next"] == []


def test_next_says_in_a_few_columns_how_much_later_each_instant_fires(here: Path) -> None:
    configure(
        here, more=NIGHTLY + '[triggers.spread]\non.cron = { expression = "0 9 * * *", jitter = "10m" }\njob = "a"\n'
    )
    found = json.loads(call("next", "spread", "-n", "1", "--json", "--after", "2026-12-01T00:00:00Z").output)
    later = datetime.fromisoformat(found[0]["fires_at"]) - datetime.fromisoformat(found[0]["at"])
    assert later > timedelta(seconds=1)
    lines = call("next", "spread", "-n", "1", "--after", "2026-12-01T00:00:00Z").output.splitlines()
    assert lines[1].split() == ["LOCAL", "UTC", "FIRES", "NOTE"]
    assert lines[2].endswith(f"  2026-12-01 09:00:00Z  +{format_span(later.total_seconds())}")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("by-hand",), 1, "trigger by-hand is on no timer but on manual"),
        (("nigthly",), 1, 'there is no trigger nigthly; did you mean "nightly"?'),
        (("nightly", "--after", "tomorrow"), 2, "--after 'tomorrow' is no time in RFC 3339"),
        (("nightly", "--after", "2027-03-28T02:00:00"), 2, "with its offset"),
        (("nightly", "-n", "0"), 2, "-n"),
        (("nightly", "-n", "1001"), 2, "-n"),
    ],
)
def test_next_refuses_what_it_can_not_tell(here: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    configure(here, more=NIGHTLY)
    result = call("next", *arguments)
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_next_asks_the_engine_where_one_runs(running: Running) -> None:
    running.do(running.operations.pause(PauseScope.TRIGGER, "nightly", reason="stock-taking"))
    result = ask(running, "next", "nightly", "-n", "2")
    assert result.exit_code == 0, result.output
    assert result.output.count("trigger nightly is paused: stock-taking") == 2
    result = ask(running, "next", "nighty")
    assert (result.exit_code, "there is no trigger 'nighty'" in result.output) == (1, True)


def test_next_takes_what_the_engine_does_not_have_yet_from_the_configuration(running: Running, here: Path) -> None:
    configure(here, running.url, NIGHTLY.replace("triggers.nightly", "triggers.daily"))
    result = call("--token", TOKEN, "next", "daily", "-n", "1")
    assert result.exit_code == 0, result.output
    assert "By the configuration:" in result.output
    assert "Trigger daily is due, in Europe/Berlin:" in result.output


def test_check_notes_that_a_timer_has_come_to_its_end_or_that_of_its_calendars(here: Path) -> None:
    more = """
        [calendars.then]
        dates = ["2020-02-01"]
        [jobs.a]
        run.exec = ["true"]
        [triggers.ended]
        on.cron = { expression = "0 2 * * *", end = "2020-01-01 12:00" }
        job = "a"
        [triggers.only-then]
        on.cron = { expression = "0 2 * * *", only = ["then"] }
        job = "a"
        """
    configure(here, more=textwrap.dedent(more))
    assert json.loads(call("check", "--json").output)["notes"] == [
        "trigger ended: nothing of it is due after its end, 2020-01-01T12:00:00Z: "
        "its last instant was 2020-01-01T02:00:00Z",
        "trigger only-then: its calendars (only then) leave none of its timer's further instants: "
        "its last instant was 2020-02-01T02:00:00Z",
    ]


def test_a_trigger_whose_source_is_broken_says_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    view = running.operations.trigger_view("nightly")
    problem = {"problem": "the file app.db is not there", "since": "2026-11-22T02:00:00Z"}
    refused = {"count": 3, "last_at": problem["since"], "last_status": 401, "last_remote": "::1", "last_reason": "no."}
    broken = {**view, "source": "database:orders", "source_problem": problem, "refused_requests": refused}
    monkeypatch.setattr(running.operations, "trigger_view", lambda name: broken)
    said = "ts source database:orders: the file app.db is not there (since 2026-11-22 02:00:00+00:00)"
    told = ask(running, "why", "nightly").output
    assert f"  I{said}." in told
    refusals = "  3 requests were refused, the last at 2026-11-22 02:00:00+00:00 from ::1 with 401: no."
    assert f"{refusals} `refusals nightly` says more." in told
    assert f"nightly: i{said}" in ask(running, "triggers").output


def test_plugins_and_schema_need_no_engine_and_no_configuration(here: Path) -> None:
    assert json.loads(call("plugins", "--json").output)["next"] is None
    assert call("plugins").output.startswith("KIND")
    schema = json.loads(call("schema").output)
    assert schema["additionalProperties"] is False
    assert "http" in schema["properties"]


def test_token_tells_where_it_is_shows_it_on_request_and_makes_a_new_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(here)
    assert call("token").exit_code == 1
    (here / "data").mkdir()
    assert call("token", "rotate").exit_code == 0
    first = token_path(here / "data").read_text().strip()
    result = call("token")
    assert (str(token_path(here / "data")) in result.output, first in result.output) == (True, False)
    assert call("token", "--show").output.strip() == first
    assert "token" not in json.loads(call("token", "--json").output)
    assert call("token", "rotate", "--show").output.strip() != first
    monkeypatch.setenv("ENGINE_ADMIN_TOKEN", "x" * 20)
    result = call("token", "rotate")
    assert (result.exit_code, "change it there" in result.output) == (1, True)


def make_store(here: Path) -> None:
    from engine.store.sqlite import SqliteStore

    async def make() -> None:
        store = SqliteStore(here / "data" / "engine.db")
        await store.open()
        await store.close()

    asyncio.run(make())


def test_doctor_reads_the_store_itself_where_no_engine_runs(here: Path) -> None:
    configure(here)
    make_store(here)
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "accepted 0  ended 0  waiting 0  purged 0  missing 0" in result.output
    file = here / "data" / "engine.db"
    assert f"note engine: it does not run; the store was read from its file, {file}" in result.output
    file.write_bytes(b"this is no store" * 1000)
    result = call("doctor")
    assert (result.exit_code, "BAD  integrity:" in result.output) == (1, True), result.output
    assert "ledger" not in result.output, "a ledger that could not be read is not said to add up"


def test_doctor_says_that_there_is_no_store_and_that_nothing_was_read(here: Path) -> None:
    configure(here)
    result = call("doctor", "--json")
    found = json.loads(result.output)
    assert (result.exit_code, found["ok"], found["ledger"]) == (1, False, None)
    assert [(one["name"], one["ok"]) for one in found["checks"]] == [("store_file", False), ("engine", True)]
    text = call("doctor").output
    assert f"BAD  store_file: there is none in {here / 'data' / 'engine.db'}, and nothing that an engine left" in text
    assert "note engine: it does not run\n" in text
    assert ("was read" in text, "whole" in text, "accepted" in text) == (False, False, False)


def test_doctor_tells_a_store_that_is_missing_from_one_that_never_was(here: Path) -> None:
    configure(here)
    make_store(here)
    file = here / "data" / "engine.db"
    (here / "data" / "logs").mkdir()
    file.rename(here / "engine.db")
    result = call("doctor")
    assert result.exit_code == 1
    assert "but what an engine leaves is there (engine.db.lock, logs): put the file" in result.output
    Path(f"{file}-wal").write_bytes(b"rows")
    result = call("doctor")
    assert (result.exit_code, "its write-ahead log engine.db-wal is there: put it back" in result.output) == (1, True)


def test_an_engine_that_runs_at_another_address_is_not_said_to_be_away(here: Path) -> None:
    timer = '[jobs.j.run.exec]\ncommand = ["true"]\n[triggers.t]\non.interval = "1h"\njob = "j"\n'
    configure(here, more=timer)
    make_store(here)
    token_path(here / "data").write_text(TOKEN)
    token_path(here / "data").chmod(0o600)
    lock = Lock(here / "data" / "engine.lock", "the data directory")
    try:
        held = f"process {os.getpid()} holds {here / 'data'}, so an engine runs; it has only begun to start or to end"
        for arguments in (("runs",), ("token", "create", "x"), ("next", "t"), ("why", "t", "--from", "1h")):
            result = call(*arguments)
            said = result.output + result.stderr
            assert held in " ".join(said.split()), arguments
            assert "start it with python -m engine" not in said
            assert result.exit_code == (0 if arguments[0] in ("next", "why") else 1), said
        result = call("doctor", "--json")
        found = json.loads(result.output)
        assert (result.exit_code, found["ok"], found["ledger"]["missing"]) == (1, False, 0)
        engine = found["checks"][-1]
        assert (engine["name"], engine["ok"]) == ("engine", False)
        assert engine["detail"].startswith("no engine answers at http://127.0.0.1:1 (")
        assert held in engine["detail"]
        token_path(here / "data").unlink()
        result = call("doctor")
        assert result.exit_code == 1
        assert (
            f"BAD  engine: process {os.getpid()} holds {here / 'data'}, but can't be asked: there is" in result.output
        )
    finally:
        lock.release()
    result = call("doctor")
    assert (result.exit_code, "note engine: it does not run;" in result.output) == (0, True), result.output


def test_help_starts_without_the_engine_and_the_module_runs(here: Path) -> None:
    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from engine.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'cel', 'rich', 'tree_sitter', 'aiosqlite', 'engine.config'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in ("serve", "fire", "why", "doctor", "token"))
    done = subprocess.run([sys.executable, "-m", "engine", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "config.toml" in done.stderr


def test_a_folder_plugins_in_the_working_directory_hides_no_built_in_plugin(here: Path) -> None:
    (here / "plugins").mkdir()
    (here / "plugins" / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    command = [sys.executable, "-m", "engine", "plugins", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["items"]
    assert {"cron", "webhook", "exec"} <= {one["name"] for one in found if one["ok"]}


def test_modules_of_the_working_directory_are_found_before_those_beside_the_engine(here: Path) -> None:
    (here / "tests.py").write_text("")
    code = "import engine.cli; engine.cli.find_own_packages(); import tests; print(tests.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(here / "tests.py"), done.stderr


def test_a_table_on_a_terminal_shows_text_and_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    one = new_id()
    say_table(("run", "reason"), [[one, "[red]not red[/red] \x1b[31m" + "x" * 100], ["b", None]])
    shown = capsys.readouterr().out
    assert one in shown
    assert "[red]not red[/red] \\x1b[31m" in shown
    assert "\x1b[31m" not in shown


SENTENCE = "failed: attempt 3 of 3 exited with 1, and no further attempt is left to it"
COLUMNS = ("run", "trigger", "job", "state", "created", "reason")


def drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, run: str, trigger: str
) -> list[str]:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    row = [run, trigger, "import-csv", "timed_out", "2026-11-21 02:00:00+00:00", SENTENCE]
    say_table(COLUMNS, [row], optional=("job", "created"))
    return Text.from_ansi(capsys.readouterr().out).plain.splitlines()


@pytest.mark.parametrize("trigger", ["nightly", "new-orders-of-the-shop-in-hamburg"])
@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_table_that_is_drawn_is_readable_on_every_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, trigger: str
) -> None:
    one = new_id()
    lines = drawn(capsys, monkeypatch, width, one, trigger)
    assert max(map(len, lines)) <= width
    assert lines[0].split() == [name for name in COLUMNS if name in lines[0]]
    assert lines[1].startswith(f"{one}  ")
    at = lines[0].index("reason")
    assert " ".join(line[at:].strip() for line in lines[1:] if line[at:].strip()) == SENTENCE


@pytest.mark.parametrize(
    ("width", "headings"), [(80, "run trigger state reason"), (110, "run trigger state created reason")]
)
def test_columns_that_a_terminal_has_no_room_for_are_left_out_in_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, headings: str
) -> None:
    assert drawn(capsys, monkeypatch, width, new_id(), "nightly")[0].split() == headings.split()
    assert drawn(capsys, monkeypatch, 200, new_id(), "nightly")[0].split() == list(COLUMNS)


def test_a_trigger_is_paused_and_resumed(running: Running) -> None:
    result = ask(running, "pause", "nightly", "--reason", "stock-taking", "--until", "2999-01-01T00:00:00Z")
    assert (result.exit_code, result.output.splitlines()[0]) == (
        0, "Trigger nightly is paused until 2999-01-01 00:00:00+00:00"
    )  # fmt: skip
    assert "replay --trigger nightly --outcome paused --from TIME runs them then" in result.output
    assert running.operations.paused["nightly"].reason == "stock-taking"
    assert json.loads(ask(running, "pause", "nightly", "--for", "30m", "--json").output)["state"] == "paused"
    assert "until it is resumed" in ask(running, "pause", "nightly").output
    result = ask(running, "resume", "nightly")
    assert (result.exit_code, result.output) == (0, "Trigger nightly is active\n")
    assert ask(running, "pause", "nightly", "--for", "soon").exit_code == 2
    ask(running, "pause", "nightly", "--until", "2999-01-01T12:00")
    assert running.operations.paused["nightly"].until == datetime(2999, 1, 1, 12).astimezone(UTC)  # a local time
    result = ask(running, "pause", "nightly", "--until", "tomorrow")
    assert (result.exit_code, "until must be a time" in result.output) == (2, True)
    assert ask(running, "resume", "nigtly").exit_code == 1


def test_the_engine_and_a_tag_are_paused_and_resumed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    result = ask(running, "pause", "--all", "--reason", "move")
    assert result.output.startswith("The engine is paused until it is resumed\n  It holds for nightly\n")
    assert running.operations.paused["engine:"].who == "admin token, for ann"
    assert ask(running, "pause", "--tag", "night", "--until", "2999-01-01T00:00:00Z").output.startswith(
        "Tag night is paused until 2999-01-01 00:00:00+00:00\n"
    )
    result = ask(running, "resume", "--all")
    assert result.output.startswith("The engine is resumed\n  Still: tag night is paused since 2026-11-21 09:30:00")
    assert json.loads(ask(running, "resume", "--tag", "night", "--json").output)["resumed"] is True
    assert ask(running, "resume", "--all").output == "The engine was not paused\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("what", [[], ["nightly", "--all"], ["--tag", "x", "--all"], ["nightly", "--tag", "x"]])
def test_what_is_paused_has_to_be_said(running: Running, command: str, what: list[str]) -> None:
    result = ask(running, command, *what)
    assert result.exit_code == 2
    assert f"say what to {command}: the NAME of a trigger, --tag TAG, or --all for the engine" in result.output
    assert running.operations.paused == {}


def test_the_list_of_triggers_says_what_is_paused(running: Running) -> None:
    ask(running, "pause", "nightly", "--reason", "stock-taking")
    told = ask(running, "triggers").output
    assert "Trigger nightly is paused since 2026-11-21 09:30:00" in told
    assert ": stock-taking" in told


def test_the_list_of_triggers_says_when_each_fires_next_and_not_of_what_is_paused_then(running: Running) -> None:
    running.operations.fires_at = "2026-11-22T02:04:43Z"
    fires = local(running.operations.fires_at)
    assert f"active  {fires}  " in ask(running, "triggers").output
    ask(running, "pause", "nightly", "--until", "2026-11-22T02:04:00Z", "--reason", "stock-taking")
    assert f"paused  {fires}  " in ask(running, "triggers").output
    ask(running, "pause", "nightly", "--until", "2026-11-22T02:05:00Z", "--reason", "stock-taking")
    assert str(fires) not in ask(running, "triggers").output


def test_an_adapted_interval_is_shown_with_what_it_goes_by_and_its_changes(running: Running) -> None:
    result = ask(running, "adaptive", "nightly")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "Trigger nightly: every 1h30m, configured 1h, 30m to 4h",
        "  lengthened from 1h to 1h30m: 0% of the runs succeed, at least 95% should",
        "  seen since the last change, in 2 runs:",
        "    success_rate   0.5, at least 0.95",
        "    duration       nothing yet, at most 45m",
        "AT                         FROM  TO     RULE          REASON",
        "2026-11-21 09:00:00+00:00  1h    1h30m  success_rate  "
        "lengthened from 1h to 1h30m: 0% of the runs succeed, at least 95% should",
    ]
    view = running.operations.adaptive["nightly"]
    view |= {"mode": "shadow", "in_force_s": 3600.0, "frozen": {"since": "2026-11-21T09:00:00Z", "reason": "audit"}}
    lines = ask(running, "adaptive", "nightly").output.splitlines()
    assert lines[1] == "  its source looks every 1h, as another trigger on it wants that"
    assert lines[2] == "  shadow: it is only said what would be done"
    assert lines[3] == "  frozen since 2026-11-21 09:00:00+00:00: audit"
    assert json.loads(ask(running, "adaptive", "nightly", "--json").output) == view


def test_an_adapted_interval_is_frozen_unfrozen_and_reset(running: Running) -> None:
    assert ask(running, "adaptive", "nightly", "--freeze", "--reason", "the audit").exit_code == 0
    assert ask(running, "adaptive", "nightly", "--unfreeze").exit_code == 0
    assert ask(running, "adaptive", "nightly", "--reset").exit_code == 0
    assert running.operations.adapted == [
        ("nightly", "freeze", "the audit"), ("nightly", "unfreeze", ""), ("nightly", "reset", ""),
    ]  # fmt: skip
    assert ask(running, "adaptive", "nightly", "--freeze", "--reset").exit_code == 2
    assert ask(running, "adaptive", "nightly", "--reason", "x").exit_code == 2
    assert ask(running, "adaptive", "unknown").exit_code == 1


def test_one_thing_is_done_with_many_triggers(running: Running) -> None:
    done = ask(running, "bulk", "pause", "nightly", "none", "--reason", "the move", "--for", "2h")
    assert (done.exit_code, done.stdout) == (1, "1 trigger is paused\n")
    assert "none: " in done.stderr
    assert running.operations.paused["nightly"].reason == "the move"
    done = ask(running, "bulk", "resume", "--all", "--json")
    assert (done.exit_code, json.loads(done.stdout)["count"]) == (0, 1)
    fired = ask(running, "bulk", "fire", "--tag", "warehouse", "--data", '{"id": 7}', "--priority", "9")
    assert fired.stdout.startswith("1 trigger is fired\n  nightly: ")
    assert (running.operations.fired[0]["data"], running.operations.fired[0]["priority"]) == ({"id": 7}, 9)
    assert ask(running, "bulk", "pause", "nightly", "none", "--atomic").exit_code == 1
    assert running.operations.paused == {}
    for wrong in (("melt", "nightly"), ("pause",), ("pause", "nightly", "--all"), ("resume", "--all", "--for", "1h"),
                  ("fire", "--all", "--data", "{")):  # fmt: skip
        assert ask(running, "bulk", *wrong).exit_code == 2, wrong
