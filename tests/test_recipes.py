"""The recipes of examples/: what each vendor posts, signed as he signs, comes out as a run with these arguments."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from multidict import CIMultiDict

from engine import Engine
from engine.plugin import Outcome, Refusal, Request, Response, RunContext
from plugins.runners.command import compile_command
from plugins.runners.exec import Exec
from tests.fakes import until

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"

Headers = dict[str, str]


def hex_of(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def now() -> str:
    return str(int(time.time()))


def by_github(secret: str, body: bytes) -> Headers:
    return {"X-GitHub-Event": "workflow_run", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "X-Hub-Signature-256": f"sha256={hex_of(secret, body)}"}  # fmt: skip


def by_gitlab(secret: str, body: bytes) -> Headers:
    key, sent_at = base64.b64decode(secret.removeprefix("whsec_")), now()
    signed = hmac.new(key, f"d5f9b2e7.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return {"X-Gitlab-Event": "Pipeline Hook", "webhook-id": "d5f9b2e7", "webhook-timestamp": sent_at,
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}"}  # fmt: skip


def by_stripe(secret: str, body: bytes) -> Headers:
    sent_at = now()
    return {"Stripe-Signature": f"t={sent_at},v1={hex_of(secret, f'{sent_at}.'.encode() + body)}"}


def by_slack(secret: str, body: bytes) -> Headers:
    sent_at = now()
    signature = hex_of(secret, f"v0:{sent_at}:".encode() + body)
    return {"X-Slack-Request-Timestamp": sent_at, "X-Slack-Signature": f"v0={signature}"}


def by_grafana(secret: str, body: bytes) -> Headers:
    sent_at = now()
    signature = hex_of(secret, f"{sent_at}:".encode() + body)
    return {"X-Grafana-Alerting-Timestamp": sent_at, "X-Grafana-Alerting-Signature": signature}


def by_token(secret: str, body: bytes) -> Headers:
    return {"Authorization": f"Bearer {secret}"}


def by_registry(secret: str, body: bytes) -> Headers:
    return {**by_token(secret, body), "Content-Type": "application/vnd.docker.distribution.events.v2+json"}


class Recipe(Struct, frozen=True, kw_only=True):
    """A recipe: its hook, how the vendor signs, and what the sample starts.

    `otherwise`: where in the payload another value makes it no matter for the job, and that value.
    """

    hook: str
    variable: str
    sign: Callable[[str, bytes], Headers]
    starts: list[str]
    otherwise: tuple[tuple[str | int, ...], Any]
    secret: str = "b6f1f7ac2d4e4c1d9e5a7c8b0f3d2e1a"


KNOWN: Mapping[str, Recipe] = {
    "github-actions": Recipe(
        hook="github", variable="GITHUB_WEBHOOK_SECRET", sign=by_github,
        starts=["./roll-out", "--repository=acme/shop", "--commit=4c2f9a1b7d3e5f60718293a4b5c6d7e8f9a0b1c2"],
        otherwise=(("workflow_run", "conclusion"), "failure"),
    ),
    "gitlab": Recipe(
        hook="gitlab", variable="GITLAB_WEBHOOK_SECRET", sign=by_gitlab,
        secret="whsec_" + base64.b64encode(b"a signing token that GitLab made").decode(),
        starts=["./publish", "--project=acme/shop", "--tag=v2.4.0"],
        otherwise=(("object_attributes", "tag"), False),
    ),
    "stripe": Recipe(
        hook="stripe", variable="STRIPE_WEBHOOK_SECRET", sign=by_stripe, secret="whsec_9aB8cD7eF6gH5iJ4kL3mN2oP1qR0sT",
        starts=["./fulfil", "--order=order-1041", "--cents=4998"],
        otherwise=(("data", "object", "payment_status"), "unpaid"),
    ),
    "slack": Recipe(
        hook="slack", variable="SLACK_SIGNING_SECRET", sign=by_slack,
        starts=["./report", "--channel=C061EG9SL", "--user=U061F7AUR", "--", "<@U0LAN0Z89> how many orders today?"],
        otherwise=(("event", "bot_id"), "B0123"),
    ),
    "alertmanager": Recipe(
        hook="alertmanager", variable="ALERTMANAGER_TOKEN", sign=by_token,
        starts=["./restart", "--service=checkout", "--alerts=2", "--why=ServiceDown"],
        otherwise=(("status",), "resolved"),
    ),
    "grafana": Recipe(
        hook="grafana", variable="GRAFANA_WEBHOOK_SECRET", sign=by_grafana,
        starts=["./clean", "--host=db-1.example.com", "--rule=DiskAlmostFull"],
        otherwise=(("status",), "resolved"),
    ),
    "docker-registry": Recipe(
        hook="registry", variable="REGISTRY_TOKEN", sign=by_registry,
        starts=[
            "./update", "--image=acme/shop", "--tag=2.4.0",
            "--digest=sha256:fea8895f450959fa676bcc1df0611ea93823a735a01205fd8622846041d0c7cf",
        ],
        otherwise=(("events", 0, "action"), "pull"),
    ),
    "minio": Recipe(
        hook="minio", variable="MINIO_WEBHOOK_TOKEN", sign=by_token,
        starts=["./import", "--bucket=imports", "--key=imports/2026/fruit and nuts.csv", "--bytes=48213"],
        otherwise=(("EventName",), "s3:ObjectRemoved:Delete"),
    ),
}  # fmt: skip


class Running:
    """An engine with the configuration of a recipe, whose programs are noted and not started."""

    def __init__(self, engine: Engine, recipe: Recipe, started: list[list[str]]) -> None:
        self.engine = engine
        self.recipe = recipe
        self.started = started

    async def post(self, body: bytes, headers: Headers) -> Response:
        path = f"/hooks/{self.recipe.hook}"
        handler = self.engine._operations().route("POST", path)
        assert callable(handler)
        sent = CIMultiDict({"Content-Type": "application/json", **headers})
        return await handler(
            Request(method="POST", path=path, query={}, headers=sent, remote="192.0.2.1", body=body)
        )  # fmt: skip

    async def send(self, body: bytes) -> Response:
        return await self.post(body, self.recipe.sign(self.recipe.secret, body))


@asynccontextmanager
async def running(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    started: list[list[str]] = []

    async def note(self: Exec, context: RunContext) -> Outcome:
        command = compile_command(tuple(self.command), tuple(self.env.items()))
        started.append(command.arguments(context.scope))
        return Outcome.succeeded("it was noted")

    recipe = KNOWN[name]
    monkeypatch.setattr(Exec, "run", note)
    monkeypatch.setenv(recipe.variable, recipe.secret)
    text = (RECIPES / name / "config.toml").read_text("utf-8")
    (path / "config.toml").write_text(f'[engine]\ndata = "{path}/data"\n{text}', "utf-8")
    async with Engine(config=path / "config.toml", shutdown_grace="100ms") as engine:
        yield Running(engine, recipe, started)


def sample(name: str) -> bytes:
    return (RECIPES / name / "payload.json").read_bytes()


@pytest.mark.parametrize("name", KNOWN)
async def test_what_a_vendor_posts_becomes_a_run_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(name, tmp_path, monkeypatch) as here:
        first = await here.send(sample(name))
        assert (first.status, len(first.body["runs"])) == (202, 1)
        await until(lambda: here.started)
        again = await here.send(sample(name))
        assert again.status == 202
        assert set(again.body["runs"]) <= set(first.body["runs"])
    assert here.started == [here.recipe.starts]


@pytest.mark.parametrize("name", KNOWN)
async def test_what_is_no_matter_for_the_job_starts_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = json.loads(sample(name))
    (*way, last), value = KNOWN[name].otherwise
    place = payload
    for step in way:
        place = place[step]
    place[last] = value
    async with running(name, tmp_path, monkeypatch) as here:
        answer = await here.send(json.dumps(payload).encode())
        assert (answer.status, list(answer.body["runs"])) == (202, [])
    assert here.started == []


@pytest.mark.parametrize("name", KNOWN)
async def test_what_somebody_else_posts_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(name, tmp_path, monkeypatch) as here:
        other = "whsec_" + base64.b64encode(b"what anybody else could think of").decode()
        headers = here.recipe.sign(other, sample(name))
        for forged in ({}, headers):
            with pytest.raises(Refusal) as caught:
                await here.post(sample(name), forged)
            assert caught.value.status == 401
        if here.recipe.sign not in (by_token, by_registry):  # these prove who sends, not what
            with pytest.raises(Refusal):
                await here.post(sample(name) + b" ", here.recipe.sign(here.recipe.secret, sample(name)))
    assert here.started == []


def test_each_recipe_is_tested_and_has_its_three_files() -> None:
    assert {path.name for path in RECIPES.iterdir() if path.is_dir()} == set(KNOWN)
    for name, recipe in KNOWN.items():
        readme = (RECIPES / name / "README.md").read_text("utf-8")
        assert recipe.variable in readme
        assert f"https://YOUR-HOST/hooks/{recipe.hook}" in readme
        assert (RECIPES / name / "payload.json").exists()
