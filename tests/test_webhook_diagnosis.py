"""What a hook's owner is told of a request that was refused: which of the usual mistakes it was."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from typing import Any

import pytest

from engine.plugin import Explanation, Secret
from plugins.sources.webhook import Basic, Hmac, Verify
from plugins.sources.webhook.guard import MOST_KEPT_BYTES
from tests.hooks import Hook
from tests.test_webhook_vendors import BODY, KEY_A, KEY_B, WAYS, Way, by_slack, by_standard, by_stripe, hook_of

SECRET = "It's a Secret to Everybody"
HEADER = "X-Hub-Signature-256"

signing = pytest.mark.parametrize("way", [way for way in WAYS.values() if way.covers_body])
timed = pytest.mark.parametrize("way", [way for way in WAYS.values() if way.timed])


async def explained(hook: Hook, body: bytes, headers: dict[str, str], **kw: Any) -> Explanation:
    refusal = await hook.refusal(body, headers, **kw)
    assert refusal.explain is not None
    return refusal.explain()


def github() -> Hook:
    return Hook(Verify(github=Secret(SECRET)))


def signed(body: bytes = BODY, secret: str | bytes = SECRET, algorithm: str = "sha256") -> str:
    return hmac.digest(secret.encode() if isinstance(secret, str) else secret, body, algorithm).hex()


@timed
@pytest.mark.parametrize(("late_s", "side"), [(612, "behind"), (-612, "ahead of")])
async def test_a_clock_that_is_wrong_is_told_with_how_far(way: Way, late_s: int, side: str) -> None:
    hook = hook_of(way)
    sent = way.sender(way.secrets[0], BODY, hook.now_s - late_s)
    found = await explained(hook, sent.body, sent.headers)
    assert (found.cause, found.certain) == ("clock_skew", True)
    assert f"612 s {side} the engine's clock" in found.text


@signing
async def test_another_secret_is_the_likeliest_where_nothing_else_explains_it(way: Way) -> None:
    hook = hook_of(way)
    sent = way.sender(way.secrets[2], BODY, hook.now_s)
    found = await explained(hook, sent.body, sent.headers)
    assert (found.cause, found.certain) == ("wrong_secret", False)


@signing
async def test_an_altered_body_is_the_likeliest_from_a_sender_who_was_let_in_before(way: Way) -> None:
    hook = hook_of(way)
    sent = way.sender(way.secrets[0], BODY, hook.now_s)
    await hook.send(sent)
    found = await explained(hook, BODY.replace(b"7", b"8"), sent.headers)
    assert (found.cause, found.certain) == ("altered_body", False)
    elsewhere = await explained(hook, BODY.replace(b"7", b"8"), sent.headers, remote="198.51.100.1")
    assert elsewhere.cause == "wrong_secret"


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (f"{SECRET}\n", "line feed"), (SECRET.lower(), "small letters"), (SECRET.upper(), "capital letters"),
        (base64.b64encode(SECRET.encode()).decode(), "base64"), ("", "empty"),
    ],
)  # fmt: skip
async def test_a_secret_that_is_nearly_the_right_one_is_told(secret: str, says: str) -> None:
    found = await explained(github(), BODY, {HEADER: f"sha256={signed(secret=secret)}"})
    assert (found.cause, found.certain) == ("wrong_secret", True)
    assert says in found.text


async def test_a_key_that_was_not_decoded_is_told() -> None:
    hook = Hook(Verify(standard=Secret(KEY_A)))
    for text, says in ((KEY_A.removeprefix("whsec_"), "plain text"), (KEY_A, "plain text")):
        mac = hmac.digest(text.encode(), f"m1.{hook.now_s}.".encode() + BODY, "sha256")
        headers = {
            "webhook-id": "m1", "webhook-timestamp": str(hook.now_s),
            "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
        }  # fmt: skip
        found = await explained(hook, BODY, headers)
        assert (found.cause, found.certain) == ("wrong_secret", True)
        assert says in found.text
    by_decoding = Hook(Verify(stripe=Secret(KEY_A)))
    key = base64.b64decode(KEY_A.removeprefix("whsec_"))
    mac_text = hmac.digest(key, f"{hook.now_s}.".encode() + BODY, "sha256").hex()
    found = await explained(by_decoding, BODY, {"Stripe-Signature": f"t={hook.now_s},v1={mac_text}"})
    assert (found.cause, found.certain) == ("wrong_secret", True)


SENT = json.dumps({"b": "ü", "a": [1, 2]}, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (SENT + b"\n", SENT),
        (SENT, SENT + b"\n"),
        (SENT.replace(b",", b",\r\n"), SENT.replace(b",", b",\n")),
        (SENT.replace(b",", b",\n"), SENT.replace(b",", b",\r\n")),
        (SENT, json.dumps(json.loads(SENT)).encode()),
        (json.dumps(json.loads(SENT)).encode(), SENT),
        (SENT, json.dumps(json.loads(SENT), indent=2).encode()),
        (json.dumps(json.loads(SENT), sort_keys=True).encode(), SENT),
        (json.dumps(json.loads(SENT), indent=2, ensure_ascii=False).encode(), SENT),
        (SENT, gzip.compress(SENT, mtime=0)),
        (b"", SENT),
    ],
)
@signing
async def test_a_body_that_was_altered_on_its_way_in_a_usual_manner_is_told(
    way: Way, sent: bytes, received: bytes
) -> None:
    hook = hook_of(way)
    headers = way.sender(way.secrets[0], sent, hook.now_s).headers
    found = await explained(hook, received, headers)
    assert (found.cause, found.certain) == ("altered_body", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Digest", "sha-256=:" + base64.b64encode(hashlib.sha256(BODY).digest()).decode() + ":"),
        ("Digest", "SHA-256=" + base64.b64encode(hashlib.sha256(BODY).digest()).decode()),
        ("Content-MD5", base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()),
    ],
)
async def test_a_body_that_is_not_that_of_the_senders_digest_was_altered(name: str, value: str) -> None:
    headers = {HEADER: f"sha256={signed()}", name: value}
    found = await explained(github(), BODY.replace(b"7", b"8"), headers)
    assert (found.cause, found.certain) == ("altered_body", True)
    assert name in found.text
    # Where the digest is right and the signature is not, it was no alteration.
    other = await explained(github(), BODY, {HEADER: f"sha256={signed(secret='other')}", name: value})
    assert other.cause == "wrong_secret"


async def test_a_signature_in_another_header_is_told() -> None:
    found = await explained(github(), BODY, {"X-My-Signature": f"sha256={signed()}", "Accept": "*/*"})
    assert (found.cause, found.certain) == ("wrong_header", True)
    assert "X-My-Signature" in found.text


async def test_a_header_that_is_missing_is_told_with_those_that_are_there_instead() -> None:
    found = await explained(github(), BODY, {"X-Gitlab-Token": "abc"})
    assert found.cause == "wrong_header"
    assert "X-Gitlab-Token" in found.text
    assert "abc" not in found.text
    assert (await explained(github(), BODY, {})).cause == "wrong_header"
    hook = Hook(Verify(slack=Secret("s3cret")))
    headers = by_slack("s3cret", BODY, hook.now_s).headers
    del headers["X-Slack-Request-Timestamp"]
    found = await explained(hook, BODY, headers)
    assert found.cause == "wrong_header"
    assert "X-Slack-Request-Timestamp" in found.text


RAW = bytes.fromhex(signed())


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        (f"sha256={base64.b64encode(RAW).decode()}", "base64"),
        (f"sha256={base64.urlsafe_b64encode(RAW).decode().rstrip('=')}", "base64"),
        (signed(), "sha256="),
        (f'sha256="{signed()}"', "bare"),
        (f"sha256= {signed()}", "bare"),
        (f"sha1={signed(algorithm='sha1')}", "sha1"),
        (f"sha256={signed(algorithm='sha512')}", "sha512"),
    ],
)
async def test_a_right_signature_that_is_written_in_another_way_is_told(offered: str, says: str) -> None:
    found = await explained(github(), BODY, {HEADER: offered})
    assert (found.cause, found.certain) == ("wrong_encoding", True)
    assert says in found.text


@pytest.mark.parametrize("offered", ["", "sha256=", "sha256=" + "0" * 63, "sha1=" + "0" * 40, "none", "é"])
async def test_what_is_no_signature_at_all_is_told_with_what_one_looks_like(offered: str) -> None:
    found = await explained(github(), BODY, {HEADER: offered})
    assert (found.cause, found.certain) == ("wrong_encoding", True)
    assert "has 64 characters" in found.text


async def test_a_signature_of_the_body_alone_is_told_where_more_should_be_signed() -> None:
    hook = Hook(Verify(slack=Secret(SECRET)))
    headers = {"X-Slack-Signature": f"v0={signed()}", "X-Slack-Request-Timestamp": str(hook.now_s)}
    found = await explained(hook, BODY, headers)
    assert (found.cause, found.certain) == ("wrong_encoding", True)
    assert "body alone" in found.text


@pytest.mark.parametrize(
    ("headers", "cause", "says"),
    [
        ({}, "wrong_header", "no token"),
        ({"X-Api-Key": "T0ken-of-ours"}, "wrong_header", "X-Api-Key"),
        ({"Authorization": "T0ken-of-ours"}, "wrong_header", "Authorization"),
        ({"X-Webhook-Token": '"T0ken-of-ours"'}, "wrong_encoding", "quotes"),
        ({"X-Webhook-Token": "Bearer T0ken-of-ours"}, "wrong_encoding", "word before it"),
        ({"X-Webhook-Token": base64.b64encode(b"T0ken-of-ours").decode()}, "wrong_encoding", "base64"),
        ({"X-Webhook-Token": "t0ken-of-ours"}, "wrong_secret", "capital letters"),
        ({"X-Webhook-Token": "another"}, "wrong_secret", "another"),
    ],
)
async def test_what_is_wrong_with_a_token_is_told(headers: dict[str, str], cause: str, says: str) -> None:
    found = await explained(Hook(Verify(token=Secret("T0ken-of-ours"))), BODY, headers)
    assert (found.cause, found.certain) == (cause, True)
    assert says in found.text
    assert "ken-of-ours" not in found.text


@pytest.mark.parametrize(
    ("authorization", "cause"),
    [
        ("", "wrong_header"),
        ("Bearer l0velace", "wrong_header"),
        ("Basic YWRh", "wrong_encoding"),
        ("Basic " + base64.b64encode(b"bob:l0velace").decode(), "wrong_secret"),
        ("Basic " + base64.b64encode(b"ada:other").decode(), "wrong_secret"),
    ],
)
async def test_what_is_wrong_with_user_and_password_is_told(authorization: str, cause: str) -> None:
    hook = Hook(Verify(basic=Basic(user="ada", password=Secret("l0velace"))))
    found = await explained(hook, BODY, {"Authorization": authorization})
    assert found.cause == cause
    assert "l0velace" not in found.text


async def test_of_two_ways_that_count_the_one_that_was_meant_is_explained() -> None:
    hook = Hook(Verify(gitlab=(Secret("old-token-of-ours"), Secret(KEY_A))))
    assert (await explained(hook, BODY, {"X-Gitlab-Token": "wrong"})).cause == "wrong_secret"
    late = by_standard(KEY_A, BODY, hook.now_s - 600).headers
    assert (await explained(hook, BODY, late)).cause == "clock_skew"
    assert (await explained(hook, BODY, {})).cause == "wrong_header"


async def test_a_network_that_is_not_let_in_is_told() -> None:
    found = await explained(Hook("none", allow=("10.0.0.0/8",)), BODY, {}, remote="192.0.2.9")
    assert found.cause == "wrong_network"
    assert "192.0.2.9" in found.text
    assert "10.0.0.0/8" in found.text


async def test_a_wrong_secret_and_a_wrong_clock_are_both_told() -> None:
    hook = Hook(Verify(stripe=Secret(KEY_A)))
    sent = by_stripe(KEY_B, BODY, hook.now_s - 4000)
    found = await explained(hook, sent.body, sent.headers)
    assert found.cause == "wrong_secret"
    assert "4,000 s behind" in found.text


async def test_a_large_body_is_not_kept_and_that_is_told() -> None:
    hook, body = github(), b" " * (MOST_KEPT_BYTES + 1)
    refusal = await hook.refusal(body, {HEADER: f"sha256={signed()}"})
    assert refusal.explain is not None
    found = refusal.explain()
    assert (found.cause, found.certain) == ("unknown", False)
    assert body not in [request.body for request in _requests_in(refusal.explain)]
    assert (await explained(github(), body, {})).cause == "wrong_header"


def _requests_in(explain: Any) -> list[Any]:
    return [value for value in explain.args if hasattr(value, "body")]


async def test_each_wrong_request_costs_the_same_digests_of_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an answer must tell nothing: so what is computed for it is the same whatever is wrong."""
    made: list[int] = []

    class Counting:
        def __init__(self, *_: Any, **__: Any) -> None:
            self._bytes = 0

        def copy(self) -> Counting:
            return Counting()

        def update(self, data: bytes) -> None:
            self._bytes += len(data)

        def hexdigest(self) -> str:
            made.append(self._bytes)
            return "0" * 64

    monkeypatch.setattr("plugins.sources.webhook.proofs.hmac.new", Counting)
    hook = Hook(Verify(github=(Secret(SECRET), Secret("another of ours"))))
    for headers in ({}, {HEADER: "x"}, {HEADER: "sha256="}, {HEADER: "sha256=" + "1" * 64}, {HEADER: "é"}):
        made.clear()
        await hook.refusal(BODY, headers)
        assert made == [len(BODY)] * 2


async def test_odd_bodies_and_headers_are_explained_without_a_fault() -> None:
    mac = Hmac(secret=Secret("k"), header="X-Sig", signed="{timestamp}{body}", timestamp="X-At")
    hook = Hook(Verify(hmac=mac))
    for body in (b"", b"\xff", b"[" * 50_000, b"\x1f\x8b\x08", gzip.compress(b"0" * 20_000_000)):
        for headers in ({}, {"X-Sig": "é" * 9000, "X-At": "\ud800"}, {"X-Sig": ",".join("=" * 900), "X-At": "1e9"}):
            assert (await explained(hook, body, headers)).text


async def test_what_it_costs_to_explain_does_not_grow_with_what_a_sender_offers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []
    for offered in ("sha256=" + "0" * 64, ",".join(f"{number:064x}" for number in range(200))):
        made: list[int] = []

        def digest(key: bytes, signed: bytes, algorithm: str, made: list[int] = made) -> bytes:
            made.append(len(signed))
            return b"\0"

        hook = github()
        refusal = await hook.refusal(BODY, {HEADER: offered})
        with monkeypatch.context() as patched:
            patched.setattr("plugins.sources.webhook.diagnosis.hmac.digest", digest)
            assert refusal.explain is not None
            assert refusal.explain().cause == "wrong_secret"
        counts.append(len(made))
    assert counts[0] == counts[1] < 60
