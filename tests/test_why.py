"""Why it did not run: what a trigger's view tells of its source."""

from __future__ import annotations

import hmac
import io
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from engine.plugin import Event
from engine.runs import RunState
from engine.sources.refusals import LOGGED, PERIOD_S, Refusals, RefusedRequest
from engine.testing.clock import START
from tests.fakes import until
from tests.test_runtime import Tap, comes_to, configured, operations, running


async def test_a_trigger_tells_what_is_wrong_with_its_source(tmp_path: Path) -> None:
    config = configured(tmp_path, '[jobs.work]\nrun.gate = "open"\n[triggers.new]\non.tap = {}\njob = "work"\n')
    async with running(config) as engine:
        assert operations(engine).trigger_view("new")["source_problem"] is None
        Tap.contexts["tap"].warn("the folder is not there")
        found = operations(engine).trigger_view("new")["source_problem"]
        assert found["problem"] == "the folder is not there"
        assert found["since"].endswith("Z")
        Tap.contexts["tap"].warn(None)
        assert operations(engine).trigger_view("new")["source_problem"] is None


async def test_a_trigger_on_a_database_that_is_not_there_says_so(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.orders]
on.database = { url = "sqlite+aiosqlite:///missing.db", \
query = "select id from orders where id > :cursor order by id", \
cursor = "id", start = 0 }
job = "work"
""")  # fmt: skip
    async with running(config) as engine:
        await until(lambda: operations(engine).trigger_view("orders")["source_problem"] is not None)
        assert "missing.db is not there" in operations(engine).trigger_view("orders")["source_problem"]["problem"]


async def test_a_refused_webhook_is_told_to_its_owner_and_not_to_the_sender(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("a-canary-of-a-secret")
    config = configured(tmp_path, """
[jobs.work]
run.gate = "open"
[triggers.push]
on.webhook = { path = "github", verify = { github = { file = "secret" } } }
job = "work"
""")  # fmt: skip
    body = b'{"a": 1}'
    right = hmac.new(b"a-canary-of-a-secret", body, "sha256").hexdigest()
    async with running(config, listen=True) as engine, aiohttp.ClientSession() as session:
        assert engine.server is not None
        url = f"{engine.server.url}/hooks/github"
        assert operations(engine).trigger_view("push")["refused_requests"] is None
        answers = []
        for headers in ({}, {"X-Hub-Signature-256": right}, *[{"X-Hub-Signature-256": "sha256=" + "0" * 64}] * 5):
            async with session.post(url, data=body, headers=headers) as answer:
                answers.append((answer.status, await answer.json()))
        async with session.post(url, data=io.BytesIO(b"x" * (config.http.max_body_bytes + 1))) as answer:
            assert answer.status == 413
        async with session.put(url, data=body) as answer:
            assert answer.status == 405
        found = operations(engine).trigger_view("push")["refused_requests"]
        [source] = operations(engine).source_views()
    assert {status for status, _ in answers} == {401}
    assert len({told["detail"] for _, told in answers}) == 1
    assert (found["count"], found["last_status"], found["last_remote"]) == (9, 405, "127.0.0.1")
    assert source["refused_requests"] == found
    logged = [record for record in caplog.records if getattr(record, "action", "") == "request_refused"]
    assert len(logged) == LOGGED
    said = [record.getMessage() for record in logged]
    assert said[0].endswith(
        "from 127.0.0.1 with 401: it has no header X-Hub-Signature-256, where its signature should be"
    )
    assert said[1].endswith("does not begin with 'sha256='")
    assert said[2].endswith("the signature in X-Hub-Signature-256 is not the one that the secret gives for its body")
    assert [vars(record)["request_id"] for record in logged] == [told["request_id"] for _, told in answers[:LOGGED]]
    assert not [secret for secret in (right, "a-canary") if secret in caplog.text]


def test_refusals_that_were_not_logged_are_counted_in_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    request = RefusedRequest(status=401, reason="no", remote="192.0.2.1", request_id="r")
    for _ in range(LOGGED + 7):
        refusals.note("webhook:x", request, START)
    refusals.note("webhook:x", request, START + timedelta(seconds=PERIOD_S))
    assert len(caplog.records) == LOGGED + 1
    assert caplog.messages[-1].endswith("401: no; 7 more before it")
    assert refusals.count == LOGGED + 8


async def test_expressions_see_an_empty_object_where_an_event_has_no_data(tmp_path: Path) -> None:
    config = configured(tmp_path, """
[jobs.work]
run.exec = ["test", "{{ has(data.name) ? data.name : 'none' }}", "=", "none"]
[triggers.asks]
on.event = "order.created"
job = "work"
filter = "!has(data.total) || data.total >= 100"
[triggers.takes]
on.event = "order.created"
job = "work"
filter = "data.total >= 100"
""")  # fmt: skip
    async with running(config) as engine:
        [accepted] = await operations(engine).hear([Event(type="order.created")])
        told = {outcome.trigger: outcome for outcome in accepted.outcomes}
        assert told["asks"].code == "matched"
        assert told["takes"].code == "filter_error"
        assert "there is no 'total' in data" in told["takes"].reason
        await comes_to(engine, accepted.runs[0], RunState.SUCCEEDED)
        stored = await operations(engine).store.event(accepted.event)
        assert stored is not None
        assert stored.event.data is None
