"""The route and the command that tell why a trigger did not run: what they take, and what they refuse."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.cli.failures import CommandFailed
from engine.cli.hindsight import _instant
from engine.spans import Span, SpanKind
from tests.fake_operations import FakeOperations
from tests.http_client import Client

PATH = "/api/v1/triggers/nightly/why"
RANGE = "?from=2026-11-20T00:00:00Z&to=2026-11-22T00:00:00Z"
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


async def test_each_due_instant_of_the_range_is_told_of(client: Client, operations: FakeOperations) -> None:
    off = Span(
        kind=SpanKind.TRIGGER, name="nightly", began_at=datetime(2026, 11, 21, tzinfo=UTC),
        detail={"on": "cron", "disabled": "trigger nightly is disabled"},
    )  # fmt: skip
    operations.memory.noted = [off]
    got = await client.ask("GET", PATH + RANGE)
    assert got.status == 200
    assert [(one["at"], one["code"]) for one in got.json["items"]] == [
        ("2026-11-20T02:00:00Z", "not_there"),
        ("2026-11-21T02:00:00Z", "disabled"),
    ]
    assert got.json["items"][1]["reason"] == "trigger nightly was disabled from 2026-11-21T00:00:00Z to now"
    assert [period["code"] for period in got.json["periods"]] == ["not_there", "disabled"]
    assert got.json["next"] is None


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("?from=2026-11-22T00:00:00Z&to=2026-11-20T00:00:00Z", 422, "to must be later than from"),
        ("?from=yesterday", 422, "from must be a time in RFC 3339"),
        ("?from=1900-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", 422, "ten years"),
        ("?limit=0", 422, "limit"),
        ("?since=1", 422, "since"),
        (f"{RANGE}&cursor=nonsense", 422, "cursor must be the `next` of the page before"),
        (f"{RANGE}&cursor=2026-11-20T00:00:00Z~-7", 422, "cursor must be the `next` of the page before"),
    ],
)
async def test_questions_that_make_no_sense_are_refused(client: Client, query: str, status: int, said: str) -> None:
    got = await client.ask("GET", PATH + query)
    assert (got.status, said in got.json["detail"]) == (status, True), got.json


async def test_a_trigger_that_is_not_there_is_not_found(client: Client) -> None:
    assert (await client.ask("GET", "/api/v1/triggers/nobody/why")).status == 404


def test_times_are_read_as_people_write_them() -> None:
    assert _instant("--from", "2h", "UTC", NOW) == datetime(2026, 11, 21, 7, tzinfo=UTC)
    assert _instant("--from", "2026-11-20", "Europe/Berlin", NOW) == datetime(2026, 11, 19, 23, tzinfo=UTC)
    assert _instant("--from", "2026-11-20T05:00:00-01:00", "UTC", NOW) == datetime(2026, 11, 20, 6, tzinfo=UTC)
    with pytest.raises(CommandFailed, match="is no time, such as 2026-11-21"):
        _instant("--to", "soon", "UTC", NOW)
