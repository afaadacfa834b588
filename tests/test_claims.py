"""On whose behalf callers say that they ask: recorded as far as it can be told, and never taken for who asks."""

from __future__ import annotations

from typing import Any

import pytest

from engine.http.calls import Call, creator, performer
from engine.http.claims import CREATED_BY, LONGEST_CLAIM, PERFORMED_BY, claim
from engine.plugin import Request
from engine.tokens import Role, Who


@pytest.mark.parametrize("said", ["ann", "Zoë Ångström", "ops, night shift", "x" * LONGEST_CLAIM])
def test_what_can_be_told_is(said: str) -> None:
    assert claim({CREATED_BY: said}, CREATED_BY) == said


@pytest.mark.parametrize(
    "said", ["", "x" * (LONGEST_CLAIM + 1), "\udcff\udcfe", "a\x1b[31mb", "a\tb", "a\u202eb"],
    ids=["nothing", "too long", "no UTF-8", "an escape", "a tab", "turned around"],
)  # fmt: skip
def test_what_can_not_be_stored_or_steers_a_terminal_is_not_told(said: str) -> None:
    assert claim({CREATED_BY: said}, CREATED_BY) is None
    assert creator(call({CREATED_BY: said})) == "ada token"


def test_who_asks_stands_before_what_is_claimed() -> None:
    both = {CREATED_BY: "ann", PERFORMED_BY: "bob"}
    assert (performer(call(both)), creator(call(both))) == ("ada token, for bob", "ada token, for ann")
    assert creator(call({PERFORMED_BY: "bob"})) == "ada token, for bob"


def test_a_user_whose_name_has_a_comma_is_named_as_a_whole() -> None:
    user = Who(name="CN=Ada,OU=Ops", role=Role.ADMIN, address="::1", means="proxy")
    assert creator(call({CREATED_BY: "ann"}, user)) == "CN=Ada,OU=Ops, for ann"


def call(headers: dict[str, str], who: Who | None = None) -> Call:
    made = Who(name="ada", role=Role.ADMIN, address="::1", means="token") if who is None else who
    request = Request(method="POST", path="/", query={}, headers=headers, remote="::1", body=b"")
    operations: Any = None
    return Call(
        operations=operations, request=request, parameters={}, role=made.role, who=made, gate=operations,
        gone=lambda: False,
    )  # fmt: skip
