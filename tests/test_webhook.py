from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.plugin import BadSetting, Handler, Refusal, Request, Response, Secret
from plugins.sources.webhook import Hmac, Verify, Webhook
from tests.fakes import FakeSourceContext

GITHUB_SECRET = "It's a Secret to Everybody"
"""The secret, and below the signature, of the example in GitHub's documentation of webhooks."""

GITHUB_BODY = b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

BODY = b'{"action": "opened", "number": 7}'


def request(
    body: bytes = BODY,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    query: dict[str, str] | None = None,
) -> Request:
    return Request(
        method="POST",
        path="/hooks/in",
        query=query or {},
        headers=CIMultiDict(headers or {}),
        remote="192.0.2.1",
        body=body,
    )


def signature(secret: str, body: bytes = BODY) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


class Hook:
    """A webhook that runs, seen from the sender's side."""

    def __init__(self, verify: Literal["none"] | Verify = "none", path: str = "in") -> None:
        self.webhook = Webhook(path=path, verify=verify)
        self.context = FakeSourceContext()
        self._handler: Handler | None = None

    async def post(
        self,
        body: bytes = BODY,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        query: dict[str, str] | None = None,
    ) -> Response:
        if self._handler is None:
            async with self.context.running(self.webhook):
                self._handler = self.context.routes["POST", f"/hooks/{self.webhook.path}"]
        return await self._handler(request(body, headers, query))

    async def refusal(self, body: bytes = BODY, headers: Any = None) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.post(body, headers)
        assert self.context.emitted == []
        return caught.value

    async def event(self, body: bytes = BODY, headers: Any = None, query: Any = None) -> Any:
        await self.post(body, headers, query)
        return self.context.emitted[-1]


def github(secret: str = "s3cret") -> Hook:
    return Hook(Verify(github=Secret(secret)), path="github")


async def test_an_accepted_request_is_answered_with_the_ids_of_event_and_runs() -> None:
    hook = Hook()
    answer = await hook.post()
    assert answer.status == 202
    (event,) = hook.context.emitted
    assert answer.body == {"event": event.id, "runs": ("run-1",), "duplicate": False}
    assert answer.headers["Location"] == f"/api/v1/events/{event.id}"
    assert (event.type, event.subject) == ("webhook.in", "in")
    assert event.data == {"action": "opened", "number": 7}
    assert event.key is None


async def test_a_repeat_gets_the_first_ids_again() -> None:
    hook = Hook()
    first = await hook.post(headers={"Idempotency-Key": "order-17"})
    again = await hook.post(headers={"Idempotency-Key": "order-17"})
    assert again.status == 202
    assert again.body == {**first.body, "duplicate": True}
    assert len(hook.context.emitted) == 1


async def test_slashes_of_the_path_are_dots_in_the_type() -> None:
    event = await Hook(path="team/deploy.v2").event()
    assert (event.type, event.subject) == ("webhook.team.deploy.v2", "team/deploy.v2")


async def test_expressions_see_the_request_without_what_proves_the_sender() -> None:
    proof = {"X-My-Mac": hmac.new(b"k", BODY, "sha256").hexdigest()}
    hook = Hook(Verify(hmac=Hmac(secret=Secret("k"), header="X-My-Mac")))
    event = await hook.event(
        headers=[
            *proof.items(), ("Authorization", "Basic abc"), ("Cookie", "a=b"), ("X-Gitlab-Token", "t"),
            ("X-Hub-Signature-256", "x"), ("User-Agent", "curl"), ("Accept", "a"), ("ACCEPT", "b"),
            ("X-Odd", "caf\udce9"),
        ],
        query={"env": "prod"},
    )  # fmt: skip
    assert event.http == {
        "method": "POST",
        "headers": {"user-agent": "curl", "accept": "a, b", "x-odd": "caf?"},
        "query": {"env": "prod"},
        "remote": "192.0.2.1",
    }


async def test_githubs_documented_signature_is_accepted() -> None:
    hook = github(GITHUB_SECRET)
    # The example's body is no JSON: that it is told so, and not 401, shows that its signature was good.
    refusal = await hook.refusal(GITHUB_BODY, {"X-Hub-Signature-256": GITHUB_SIGNATURE})
    assert refusal.status == 400
    refusal = await hook.refusal(GITHUB_BODY + b" ", {"X-Hub-Signature-256": GITHUB_SIGNATURE})
    assert refusal.status == 401


async def test_githubs_event_name_and_delivery_id_are_type_and_key() -> None:
    headers = {
        "X-Hub-Signature-256": signature("s3cret"),
        "X-GitHub-Event": "pull_request",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    }
    hook = github()
    event = await hook.event(headers=headers)
    assert (event.type, event.key) == ("pull_request", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert (await hook.post(headers=headers)).body["duplicate"] is True


async def test_only_a_github_webhook_believes_githubs_headers() -> None:
    event = await Hook().event(headers={"X-GitHub-Event": "push", "X-GitHub-Delivery": "1"})
    assert (event.type, event.key) == ("webhook.in", None)


@pytest.mark.parametrize("name", ["", "two words", "caf\udce9", "x" * 129, "-x", "a\nb"])
async def test_an_event_name_that_is_no_name_is_not_used(name: str) -> None:
    event = await github().event(headers={"X-Hub-Signature-256": signature("s3cret"), "X-GitHub-Event": name})
    assert event.type == "webhook.github"


async def test_the_engines_own_types_cant_be_sent() -> None:
    refusal = await github().refusal(
        headers={"X-Hub-Signature-256": signature("s3cret"), "X-GitHub-Event": "engine.timer"}
    )
    assert refusal.status == 400


TOKEN = Verify(token=Secret("t0ken"))


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Webhook-Token": "t0ken"},
        {"X-Gitlab-Token": "t0ken"},
        {"Authorization": "Bearer t0ken"},
        {"Authorization": "bearer t0ken"},
    ],
)
async def test_a_token_is_taken_from_each_of_its_headers(headers: dict[str, str]) -> None:
    assert (await Hook(TOKEN).post(headers=headers)).status == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Webhook-Token": ""},
        {"X-Webhook-Token": "t0ke"},
        {"X-Webhook-Token": "t0kenn"},
        {"X-Webhook-Token": "T0KEN"},
        {"X-Webhook-Token": "é"},
        {"X-Webhook-Token": "caf\udce9"},
        {"X-Webhook-Token": "\ud800"},
        {"X-Webhook-Token": "x" * 100_000},
        {"X-Webhook-Token": "wrong", "X-Gitlab-Token": "t0ken"},
        {"Authorization": "t0ken"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic t0ken"},
        {"Authorization": "Bearer t0ken t0ken"},
    ],
)
async def test_a_missing_wrong_or_odd_token_is_401(headers: dict[str, str]) -> None:
    assert (await Hook(TOKEN).refusal(headers=headers)).status == 401


GOOD = signature("s3cret")


@pytest.mark.parametrize(
    "offered",
    [
        None, "", "sha256=", GOOD[7:], GOOD[:-1], GOOD + "0", GOOD[:-1] + "x", "sha1=" + GOOD[7:], "é",
        "sha256=é",
        "sha256=\udce9" + GOOD[8:], "sha256=" + "0" * 64, "sha256= " + GOOD[7:], f"{GOOD}, {GOOD}",
        signature(""),
        signature("s3cret", BODY + b"\n"), signature("s3cret", b""), signature("S3cret"),
    ],
)  # fmt: skip
async def test_a_missing_wrong_or_odd_signature_is_401(offered: str | None) -> None:
    headers = {} if offered is None else {"X-Hub-Signature-256": offered}
    assert (await github().refusal(headers=headers)).status == 401


async def test_a_refused_proof_never_says_why_nor_what_would_be_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    right = GOOD[7:]
    raw = hmac.new(b"s3cret", BODY, "sha256").digest()
    texts = set()
    for headers in ({}, {"X-Hub-Signature-256": "x"}, {"X-Hub-Signature-256": GOOD[:-1]}):
        refusal = await github().refusal(headers=headers)
        texts.add((refusal.title, refusal.detail, tuple(refusal.headers.items())))
    refusal = await Hook(TOKEN).refusal(headers={"X-Webhook-Token": "t0ke"})
    texts.add((refusal.title, refusal.detail, tuple(refusal.headers.items())))
    assert len(texts) == 1
    shown = f"{texts}{caplog.text}"
    for secret in ("s3cret", "t0ken", right, right[:16], base64.b64encode(raw).decode()):
        assert secret not in shown


async def test_the_proof_comes_before_everything_else() -> None:
    hook = github()
    for body, headers in (
        (b"", {}),
        (b"{", {}),
        (gzip.compress(BODY, mtime=0), {"Content-Encoding": "gzip"}),
        (BODY, {"Content-Type": "text/plain"}),
        (BODY, {"X-GitHub-Event": "engine.timer"}),
        (BODY, {"X-GitHub-Delivery": "\n"}),
    ):
        assert (await hook.refusal(body, headers)).status == 401


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
@pytest.mark.parametrize("prefix", ["", "v1="])
async def test_a_signature_of_ones_own_making(
    algorithm: Literal["sha256", "sha1", "sha512"], encoding: Literal["hex", "base64"], prefix: str
) -> None:
    mac = hmac.new(b"key", BODY, getattr(hashlib, algorithm))
    text = mac.hexdigest().upper() if encoding == "hex" else base64.b64encode(mac.digest()).decode()
    settings = Hmac(secret=Secret("key"), header="X-Sig", algorithm=algorithm, encoding=encoding, prefix=prefix)
    hook = Hook(Verify(hmac=settings))
    assert (await hook.post(headers={"x-sig": prefix + text})).status == 202
    wrong = Hook(Verify(hmac=settings))
    flipped = text[:-4] + ("0000" if encoding == "hex" else "AAA=")
    assert (await wrong.refusal(headers={"x-sig": prefix + flipped})).status == 401
    if encoding == "base64":
        assert (await wrong.refusal(headers={"x-sig": prefix + text.swapcase()})).status == 401


@settings(deadline=None)
@given(offered=st.text(), body=st.binary(max_size=64))
async def test_no_header_and_no_body_is_a_fault(offered: str, body: bytes) -> None:
    for verify in (
        TOKEN,
        Verify(github=Secret("s3cret")),
        Verify(hmac=Hmac(secret=Secret("k"), header="X-Hub-Signature-256", encoding="base64")),
    ):
        hook = Hook(verify)
        headers = {"X-Hub-Signature-256": offered, "X-Webhook-Token": offered, "Authorization": offered}
        assert (await hook.refusal(body, headers)).status == 401


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
        "text/json",
    ],
)
async def test_every_json_type_is_read(content_type: str) -> None:
    assert (await Hook().post(headers={"Content-Type": content_type})).status == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "application/octet-stream",
        "application/jsonp",
        "",
        "json",
        "+json",
    ],
)
async def test_other_types_are_415(content_type: str) -> None:
    assert (await Hook().refusal(headers={"Content-Type": content_type})).status == 415


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", ""])
async def test_a_compressed_body_is_415(encoding: str) -> None:
    refusal = await Hook().refusal(gzip.compress(b"0" * 1_000_000), {"Content-Encoding": encoding})
    assert refusal.status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"nul", b"NaN", b"1e999", b'{"role":"a","role":"b"}', b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"\xff"', b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b'"\\ud800"', b"{}\x00", b'{"a":1}{"a":1}',
    ],
)  # fmt: skip
async def test_a_malformed_body_is_400(body: bytes) -> None:
    refusal = await Hook().refusal(body)
    assert refusal.status == 400
    assert refusal.detail


@pytest.mark.parametrize("key", ["", "k" * 256, "a\nb", "é", " lead", "trail ", "a\x00b", "caf\udce9"])
async def test_a_key_that_is_no_key_is_400(key: str) -> None:
    assert (await Hook().refusal(headers={"Idempotency-Key": key})).status == 400


async def test_the_longest_key_is_a_key() -> None:
    assert (await Hook().event(headers={"Idempotency-Key": "k" * 255})).key == "k" * 255


async def test_an_event_that_the_engine_refuses_is_told_with_its_status() -> None:
    hook = Hook()
    hook.context.max_data = 10
    assert (await hook.refusal()).status == 413


async def test_a_store_that_is_away_is_503_with_a_time_to_come_back() -> None:
    hook = Hook()
    hook.context.failures = 1
    refusal = await hook.refusal(headers={"Idempotency-Key": "1"})
    assert refusal.status == 503
    assert int(refusal.headers["Retry-After"]) > 0
    assert (await hook.post(headers={"Idempotency-Key": "1"})).body["duplicate"] is False


def refused(make: Callable[[], object]) -> BadSetting:
    with pytest.raises(BadSetting) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(
    "path",
    [
        "", "/github", "github/", "a//b", "..", "a/../b", ".", ".hidden", "%2e%2e", "a\x00b", "a\nb", "a b",
        "é",
        "x" * 129, "/".join("x" * 100 for _ in range(3)), "a\\b", "a?b", "a#b", "-a", "{name}", "a\n",
    ],
)  # fmt: skip
def test_a_path_that_could_climb_or_confuse_is_refused(path: str) -> None:
    assert refused(lambda: Webhook(path=path, verify="none")).field == "path"


@pytest.mark.parametrize("secret", ["", " ", "\n", "\ud800", "caf\udce9"])
def test_an_empty_or_broken_secret_is_refused(secret: str) -> None:
    odd = Secret(secret)
    assert refused(lambda: Webhook(path="in", verify=Verify(github=odd))).field == "verify.github"
    assert refused(lambda: Webhook(path="in", verify=Verify(token=odd))).field == "verify.token"
    mac = Hmac(secret=odd, header="X-Sig")
    assert refused(lambda: Webhook(path="in", verify=Verify(hmac=mac))).field == "verify.hmac.secret"


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    for token in ("two words", "é", "line\n"):
        verify = Verify(token=Secret(token))
        assert refused(partial(Webhook, path="in", verify=verify)).field == "verify.token"


@pytest.mark.parametrize("header", ["", "two words", "X:Y", "é", "a\r\nb"])
def test_a_signature_needs_a_header_with_a_name(header: str) -> None:
    verify = Verify(hmac=Hmac(secret=Secret("k"), header=header))
    assert refused(lambda: Webhook(path="in", verify=verify)).field == "verify.hmac.header"


def test_exactly_one_way_to_verify_is_needed() -> None:
    assert refused(lambda: Webhook(path="in", verify=Verify())).field == "verify"
    both = Verify(github=Secret("a"), token=Secret("b"))
    problem = refused(lambda: Webhook(path="in", verify=both))
    assert "github and token" in str(problem)
    with pytest.raises(TypeError):
        Webhook(path="in")  # type: ignore[call-arg]


def test_a_webhook_is_the_same_source_when_its_secret_changes() -> None:
    one = Webhook(path="a/b", verify=Verify(github=Secret("one")))
    assert one.identity() == Webhook(path="a/b", verify="none").identity() == "a/b"
