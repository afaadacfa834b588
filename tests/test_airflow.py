"""The airflow runner: one DAG run for each attempt, however often answers are lost, and none that is left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.expressions import JOB_NAMES
from engine.plugin import BadSetting, Outcome, Secret
from engine.runs import RunState
from plugins.runners.airflow import Airflow
from tests.airflow_server import PASSWORD, TOKEN, USER
from tests.airflow_server import Airflow as Server
from tests.evil_server import serving
from tests.exec_runs import Context, FastClock, context
from tests.fakes import until
from tests.test_runtime import comes_to, configured, fire, operations, running

VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def runner(url: str | Secret, **settings: Any) -> Airflow:
    given = {
        "dag": "daily report", "username": USER, "password": Secret(PASSWORD), "allow_private": ("127.0.0.1",),
        "every": 0.5, "timeout": 200.0, "patience": 20.0, **settings,
    }  # fmt: skip
    made = Airflow(url=url, **given)
    made.check(JOB_NAMES)
    return made


def attempt(base: Path, data: Any = None, number: int = 1) -> Context:
    made = context(base, data)
    made.clock, made.attempt = FastClock(), number
    return made


async def run(server: Server, base: Path, data: Any = None, **settings: Any) -> tuple[Outcome, Context]:
    made = attempt(base, data)
    return await go_on(server, made, **settings), made


async def go_on(server: Server, made: Context, **settings: Any) -> Outcome:
    async with serving(server) as listener:
        with anyio.fail_after(20):
            return await runner(listener.url("/"), api=server.version, **settings).run(made)


@VERSIONS
async def test_a_dag_run_is_started_with_the_runs_id_and_data_and_followed_to_its_end(
    tmp_path: Path, version: str
) -> None:
    server = Server(version)
    outcome, made = await run(server, tmp_path, {"day": "monday"})
    assert (outcome.state, outcome.code) == (RunState.SUCCEEDED, "succeeded"), outcome
    assert list(server.runs) == [made.run_id]
    assert server.runs[made.run_id]["conf"] == {"day": "monday"}
    assert outcome.outputs is not None
    assert (outcome.outputs["dag_run_id"], outcome.outputs["state"]) == (made.run_id, "success")
    page = {"v1": rf"/dags/daily%20report/grid\?dag_run_id={made.run_id}", "v2": rf"/runs/{made.run_id}"}
    assert re.search(page[version], outcome.outputs["url"])
    assert [line.rpartition(" ")[2] for line in made.logged().splitlines()] == ["queued", "running", "success"]


@VERSIONS
async def test_a_dag_run_that_fails_fails_the_attempt_and_the_next_attempt_has_another(
    tmp_path: Path, version: str
) -> None:
    server = Server(version, steps=("failed",))
    outcome, made = await run(server, tmp_path)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "dag_failed")
    made.attempt, server.steps = 2, ("success",)
    assert (await go_on(server, made)).state is RunState.SUCCEEDED
    assert list(server.runs) == [made.run_id, f"{made.run_id}_2"]


@VERSIONS
@pytest.mark.parametrize("fault", [{"drop_after": 1}, {"error_after": 1}, {"errors": 4}])
async def test_an_answer_that_is_lost_makes_no_second_dag_run(
    tmp_path: Path, version: str, fault: dict[str, Any]
) -> None:
    server = Server(version, **fault)
    outcome, made = await run(server, tmp_path)
    assert (outcome.state, server.creations, list(server.runs)) == (RunState.SUCCEEDED, 1, [made.run_id]), outcome


@VERSIONS
async def test_a_conflict_with_our_own_id_is_success(tmp_path: Path, version: str) -> None:
    server = Server(version)
    _, made = await run(server, tmp_path)
    assert (await go_on(server, made)).state is RunState.SUCCEEDED
    assert server.creations == 1


@VERSIONS
async def test_a_conflict_with_another_run_is_told(tmp_path: Path, version: str) -> None:
    outcome, _ = await run(Server(version, refuse_dates=True), tmp_path, logical_date="2026-03-01T02:00:00Z")
    assert (outcome.state, outcome.code) == (RunState.FAILED, "dag_run_conflict")


@VERSIONS
async def test_a_wrong_password_fails_the_attempt_and_is_shown_nowhere(tmp_path: Path, version: str) -> None:
    outcome, made = await run(Server(version, password="another"), tmp_path)
    assert (outcome.state, outcome.code) == (RunState.FAILED, "airflow_unauthorized")
    assert PASSWORD not in str(outcome) + made.run_id
    assert "401" in outcome.reason


async def test_a_token_that_is_not_valid_any_more_is_got_anew(tmp_path: Path) -> None:
    server = Server("v2", steps=("queued",) * 3 + ("success",), expire=2)
    outcome, _ = await run(server, tmp_path)
    assert (outcome.state, server.tokens) == (RunState.SUCCEEDED, 2)


@VERSIONS
async def test_a_token_takes_the_place_of_a_user(tmp_path: Path, version: str) -> None:
    server = Server(version)
    outcome, _ = await run(server, tmp_path, username=None, password=None, token=Secret(TOKEN))
    assert (outcome.state, server.tokens) == (RunState.SUCCEEDED, 0)


@VERSIONS
async def test_an_unknown_dag_is_told_in_airflows_words(tmp_path: Path, version: str) -> None:
    outcome, _ = await run(Server(version), tmp_path, dag="nope")
    assert (outcome.code, "nope" in outcome.reason) == ("airflow_refused", True)


async def test_another_version_than_the_server_has_is_told(tmp_path: Path) -> None:
    async with serving(Server("v1")) as listener:
        outcome = await runner(listener.url(), token=Secret(TOKEN), username=None, password=None).run(attempt(tmp_path))
    assert outcome.code == "airflow_refused"


async def test_an_airflow_that_is_away_for_longer_than_patience_fails_the_attempt_and_the_next_looks_for_its_run(
    tmp_path: Path,
) -> None:
    server = Server("v2", drop_after=1)

    async def away(request: Any, writer: Any) -> None:
        if server.creations:
            writer.close()
        else:
            await server(request, writer)

    made = attempt(tmp_path)
    async with serving(away) as listener:
        outcome = await runner(listener.url(), patience=5.0).run(made)
    assert outcome.code == "airflow_unreachable", outcome
    assert made.run_id in outcome.reason
    made.attempt = 2
    assert (await go_on(server, made)).state is RunState.SUCCEEDED
    assert list(server.runs) == [made.run_id]


@VERSIONS
async def test_a_cancelled_run_has_its_dag_run_fail_and_one_that_goes_on_later_has_not(
    tmp_path: Path, version: str
) -> None:
    for interrupted in (False, True):
        server, made = Server(version, steps=("running",)), attempt(tmp_path)
        made.interrupted = interrupted
        async with serving(server) as listener, anyio.create_task_group() as group:
            group.start_soon(runner(listener.url(), api=version).run, made)
            await until(lambda runs=server.runs: any(one["looks"] for one in runs.values()))  # type: ignore[misc]
            group.cancel_scope.cancel()
        assert server.patched == ([] if interrupted else [made.run_id])


async def test_conf_is_what_the_job_says(tmp_path: Path) -> None:
    for conf, data, expected in (
        ({"n": "{{ data.n }}", "fixed": [1]}, {"n": 7}, {"n": 7, "fixed": [1]}),
        ("{{ data.inner }}", {"inner": {"a": 1}}, {"a": 1}),
        (None, [1, 2], {"data": [1, 2]}),
        (None, None, {}),
    ):
        server = Server("v2")
        outcome, made = await run(server, tmp_path, data, conf=conf)
        assert outcome.state is RunState.SUCCEEDED, outcome
        assert server.runs[made.run_id]["conf"] == expected
    outcome, _ = await run(Server("v2"), tmp_path, {"n": 1}, conf="{{ data.n }}")
    assert outcome.code == "template_error"


async def test_a_url_that_is_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    async with serving(Server("v2", errors=1)) as listener:
        made = attempt(tmp_path)
        outcome = await runner(Secret(listener.url("/a-very-secret-prefix"))).run(made)
    assert "a-very-secret" not in str(outcome) + made.logged()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"dag": ""}, "dag"),
        ({"dag": "{{ data.dag }}"}, "dag"),
        ({"dag": ".."}, "dag"),
        ({"url": "http://127.0.0.1/", "allow_private": False}, "url"),
        ({"url": "https://example.com/?x=1"}, "url"),
        ({"url": "https://example.com/airflow/api/v2"}, "url"),
        ({"url": Secret("https://example.com/api/v1/")}, "url"),
        ({"url": "https://{{ data.x }}/"}, "url"),
        ({"username": None}, "username"),
        ({"password": None}, "username"),
        ({"token": Secret("x")}, "token"),
        ({"conf": 1}, "conf"),
        ({"conf": "text"}, "conf"),
        ({"conf": {"a": "{{ nope }}"}}, "conf.a"),
        ({"logical_date": "{{ nope }}"}, "logical_date"),
    ],
)
def test_what_can_not_be_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        runner(**{"url": "https://example.com/", **settings})
    assert refused.value.field == field


async def test_a_dag_run_goes_on_while_the_engine_is_started_anew(tmp_path: Path) -> None:
    server = Server("v2", steps=("running",))
    async with serving(server) as listener:
        text = f"""
[engine]
shutdown_grace = "0s"
[jobs.report.run.airflow]
url = "{listener.url()}"
dag = "daily report"
token = "{TOKEN}"
every = "100ms"
allow_private = true
[triggers.go]
on.manual = true
job = "report"
"""
        config = configured(tmp_path, text)
        async with running(config) as engine:
            run_id = await fire(engine, "go")
            await until(lambda: any(one["looks"] for one in server.runs.values()))
        server.steps = ("success",)
        async with running(config) as engine:
            await comes_to(engine, run_id, RunState.SUCCEEDED)
            assert "is success" in operations(engine).log_path(run_id).read_text()
    assert (list(server.runs), server.patched) == ([run_id], [])
