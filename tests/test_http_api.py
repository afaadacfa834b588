"""The API's routes: what they answer, and that bad input gets the right problem."""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from engine.backfills import BackfillRequest
from engine.errors import Conflict, InvalidEvent, StoreUnavailable
from engine.http.routes import ROUTES, Route, Router, allowed
from engine.http.server import HttpServer
from engine.ids import new_id
from engine.runs import RunState
from engine.tokens import Role
from tests.fake_backfills import FIRST, NOW
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.http_client import Client, raw

V1 = "/api/v1"
A_DAY = BackfillRequest(trigger="nightly", start=FIRST, end=NOW)


def test_the_table_names_each_route_once_and_only_known_methods() -> None:
    places = [(route.method, route.pattern) for route in ROUTES]
    assert len(places) == len(set(places))
    assert {route.method for route in ROUTES} <= {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert all(route.summary for route in ROUTES)
    assert all(route.role is not None for route in ROUTES if route.pattern.startswith("/api"))


def test_a_route_that_is_in_the_table_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="GET /live is in the table twice"):
        Router([ROUTES[0], ROUTES[0]])


def test_a_fixed_path_goes_before_a_pattern_and_patterns_match_whole_segments() -> None:
    def route(pattern: str) -> Route:
        return Route(method="GET", pattern=pattern, handler=ROUTES[0].handler, role=None, summary=pattern)

    router = Router([route("/a/{name}"), route("/a/bulk"), route("/a/{name}/b")])

    def found(path: str) -> object:
        match = router.find(path)
        return None if match is None else (match[0]["GET"].pattern, match[1])

    assert found("/a/bulk") == ("/a/bulk", {})
    assert found("/a/x") == ("/a/{name}", {"name": "x"})
    assert found("/a/x/b") == ("/a/{name}/b", {"name": "x"})
    for path in ("/a", "/a/", "/a//b", "/a/x/c", "/a/x/b/", "a/x", ""):
        assert found(path) is None, path


def test_an_open_pattern_takes_all_that_is_left_of_a_path_where_nothing_else_does() -> None:
    def route(pattern: str) -> Route:
        return Route(method="GET", pattern=pattern, handler=ROUTES[0].handler, role=None, summary="")

    router = Router([route("/a/{name*}"), route("/a/{id}/b"), route("/a")])

    def found(path: str) -> object:
        match = router.find(path)
        return None if match is None else (match[0]["GET"].pattern, match[1])

    assert found("/a/x") == ("/a/{name*}", {"name": "x"})
    assert found("/a/x/y//z") == ("/a/{name*}", {"name": "x/y//z"})
    assert found("/a/x/b") == ("/a/{id}/b", {"id": "x"})
    assert found("/a") == ("/a", {})
    assert found("/a/") is None


async def test_sources_are_listed_and_found_by_names_with_slashes(client: Client) -> None:
    listed = await client.ask("GET", f"{V1}/sources?limit=1")
    assert [one["name"] for one in listed.json["items"]] == ["files:inbox/new"]
    rest = await client.ask("GET", f"{V1}/sources?limit=1&cursor=files:inbox/new")
    assert ([one["name"] for one in rest.json["items"]], rest.json["next"]) == (["nightly"], None)
    one = await client.ask("GET", f"{V1}/sources/files:inbox/new")
    assert (one.status, one.json["name"]) == (200, "files:inbox/new")
    assert (await client.ask("GET", f"{V1}/sources/files:inbox")).status == 404
    assert (await client.ask("GET", f"{V1}/sources?cursor=%01")).status == 422


async def path_of(operations: FakeOperations, pattern: str) -> str:
    """Return a path of a pattern at which there is something."""
    run = operations.add_run(state=RunState.SUCCEEDED)
    one = run.event if "/events/" in pattern else run.id
    if "/maintenance/" in pattern:
        await operations.maintenance.define("nightly", {"days": ["sunday"]}, who="")
    if "/backfills/" in pattern:
        one = (await operations.backfills.begin(A_DAY)).backfill.id
    if "/tokens/" in pattern:
        await operations.tokens.create("nightly", Role.VIEWER)
    if "/deliveries/" in pattern:
        one = operations.add_delivery(run).id
    names = {"/jobs/": "import", "/conditions/": "warehouse-up", "/pools/": "warehouse", "/alerts/": "failing"}
    name = next((name for part, name in names.items() if part in pattern), "nightly")
    return pattern.replace("{name}", name).replace("{name*}", name).replace("{id}", one)


STREAM = f"{V1}/stream"
"""It goes on for as long as somebody listens."""

HOSTILE = ("callback=alert", "format=html&callback=%3Cscript%3E", "jsonp=x", "content_type=text/html", "%3Cscript%3E=1")


@pytest.mark.parametrize("pattern", sorted({route.pattern for route in ROUTES if route.method == "GET"} - {STREAM}))
async def test_no_query_chooses_what_kind_of_answer_comes(
    operations: FakeOperations, client: Client, pattern: str
) -> None:
    path = await path_of(operations, pattern)
    kinds = {(await client.ask("GET", path)).headers["Content-Type"], "application/problem+json"}
    assert pattern.endswith(".js") or not [kind for kind in kinds if "script" in kind]
    for query in HOSTILE:
        got = await client.ask("GET", f"{path}?{query}")
        assert got.headers["Content-Type"] in kinds
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert b"alert(" not in got.body


@pytest.mark.parametrize("pattern", sorted({route.pattern for route in ROUTES} - {STREAM}))
async def test_every_path_answers_options_head_and_405(
    operations: FakeOperations, client: Client, pattern: str
) -> None:
    path = await path_of(operations, pattern)
    methods = {route.method for route in ROUTES if route.pattern == pattern}
    options = await client.ask("OPTIONS", path)
    assert (options.status, options.headers["Allow"], options.body) == (204, allowed(methods), b"")
    wrong = await client.ask(next(method for method in ("PUT", "POST") if method not in methods), path)
    assert (wrong.status, wrong.headers["Allow"], wrong.json["status"]) == (405, allowed(methods), 405)
    head = await client.ask("HEAD", path)
    if "GET" in methods:
        got = await client.ask("GET", path)
        assert (got.status, head.status, head.body) == (200, 200, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
    else:
        # A source's own name may end as the pattern does: there is none of that name here.
        assert head.status == (404 if "*}/" in pattern else 405)


async def test_a_problem_has_all_its_members(client: Client) -> None:
    got = await client.ask("GET", f"{V1}/runs/{new_id()}?x=%20")
    assert got.headers["Content-Type"] == "application/problem+json"
    got = await client.ask("GET", f"{V1}/nothing", headers={"X-Request-ID": "r1"})
    assert got.json == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is nothing here",
        "instance": f"{V1}/nothing",
        "code": "not_found",
        "request_id": "r1",
    }


async def test_the_probes_tell_the_truth(operations: FakeOperations, client: Client) -> None:
    assert (await client.ask("GET", "/live")).json == {"status": "ok"}
    assert (await client.ask("GET", "/ready")).json == {"ready": True, "waiting_for": [], "unhealthy": []}
    operations.ailing = ["source database:orders failed: no route to host"]
    got = await client.ask("GET", "/ready")
    assert (got.status, got.json["ready"], got.json["unhealthy"]) == (200, True, operations.ailing)
    operations.unready = ["source webhook:github is not ready"]
    got = await client.ask("GET", "/ready")
    assert (got.status, got.json["waiting_for"]) == (503, operations.unready)
    for state, status in (("ok", 200), ("degraded", 200), ("failing", 503)):
        operations.state = state
        got = await client.ask("GET", "/health")
        assert (got.status, got.json["status"]) == (status, state)


async def test_status_and_doctor_answer(operations: FakeOperations, client: Client) -> None:
    assert (await client.ask("GET", f"{V1}/status")).json["state"] == "running"
    operations.add_run()
    got = (await client.ask("GET", f"{V1}/doctor")).json
    assert got["ok"] is True
    assert got["ledger"] == {"accepted": 1, "ended": 1, "waiting": 0, "purged": 0, "missing": 0}
    assert [check["name"] for check in got["checks"]] == ["ledger", "integrity", "due_instants", "audit", "loop"]
    operations.memory.missing = ("event 1 has no outcome",)
    got = (await client.ask("GET", f"{V1}/doctor")).json
    assert (got["ok"], got["ledger"]["missing"], got["broken"]) == (False, 1, ["event 1 has no outcome"])


async def test_triggers_have_their_statistics(operations: FakeOperations, client: Client) -> None:
    operations.add_run(state=RunState.FAILED)
    run = operations.add_run(state=RunState.SUCCEEDED)
    got = await client.ask("GET", f"{V1}/triggers/nightly")
    assert got.json["last_run"] == run.id
    assert got.json["stats"]["success_rate"] == 0.5
    assert {"total", "succeeded", "failed", "skipped", "missed", "duration_mean_s"} <= set(got.json["stats"])
    listed = await client.ask("GET", f"{V1}/triggers")
    assert listed.json == {"items": [got.json], "next": None}
    runs = await client.ask("GET", f"{V1}/triggers/nightly/runs?state=failed,timed_out")
    assert [item["state"] for item in runs.json["items"]] == ["failed"]


@pytest.mark.parametrize(
    "path",
    [
        "triggers/nobody",
        "triggers/nobody/runs",
        "jobs/nobody",
        "triggers/a%20b",
        "runs/1",
        "runs/00000000-0000-7000-8000-000000000000",
        "runs/00000000-0000-7000-8000-000000000000/log",
        "events/00000000-0000-7000-8000-000000000000",
        "events/%C3%A9",
    ],
)
async def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    got = await client.ask("GET", f"{V1}/{path}")
    assert (got.status, got.json["code"]) == (404, "not_found")


async def test_jobs_are_shown_without_their_secrets(client: Client) -> None:
    got = await client.ask("GET", f"{V1}/jobs/import")
    assert got.json["run"] == {"program": {"command": ["import", "--key=***"], "password": "***"}}
    assert (got.json["timeout"], got.json["retry"]["attempts"]) == ("1h", 1)
    listed = await client.ask("GET", f"{V1}/jobs")
    assert listed.json["items"] == [got.json]
    assert b"hunter2" not in listed.body
    assert b"sesame" not in listed.body


async def test_a_fire_hands_over_what_it_was_given(operations: FakeOperations, client: Client) -> None:
    got = await client.ask(
        "POST",
        f"{V1}/triggers/nightly/fire",
        body={"data": {"a": [1]}, "reason": "because", "priority": "high", "bypass": ["debounce"]},
        headers={"Idempotency-Key": "k 1"},
    )
    assert got.status == 202
    assert set(got.json) >= {"event", "runs", "duplicate"}
    assert got.headers["Location"] == f"{V1}/events/{got.json['event']}"
    assert operations.fired[0]["request_id"].startswith("k 1 (")
    assert operations.fired == [
        {
            "trigger": "nightly",
            "data": {"a": [1]},
            "reason": "because",
            "priority": 8,
            "bypass": frozenset({"debounce"}),
            "request_id": operations.fired[0]["request_id"],
            "traceparent": None,
        }
    ]


async def test_a_fire_needs_no_body(operations: FakeOperations, client: Client) -> None:
    assert (await client.ask("POST", f"{V1}/triggers/nightly/fire")).status == 202
    assert operations.fired[0]["data"] is None
    assert operations.fired[0]["request_id"] is None


BAD_FIRES: list[tuple[Any, list[tuple[str, str]]]] = [
    ({"resaon": "x"}, [("#/resaon", "did you mean 'reason'?")]),
    ({"a/b~c": 1}, [("#/a~1b~0c", "known: bypass, data, priority, reason")]),
    ({"reason": 1}, [("#/reason", "text of 1 to 1000")]),
    ({"reason": "a\nb"}, [("#/reason", "control characters")]),
    ({"reason": "x" * 1001}, [("#/reason", "1000")]),
    ({"priority": 10}, [("#/priority", "0 to 9")]),
    ({"priority": True}, [("#/priority", "0 to 9")]),
    ({"priority": 1.0}, [("#/priority", "0 to 9")]),
    ({"priority": "urgent"}, [("#/priority", "low, normal, high, critical")]),
    ({"bypass": "debounce"}, [("#/bypass", "must be a list")]),
    ({"bypass": ["debonce"]}, [("#/bypass", "did you mean 'debounce'?")]),
    ({"bypass": ["weather"]}, [("#/bypass", "unknown gate 'weather'")]),
    ({"priority": -1, "reason": 2}, [("#/reason", "text"), ("#/priority", "0 to 9")]),
]


@pytest.mark.parametrize(("body", "expected"), BAD_FIRES)
async def test_a_bad_fire_is_422_with_every_mistake(
    operations: FakeOperations, client: Client, body: Any, expected: list[tuple[str, str]]
) -> None:
    got = await client.ask("POST", f"{V1}/triggers/nightly/fire", body=body)
    assert (got.status, got.json["code"]) == (422, "invalid_fields")
    assert [error["pointer"] for error in got.json["errors"]] == [pointer for pointer, _ in expected]
    for error, (_, words) in zip(got.json["errors"], expected, strict=True):
        assert words in error["detail"]
    assert operations.fired == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"{}", None, 415),
        (b"{}", "application/json; charset=latin-1", 415),
        (b"{}", 'application/json; charset="UTF-8"', 202),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"{", "application/json", 400),
        (b'{"data": NaN}', "application/json", 400),
        (b'{"reason": "a", "reason": "b"}', "application/json", 400),
        (b'{"reason": "\xff"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"data": "\\ud800"}', "application/json", 400),
    ],
)
async def test_a_body_that_is_no_json_object_is_told_so(
    client: Client, body: bytes, kind: str | None, status: int
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    got = await client.ask("POST", f"{V1}/triggers/nightly/fire", body=body, headers=headers)
    assert got.status == status, got.json
    assert got.json.get("status", status) == status


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Conflict("nightly is disabled"), 409),
        (InvalidEvent("data is nested too deep", status=422), 422),
        (StoreUnavailable("the disk is full"), 503),
        (RuntimeError("inner"), 500),
    ],
)
async def test_what_the_engine_refuses_has_its_status(
    operations: FakeOperations, client: Client, fault: Exception, status: int
) -> None:
    operations.fault = fault
    for path in ("triggers/nightly/fire", "events"):
        got = await client.ask("POST", f"{V1}/{path}", body={"type": "a"} if path == "events" else {})
        assert got.status == status
        assert ("Retry-After" in got.headers) == (status == 503)
        assert (str(fault) == got.json["detail"]) == (status != 500)


async def test_an_idempotency_key_that_is_none_is_400(client: Client) -> None:
    for key in ("", "x" * 256, "é"):
        got = await client.ask("POST", f"{V1}/triggers/nightly/fire", headers={"Idempotency-Key": key})
        assert got.status == 400


async def test_a_plain_event_is_heard(operations: FakeOperations, client: Client) -> None:
    sent = {
        "type": "order.created",
        "subject": "o/1",
        "data": {"a": 1},
        "key": "k1",
        "time": "2026-11-21T09:30:00+01:00",
        "source": "shop",
        "priority": 3,
    }
    got = await client.ask("POST", f"{V1}/events", body=sent)
    assert got.status == 202
    (event,) = operations.heard
    assert (event.type, event.subject, event.data, event.key) == ("order.created", "o/1", {"a": 1}, "k1")
    assert (event.source, event.priority) == ("shop", 3)
    shown = await client.ask("GET", got.headers["Location"])
    assert shown.json["time"] == "2026-11-21T08:30:00Z"
    assert shown.json["outcomes"][0]["outcome"] == "unmatched"
    assert set(shown.json) == set("id source type subject time received_at key data priority cause outcomes".split())


async def test_the_idempotency_key_is_the_key_of_an_event_without_one(
    operations: FakeOperations, client: Client
) -> None:
    for body in ({"type": "a"}, {"type": "a", "id": "own"}):
        await client.ask("POST", f"{V1}/events", body=body, headers={"Idempotency-Key": "h"})
    assert [event.key for event in operations.heard] == ["h", "own"]


def cloud(**more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "c1", "source": "/shop", "type": "order.created", **more}


async def test_cloud_events_are_heard_alone_and_in_batches(operations: FakeOperations, client: Client) -> None:
    encoded = base64.b64encode(b'{"b":2}').decode()
    single = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    batch = {"Content-Type": "application/cloudevents-batch+json"}
    got = await client.ask("POST", f"{V1}/events", body=cloud(traceparent="00-1", data=1), headers=single)
    assert got.status == 202, got.json
    got = await client.ask(
        "POST", f"{V1}/events", body=[cloud(id="c2"), cloud(id="c3", data_base64=encoded)], headers=batch
    )
    assert (got.status, len(got.json["items"])) == (202, 2)
    assert (await client.ask("POST", f"{V1}/events", body=[], headers=batch)).json["items"] == []
    assert (await client.ask("POST", f"{V1}/events", body=cloud(id="c4", data="x"))).status == 202
    assert [event.key for event in operations.heard] == ["c1", "c2", "c3", "c4"]
    assert [event.data for event in operations.heard] == [1, None, {"b": 2}, "x"]
    assert {event.source for event in operations.heard} == {"/shop"}


BAD_EVENTS: list[tuple[Any, str, list[str]]] = [
    ({}, "json", ["#/type"]),
    ({"type": ""}, "json", ["#/type"]),
    ({"type": "engine.timer"}, "json", ["#/type"]),
    ({"type": "a", "typo": 1}, "json", ["#/typo"]),
    ({"type": "a", "time": "2026-11-21T09:30:00"}, "json", ["#/time"]),
    ({"type": "a", "time": "2026-11-21"}, "json", ["#/time"]),
    ({"type": "a", "time": 1}, "json", ["#/time"]),
    ({"type": "a", "id": "1", "key": "2"}, "json", ["#/key"]),
    ({"type": "a", "key": "x" * 256}, "json", ["#/key"]),
    ({"type": "a\x1b[31m"}, "json", ["#/type"]),
    ({"type": "a", "priority": "10"}, "json", ["#/priority"]),
    ([{"type": "a"}, {"type": 1}, 5], "json", ["#/1/type", "#/2"]),
    ({"type": "a"}, "cloudevents+json", ["#/specversion", "#/id", "#/source"]),
    (cloud(specversion="0.3"), "cloudevents+json", ["#/specversion"]),
    (cloud(subjekt="x"), "cloudevents+json", ["#/subjekt"]),
    (cloud(Extension="x"), "cloudevents+json", ["#/Extension"]),
    (cloud(data=1, data_base64="MQ=="), "cloudevents+json", ["#/data_base64"]),
    (cloud(data_base64="%%"), "cloudevents+json", ["#/data_base64"]),
    (cloud(data_base64="YQ=="), "cloudevents+json", ["#/data_base64"]),
    (cloud(datacontenttype="image/png", data_base64="MQ=="), "cloudevents+json", ["#/data_base64"]),
]


@pytest.mark.parametrize(("body", "kind", "pointers"), BAD_EVENTS)
async def test_bad_events_are_422_and_none_is_heard(
    operations: FakeOperations, client: Client, body: Any, kind: str, pointers: list[str]
) -> None:
    headers = {"Content-Type": f"application/{kind}"}
    got = await client.ask("POST", f"{V1}/events", body=body, headers=headers)
    assert got.status == 422, got.json
    assert [error["pointer"] for error in got.json["errors"]] == pointers
    assert operations.heard == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (cloud(), {"Content-Type": "application/cloudevents-batch+json"}, 422),
        ([cloud()], {"Content-Type": "application/cloudevents+json"}, 422),
        ([{"type": "a"}] * 1001, {}, 422),
        ([{"type": "a"}], {"Idempotency-Key": "k"}, 422),
        ({}, {"ce-specversion": "1.0"}, 422),
        ({}, {"ce-specversion": "1.0", "Content-Type": "text/plain"}, 415),
        ({"type": "a"}, {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_events_in_the_wrong_envelope_are_refused(
    operations: FakeOperations, client: Client, body: Any, headers: dict[str, str], status: int
) -> None:
    got = await client.ask("POST", f"{V1}/events", body=body, headers=headers)
    assert got.status == status
    assert operations.heard == []


@pytest.mark.parametrize(
    ("path", "parameter", "words"),
    [
        ("runs?stat=failed", "stat", "did you mean 'state'?"),
        ("runs?state=faild", "state", "did you mean 'failed'?"),
        ("runs?state=", "state", "unknown state ''"),
        ("runs?limit=0", "limit", "from 1 to 1000"),
        ("runs?limit=1001", "limit", "from 1 to 1000"),
        ("runs?limit=%D9%A1", "limit", "from 1 to 1000"),
        ("runs?limit=1e1", "limit", "from 1 to 1000"),
        ("runs?cursor=1", "cursor", "the `next`"),
        ("runs?job=../x", "job", "must be a name"),
        ("runs?job=a&job=b", "job", "given twice"),
        ("events?trigger=a%00", "trigger", "must be a name"),
        ("events?type=", "type", "text of 1"),
        ("triggers?cursor=%20", "cursor", "must be a name"),
        ("status?x", "x", "there are none here"),
        ("doctor?x=1", "x", "there are none here"),
        ("triggers/nightly?x=1", "x", "there are none here"),
        ("jobs/import?x=1", "x", "there are none here"),
    ],
)
async def test_a_bad_query_is_422_with_the_parameter(client: Client, path: str, parameter: str, words: str) -> None:
    got = await client.ask("GET", f"{V1}/{path}")
    assert got.status == 422, got.json
    assert got.json["errors"][0]["parameter"] == parameter
    assert words in got.json["errors"][0]["detail"]


async def test_a_query_that_is_not_utf_8_is_400(server: HttpServer) -> None:
    head = f"GET {V1}/runs?job=%ff HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n"
    assert (await raw(server, f"{head}Connection: close\r\n\r\n".encode())).startswith(b"HTTP/1.1 400 ")


async def test_lists_go_on_where_the_page_before_ended(operations: FakeOperations, client: Client) -> None:
    made = [operations.add_run(state=RunState.FAILED).id for _ in range(5)]
    made.reverse()
    seen: list[str] = []
    path = f"{V1}/runs?limit=2&trigger=nightly&job=import"
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.ask("GET", path + (f"&cursor={cursor}" if cursor else ""))).json
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert seen == made
    page = (await client.ask("GET", f"{V1}/events?limit=5&trigger=nightly&type=manual&source=manual")).json
    assert (len(page["items"]), page["next"]) == (5, None)
    assert (await client.ask("GET", f"{V1}/events?source=other")).json["items"] == []


async def test_a_run_has_its_events_trace_and_attempts(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.SUCCEEDED, events=3)
    got = (await client.ask("GET", f"{V1}/runs/{run.id}")).json
    assert set(got) >= set(
        "id job trigger origin state code reason priority events attempt created_at due_at scheduled_for "
        "started_at finished_at exit_code outputs trace attempts".split()
    )
    assert got["events"] == list(operations.memory.joined[run.id])
    assert [step["state"] for step in got["trace"]] == ["queued", "succeeded"]
    assert set(got["trace"][0]) == {"at", "state", "code", "reason"}
    assert got["attempts"][0]["exit_code"] == 0
    assert got["created_at"] == "2026-11-21T09:30:00Z"


async def test_a_log_is_text_with_what_is_no_utf_8_escaped(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.SUCCEEDED)
    path = f"{V1}/runs/{run.id}/log"
    assert (await client.ask("GET", path)).body == b""
    operations.log_path(run.id).write_bytes(b"<b>a\xff\x1b[31m\n" + "é".encode() * 50_000)
    got = await client.ask("GET", path)
    assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.body.decode() == "<b>a\\xff\x1b[31m\n" + "é" * 50_000


async def test_a_log_shows_no_secret_of_the_configuration(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.SUCCEEDED)
    operations.log_path(run.id).write_bytes(b"x" * 65_530 + b"sesame-open" + b"c2VzYW1lLW9wZW4=")
    for query in ("", "?tail=1", "?follow=1"):
        got = await client.ask("GET", f"{V1}/runs/{run.id}/log{query}")
        assert got.body == b"x" * 65_530 + b"******="


@pytest.mark.parametrize(
    ("content", "tail", "expected"),
    [
        (b"1\n2\n3\n", 2, b"2\n3\n"),
        (b"1\n2\n3", 2, b"2\n3"),
        (b"1\n2\n3\n", 9, b"1\n2\n3\n"),
        (b"1\n2\n", 0, b""),
        (b"\n\n\n", 1, b"\n"),
        (b"", 3, b""),
        (b"a" * 70_000 + b"\nb\n", 1, b"b\n"),
        (b"x\n" + b"a" * 70_000 + b"\n", 1, b"a" * 70_000 + b"\n"),
        (b"x" * 65_535 + b"\n" + b"y" * 65_535 + b"\n", 1, b"y" * 65_535 + b"\n"),
    ],
)
async def test_a_tail_is_the_last_lines(
    operations: FakeOperations, client: Client, content: bytes, tail: int, expected: bytes
) -> None:
    run = operations.add_run(state=RunState.SUCCEEDED)
    operations.log_path(run.id).write_bytes(content)
    assert (await client.ask("GET", f"{V1}/runs/{run.id}/log?tail={tail}")).body == expected


async def test_a_followed_log_goes_on_until_the_run_ends(operations: FakeOperations, server: HttpServer) -> None:
    run = operations.add_run(state=RunState.RUNNING)
    log = operations.log_path(run.id)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = f"GET {V1}/runs/{run.id}/log?follow=1 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    log.write_bytes(b"first\n")
    assert await reader.readuntil(b"first\n")
    with log.open("ab") as file:
        file.write(b"second\n")
    assert await reader.readuntil(b"second\n")
    with log.open("ab") as file:
        file.write(b"last\xff")
    await operations.change_run(run.id, RunState.SUCCEEDED)
    rest = await reader.read()
    assert b"last\\xff" in rest
    assert rest.endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_followed_log_ends_when_the_engine_stops_and_says_that_it_was_cut(
    operations: FakeOperations,
) -> None:
    run = operations.add_run(state=RunState.RUNNING)
    async with serving(operations) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        head = f"GET {V1}/runs/{run.id}/log?follow=1 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n\r\n"
        writer.write(head.encode())
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(5):
            await server.stop(3)
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_log_that_fails_midway_is_cut_and_not_followed_by_a_problem(
    operations: FakeOperations, server: HttpServer
) -> None:
    run = operations.add_run(state=RunState.RUNNING)
    operations.log_path(run.id).write_bytes(b"first\n")
    reader, writer = await asyncio.open_connection(server.host, server.port)
    head = f"GET {V1}/runs/{run.id}/log?follow=1 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {TOKEN}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"first\n")
    operations.memory.fault = StoreUnavailable("the disk is gone")
    async with asyncio.timeout(5):
        rest = await reader.read()
    assert b"HTTP/1.1" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    writer.close()


# Pauses


async def test_a_trigger_is_paused_for_a_while_and_resumed(operations: FakeOperations, client: Client) -> None:
    got = await client.ask(
        "POST", f"{V1}/triggers/nightly/pause", body={"reason": "stock-taking", "until": "2999-01-01T01:00:00+01:00"}
    )
    assert (got.status, got.json["state"], got.json["paused"]["reason"]) == (200, "paused", "stock-taking")
    assert got.json["paused"]["until"] == "2999-01-01T00:00:00Z"
    assert "stats" in got.json
    before = operations.clock.now()
    got = await client.ask("POST", f"{V1}/triggers/nightly/pause", body={"duration": "1h30m"})
    lasts = datetime.fromisoformat(got.json["paused"]["until"]) - before
    assert timedelta(hours=1.5) <= lasts < timedelta(hours=2)
    got = await client.ask("POST", f"{V1}/triggers/nightly/resume")
    assert (got.status, got.json["state"], got.json["paused"]) == (200, "active", None)


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({"duration": "soon"}, "#/duration"),
        ({"duration": 5}, "#/duration"),
        ({"duration": "0s"}, "#/duration"),
        ({"duration": "9999999d"}, "#/duration"),
        ({"until": "2999-01-01T00:00:00"}, "#/until"),
        ({"until": "2999-01-01T00:00:00Z", "duration": "1h"}, "#/until"),
        ({"reason": "a\nb"}, "#/reason"),
        ({"minutes": 5}, "#/minutes"),
    ],
)
async def test_a_pause_that_says_something_else_is_refused(
    operations: FakeOperations, client: Client, sent: dict[str, Any], pointer: str
) -> None:
    got = await client.ask("POST", f"{V1}/triggers/nightly/pause", body=sent)
    assert (got.status, got.json["errors"][0]["pointer"]) == (422, pointer)
    assert operations.paused == {}


async def test_the_engine_and_a_tag_are_paused_and_resumed(operations: FakeOperations, client: Client) -> None:
    got = await client.ask(
        "POST", f"{V1}/pause", body={"reason": "move", "until": "2999-01-01T00:00:00Z"},
        headers={"X-Performed-By": "ann"},
    )  # fmt: skip
    assert got.status == 200
    assert {name: got.json[name] for name in ("scope", "name", "reason", "who", "until")} == {
        "scope": "engine", "name": "", "reason": "move", "who": "admin token, for ann",
        "until": "2999-01-01T00:00:00Z",
    }  # fmt: skip
    assert got.json["triggers"] == sorted(operations.config.triggers)
    got = await client.ask("POST", f"{V1}/pause", body={"tag": "night"}, headers={"X-Performed-By": "a" * 129})
    assert (got.status, got.json["scope"], got.json["name"], got.json["who"]) == (200, "tag", "night", "admin token")
    got = await client.ask("POST", f"{V1}/resume")
    assert (got.json["scope"], got.json["resumed"], [one["name"] for one in got.json["pauses"]]) == (
        "engine", True, ["night"],
    )  # fmt: skip
    got = await client.ask("POST", f"{V1}/resume", body={"tag": "night"})
    assert (got.json["name"], got.json["resumed"], got.json["pauses"]) == ("night", True, [])
    assert (await client.ask("POST", f"{V1}/resume")).json["resumed"] is False


@pytest.mark.parametrize("sent", [{"tag": ""}, {"tag": 5}, {"trigger": "nightly"}, {"duration": "soon"}])
async def test_a_pause_of_something_else_is_refused(
    operations: FakeOperations, client: Client, sent: dict[str, Any]
) -> None:
    assert (await client.ask("POST", f"{V1}/pause", body=sent)).status == 422
    assert operations.paused == {}


async def test_only_a_trigger_that_is_there_is_paused(client: Client) -> None:
    assert (await client.ask("POST", f"{V1}/triggers/nighty/pause")).status == 404
    assert (await client.ask("POST", f"{V1}/triggers/nighty/resume")).status == 404
