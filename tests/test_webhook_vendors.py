"""Each way to prove who sends, against the packages of those who send: right, and wrong in every part."""

from __future__ import annotations

import base64
import hmac
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import stripe
from gidgethub import ValidationFailure
from gidgethub.sansio import validate_event
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from slack_sdk.signature import SignatureVerifier
from standardwebhooks.webhooks import Webhook as StandardSender

from engine.plugin import BadSetting, Secret
from plugins.sources.webhook import Basic, Hmac, Verify, Webhook
from plugins.sources.webhook.verify import texts_of
from tests.hooks import Hook, Sender, Sent

KEY_A = "whsec_" + base64.b64encode(b"the first key, of 32 bytes or so").decode()
KEY_B = "whsec_" + base64.b64encode(b"another key, as long as that one").decode()
KEY_C = "whsec_" + base64.b64encode(b"one that nobody has configured, ").decode()

BODY = b'{"type": "invoice.paid", "id": "evt_1", "object_kind": "push", "amount": 7}'

JEFE_SHA256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
"""The second test case of RFC 4231: the key `Jefe`, and the text below."""

JEFE_SHA512 = (
    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636"
    "e070a38bce737"
)
JEFE_SHA1 = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
"""The second test case of RFC 2202."""

JEFE_BODY = b"what do ya want for nothing?"


def by_standard(secret: str, body: bytes, now_s: int, prefix: str = "webhook") -> Sent:
    signature = StandardSender(secret).sign("msg_1", datetime.fromtimestamp(now_s, UTC), body.decode())
    headers = {f"{prefix}-id": "msg_1", f"{prefix}-timestamp": str(now_s), f"{prefix}-signature": signature}
    return Sent(body=body, headers=headers)


def by_gitlab_signing(secret: str, body: bytes, now_s: int) -> Sent:
    sent = by_standard(secret, body, now_s)
    return Sent(body=body, headers=sent.headers | {"Idempotency-Key": "msg_1", "X-Gitlab-Event": "Push Hook"})


def by_gitlab_token(secret: str, body: bytes, now_s: int) -> Sent:
    return Sent(body=body, headers={"X-Gitlab-Token": secret, "Idempotency-Key": "d1"})


def by_stripe(secret: str, body: bytes, now_s: int) -> Sent:
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, now_s)
    return Sent(body=body, headers={"Stripe-Signature": header})


def by_slack(secret: str, body: bytes, now_s: int) -> Sent:
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(now_s), body=body)
    return Sent(body=body, headers={"X-Slack-Request-Timestamp": str(now_s), "X-Slack-Signature": signature or ""})


def by_token(secret: str, body: bytes, now_s: int, header: str = "X-Webhook-Token") -> Sent:
    return Sent(body=body, headers={header: secret})


def by_basic(secret: str, body: bytes, now_s: int) -> Sent:
    return Sent(body=body, headers={"Authorization": "Basic " + base64.b64encode(f"ada:{secret}".encode()).decode()})


def of_slacks_making(secrets: tuple[Secret, ...]) -> Verify:
    """Return what Slack does, in the words of `hmac`."""
    return Verify(
        hmac=Hmac(
            secret=secrets, header="X-Slack-Signature", prefix="v0=", signed="v0:{timestamp}:{body}",
            timestamp="X-Slack-Request-Timestamp",
        )
    )  # fmt: skip


class Way(Struct, frozen=True, kw_only=True):
    """A way to verify: how it is configured, who sends by it, and what its events are called."""

    verify: Any
    sender: Sender
    secrets: tuple[str, str, str]
    proves: tuple[str, ...]
    kind: str = "webhook.in"
    key: str | None = None
    timed: bool = False
    covers_body: bool = True


PLAIN = ("first-secret", "second-secret", "third-secret")
KEYS = (KEY_A, KEY_B, KEY_C)

WAYS = {
    "standard": Way(
        verify=lambda secrets: Verify(standard=secrets), sender=by_standard, secrets=KEYS, timed=True,
        proves=("webhook-id", "webhook-timestamp", "webhook-signature"), kind="invoice.paid", key="msg_1",
    ),
    "svix": Way(
        verify=lambda secrets: Verify(standard=secrets), sender=partial(by_standard, prefix="svix"), secrets=KEYS,
        timed=True, proves=("svix-id", "svix-timestamp", "svix-signature"), kind="invoice.paid", key="msg_1",
    ),
    "gitlab-signing": Way(
        verify=lambda secrets: Verify(gitlab=secrets), sender=by_gitlab_signing, secrets=KEYS, timed=True,
        proves=("webhook-id", "webhook-timestamp", "webhook-signature"), kind="push", key="msg_1",
    ),
    "gitlab-token": Way(
        verify=lambda secrets: Verify(gitlab=secrets), sender=by_gitlab_token, secrets=PLAIN, covers_body=False,
        proves=("X-Gitlab-Token",), kind="push", key="d1",
    ),
    "stripe": Way(
        verify=lambda secrets: Verify(stripe=secrets), sender=by_stripe, secrets=KEYS, timed=True,
        proves=("Stripe-Signature",), kind="invoice.paid", key="evt_1",
    ),
    "slack": Way(
        verify=lambda secrets: Verify(slack=secrets), sender=by_slack, secrets=PLAIN, timed=True,
        proves=("X-Slack-Request-Timestamp", "X-Slack-Signature"), kind="invoice.paid",
    ),
    "hmac": Way(
        verify=of_slacks_making, sender=by_slack, secrets=PLAIN, timed=True,
        proves=("X-Slack-Request-Timestamp", "X-Slack-Signature"),
    ),
    "token": Way(
        verify=lambda secrets: Verify(token=secrets), sender=by_token, secrets=PLAIN, proves=("X-Webhook-Token",),
        covers_body=False,
    ),
    "token-header": Way(
        verify=lambda secrets: Verify(token=secrets, header="X-Telegram-Bot-Api-Secret-Token"), secrets=PLAIN,
        sender=partial(by_token, header="X-Telegram-Bot-Api-Secret-Token"), covers_body=False,
        proves=("X-Telegram-Bot-Api-Secret-Token",),
    ),
    "basic": Way(
        verify=lambda secrets: Verify(basic=Basic(user="ada", password=secrets)), sender=by_basic, secrets=PLAIN,
        proves=("Authorization",), covers_body=False,
    ),
}  # fmt: skip

each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
each_timed = pytest.mark.parametrize("way", [way for way in WAYS.values() if way.timed])


def hook_of(way: Way, *secrets: str) -> Hook:
    return Hook(way.verify(tuple(map(Secret, secrets or way.secrets[:1]))))


@each_way
async def test_what_its_sender_signs_is_accepted_and_called_as_he_calls_it(way: Way) -> None:
    hook = hook_of(way)
    event = await hook.event(way.sender(way.secrets[0], BODY, hook.now_s))
    assert event.type == way.kind
    assert way.key is None or event.key == way.key


@each_way
async def test_secrets_that_are_listed_all_count_and_no_other_does(way: Way) -> None:
    hook = hook_of(way, *way.secrets[:2])
    for secret in way.secrets[:2]:
        assert (await hook.send(way.sender(secret, BODY, hook.now_s))).status == 202
    sent = way.sender(way.secrets[2], BODY, hook.now_s)
    assert (await hook.refusal(sent.body, sent.headers)).status == 401


@each_way
async def test_a_request_that_is_wrong_in_any_part_is_refused_and_told_the_same(way: Way) -> None:
    hook = hook_of(way)
    right = way.sender(way.secrets[0], BODY, hook.now_s)
    wrong = [(right.body, {name: value for name, value in right.headers.items() if name != left_out})
             for left_out in way.proves]  # fmt: skip
    for name in way.proves:
        value = right.headers[name]
        altered = [value[:at] + ("x" if value[at] != "x" else "y") + value[at + 1 :] for at in range(len(value))]
        odd = ["", "é", "caf\udce9", "\ud800", "0", "x" * 9000, value[:-1], value + "0", value[::-1]]
        wrong += [(right.body, {**right.headers, name: one}) for one in [*altered, *odd]]
    if way.covers_body:
        wrong += [(body, right.headers) for body in (b"", BODY + b"\n", BODY[:-1], BODY.replace(b"7", b"8"), b"\xff")]
    answers = set()
    for body, headers in wrong:
        refusal = await hook.refusal(body, headers)
        answers.add((refusal.status, refusal.title, refusal.detail, tuple(refusal.headers.items())))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    assert (await hook.send(right)).status == 202


@each_timed
@pytest.mark.parametrize("late_s", [-300, -299, 0, 299, 300])
async def test_a_time_of_sending_may_be_five_minutes_off(way: Way, late_s: int) -> None:
    hook = hook_of(way)
    assert (await hook.send(way.sender(way.secrets[0], BODY, hook.now_s - late_s))).status == 202


@each_timed
@pytest.mark.parametrize("late_s", [-301, 301, 86400, -86400])
async def test_one_that_is_further_off_is_refused_in_either_direction(way: Way, late_s: int) -> None:
    hook = hook_of(way)
    sent = way.sender(way.secrets[0], BODY, hook.now_s - late_s)
    refusal = await hook.refusal(sent.body, sent.headers)
    assert (refusal.status, refusal.detail) == (401, "The request does not prove that it comes from the sender.")
    assert "clock" in refusal.reason


async def test_how_far_off_it_may_be_is_configured() -> None:
    hook = Hook(Verify(slack=Secret("s3cret"), tolerance=10.0))
    assert (await hook.send(by_slack("s3cret", BODY, hook.now_s - 10))).status == 202
    sent = by_slack("s3cret", BODY, hook.now_s - 11)
    assert (await hook.refusal(sent.body, sent.headers)).status == 401


@each_timed
@pytest.mark.parametrize("more", [{}, {"Idempotency-Key": "another"}, {"User-Agent": "a thief"}])
async def test_a_repeat_of_a_signed_request_is_no_second_event_whatever_else_is_altered(
    way: Way, more: dict[str, str]
) -> None:
    hook = hook_of(way)
    sent = way.sender(way.secrets[0], BODY, hook.now_s)
    first = await hook.send(sent)
    await hook.clock.advance(200)
    again = await hook.post(sent.body, {**sent.headers, **more})
    assert again.body == {**first.body, "duplicate": True}
    assert len(hook.context.emitted) == 1


async def test_a_repeat_with_one_of_two_signatures_left_out_is_no_second_event() -> None:
    hook = Hook(of_slacks_making((Secret("a"), Secret("b"))))
    assert (await hook.send(by_slack("a", BODY, hook.now_s))).body["duplicate"] is False
    assert (await hook.send(by_slack("b", BODY, hook.now_s))).body["duplicate"] is True


async def test_one_right_signature_among_several_is_enough() -> None:
    hook = Hook(Verify(standard=Secret(KEY_A)))
    sent = by_standard(KEY_A, BODY, hook.now_s)
    right = sent.headers["webhook-signature"]
    others = [by_standard(key, BODY, hook.now_s).headers["webhook-signature"] for key in (KEY_B, KEY_C)]
    for offered in ([*others, right], [right, *others], ["v1a,xx", "v2,yy", right], ["", right, ""]):
        headers = {**sent.headers, "webhook-signature": " ".join(offered)}
        assert (await hook.post(BODY, headers)).status == 202
    headers = {**sent.headers, "webhook-signature": " ".join([others[0]] * 16 + [right])}
    assert (await hook.refusal(BODY, headers)).status == 401
    stripe_hook = Hook(Verify(stripe=Secret(KEY_A)))
    right, wrong = (by_stripe(key, BODY, hook.now_s).headers["Stripe-Signature"] for key in (KEY_A, KEY_B))
    both = f"{right},{wrong.partition(',')[2]},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
    assert (await stripe_hook.post(BODY, {"Stripe-Signature": both})).status == 202


async def test_a_signature_of_a_test_version_alone_proves_nothing() -> None:
    hook = Hook(Verify(stripe=Secret(KEY_A)))
    header = by_stripe(KEY_A, BODY, hook.now_s).headers["Stripe-Signature"].replace("v1=", "v0=")
    assert (await hook.refusal(BODY, {"Stripe-Signature": header})).status == 401


@pytest.mark.parametrize("body", [BODY, b"{}", b'{"a": "\xc3\xa9"}'])
@pytest.mark.parametrize("secret", ["s3cret", "ünïcode", "a" * 200])
async def test_github_is_verified_as_by_gidgethub(body: bytes, secret: str) -> None:
    hook = Hook(Verify(github=Secret(secret)))
    for offered in _signatures_of_github(secret, body):
        try:
            validate_event(body, signature=offered, secret=secret)
        except ValidationFailure:
            assert (await hook.refusal(body, {"X-Hub-Signature-256": offered})).status == 401
        else:
            assert (await hook.post(body, {"X-Hub-Signature-256": offered})).status == 202


def _signatures_of_github(secret: str, body: bytes) -> list[str]:
    """Return signatures of which gidgethub takes one; what it took is found from its own answer."""
    right = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    return [right, right[:-1] + ("0" if right[-1] != "0" else "1"), right[:-1], right.replace("sha256=", "sha512=")]


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("sha256", JEFE_SHA256), ("sha512", JEFE_SHA512), ("sha1", JEFE_SHA1)]
)
async def test_the_vectors_of_the_rfcs_are_accepted(algorithm: Any, digest: str) -> None:
    encoded = base64.b64encode(bytes.fromhex(digest)).decode()
    for encoding, text in (("hex", digest), ("base64", encoded)):
        mac = Hmac(secret=Secret("Jefe"), header="X-Sig", algorithm=algorithm, encoding=encoding)  # type: ignore[arg-type]
        # The text is no JSON: that it is told so, and not 401, shows that its signature was good.
        assert (await Hook(Verify(hmac=mac)).refusal(JEFE_BODY, {"X-Sig": text})).status == 400


async def test_shopifys_signature_is_base64_and_its_topic_the_type() -> None:
    secret = Secret("Jefe")
    right = base64.b64encode(bytes.fromhex(JEFE_SHA256)).decode()
    hook = Hook(Verify(shopify=secret))
    assert (await hook.refusal(JEFE_BODY, {"X-Shopify-Hmac-Sha256": right})).status == 400
    for wrong in (JEFE_SHA256, right.lower(), right[:-1], right.rstrip("=") + "==", ""):
        assert (await hook.refusal(JEFE_BODY, {"X-Shopify-Hmac-Sha256": wrong})).status == 401
    mac = Hook(Verify(hmac=Hmac(secret=secret, header="X-Shopify-Hmac-Sha256", encoding="base64")))
    signed = base64.b64encode(hmac.digest(b"Jefe", BODY, "sha256")).decode()
    headers = {
        "X-Shopify-Hmac-Sha256": signed, "X-Shopify-Topic": "orders/create", "X-Shopify-Webhook-Id": "b54557e4",
    }  # fmt: skip
    event = await hook.event(Sent(body=BODY, headers=headers))
    assert (event.type, event.key) == ("orders/create", "b54557e4")
    assert (await mac.event(Sent(body=BODY, headers=headers))).type == "webhook.in"


@pytest.mark.parametrize("way", ["stripe", "slack", "standard"])
async def test_what_is_accepted_is_what_the_vendors_own_package_accepts(way: str) -> None:
    now_s = int(datetime.now(UTC).timestamp())
    sent = WAYS[way].sender(KEY_A, BODY, now_s)
    if way == "stripe":
        stripe.WebhookSignature.verify_header(BODY, sent.headers["Stripe-Signature"], KEY_A, 300)
    elif way == "slack":
        assert SignatureVerifier(KEY_A).is_valid_request(BODY, sent.headers)
    else:
        StandardSender(KEY_A).verify(BODY, sent.headers)
    hook = hook_of(WAYS[way], KEY_A)
    hook.clock.step(now_s - hook.now_s)
    assert (await hook.send(sent)).status == 202


async def test_slacks_question_for_a_new_url_is_answered_when_it_is_signed_and_is_no_event() -> None:
    hook = Hook(Verify(slack=Secret("s3cret")))
    body = b'{"token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHk", "type": "url_verification"}'
    answer = await hook.send(by_slack("s3cret", body, hook.now_s))
    assert (answer.status, answer.body) == (
        200, {"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHk"},
    )  # fmt: skip
    assert hook.context.emitted == []
    assert (await hook.refusal(body, {})).status == 401
    for odd in (b'{"type": "url_verification", "challenge": 7}', b'{"x": "url_verification"}'):
        assert (await hook.send(by_slack("s3cret", odd, hook.now_s))).status == 202


async def test_slacks_events_are_called_by_what_happened_and_keyed_by_their_id() -> None:
    hook = Hook(Verify(slack=Secret("s3cret")))
    body = b'{"type": "event_callback", "event_id": "Ev1", "event": {"type": "app_mention", "text": "hi"}}'
    event = await hook.event(by_slack("s3cret", body, hook.now_s))
    assert (event.type, event.key) == ("app_mention", "Ev1")
    # Slack sends again what it had no answer to, with another time and signature, and the same id.
    assert (await hook.send(by_slack("s3cret", body, hook.now_s + 60))).body["duplicate"] is True


async def test_gitlab_may_go_over_from_a_token_to_signing_without_a_gap() -> None:
    hook = Hook(Verify(gitlab=(Secret("old-token-of-ours"), Secret(KEY_A))))
    assert (await hook.send(by_gitlab_token("old-token-of-ours", BODY, hook.now_s))).status == 202
    assert (await hook.send(by_gitlab_signing(KEY_A, BODY, hook.now_s))).status == 202
    both = by_gitlab_signing(KEY_A, BODY, hook.now_s).headers | {"X-Gitlab-Token": "old-token-of-ours"}
    assert (await hook.post(BODY, both)).status == 202
    assert (await hook.refusal(BODY, {"X-Gitlab-Token": KEY_A})).status == 401
    assert (await hook.refusal(BODY, {})).status == 401
    signed_alone = Hook(Verify(gitlab=Secret(KEY_A)))
    assert (await signed_alone.refusal(BODY, {"X-Gitlab-Token": KEY_A})).status == 401


@pytest.mark.parametrize(
    ("written", "is_good"),
    [
        ("1767225600", True), ("1767225600000", True), ("2026-01-01T00:00:00Z", True),
        ("2026-01-01T01:00:00+01:00", True), ("Thu, 01 Jan 2026 00:00:00 GMT", True), ("1767225600.5", False),
        ("٣", False), ("-1", False), ("", False), ("soon", False), ("9" * 40, False), ("1e9", False), ("0", False),
    ],
)  # fmt: skip
async def test_a_time_of_sending_is_read_as_senders_write_it(written: str, is_good: bool) -> None:
    mac = Hmac(
        secret=Secret("k"), header="X-Sig", signed="{method} {path}\n{timestamp}\n{id}\n{body}\nend", timestamp="X-At",
        id="X-Id",
    )  # fmt: skip
    hook = Hook(Verify(hmac=mac))
    hook.clock.step(1767225600 - hook.now_s)
    signed = f"POST /hooks/in\n{written}\nd-1\n".encode() + BODY + b"\nend"
    headers = {"X-Sig": hmac.digest(b"k", signed, "sha256").hex(), "X-At": written, "X-Id": "d-1"}
    if is_good:
        assert (await hook.event(Sent(body=BODY, headers=headers))).key == "d-1"
    else:
        assert (await hook.refusal(BODY, headers)).status == 401
    for name in ("X-At", "X-Id"):
        less = {key: value for key, value in headers.items() if key != name}
        assert (await hook.refusal(BODY, less)).status == 401


@pytest.mark.parametrize("offered", ["Basic", "Basic !!!", "Basic YWRh", "Basic OnM=", "Bearer x", "basic", "é"])
async def test_odd_basic_credentials_are_401_and_say_what_is_wanted(offered: str) -> None:
    hook = Hook(Verify(basic=Basic(user="ada", password=Secret("l0velace"))))
    refusal = await hook.refusal(BODY, {"Authorization": offered})
    assert refusal.status == 401
    assert refusal.headers["WWW-Authenticate"].startswith("Basic ")


async def test_only_networks_that_are_named_are_let_in() -> None:
    hook = Hook(Verify(token=Secret("t0ken")), allow=("10.0.0.0/8", "2001:db8::/32", "192.0.2.7"))
    token = {"X-Webhook-Token": "t0ken"}
    for remote in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.7"):
        assert (await hook.post(BODY, token, remote=remote)).status == 202
    for remote in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::1", "", "unix:", "10.1.2.3.4"):
        outside, wrong = await hook.refusal(BODY, token, remote=remote), await hook.refusal(BODY, {}, remote="10.1.2.3")
        assert (outside.status, outside.detail, outside.headers) == (wrong.status, wrong.detail, wrong.headers)
        assert "allow" in outside.reason
    open_hook = Hook("none", allow=("10.0.0.0/8",))
    assert (await open_hook.post(BODY, remote="10.0.0.1")).status == 202
    assert (await open_hook.refusal(BODY, remote="192.0.2.1")).status == 403


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=80), other=st.text(max_size=30), body=st.binary(max_size=64))
async def test_nothing_that_anybody_sends_is_a_fault(text: str, other: str, body: bytes) -> None:
    for way in WAYS.values():
        hook = hook_of(way)
        for headers in (
            dict.fromkeys(way.proves, text), {**dict.fromkeys(way.proves, other), way.proves[-1]: text},
            dict.fromkeys(way.proves, f"t={other},v1={text} v1,{text}"),
        ):  # fmt: skip
            refusal = await hook.refusal(body, headers)
            assert refusal.status == 401
            assert refusal.explain is not None
            assert refusal.explain().text


@each_way
async def test_no_answer_reason_or_explanation_holds_a_secret_or_what_would_be_right(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook = hook_of(way)
    right = way.sender(way.secrets[0], BODY, hook.now_s)
    shown = []
    for name in way.proves:
        for value in ("", "x", right.headers[name][:-1], right.headers[name] + "0"):
            refusal = await hook.refusal(BODY, {**right.headers, name: value})
            assert refusal.explain is not None
            shown += [str(refusal), repr(refusal), refusal.title, refusal.reason, repr(refusal.headers)]
            shown.append(repr(refusal.explain()))
    secrets = [way.secrets[0], way.secrets[0].removeprefix("whsec_")]
    macs = [right.headers[name] for name in way.proves if "ignature" in name]
    macs += [part for mac in macs for part in mac.replace(",", "=").split("=") if len(part) > 12]
    for hidden in [*secrets, *macs, *(mac[:16] for mac in macs if len(mac) > 20 and not mac.startswith("t="))]:
        assert hidden not in f"{shown}{caplog.text}"


def refused(**settings: Any) -> BadSetting:
    with pytest.raises(BadSetting) as caught:
        Webhook(path="in", **settings)
    return caught.value


@pytest.mark.parametrize("way", ["github", "gitlab", "standard", "stripe", "slack", "shopify", "token"])
@pytest.mark.parametrize("secret", ["", " ", "\n", "whsec_", "changeme", "Secret", "password "])
def test_a_secret_that_is_none_or_that_everybody_knows_is_refused(way: str, secret: str) -> None:
    verify: dict[str, Any] = {way: Secret(secret)}
    assert refused(verify=Verify(**verify)).field == f"verify.{way}"
    verify = {way: (Secret(KEY_A), Secret(secret))}
    assert refused(verify=Verify(**verify)).field == f"verify.{way}"
    assert refused(verify=Verify(**{way: ()})).field == f"verify.{way}"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verify", "field"),
    [
        (Verify(standard=Secret("whsec_!!")), "verify.standard"),
        (Verify(standard=Secret("whsec_c2hvcnQ=")), "verify.standard"),
        (Verify(gitlab=Secret("whsec_c2hvcnQ=")), "verify.gitlab"),
        (Verify(gitlab=Secret("two words")), "verify.gitlab"),
        (Verify(basic=Basic(user="", password=Secret("p4ss"))), "verify.basic.user"),
        (Verify(basic=Basic(user="a:b", password=Secret("p4ss"))), "verify.basic.user"),
        (Verify(basic=Basic(user="a", password=Secret(""))), "verify.basic.password"),
        (Verify(github=Secret("s3cret"), header="X-Sig"), "verify.header"),
        (Verify(token=Secret("t0ken"), header="X Sig"), "verify.header"),
        (Verify(github=Secret("s3cret"), tolerance=60.0), "verify.tolerance"),
        (Verify(gitlab=Secret("t0ken"), tolerance=60.0), "verify.tolerance"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{when}{body}")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{timestamp}.{body}")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{id}.{body}")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="body")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{body}{body}")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{body}{")), "verify.hmac.signed"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", timestamp="X-At")), "verify.hmac.timestamp"),
        (Verify(hmac=Hmac(secret=Secret("k"), header="X", id="X-Id")), "verify.hmac.id"),
        (
            Verify(hmac=Hmac(secret=Secret("k"), header="X", signed="{id}{body}", id="X Id")),
            "verify.hmac.id",
        ),
    ],
)
def test_settings_that_would_prove_less_than_they_say_are_refused(verify: Verify, field: str) -> None:
    assert refused(verify=verify).field == field


@pytest.mark.parametrize("network", ["10.0.0.1/8", "everywhere", "10.0.0.0/33", ""])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    assert refused(verify="none", allow=(network,)).field == "allow"


def test_a_secret_of_standard_webhooks_may_lack_its_padding() -> None:
    unpadded = Secret(KEY_A.rstrip("="))
    Webhook(path="in", verify=Verify(standard=(unpadded, Secret(KEY_B.removeprefix("whsec_")))))
    assert texts_of(unpadded) == (KEY_A.rstrip("="),)
