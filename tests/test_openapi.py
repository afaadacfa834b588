"""The description of the API: that it is whole, says what is so, and is made of what reads and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from typer.testing import CliRunner

from engine.cli.app import app
from engine.http.described import Description, Media, described, description_of
from engine.http.openapi import describe
from engine.http.route import Route
from engine.http.routes import ROUTES
from engine.http.server import HttpServer
from engine.plugin import Response
from tests.described import description, hold_against_description
from tests.fake_operations import FakeOperations, serving
from tests.http_client import Client

V1 = "/api/v1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpServer]:
    async with serving(FakeOperations(tmp_path)) as started:
        yield started


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_every_route_is_described_once_with_its_role() -> None:
    described_roles = {(method, path): operation["x-role"] for method, path, operation in operations()}
    assert described_roles == {
        (route.method, route.pattern.replace("*}", "}")): None if route.role is None else route.role.name.lower()
        for route in ROUTES
    }
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))


def test_the_description_refers_to_nothing_that_it_does_not_hold() -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(description())):
        at: Any = description()
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_every_schema_is_one() -> None:
    for name, schema in description()["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}), name


def test_examples_are_what_they_are_examples_of() -> None:
    seen = 0
    for method, path, operation in operations():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            seen += 1
            schema = {**content["schema"], "components": description()["components"]}
            found = [
                error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(content["example"])
            ]
            assert not found, (method, path, found)
    assert seen > 15


def test_whoever_changes_something_may_say_who_it_is_for_and_every_post_takes_a_key() -> None:
    for method, path, operation in operations():
        if operation["x-role"] is None:
            continue
        headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        wanted = {"Idempotency-Key"} if method == "POST" else set()
        headers -= {"If-Match"}
        assert headers == (wanted | {"X-Performed-By"} if method != "GET" else set()), (method, path)


async def test_a_form_reads_what_its_description_says(client: Client) -> None:
    schema = description()["components"]["schemas"]["Filling"]
    assert schema["required"] == ["trigger", "from", "to"]
    assert not schema["additionalProperties"]
    assert schema["properties"]["max_parallel"]["maximum"] == 100
    wrong = await client.ask("POST", f"{V1}/backfills", body={"trigger": "a b", "to": 7, "max_parallel": 101, "who": 1})
    assert wrong.status == 422
    assert [error["pointer"] for error in wrong.json["errors"]] == [
        "#/who", "#/trigger", "#/from", "#/to", "#/max_parallel",
    ]  # fmt: skip


async def test_the_description_is_served_and_known_by_its_tag(client: Client) -> None:
    got = await client.ask("GET", "/openapi.json", token=None)
    assert (got.status, got.json["openapi"], got.json["paths"].keys()) == (200, "3.1.0", description()["paths"].keys())
    again = await client.ask("GET", "/openapi.json", token=None, headers={"If-None-Match": got.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


async def test_the_page_needs_nothing_from_elsewhere_and_its_policy_lets_nothing_in(client: Client) -> None:
    page = await client.ask("GET", "/docs", token=None)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert b"//" not in page.body
    assert b"<script>" not in page.body
    for name in ("reference.js", "reference.css"):
        assert f"docs/{name}".encode() in page.body
        got = await client.ask("GET", f"/docs/{name}", token=None)
        assert got.status == 200
        assert b"http:" not in got.body
        assert b"https:" not in got.body
        assert b"innerHTML" not in got.body


def test_the_command_prints_the_description() -> None:
    done = CliRunner().invoke(app, ["openapi"])
    assert done.exit_code == 0
    assert json.loads(done.output)["paths"].keys() == description()["paths"].keys()


def test_an_answer_outside_of_the_description_does_not_pass() -> None:
    hold_against_description("GET", "/live", 200, "application/json", {"status": "ok", "more": 1})
    for status, kind, value in (
        (200, "application/json", {"status": "fine"}),
        (200, "text/plain", None),
        (418, "application/json", {"status": "ok"}),
    ):
        with pytest.raises(AssertionError):
            hold_against_description("GET", "/live", status, kind, value)


def test_a_handler_that_says_nothing_answers_with_an_object() -> None:
    async def plain(call: Any) -> Response:
        return Response()

    assert description_of(plain) == Description(gives={200: dict[str, Any]})
    marked = described({200: Media(kind="text/plain", what="Words")}, problems=(409,))(plain)
    route = Route(method="GET", pattern="/x/{name}", handler=marked, role=None, summary="x")
    answers = describe((route,), "1")["paths"]["/x/{name}"]["get"]["responses"]
    assert answers["200"]["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert "409" in answers
