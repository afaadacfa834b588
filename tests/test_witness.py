"""What the audit log shows of a call: bounded, masked, and such that it can always be stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.audits import Audit, AuditOutcome, read, text_of
from engine.errors import Conflict
from engine.http.problems import Problem
from engine.http.witness import Asking, Witness
from engine.tokens import Role, Who
from tests.fake_operations import FakeAuditLog

ADA = Who(name="ada", role=Role.OPERATOR, address="::1", means="token", prefix="te_12345")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)


def asked(body: bytes = b"", *, method: str = "POST", who: Who | None = ADA) -> Asking:
    asking = Asking(method, {"X-Performed-By": "Bob"}, "::1", "r1")
    asking.pattern = "/api/v1/pause"
    asking.who = who
    asking.body = body
    return asking


async def row_of(asking: Asking, before: Any = None, secrets: frozenset[str] = frozenset()) -> Audit:
    log = FakeAuditLog()
    witness = Witness(log, lambda: secrets)
    note = witness.begin(asking)
    assert note is not None
    note.before = before

    async def answer() -> str:
        return "answered"

    assert await witness.noting(note, answer()) == "answered"
    [row] = log.rows
    return row


@given(JSON)
async def test_whatever_a_handler_tells_can_be_stored(value: Any) -> None:
    row = await row_of(asked(), before=value)
    assert read(text_of(row)).action == "POST /api/v1/pause"


@given(st.binary(max_size=200))
async def test_whatever_is_sent_can_be_stored(body: bytes) -> None:
    assert read(text_of(await row_of(asked(body)))).who == "ada"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", None),
        (b"[1, 2]", [1, 2]),
        (b"\xff", {"bytes": 1}),
        (b"[" * 9000, {"bytes": 9000}),
        (b'"' + b"x" * 17_000 + b'"', {"bytes": 17_002}),
        (b'{"token": "t", "in": {"API_KEY": "k", "data": 1}}', {"token": "***", "in": {"API_KEY": "***", "data": 1}}),
        (b'{"X-API-Key": "k", "passwords": ["p"]}', {"X-API-Key": "***", "passwords": "***"}),
        (b'{"secret": null, "cookie": "c"}', {"secret": None, "cookie": "***"}),
        (b'{"pin_secret": 1234, "has_token": true}', {"pin_secret": "***", "has_token": True}),
        (b'{"token": {"env": "HOOK_TOKEN"}}', {"token": {"env": "HOOK_TOKEN"}}),
        (b'{"in": {"sesame-open": 1}}', {"in": {"***": 1}}),
        (b'{"data": {"a": 1}, "reason": "sesame-open"}', {"data": "(not shown)", "reason": "***"}),
        (b"[" * 30 + b"]" * 30, None),
    ],
)  # fmt: skip
async def test_what_was_sent_is_shown_without_secrets_and_payloads(body: bytes, shown: Any) -> None:
    row = await row_of(asked(body), secrets=frozenset({"sesame-open"}))
    if body.startswith(b"[[") and len(body) < 100:
        assert "(not shown)" in text_of(row)
    else:
        assert row.after == shown


async def test_what_is_no_json_is_shown_as_text_and_what_is_large_by_its_size() -> None:
    assert (await row_of(asked(), before={"at": datetime(2026, 1, 1, tzinfo=UTC)})).before == {
        "at": "2026-01-01 00:00:00+00:00"
    }
    assert (await row_of(asked(), before=["x" * 1000] * 40)).before == {"bytes": 40 * 1003 + 1}


async def test_secrets_are_in_no_claim_and_no_target() -> None:
    asking = asked()
    asking.headers = {"X-Created-By": "sesame-open", "X-Performed-By": "Bob"}
    asking.parameters = {"name": "sesame-open"}
    row = await row_of(asking, secrets=frozenset({"sesame-open"}))
    assert (row.claims, row.target) == ({"created_by": "***", "performed_by": "Bob"}, "***")


async def test_of_nobody_nothing_that_was_sent_is_shown() -> None:
    log = FakeAuditLog()
    witness = Witness(log, frozenset)
    asking = asked(b'{"reason": "x"}', who=None)
    await witness.not_done(asking, Problem(401, "give a token"))
    [row] = log.rows
    assert (row.after, row.who, row.status, row.outcome) == (None, "", 401, AuditOutcome.REFUSED)


@pytest.mark.parametrize(
    ("method", "error", "outcomes"),
    [
        ("POST", Conflict("it has ended"), ["refused"]),
        ("POST", ValueError("a fault"), ["failed"]),
        ("POST", Problem(503, "the store is away"), ["failed"]),
        ("POST", ConnectionResetError("the client left"), []),
        ("GET", Problem(404, "there is nothing here"), []),
        ("GET", Problem(403, "this takes the role admin"), ["refused"]),
        ("GET", Problem(429, "slow down", code="too_many_wrong_tokens"), ["refused"]),
        ("GET", Problem(429, "slow down", code="rate_limited"), []),
    ],
)
async def test_refusals_and_failures_are_told_apart(method: str, error: Exception, outcomes: list[str]) -> None:
    log = FakeAuditLog()
    await Witness(log, frozenset).not_done(asked(method=method), error)
    assert [row.outcome.value for row in log.rows] == outcomes


async def test_who_only_asks_who_it_is_was_not_refused_anything() -> None:
    log = FakeAuditLog()
    asking = asked(method="GET", who=None)
    asking.pattern = "/session"
    await Witness(log, frozenset).not_done(asking, Problem(401, "there is no session"))
    assert log.rows == []
