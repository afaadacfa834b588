"""Disclosure: who may not define jobs and triggers is shown no value of theirs that may be a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.http.disclosure import without_secrets
from tests.test_access import _fresh, engine  # noqa: F401 - a fixture

HIDING = """
[jobs.deploy]
run.exec = { command = ["sh", "-c", "true"], env = { LEVEL = "info", SLACK_HOOK = "canary-of-the-file" } }
[triggers.hooked]
on.webhook = { path = "in", verify = { token = "canary-of-the-hook" } }
job = "deploy"
"""


async def test_values_that_may_be_secrets_are_shown_to_admins_alone(tmp_path: Path) -> None:
    async with engine(tmp_path, HIDING) as (_, asker):
        plan = {"config": (tmp_path / "config.toml").read_text().replace("info", "debug")}
        tokens = [await asker.make("reader", "viewer"), await asker.make("worker", "operator")]
        for token in tokens:
            for path in ("/jobs", "/jobs/deploy", "/triggers", "/triggers/hooked"):
                got = await asker.ask("GET", path, token=token)
                assert got.status == 200
                assert "canary" not in json.dumps(got.json), path
            shown = (await asker.ask("GET", "/jobs/deploy", token=token)).json["run"]["exec"]
            assert shown["env"] == {"LEVEL": "***", "SLACK_HOOK": "***"}
            assert shown["command"] == ["sh", "-c", "true"]
        got = await asker.ask("POST", "/plan", plan, token=tokens[1])
        assert got.status == 200, got.json
        [job] = [one for one in got.json["jobs"] if one["name"] == "deploy"]
        assert job["keys"] == [{"key": "run.exec.env.LEVEL", "from": "***", "to": "***"}]
        assert (await asker.ask("GET", "/jobs/deploy")).json["run"]["exec"]["env"]["LEVEL"] == "info"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"headers": {"X-Key": "a"}, "url": "https://me:pw@example.com"},
         {"headers": {"X-Key": "***"}, "url": "https://me:***@example.com"}),
        ({"auth": {"password": "a", "user": "me"}, "retry": {"attempts": 3}},
         {"auth": {"password": "***", "user": "me"}, "retry": {"attempts": 3}}),
        ({"webhook": {"verify": "none"}, "token_file": None, "env": None},
         {"webhook": {"verify": "none"}, "token_file": None, "env": None}),
        ([{"key": "retry.attempts", "from": 1, "to": 3}, {"key": "run.http.headers.X", "from": None, "to": "a"}],
         [{"key": "retry.attempts", "from": 1, "to": 3}, {"key": "run.http.headers.X", "from": None, "to": "***"}]),
        ({"concurrency_key": "event.subject", "dedupe": {"key": "data.sha256"}},
         {"concurrency_key": "event.subject", "dedupe": {"key": "data.sha256"}}),
    ],
)  # fmt: skip
def test_what_is_hidden_and_what_is_not(settings: object, shown: object) -> None:
    assert without_secrets(settings) == shown
