"""The conditions that come with the engine: each against the world that it looks at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from engine.clock import SystemClock
from engine.plugin import Answer, BadSetting, Condition, ConditionContext, LastRun, RunState, Secret, Verdict
from engine.testing import CheckFailed, VirtualClock, check_condition
from plugins.conditions.exec import Exec
from plugins.conditions.expression import Evaluated
from plugins.conditions.file import File
from plugins.conditions.fresh import Fresh
from plugins.conditions.http import Answers
from plugins.conditions.last_run import LastRunOf
from plugins.conditions.query import Query
from plugins.conditions.resources import Resources
from plugins.conditions.tcp import Tcp
from plugins.conditions.window import Within

PASS, HOLD, SKIP = Answer.PASS, Answer.HOLD, Answer.SKIP


async def real(condition: Condition, base: Path = Path("/nonexistent"), **more: Any) -> Verdict:
    return await check_condition(condition, base=base, clock=SystemClock(), **more)


# tcp


async def test_a_port_that_takes_connections_passes_and_one_that_does_not_holds() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    found = await real(Tcp(address=f"{host}:{port}"))
    assert (found.answer, found.reason) == (PASS, f"127.0.0.1:{port} takes connections")
    assert found.value["ms"] >= 0
    server.close()
    await server.wait_closed()
    found = await real(Tcp(address=f"{host}:{port}"))
    assert (found.answer, found.reason) == (HOLD, "connection refused")


async def test_a_name_that_is_none_holds() -> None:
    found = await real(Tcp(address="nowhere.invalid:80"))
    assert found.answer is HOLD
    assert found.reason.startswith("nowhere.invalid can't be resolved")


@pytest.mark.parametrize("address", ["db", "db:0", "db:70000", ":80", "http://db:80", "169.254.169.254:80", "127.1:80"])
def test_what_is_no_place_is_refused(address: str) -> None:
    with pytest.raises(BadSetting):
        Tcp(address=address)


# http


@contextlib.asynccontextmanager
async def serving(status: int, body: str = "{}") -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("status", "expected"), [(200, PASS), (204, PASS), (302, HOLD), (503, HOLD)])
async def test_a_url_passes_by_its_status(status: int, expected: Answer) -> None:
    async with serving(status) as url:
        found = await real(Answers(url=f"{url}/health", allow_private=True))
        assert (found.answer, found.value) == (expected, status)


async def test_a_url_passes_by_what_is_expected_of_its_body() -> None:
    async with serving(200, '{"status": "green", "lag": 3}') as url:
        for expect, expected in (("body.lag < 5", PASS), ("body.lag > 5", HOLD), ("body.nothing", HOLD)):
            found = await real(Answers(url=url, expect=expect, allow_private=True))
            assert (found.answer, found.value) == (expected, 200), expect


async def test_what_is_secret_of_a_url_is_not_told() -> None:
    found = await real(Answers(url=Secret("http://127.0.0.1:1/key-sesame?token=sesame"), allow_private=True))
    assert found.answer is HOLD
    assert "sesame" not in found.reason
    assert "127.0.0.1:1" in found.reason


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://169.254.169.254/latest", "http://localhost/", "ftp://x/"])
def test_a_url_that_leads_inside_is_refused_where_nobody_said_so(url: str) -> None:
    with pytest.raises(BadSetting):
        Answers(url=url)


def test_a_wrong_expectation_is_refused() -> None:
    with pytest.raises(BadSetting, match="unknown name"):
        Answers(url="https://example.org", expect="stauts == 200")


# exec


@pytest.mark.parametrize(("code", "expected"), [(0, PASS), (1, HOLD), (75, SKIP)])
async def test_a_program_passes_by_its_exit_code_and_tells_its_first_line(
    tmp_path: Path, code: int, expected: Answer
) -> None:
    command = ("sh", "-c", f"echo hello; echo more >&2; exit {code}")
    found = await real(Exec(command=command, skip_codes=(75,)), tmp_path)
    assert (found.answer, found.reason) == (expected, f"exited with {code}: hello")
    assert found.value == {"exit_code": code, "output": "hello"}


async def test_a_program_gets_little_of_the_engine_and_runs_where_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_ADMIN_TOKEN", "sesame")
    (tmp_path / "sub").mkdir()
    command = ("sh", "-c", 'echo "$(basename "$PWD") $LEVEL $ENGINE_ADMIN_TOKEN."')
    found = await real(Exec(command=command, cwd="sub", env={"LEVEL": "7"}), tmp_path)
    assert found.value["output"] == "sub 7 ."


async def test_a_program_that_takes_too_long_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    command = ("sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(CheckFailed, match="no answer within 300ms"):
        await real(Exec(command=command), tmp_path, timeout_s=0.3)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return
        # A zombie is gone for us: who reaps it, here in a container, may be nobody.
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it goes on")


async def test_a_grandchild_that_keeps_the_output_open_does_not_keep_the_check(tmp_path: Path) -> None:
    found = await real(Exec(command=("sh", "-c", "sleep 60 & echo done")), tmp_path)
    assert found.reason == "exited with 0: done"


async def test_a_program_that_is_not_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="no-such-program can't be started: No such file or directory"):
        await real(Exec(command=("no-such-program",)), tmp_path)


@pytest.mark.parametrize("fields", [{"command": ()}, {"command": ("a\0b",)}, {"command": ("a",), "skip_codes": (0,)}])
def test_a_command_that_can_not_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Exec(**fields)


# query


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("create table load (at text, rows integer)")
        connection.execute("insert into load values ('2026-01-05T11:00:00Z', 7)")
        connection.commit()
    return tmp_path


def asked(query: str, **fields: Any) -> Query:
    return Query(url="sqlite+aiosqlite:///app.db", query=query, **fields)


@pytest.mark.parametrize(
    ("condition", "expected", "reason"),
    [
        (asked("select rows from load"), PASS, "the query gives 7"),
        (asked("select 0"), HOLD, "the query gives 0"),
        (asked("select rows from load where rows > 9"), HOLD, "the query gives no row"),
        (asked("select rows from load", min=5), PASS, "the query gives 7"),
        (asked("select rows from load", min=8), HOLD, "7 is less than 8 (min)"),
        (asked("select rows from load", max=6), HOLD, "7 is more than 6 (max)"),
        (asked("select at from load", max=6), HOLD, "the query gives '2026-01-05T11:00:00Z', and no number"),
        (
            asked("select rows from load", expect="value == 7"),
            PASS,
            "value == 7 is true",
        ),
        (asked("select 1 where 0", expect="true"), HOLD, "the query gives no row"),
    ],
)
async def test_a_query_passes_by_its_first_value(
    database: Path, condition: Query, expected: Answer, reason: str
) -> None:
    found = await real(condition, database)
    assert (found.answer, found.reason) == (expected, reason)


async def test_a_database_that_is_away_is_no_answer_and_tells_no_secret(tmp_path: Path) -> None:
    condition = Query(url=Secret("sqlite+aiosqlite:///sesame.db"), query="select 1")
    with pytest.raises(CheckFailed, match="is not there") as caught:
        await real(condition, tmp_path)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("query", ["delete from load", "select 1; drop table load", "select 1 where x > :cursor", ""])
def test_a_query_that_does_more_than_read_is_refused(query: str) -> None:
    with pytest.raises(BadSetting):
        asked(query)


# file and fresh


async def test_a_file_passes_by_being_there_and_by_its_age(tmp_path: Path) -> None:
    path = tmp_path / "done"
    absent = await real(File(path=Path("done")), tmp_path)
    assert (absent.answer, absent.reason) == (HOLD, "done is not there")
    assert (await real(File(path=Path("done"), exists=False), tmp_path)).answer is PASS
    path.touch()
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert (await real(File(path=Path("done")), tmp_path)).answer is PASS
    assert (await real(File(path=Path("done"), exists=False), tmp_path)).answer is HOLD
    for fields, expected in (
        ({"older": 3600.0}, PASS), ({"older": 9000.0}, HOLD), ({"newer": 3600.0}, HOLD), ({"newer": 9000.0}, PASS),
    ):  # fmt: skip
        found = await real(File(path=Path("done"), **fields), tmp_path)  # type: ignore[arg-type]
        assert found.answer is expected, fields
        assert found.reason.startswith("done was written 2h ago")


async def test_data_is_fresh_by_a_file_a_query_or_a_job(database: Path) -> None:
    clock = VirtualClock()  # it begins at noon of 2026-01-05, or says when
    now = clock.now()
    path = database / "export.csv"
    path.touch()
    os.utime(path, (now.timestamp() - 600, now.timestamp() - 600))
    ended = LastRun(run="r", state=RunState.SUCCEEDED, finished_at=now - timedelta(seconds=600))

    async def look(condition: Fresh) -> Verdict:
        return await check_condition(condition, base=database, clock=clock, last_runs={"import": ended})

    whats: tuple[dict[str, Any], ...] = ({"file": Path("export.csv")}, {"job": "import"})
    for what in whats:
        assert (await look(Fresh(max_age=700.0, **what))).answer is PASS
        found = await look(Fresh(max_age=500.0, **what))
        assert found.answer is HOLD
        assert found.reason.endswith("10m ago, which is more than 8.3m")
    assert (await look(Fresh(max_age=500.0, job="other"))).reason == "other has not succeeded yet"
    assert (await look(Fresh(max_age=500.0, file=Path("no")))).answer is HOLD
    url = "sqlite+aiosqlite:///app.db"
    system = SystemClock()
    for query, expected in (
        ("select at from load", HOLD), (f"select {time.time() - 10}", PASS), ("select 'soon'", HOLD),
        ("select at from load where 0", HOLD), (f"select '{datetime.now(UTC).isoformat()}'", PASS),
    ):  # fmt: skip
        fresh = Fresh(max_age=60.0, url=url, query=query)
        assert (await check_condition(fresh, base=database, clock=system)).answer is expected, query


@pytest.mark.parametrize(
    "fields", [{}, {"file": Path("a"), "job": "b"}, {"query": "select 1"}, {"url": "sqlite+aiosqlite:///a", "job": "b"}]
)
def test_what_is_to_be_fresh_is_said_once(fields: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Fresh(max_age=60.0, **fields)


# resources and expression


async def test_the_machine_has_room_or_it_has_not(tmp_path: Path) -> None:
    roomy = Resources(cpu_max=1.0, memory_max=1.0, disk_max=1.0, load_max=1e9, path=tmp_path)
    found = await real(roomy, tmp_path)
    assert found.answer is PASS
    assert sorted(found.value) == ["cpu", "disk", "load", "memory"]
    found = await real(Resources(memory_max=0.0001, load_max=1e9), tmp_path)
    assert found.answer is HOLD
    assert found.reason.startswith("memory ")
    assert "above 0%" in found.reason
    with pytest.raises(BadSetting):
        Resources()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("now > timestamp('2020-01-01T00:00:00Z')", PASS), ("memory > 2.0", HOLD), ("load >= 0.0", PASS)],
)
async def test_an_expression_passes_while_it_is_true(expression: str, expected: Answer) -> None:
    assert (await real(Evaluated(expression=expression))).answer is expected


@pytest.mark.parametrize("expression", ["data.x > 1", "now >", "mermory > 1.0"])
def test_an_expression_with_mistakes_is_refused(expression: str) -> None:
    with pytest.raises(BadSetting):
        Evaluated(expression=expression)


async def test_an_expression_that_is_no_truth_is_no_answer() -> None:
    with pytest.raises(CheckFailed):
        await real(Evaluated(expression="memory + 1.0"))


# last_run


async def test_the_last_run_of_a_job_lets_pass_by_its_outcome_and_age() -> None:
    clock = VirtualClock()
    ended = LastRun(
        run="r", state=RunState.FAILED, finished_at=clock.now() - timedelta(hours=2), reason="exited with 3"
    )  # fmt: skip

    async def look(**fields: Any) -> tuple[Answer, str]:
        found = await check_condition(LastRunOf(job="load", **fields), clock=clock, last_runs={"load": ended})
        return found.answer, found.reason

    assert await look() == (HOLD, "the last run of load failed: exited with 3")
    assert (await look(outcome="failed"))[0] is PASS
    assert (await look(outcome="any", within=9000.0))[0] is PASS
    assert (await look(outcome="any", within=3600.0))[0] is HOLD
    assert (await look(outcome="any", older=9000.0))[0] is HOLD
    missing = await check_condition(LastRunOf(job="other"))
    assert (missing.answer, missing.reason) == (HOLD, "no run of other has ended yet")
    assert (await check_condition(LastRunOf(job="other", missing="pass"))).answer is PASS


# window


class At(VirtualClock):
    """A clock that shows one instant."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._at = datetime.fromisoformat(text)

    def now(self) -> datetime:
        return self._at.astimezone(UTC)


OFFICE = Within(
    start="08:00", end="18:00", days=("monday", "tuesday", "wednesday", "thursday", "friday"), timezone="Europe/Berlin"
)  # fmt: skip
NIGHT = Within(start="22:00", end="06:00", days=("friday",), timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("window", "at", "opens"),
    [
        (OFFICE, "2026-11-20T08:00:00+01:00", None),
        (OFFICE, "2026-11-20T17:59:59+01:00", None),
        (OFFICE, "2026-11-20T18:00:00+01:00", "2026-11-23T08:00:00+01:00"),
        (OFFICE, "2026-11-20T07:59:00+01:00", "2026-11-20T08:00:00+01:00"),
        (NIGHT, "2026-11-20T23:00:00+01:00", None),
        (NIGHT, "2026-11-21T05:59:00+01:00", None),
        (NIGHT, "2026-11-21T06:00:00+01:00", "2026-11-27T22:00:00+01:00"),
        (NIGHT, "2026-11-22T05:00:00+01:00", "2026-11-27T22:00:00+01:00"),
        # The clock skips 02:00-03:00, and repeats 02:00-03:00.
        (Within(start="02:30", end="04:00", timezone="Europe/Berlin"), "2026-03-29T03:45:00+02:00", None),
        (Within(start="01:00", end="02:30", timezone="Europe/Berlin"), "2026-10-25T02:15:00+01:00", None),
        (Within(), "2026-10-25T02:15:00+01:00", None),
    ],
)
async def test_a_window_passes_within_its_hours(window: Within, at: str, opens: str | None) -> None:
    found = await check_condition(window, clock=At(at))
    assert found.until == (None if opens is None else datetime.fromisoformat(opens))
    assert found.answer is (PASS if opens is None else HOLD), found.reason


@pytest.mark.parametrize("fields", [{"start": "8:00"}, {"end": "24:00"}, {"days": ()}])
def test_a_window_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(BadSetting):
        Within(**fields)


# The kit


async def test_the_kit_says_what_the_engine_would() -> None:
    class Broken(Condition, frozen=True, kw_only=True):
        name = "broken"

        async def check(self, context: ConditionContext) -> Verdict:
            return None  # type: ignore[return-value]

    with pytest.raises(CheckFailed, match="returned a NoneType"):
        await check_condition(Broken())
