"""Jobs and triggers that the API defines, and what it overrides of those of files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.overriding import AdaptiveChange, JobChange, TriggerChange
from engine.config.shapes import fields_of
from engine.errors import StoreUnavailable
from engine.runs import RunState
from engine.store.base import EventFilter
from engine.testing import VirtualClock
from tests.changing import Site
from tests.fakes import until
from tests.http_client import Client, Got, asking
from tests.test_runtime import _fresh  # noqa: F401 - a fixture

V1 = "/api/v1"
OPEN = """
[security]
api_runners = ["gate", "exec"]
api_commands = ["/opt/etl/*"]
api_sources = ["manual", "cron", "interval", "event", "at", "sources.shared"]
[sources.shared.tap]
[jobs.filed.run]
gate = "open"
[triggers.filed]
on.interval = "60m"
job = "filed"
[triggers.wide]
on.interval = "60m"
job = "filed"
adaptive = { min = "30m", max = "4h", success_rate_min = 0.9 }
"""
JOB: dict[str, Any] = {"name": "work", "run": {"gate": "open"}}
TRIGGER: dict[str, Any] = {"name": "by-hand", "on": {"manual": True}, "job": "work", "tags": ["etl"]}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.write(OPEN)
    return made


@asynccontextmanager
async def asked(site: Site, **options: Any) -> AsyncIterator[Client]:
    """Run an engine, and ask it over HTTP."""
    async with site.running(listen=True, **options):
        assert site.runtime.server is not None
        async with asking(site.runtime.server) as client:
            yield client


async def defined(client: Client) -> None:
    """Define a job and a trigger."""
    for kind, one in (("jobs", JOB), ("triggers", TRIGGER)):
        got = await client.ask("POST", f"{V1}/{kind}", body=one)
        assert got.status == 201, got.json


def errors(got: Got) -> list[str]:
    assert (got.status, got.json["code"]) == (422, "invalid_fields"), got.json
    return [f"{error['pointer']} {error['detail']}" for error in got.json["errors"]]


async def test_what_is_defined_works_is_shown_and_outlives_the_engine(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        got = await client.ask("GET", f"{V1}/triggers/by-hand")
        assert (got.json["state"], got.json["defined_in"], got.json["tags"]) == ("active", "api", ["etl"])
        assert got.json["created_by"] == "admin token"
        assert got.json["settings"] == {key: value for key, value in TRIGGER.items() if key != "name"}
        assert await site.ended(await site.fire("by-hand")) is RunState.SUCCEEDED
    async with asked(site) as client:
        assert (await client.ask("GET", f"{V1}/jobs/work")).json["settings"] == {"run": {"gate": "open"}}
        assert await site.ended(await site.fire("by-hand")) is RunState.SUCCEEDED


async def test_the_answer_of_a_definition_has_its_place_and_version(site: Site) -> None:
    async with asked(site) as client:
        got = await client.ask("POST", f"{V1}/jobs", body=JOB, headers={"X-Created-By": "ann", "X-Performed-By": "bob"})
        assert (got.status, got.headers["Location"]) == (201, f"{V1}/jobs/work")
        assert got.headers["ETag"] == (await client.ask("GET", f"{V1}/jobs/work")).headers["ETag"]
        assert got.json["created_by"] == "admin token, for ann"
        again = await client.ask("POST", f"{V1}/jobs", body=JOB)
        assert (again.status, again.json["code"]) == (409, "conflict")


async def test_a_change_takes_the_version_that_it_is_made_to(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        path, body = f"{V1}/triggers/by-hand", {**TRIGGER, "priority": "high"}
        version = (await client.ask("GET", path)).headers["ETag"]
        assert (await client.ask("PUT", path, body=body)).status == 428
        assert (await client.ask("DELETE", path)).status == 428
        got = await client.ask("PUT", path, body=body, headers={"If-Match": version})
        assert (got.status, got.json["priority"]) == (200, 8)
        stale = await client.ask("PATCH", path, body={"priority": 1}, headers={"If-Match": version})
        assert (stale.status, stale.json["code"]) == (412, "precondition_failed")
        patched = await client.ask(
            "PATCH", path, body={"priority": None, "tags": ["new"]}, headers={"If-Match": got.headers["ETag"]}
        )
        assert (patched.json["priority"], patched.json["tags"]) == (5, ["new"])
        gone = await client.ask("DELETE", path, headers={"If-Match": patched.headers["ETag"]})
        assert (gone.status, gone.body) == (204, b"")
        assert (await client.ask("GET", path)).status == 404
        assert (await client.ask("DELETE", path, headers={"If-Match": "*"})).status == 404


async def test_put_defines_what_is_not_there(site: Site) -> None:
    async with asked(site) as client:
        got = await client.ask("PUT", f"{V1}/jobs/work", body={"run": {"gate": "open"}})
        assert got.status == 201
        wrong = await client.ask("PUT", f"{V1}/jobs/work", body={**JOB, "name": "other"}, headers={"If-Match": "*"})
        assert errors(wrong) == ["#/name name must be the one in the path, or left out"]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("triggers", {**TRIGGER, "job": "wrok"}, '#/job job: found "wrok", but there is no such job'),
    ("triggers", {**TRIGGER, "on": {"cron": "99 * * * *"}}, "#/on/cron "),
    ("triggers", {**TRIGGER, "prioritty": 3}, "#/prioritty prioritty: unknown key"),
    ("triggers", {**TRIGGER, "cron": "0 2 * * *"}, "#/cron cron: unknown key"),
    ("triggers", {**TRIGGER, "filter": "dta.size > 0"}, "#/filter "),
    ("triggers", {**TRIGGER, "data": {"a": None}}, "#/data/a data.a: is null"),
    ("triggers", {**TRIGGER, "description": {"env": "HOME"}}, "#/description description: refers to the environment"),
    (
        "triggers",
        {**TRIGGER, "schema": {"file": "/etc/passwd"}},
        "#/schema schema: refers to the environment or a file",
    ),
    (
        "triggers",
        {**TRIGGER, "on": {"files": {"path": "/"}}},
        '#/on/files on.files: the API may not use the source "fi',
    ),
    ("triggers", {**TRIGGER, "on": {"source": "other"}}, "#/on/source"),
    (
        "jobs",
        {**JOB, "run": {"python": "os:abort"}},
        '#/run/python run.python: the API may not use the runner "python"',
    ),
    (
        "jobs",
        {**JOB, "run": {"exec": ["/bin/sh", "-c", "x"]}},
        'the API may not run "/bin/sh" (allow it with [security]',
    ),
    ("jobs", {**JOB, "run": {"exec": ["/opt/etl/../../bin/sh"]}}, 'the API may not run "/opt/etl/../../bin/sh"'),
    ("jobs", {**JOB, "run": {"exec": {"command": ["/opt/etl/x"], "env": {"LD_PRELOAD": "/x"}}}}, "#/run/exec/env "),
    ("jobs", {**JOB, "run": {"exec": {"shell": "sh", "script": "rm -rf /"}}}, "#/run/exec/script "),
    ("jobs", {**JOB, "run": {"exec": {"command": ["/opt/etl/x"], "user": "root"}}}, "#/run/exec/user "),
    ("jobs", {**JOB, "callback": {"url": "https://a.example/", "secret": "sesame" * 9}}, "#/callback/secret "),
    ("jobs", {**JOB, "name": "../../etc/passwd"}, "#/name name must be a name"),
    ("jobs", {**JOB, "name": "a" * 300}, "#/name name must be a name"),
    ("jobs", {**JOB, "name": 3}, "#/name name must be a name"),
]


@pytest.mark.parametrize(("kind", "body", "expected"), BAD)
async def test_what_is_wrong_or_not_allowed_is_422_with_its_place(
    site: Site, kind: str, body: dict[str, Any], expected: str
) -> None:
    async with asked(site) as client:
        await client.ask("POST", f"{V1}/jobs", body=JOB)
        got = await client.ask("POST", f"{V1}/{kind}", body={**body, "name": body["name"] if kind == "triggers" else (
            body["name"] if body["name"] != "work" else "odd"
        )})  # fmt: skip
        told = errors(got)
        assert any(expected in one for one in told), told
        assert "by-hand" not in site.operations.trigger_names()


async def test_nothing_may_be_defined_where_nothing_is_allowed(site: Site) -> None:
    site.write(OPEN[OPEN.index("[sources") :])
    async with asked(site) as client:
        assert "api_runners" in errors(await client.ask("POST", f"{V1}/jobs", body=JOB))[0]
        assert "api_sources" in errors(await client.ask("POST", f"{V1}/triggers", body={**TRIGGER, "job": "filed"}))[0]


async def test_limits_of_interval_look_ahead_and_creator(site: Site) -> None:
    site.write(OPEN + '[limits]\nmin_interval = "5m"\nper_creator = 3\n')
    async with asked(site) as client:
        await defined(client)
        path = f"{V1}/triggers"

        async def refused(on: dict[str, Any], **more: Any) -> str:
            return errors(await client.ask("POST", path, body={**TRIGGER, "name": "odd", "on": on, **more}))[0]

        assert "comes every 1m, and not less than 5m is allowed" in await refused({"cron": "* * * * *"})
        assert "comes every 4m" in await refused({"interval": "4m"})
        assert "is due more than 365d from now" in await refused({"at": ["2199-01-01T00:00:00Z"]})
        third = {**TRIGGER, "name": "third", "on": {"interval": "5m"}}
        assert (await client.ask("POST", path, body=third)).status == 201
        got = await client.ask("POST", path, body={**third, "name": "fourth"})
        assert (got.status, "may define 3 jobs and triggers" in got.json["detail"]) == (409, True)
        # Whom it is for is what the caller says: nobody gets more for that.
        got = await client.ask("POST", path, body={**third, "name": "fourth"}, headers={"X-Created-By": "ann"})
        assert (got.status, "admin token may define 3 jobs and triggers" in got.json["detail"]) == (409, True)


async def test_a_job_that_a_trigger_needs_stays(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        got = await client.ask("DELETE", f"{V1}/jobs/work", headers={"If-Match": "*"})
        assert (got.status, "trigger by-hand of the API would not work any more" in got.json["detail"]) == (409, True)
        assert (await client.ask("DELETE", f"{V1}/triggers/by-hand", headers={"If-Match": "*"})).status == 204
        assert (await client.ask("DELETE", f"{V1}/jobs/work", headers={"If-Match": "*"})).status == 204
        assert (await client.ask("GET", f"{V1}/jobs/work")).status == 404


async def test_what_files_define_can_not_be_defined_or_removed_here(site: Site) -> None:
    async with asked(site) as client:
        for method, path, body in (
            ("POST", f"{V1}/jobs", {**JOB, "name": "filed"}),
            ("PUT", f"{V1}/triggers/filed", TRIGGER | {"name": "filed"}),
            ("DELETE", f"{V1}/triggers/filed", None),
        ):
            got = await client.ask(method, path, body=body, headers={"If-Match": "*"})
            assert (got.status, "is defined in" in got.json["detail"] or "there is a job" in got.json["detail"]) == (
                409, True
            )  # fmt: skip


async def test_overrides_hold_are_shown_outlive_the_engine_and_are_reset(site: Site) -> None:
    body = {"interval": "10m", "priority": "high", "expect": "2h", "reason": "the fair is on"}
    async with asked(site) as client:
        got = await client.ask(
            "PATCH", f"{V1}/triggers/filed", body=body, headers={"If-Match": "*", "X-Performed-By": "ann"}
        )
        assert (got.status, got.json["priority"]) == (200, 8)
        overrides = got.json["overrides"]
        assert (overrides["reason"], overrides["who"]) == ("the fair is on", "admin token, for ann")
        assert overrides["changes"] == {"interval": "10m", "priority": "high", "expect": "2h"}
        assert got.json["on"]["interval"]["every"] == 600.0
        await until(lambda: site.operations.next_at("filed") is not None)
        before = site.operations.next_at("filed")
    async with asked(site) as client:
        got = await client.ask("GET", f"{V1}/triggers/filed")
        assert got.json["priority"] == 8
        assert before is not None
        await until(lambda: site.operations.next_at("filed") == before)
        assert (await client.ask("GET", f"{V1}/config")).json["overridden"] == {"jobs": [], "triggers": ["filed"]}
        less = await client.ask(
            "PATCH", f"{V1}/triggers/filed", body={"interval": None}, headers={"If-Match": got.headers["ETag"]}
        )
        assert less.json["overrides"]["changes"] == {"priority": "high", "expect": "2h"}
        reset = await client.ask("POST", f"{V1}/triggers/filed/reset", body={})
        assert (reset.json["priority"], reset.json["overrides"]) == (5, None)
        assert reset.json["on"]["interval"]["every"] == 3600.0


async def test_thresholds_of_an_adaptive_trigger_and_a_job_are_overridden(site: Site) -> None:
    async with asked(site) as client:
        match = {"If-Match": "*"}
        got = await client.ask(
            "PATCH", f"{V1}/triggers/wide", body={"adaptive": {"max": "8h", "success_rate_min": 0.5}}, headers=match
        )
        assert got.status == 200
        adaptive = site.operations.config.triggers["wide"].adaptive
        assert adaptive is not None
        assert (adaptive.min_s, adaptive.max_s, adaptive.success_rate_min) == (1800.0, 28800.0, 0.5)
        job = await client.ask("PATCH", f"{V1}/jobs/filed", body={"timeout": "5m", "concurrency": 2}, headers=match)
        assert (job.json["timeout"], job.json["concurrency"]) == ("5m", 2)
        assert (await client.ask("POST", f"{V1}/jobs/filed/reset")).json["timeout"] == "1h"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"job": "other"}, "#/job job: unknown key"),
        ({"filter": "true"}, "#/filter "),
        ({"interval": "0s"}, "#/interval "),
        ({"adaptive": {"max": "5m"}}, "#/adaptive"),
        ({"priority": "urgent"}, "#/priority "),
    ],
)
async def test_what_can_not_be_overridden_is_refused(site: Site, body: dict[str, Any], expected: str) -> None:
    async with asked(site) as client:
        got = await client.ask("PATCH", f"{V1}/triggers/filed", body=body, headers={"If-Match": "*"})
        assert any(expected in one for one in errors(got)), got.json
        assert (await client.ask("GET", f"{V1}/triggers/filed")).json["overrides"] is None


async def test_what_no_longer_fits_is_invalid_and_the_engine_starts(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        await client.ask("PATCH", f"{V1}/triggers/filed", body={"interval": "10m"}, headers={"If-Match": "*"})
    listening = '[triggers.alert]\non.event = "engine.definition.invalid"\njob = "filed"\n'
    site.write(OPEN.replace('"gate", ', "").replace('on.interval = "60m"', 'on.cron = "0 2 * * *"', 1) + listening)
    async with asked(site) as client:
        got = await client.ask("GET", f"{V1}/triggers/by-hand")
        assert (got.json["state"], got.json["enabled"]) == ("invalid", False)
        assert "there is no such job" in got.json["state_reason"]
        job = await client.ask("GET", f"{V1}/jobs/work")
        assert "may not use the runner" in job.json["state_reason"]
        listed = (await client.ask("GET", f"{V1}/triggers")).json["items"]
        assert [one["name"] for one in listed] == ["alert", "by-hand", "filed", "wide"]
        people = {"Accept": "text/html", "Accept-Encoding": "identity"}
        for place, problem in (("/triggers/by-hand", "there is no such job"), ("/jobs/work", "may not use the runner"),
                            ("/triggers", "there is no such job"), ("/jobs", "may not use the runner")):  # fmt: skip
            page = await client.ask("GET", place, headers=people)
            assert (page.status, problem in page.body.decode()) == (200, True), place
        assert len((await client.ask("GET", f"{V1}/jobs")).json["items"]) == 2
        health = (await client.ask("GET", "/health")).json
        check = next(check for check in health["checks"] if check["name"] == "configuration")
        assert (check["ok"], "job work, trigger by-hand, trigger filed" in check["detail"]) == (False, True)
        assert "has no interval" in (await client.ask("GET", f"{V1}/triggers/filed")).json["overrides"]["problem"]

        async def told() -> int:
            return len(await site.operations.store.events(EventFilter(type="engine.definition.invalid"), limit=10))

        for _ in range(500):
            if await told() == 2:
                break
            await site.runtime.clock.sleep(0.01)
        assert await told() == 2
        # It comes back with what it needs.
        await site.reload(OPEN)
        assert (await client.ask("GET", f"{V1}/triggers/by-hand")).json["state"] == "active"


async def test_one_of_the_files_holds_over_one_of_the_api(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        await site.reload(OPEN + '[jobs.work.run]\ngate = "open"\n')
        view = (await client.ask("GET", f"{V1}/config")).json
        assert [one["name"] for one in view["invalid"]] == ["work"]
        assert "defines a job of that name, which holds" in view["invalid"][0]["errors"][0]["message"]
        assert (await client.ask("GET", f"{V1}/triggers/by-hand")).json["state"] == "active"


async def test_nothing_changes_where_the_store_can_not_take_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(site) as client:

        async def refuse(_: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(site.runtime.definitions.force, "submit", refuse)
            got = await client.ask("POST", f"{V1}/jobs", body=JOB)
            assert (got.status, got.headers["Retry-After"]) == (503, "2")
        assert (await client.ask("GET", f"{V1}/jobs/work")).status == 404
        await defined(client)


async def test_what_is_durable_is_taken_up_once_the_store_can(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asked(site) as client:

        async def refuse(_: Any) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(site.runtime.definitions.force, "apply", refuse)
            assert (await client.ask("POST", f"{V1}/jobs", body=JOB)).status == 503
        await until(lambda: "work" in site.operations.jobs)


async def test_only_an_admin_defines(site: Site) -> None:
    async with asked(site) as client:
        got = await client.ask("POST", f"{V1}/jobs", body=JOB, token=None)
        assert got.status == 401


def many(count: int) -> str:
    """Return that many definitions, with everything that TOML is odd about."""
    parts = []
    for number in range(count // 2):
        parts.append(
            f'[jobs.job-{number}]\nrun.gate = "open"\ndescription = "№ {number} \\"quoted\\" \\\\ \\u0007"\n'
            f'tags = ["a b", "c"]\nretry = {{ attempts = 3, delay = "1.5s", factor = 1.5 }}\n'
        )
        parts.append(
            f'[triggers."t.{number}"]\n'
            f'on.cron = {{ expression = "{number % 60} 2 * * *", timezone = "Europe/Berlin" }}\n'
            f'job = "job-{number}"\nenabled = false\n'
            f'data = {{ "odd key" = [1, 2.0, {{ deep = true }}], big = 1e300, at = 2026-01-01T00:00:00Z }}\n'
        )
    return "\n".join(parts)


async def send(client: Client, text: str, query: str = "") -> Got:
    return await client.ask(
        "POST", f"{V1}/config/import{query}", body=text.encode(), headers={"Content-Type": "application/toml"}
    )


async def test_two_hundred_definitions_are_exported_wiped_and_imported_as_the_same_bytes(site: Site) -> None:
    async with asked(site) as client:
        got = await send(client, many(200))
        assert (got.status, len(got.json["added"])) == (200, 200), got.json
        first = (await client.ask("GET", f"{V1}/config/export")).body
        wiped = await send(client, "", "?replace=1")
        assert len(wiped.json["removed"]) == 200
        assert len(site.operations.trigger_names()) == 2
        await send(client, first.decode())
        second = await client.ask("GET", f"{V1}/config/export")
        assert second.body == first
        assert second.headers["Content-Type"] == "application/toml; charset=utf-8"
        again = await send(client, first.decode(), "?replace=1")
        assert (again.json["added"], again.json["changed"], again.json["removed"]) == ([], [], [])
    async with asked(site) as client:
        assert (await client.ask("GET", f"{V1}/config/export")).body == first


async def test_a_dry_run_says_what_would_change_and_changes_nothing(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        text = '[jobs.work]\nrun.gate = "open"\ntimeout = "5m"\n[triggers.new]\non.cron = "0 * * * *"\njob = "work"\n'
        got = (await send(client, text, "?dry_run=1&replace=1")).json
        assert (got["added"], got["changed"], got["removed"]) == (
            ["triggers.new"], ["jobs.work"], ["triggers.by-hand"]
        )  # fmt: skip
        assert {one["name"]: one["change"] for one in got["plan"]["triggers"]} == {"by-hand": "removed", "new": "added"}
        assert sorted(site.operations.trigger_names()) == ["by-hand", "filed", "wide"]


async def test_an_import_is_whole_or_not_at_all(site: Site) -> None:
    async with asked(site) as client:
        got = await send(
            client, many(4) + '[triggers.odd]\non.cron = "99 * * * *"\njob = "none"\n[engine]\ndata = "/"\n'
        )
        assert (got.status, got.json["code"]) == (422, "invalid_config")
        assert got.json["errors"][0]["path"] == "engine"
        got = await send(client, many(4) + '[triggers.odd]\non.cron = "99 * * * *"\njob = "none"\n')
        text = many(4) + '[triggers.odd]\non.cron = "99 * * * *"\njob = "none"\n'
        at = ("import.toml", text.count("\n") - 1)
        [error] = got.json["errors"]
        assert (error["path"], error["file"], error["line"]) == ("triggers.odd.on.cron", *at), got.json
        assert error["detail"].startswith(f"import.toml:{at[1]}: triggers.odd.on.cron: ")
        got = await send(
            client, '[jobs.late]\ntimeout = "1m"\nrun.gate = "open"\ncolour = 1\n[triggers.bare]\njob = "late"\n'
        )
        assert sorted((error["path"], error["line"]) for error in got.json["errors"]) == [
            ("jobs.late.colour", 4), ("triggers.bare.on", 5)
        ]  # fmt: skip
        assert sorted(site.operations.trigger_names()) == ["filed", "wide"]
        assert (await send(client, "no toml")).status == 422
        assert (await client.ask("POST", f"{V1}/config/import", body={})).status == 415
        assert (await send(client, '[jobs."../x"]\nrun.gate = "open"\n')).status == 422


async def test_a_timer_that_is_defined_comes_due(site: Site) -> None:
    async with asked(site, clock=(clock := VirtualClock())) as client:
        await client.ask("POST", f"{V1}/jobs", body=JOB)
        body = {**TRIGGER, "name": "clock", "on": {"interval": "10m"}}
        assert (await client.ask("POST", f"{V1}/triggers", body=body)).status == 201
        await until(lambda: site.operations.next_at("clock") is not None)
        await clock.advance(601)
        for _ in range(500):
            if (await site.counts()).get(RunState.SUCCEEDED):
                break
            await asyncio.sleep(0.01)
        assert (await site.counts())[RunState.SUCCEEDED] == 1


def test_the_documentation_names_all_that_may_be_overridden() -> None:
    text = (Path(__file__).parent.parent / "docs" / "http.md").read_text("utf-8")
    said = text[text.index("Of a trigger may be overridden") : text.index("## Limits at the door")]
    for cls in (TriggerChange, AdaptiveChange, JobChange):
        for field in fields_of(cls):
            assert f"`{field.key}`" in said


POLLS = """
[triggers.one]
on.files = { path = "inbox", every = "30s" }
job = "filed"
[triggers.two]
on.files = { path = "inbox", every = "30s" }
job = "filed"
[sources.named.files]
path = "other"
[triggers.three]
on.source = "named"
job = "filed"
"""


async def test_the_interval_of_a_source_that_polls_is_overridden_for_all_that_are_on_it(site: Site) -> None:
    site.write(OPEN + POLLS)
    (site.file.parent / "inbox").mkdir()
    (site.file.parent / "other").mkdir()
    async with asked(site) as client:
        match = {"If-Match": "*"}
        source = site.operations.config.triggers["one"].source
        got = await client.ask("PATCH", f"{V1}/triggers/one", body={"interval": "5m"}, headers=match)
        assert got.json["on"]["files"]["every"] == 300.0
        both = [site.operations.config.triggers[name] for name in ("one", "two")]
        assert [(one.source, one.on.every) for one in both] == [(source, 300.0)] * 2
        refused = await client.ask("PATCH", f"{V1}/triggers/three", body={"interval": "5m"}, headers=match)
        assert "is that of source named" in errors(refused)[0]
        short = await client.ask("PATCH", f"{V1}/triggers/one", body={"interval": "0.5s"}, headers=match)
        assert "is shorter than a second" in errors(short)[0]
        await client.ask("POST", f"{V1}/triggers/one/reset")
        assert site.operations.config.triggers["two"].on.every == 30.0


async def test_each_setting_is_told_with_who_has_said_it(site: Site) -> None:
    async with asked(site) as client:
        await defined(client)
        change = {"interval": "30m", "expect": "2h", "reason": "it is slow"}
        got = await client.ask("PATCH", f"{V1}/triggers/filed", body=change, headers={"If-Match": "*"})
        assert got.status == 200, got.json

        async def told(query: str) -> dict[str, dict[str, Any]]:
            found = await client.ask("GET", f"{V1}/config/settings?{query}")
            assert found.status == 200, found.json
            return {one["key"]: one for one in found.json["items"]}

        mine = await told("table=triggers&name=by-hand")
        assert (mine["triggers.by-hand.job"]["value"], mine["triggers.by-hand.job"]["origin"]) == ("work", "api")
        assert mine["triggers.by-hand.job"]["said"].startswith("admin token, 20")
        assert mine["triggers.by-hand.priority"]["origin"] == "default"
        filed = await told("table=triggers&name=filed")
        assert filed["triggers.filed.on.interval.every"]["origin"] == "file"
        over = filed["triggers.filed.expect"]
        assert (over["value"], over["origin"]) == ("2h", "override")
        assert over["said"].endswith(": it is slow")
        assert (await told("table=security"))["security.api_runners"]["value"] == ["gate", "exec"]
        assert {key.split(".")[0] for key in await told("")} >= {"engine", "http", "store", "security"}
        await client.ask("POST", f"{V1}/triggers/filed/reset")
        assert (await told("table=triggers&name=filed"))["triggers.filed.expect"]["origin"] == "default"


@pytest.mark.parametrize("query", ["table=triggers", "name=filed", "table=engine&name=x", "table=no_such", "more=1"])
async def test_settings_of_nothing_are_refused(site: Site, query: str) -> None:
    async with asked(site) as client:
        assert (await client.ask("GET", f"{V1}/config/settings?{query}")).status == 422
