"""Refused requests under an engine: kept, explained to their owner by API and command, and told to nobody else."""

from __future__ import annotations

import hmac
import json
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from engine.cli.refusals import refusals as refusals_command
from engine.config import load
from engine.errors import ConfigError, NotFound
from engine.plugin import Explanation
from engine.sources.refusals import MOST_KINDS, Refusals, RefusedRequest
from engine.testing.clock import START, VirtualClock
from tests.test_cli import VARIABLES, Running, ask
from tests.test_runtime import configured, free_port, operations, running
from tests.test_webhook_vendors import by_slack

CONFIG = """
http.trusted_proxies = ["127.0.0.0/8"]
[jobs.work]
run.exec = ["true"]
[triggers.push]
on.webhook = { path = "team/push", verify = { github = { file = "secret" } } }
job = "work"
[triggers.inside]
on.webhook = { path = "inside", verify = "none", allow = ["10.0.0.0/8"] }
filter = 'ip_in(http.remote, "10.1.0.0/16")'
job = "work"
"""
SECRET = "a-canary-of-a-secret"
BODY = b'{"a": 1}'
TOKEN = {"Authorization": f"Bearer {'t' * 43}"}


async def test_what_was_wrong_is_told_to_the_owner_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "secret").write_text(SECRET)
    config = configured(tmp_path, CONFIG)
    late_feed = hmac.digest(f"{SECRET}\n".encode(), BODY, "sha256").hex()
    right = hmac.digest(SECRET.encode(), BODY, "sha256").hex()
    offered = [{"X-Hub-Signature-256": f"sha256={late_feed}"}] * 3 + [{"X-Signature": right}, {}]
    async with running(config, listen=True) as engine, aiohttp.ClientSession() as session:
        assert engine.server is not None
        answers = set()
        for headers in offered:
            async with session.post(f"{engine.server.url}/hooks/team/push", data=BODY, headers=headers) as answer:
                told = await answer.json()
                answers.add((answer.status, told["detail"], answer.headers["WWW-Authenticate"]))
        assert len(answers) == 1
        url = f"{engine.server.url}/api/v1/sources/webhook:team/push/refusals"
        async with session.get(url) as answer:
            assert answer.status == 401
        async with session.get(url, headers=TOKEN) as answer:
            assert answer.status == 200
            found = (await answer.json())["items"]
        async with session.get(url.replace("push", "pull"), headers=TOKEN) as answer:
            assert answer.status == 404
        async with session.get(url, headers=TOKEN) as answer:
            assert (await answer.json())["items"] == found
        with pytest.raises(NotFound):
            await operations(engine).refusals("webhook:none")
    assert [(one["cause"], one["certain"], one["count"], one["remote"]) for one in found] == [
        ("wrong_header", True, 2, "127.0.0.1"),
        ("wrong_secret", True, 3, "127.0.0.1"),
    ]
    assert "line feed" in found[1]["explanation"]
    shown = f"{found}{answers}{caplog.text}"
    assert not [hidden for hidden in (SECRET, right, late_feed, right[:16]) if hidden in shown]


async def test_a_proxy_that_is_trusted_says_who_asks_and_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    async with (
        running(configured(tmp_path, CONFIG), listen=True) as engine,
        aiohttp.ClientSession() as session,
    ):
        assert engine.server is not None
        url = f"{engine.server.url}/hooks/inside"
        statuses = {}
        for forwarded in ("10.1.2.3", "10.2.0.1", "192.0.2.1", "10.1.2.3, 192.0.2.1", "192.0.2.1, 10.1.2.3", "rubbish"):
            headers = {"X-Forwarded-For": forwarded, "Content-Type": "application/json"}
            async with session.post(url, data=BODY, headers=headers) as answer:
                told = await answer.json()
                statuses[forwarded] = (answer.status, len(told.get("runs", ())))
        (first, *_) = await operations(engine).refusals("webhook:inside")
    # A filter sees the same address as `allow` does.
    assert statuses == {
        "10.1.2.3": (202, 1), "10.2.0.1": (202, 0), "192.0.2.1": (403, 0), "10.1.2.3, 192.0.2.1": (403, 0),
        "192.0.2.1, 10.1.2.3": (202, 1), "rubbish": (403, 0),
    }  # fmt: skip
    assert (first["cause"], first["remote"]) == ("wrong_network", "127.0.0.1")


async def test_without_proxies_that_are_trusted_nobody_is_believed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    config = configured(tmp_path, CONFIG.replace('["127.0.0.0/8"]', "[]"))
    assert config.http.trusted_proxies is None
    async with running(config, listen=True) as engine, aiohttp.ClientSession() as session:
        assert engine.server is not None
        headers = {"X-Forwarded-For": "10.1.2.3"}
        async with session.post(f"{engine.server.url}/hooks/inside", data=BODY, headers=headers) as answer:
            assert answer.status == 403


def test_a_proxy_that_is_no_network_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('http.trusted_proxies = ["10.0.0.1/8"]\n', "utf-8")
    with pytest.raises(ConfigError) as error:
        load([tmp_path / "config.toml"], environment={})
    (problem,) = error.value.problems
    assert (problem.path, problem.line) == ("http.trusted_proxies", 1)
    assert "'10.0.0.0/8' is the network" in problem.message


def request(reason: str, remote: str = "192.0.2.1", fault: bool = False) -> RefusedRequest:
    def explain() -> Explanation:
        if fault:
            raise RuntimeError("a plugin's mistake")
        return Explanation(cause="wrong_secret", text=f"about {reason}")

    return RefusedRequest(status=401, reason=reason, remote=remote, request_id="r", explain=explain)


async def test_a_flood_of_one_kind_leaves_the_others_and_all_that_is_kept_is_bounded() -> None:
    refusals = Refusals()
    refusals.note("webhook:x", request("the one that matters"), START)
    for _ in range(1000):
        refusals.note("webhook:x", request("a flood"), START)
    found = await refusals.explained(str.upper)
    assert [(one["reason"], one["count"]) for one in found] == [("a flood", 1000), ("the one that matters", 1)]
    assert found[1]["explanation"] == "ABOUT THE ONE THAT MATTERS"
    for number in range(1000):
        refusals.note("webhook:x", request(f"its time of sending is 1,{number:03} s behind"), START)
    assert [one["count"] for one in await refusals.explained(str)] == [1000, 1000, 1]
    for number in range(1000):
        refusals.note("webhook:x", request("elsewhere", f"192.0.2.{number}"), START + timedelta(seconds=number))
    assert len(await refusals.explained(str)) == len(refusals.kept) == MOST_KINDS


async def test_what_was_explained_lets_the_request_go_and_a_fault_of_a_plugin_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusals = Refusals()
    refusals.note("webhook:x", request("good"), START)
    refusals.note("webhook:x", request("bad", fault=True), START)
    found = {one["reason"]: one["cause"] for one in await refusals.explained(str)}
    assert found == {"good": "wrong_secret", "bad": "unknown"}
    assert all(kept.request.explain is None for kept in refusals.kept.values())
    assert "a plugin's mistake" in caplog.text


def test_the_command_shows_what_a_source_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    assert refusals_command.__doc__
    with Running(tmp_path) as engine:
        source = "files:inbox/new"
        empty = ask(engine, "refusals", source)
        assert empty.output == f"Source {source} refused no request since the engine started\n"
        engine.operations.refused.append(
            {
                "path": source, "at": "2026-11-21T09:30:02.000000Z", "count": 12, "status": 401, "reason": "no",
                "remote": "192.0.2.1", "request_id": "r1", "cause": "wrong_header", "explanation": "it is\nelsewhere",
                "certain": True,
            }
        )  # fmt: skip
        result = ask(engine, "refusals", source)
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[0].endswith("401 to 192.0.2.1, the last of 12 (request r1)")
        assert "  wrong header: it is" in result.output
        assert json.loads(ask(engine, "refusals", source, "--json").output)["items"][0]["cause"] == "wrong_header"
        assert ask(engine, "refusals", "nowhere").exit_code != 0


async def test_a_request_that_is_recorded_and_sent_again_after_a_restart_is_no_second_event(tmp_path: Path) -> None:
    port, clock = free_port(), VirtualClock()
    text = f"""
[jobs.work]
run.exec = ["true"]
[triggers.paid]
on.webhook = {{ path = "paid", verify = {{ slack = ["{SECRET}", "the-one-before"] }} }}
job = "work"
"""
    config = configured(tmp_path, text, port=port)
    sent = by_slack("the-one-before", BODY, int(clock.now().timestamp()))
    answers = []
    for more in ({}, {"Idempotency-Key": "another"}):
        async with running(config, listen=True, clock=clock) as engine, aiohttp.ClientSession() as session:
            assert engine.server is not None
            headers = {**sent.headers, **more, "Content-Type": "application/json"}
            async with session.post(f"{engine.server.url}/hooks/paid", data=BODY, headers=headers) as answer:
                assert answer.status == 202
                answers.append(await answer.json())
            shown = json.dumps([operations(engine).trigger_view("paid"), operations(engine).source_views()])
            assert not [secret for secret in (SECRET, "the-one-before") if secret in shown]
    assert answers[1] == {**answers[0], "duplicate": True}
