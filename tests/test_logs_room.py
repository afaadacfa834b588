"""The log as a whole: what stands in a record, levels that go back by themselves, and readers who do not read."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from engine import ConfigError
from engine.config import load
from engine.logids import IDS
from engine.loglevels import LIBRARIES, PARTS, LogLevels, mistake_in
from engine.logs import JsonFormatter, LineFormatter, Masker
from engine.logsink import MOST_WAITING_BYTES, Sink
from engine.testing import VirtualClock
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.log_actions import logged
from tests.test_cli import Running, ask, here, running  # noqa: F401 - fixtures

HOSTILE = 'a\r\n2026-01-01T00:00:00Z error fake\x1b[2J\x9b\u202e"\u2028'


def record(message: str = "odd", **extra: object) -> logging.LogRecord:
    given = {"msg": message, "levelno": 30, "levelname": "WARNING", "created": 1.5, "name": "engine.run", **extra}
    return logging.makeLogRecord(given)


def parsed(made: logging.LogRecord, *secrets: str) -> dict[str, object]:
    line = JsonFormatter(Masker(secrets)).format(made)
    assert line.isascii()
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


# Records


def test_a_json_record_has_time_level_part_action_and_ids() -> None:
    assert parsed(record(action="run_ended", run="r1", count=3, rate=0.5, ok=True, place=Path("/x"))) == {
        "time": "1970-01-01T00:00:01.500Z", "level": "warning", "part": "engine.run", "message": "odd",
        "action": "run_ended", "run": "r1", "count": 3, "rate": 0.5, "ok": True, "place": "/x",
    }  # fmt: skip


def test_what_others_wrote_neither_breaks_a_line_nor_steers_a_terminal() -> None:
    error: BaseException
    try:
        raise ValueError(HOSTILE)
    except ValueError as raised:
        error = raised
    made = record(HOSTILE, subject=HOSTILE, exc_info=(type(error), error, error.__traceback__), nan=float("nan"))
    assert parsed(made)["message"] == HOSTILE
    line = LineFormatter(Masker()).format(made)
    assert all(part.isprintable() for part in line.split("\n"))
    # Each line break is one of the traceback's own, never one of the sentence.
    assert "error fake" in line.split("\n")[0]


@pytest.mark.parametrize(
    "written",
    ["hunter2/hunter2 +ü", "hunter2%2Fhunter2%20%2B%C3%BC", "hunter2/hunter2%20%2B%C3%BC",
     "hunter2%2Fhunter2+%2B%C3%BC", "aHVudGVyMi9odW50ZXIyICvDvA==", "aHVudGVyMi9odW50ZXIyICvDvA"],
)  # fmt: skip
def test_a_secret_is_hidden_however_it_is_written(written: str) -> None:
    secret = "hunter2/hunter2 +ü"
    for formatter in (JsonFormatter(Masker([secret])), LineFormatter(Masker([secret]))):
        line = formatter.format(record(f"to https://x/?k={written} sent", url=written))
        assert "***" in line
        assert "hunter2" not in line
        assert "aHVudGVyMi9" not in line


def test_a_secret_of_several_lines_and_with_quotes_is_hidden() -> None:
    secret = 'begin "key"\nsecond line\nend'
    for formatter in (JsonFormatter(Masker([secret])), LineFormatter(Masker([secret]))):
        assert "second line" not in formatter.format(record(f"read {secret}", stack=f"at\n{secret}\n"))


def test_every_record_has_a_stable_action() -> None:
    found = logged()
    assert len(found) > 150
    assert not [one for one in found if one.action is None or not re.fullmatch(r"[a-z][a-z_.]+", one.action)]


def test_each_part_that_logs_has_a_level_of_its_own() -> None:
    assert {one.part for one in logged()} <= PARTS
    assert mistake_in("engine.htp") == "there is no part engine.htp of the engine; did you mean engine.http?"
    assert not any(map(mistake_in, [*PARTS, *LIBRARIES, "plugins.mine", "sqlalchemy.pool"]))


# The sink


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("tests.sink")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()


def fill(descriptor: int) -> None:
    """Fill a pipe."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)


def wait_until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_who_has_stopped_stops_nobody_and_is_told_what_was_left_out(logger: logging.Logger) -> None:
    reader, writer = os.pipe()
    fill(writer)
    sink = Sink(writer, lambda one: one.getMessage())
    logger.addHandler(sink)
    text = "y" * 100_000
    for number in range(200):
        logger.warning("%d %s", number, text)
    assert sink.waiting_bytes <= MOST_WAITING_BYTES
    found: list[bytes] = []

    def read() -> None:
        while chunk := os.read(reader, 1 << 20):
            found.append(chunk)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_until(lambda: b"left out" in b"".join(found[-2:]) or b"left out" in b"".join(found))
    lines = b"".join(found).lstrip(b"x").split(b"\n")
    numbers = [int(line.split()[0]) for line in lines if line.endswith(b"yyy")]
    assert numbers == list(range(len(numbers)))  # in their order, and none in halves
    assert f"{200 - len(numbers)} records are left out".encode() in b"".join(found)
    logger.warning("200 again")
    wait_until(lambda: b"200 again" in b"".join(found))
    os.close(writer)
    thread.join(20)
    os.close(reader)


def test_a_line_into_a_file_or_a_pipe_that_takes_it_is_there_at_once(logger: logging.Logger, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    logger.addHandler(Sink(descriptor, lambda one: one.getMessage()))
    logger.warning("a" * 100_000)
    logger.warning("b")
    assert (tmp_path / "log").read_text() == "a" * 100_000 + "\nb\n"
    os.close(descriptor)
    reader, writer = os.pipe()
    logger.handlers[:] = [Sink(writer, lambda one: one.getMessage())]
    logger.warning("now")
    assert os.read(reader, 100) == b"now\n"
    os.close(reader)
    logger.warning("nobody reads")  # EPIPE
    os.close(writer)
    logger.warning("it is closed")  # EBADF


def test_a_record_that_can_not_be_shown_is_told_of() -> None:
    reader, writer = os.pipe()
    Sink(writer, LineFormatter(Masker()).format).emit(record("%d", args=("no number",)))
    assert b"can't be shown: TypeError" in os.read(reader, 1000)
    os.close(reader)
    os.close(writer)


async def test_records_get_the_ids_of_where_they_are_made(logger: logging.Logger) -> None:
    reader, writer = os.pipe()
    logger.addHandler(Sink(writer, JsonFormatter(Masker()).format))

    async def work(run: str) -> None:
        IDS.set({"run": run, "event": None})
        await anyio.lowlevel.checkpoint()
        logger.warning("odd", extra={"action": "odd"})

    async with anyio.create_task_group() as group:
        group.start_soon(work, "r1")
        group.start_soon(work, "r2")
    logger.warning("outside", extra={"run": "mine"})
    lines = [json.loads(line) for line in os.read(reader, 10_000).splitlines()]
    assert [(line.get("run"), line["message"]) for line in lines] == [
        ("r1", "odd"), ("r2", "odd"), ("mine", "outside")
    ]  # fmt: skip
    assert "event" not in lines[0]
    os.close(reader)
    os.close(writer)


# Levels


async def test_a_level_that_is_changed_for_a_time_goes_back_by_itself_and_at_the_end_all_do() -> None:
    clock = VirtualClock()
    levels = LogLevels(clock, level="info", levels={"engine.steering": "error"})
    levels.apply()
    steering, http = logging.getLogger("engine.steering"), logging.getLogger("engine.timers")
    async with anyio.create_task_group() as group:
        group.start_soon(levels.run)
        await clock.advance(0)
        levels.change({"engine.steering": "debug", "engine.timers": "debug"}, for_s=600, who="me")
        levels.change({"engine.timers": "warning"})
        assert (steering.level, http.level) == (logging.DEBUG, logging.WARNING)
        assert levels.view()["changed"]["engine.steering"]["who"] == "me"
        for _ in range(21):
            await clock.advance(30)
        assert (steering.level, http.level) == (logging.ERROR, logging.WARNING)
        levels.change({"engine.timers": None})
        assert http.level == logging.NOTSET
        levels.change({"engine.steering": "debug"})
        group.cancel_scope.cancel()
    assert steering.level == logging.ERROR
    steering.setLevel(logging.NOTSET)


def test_another_configuration_holds_at_once_but_where_people_changed_something() -> None:
    levels = LogLevels(VirtualClock(), level="info", levels={"engine.steering": "error"})
    steering, shared, pools = (logging.getLogger(f"engine.{name}") for name in ("steering", "shared", "pools"))
    levels.apply()
    levels.change({"engine.pools": "debug"})
    levels.configure("info", {"engine.shared": "warning", "engine.pools": "error"})
    assert (steering.level, shared.level, pools.level) == (logging.NOTSET, logging.WARNING, logging.DEBUG)
    levels.change({"engine.pools": None})
    assert pools.level == logging.ERROR
    levels.configure("info", {})
    assert (shared.level, pools.level) == (logging.NOTSET, logging.NOTSET)


async def test_the_api_shows_and_changes_levels(operations: FakeOperations, client: Client) -> None:
    answer = await client.ask("PATCH", "/api/v1/logs/levels", body={"levels": {"engine.pools": "debug"}, "for": "10m"})
    assert answer.json["changed"]["engine.pools"]["level"] == "debug"
    assert (await client.ask("GET", "/api/v1/logs/levels")).json == answer.json
    wrongs: list[dict[str, object]] = [
        {}, {"levels": {}}, {"levels": {"engine.pool": "debug"}}, {"levels": {"engine.pools": "loud"}},
        {"levels": {"engine.pools": "debug"}, "for": "8d"}, {"levels": ["engine.pools"]},
    ]  # fmt: skip
    for wrong in wrongs:
        assert (await client.ask("PATCH", "/api/v1/logs/levels", body=wrong)).status == 422
    reset = await client.ask("PATCH", "/api/v1/logs/levels", body={"levels": {"engine.pools": None}})
    assert reset.json["changed"] == {}


def test_the_command_shows_and_changes_levels(running: Running) -> None:  # noqa: F811
    assert "engine.http" in ask(running, "log-level").stdout
    changed = ask(running, "log-level", "engine.pools=debug", "--for", "10m")
    assert changed.exit_code == 0, changed.output
    assert "debug" in changed.stdout
    assert ask(running, "log-level", "engine.pools=").exit_code == 0
    assert ask(running, "log-level", "engine.pools").exit_code == 2
    assert ask(running, "log-level", "--for", "10m").exit_code == 2
    wrong = ask(running, "log-level", "engine.pool=debug")
    assert (wrong.exit_code, "engine.pools" in wrong.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('levels = { "engine.htp" = "debug" }', "did you mean engine.http"),
        ('level = "loud"', "logs.level"),
        ('format = "xml"', "logs.format"),
        ('levels = { "engine.http" = "loud" }', "engine.http"),
    ],
)
def test_what_is_wrong_in_the_table_is_told(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[logs]\n{text}\n")
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load([file], environment={})


def test_an_engine_whose_log_nobody_reads_starts_answers_and_stops(tmp_path: Path) -> None:
    from tests.bench.processes import free_port

    port = free_port()
    (tmp_path / "config.toml").write_text(
        f"""
        [engine]
        data = "data"
        [http]
        listen = "127.0.0.1:{port}"
        [logs]
        format = "json"
        level = "debug"
        """
    )
    import subprocess
    import urllib.error
    import urllib.request

    process = subprocess.Popen(
        [sys.executable, "-m", "engine"], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert process.stderr is not None

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    try:
        wait_until(answers)
        for _ in range(600):  # each is a record of some 250 bytes: more than the pipe holds
            assert answers()
        process.terminate()
        first = json.loads(process.stderr.readline())
        rest = process.stderr.read().splitlines()
        assert process.wait(30) == 0
        actions = [json.loads(line)["action"] for line in rest]
        assert first["action"] == "config_read"
        assert actions.count("http_request") >= 600
        assert actions[-1] == "stopped"
    finally:
        process.kill()
        process.stderr.close()
