"""Routes about triggers and jobs."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from engine.defined import Key, Kind
from engine.errors import NotFound
from engine.http.calls import Call
from engine.http.definition_views import invalid_job
from engine.http.fields import Fields, body, idempotency_key, near, query
from engine.http.run_routes import page_of_runs
from engine.http.views import job_view, list_view, stats_view
from engine.http.waits import WAIT, answer_for, wait_s
from engine.plugin import Response
from engine.triggers import GATES

LONGEST_REASON = 1000


async def list_triggers(call: Call) -> Response:
    """Answer with all triggers and their statistics, by name."""
    fields = query(call.request, "limit", "cursor")
    limit, after = fields.limit(), fields.slug("cursor")
    fields.finish()
    names, following = _page(call.operations.trigger_names(), after, limit)
    stats = await call.operations.store.stats(names)
    items = []
    for name in names:
        found = stats.get(name)
        view = call.operations.trigger_view(name)
        view |= call.operations.definitions.about(Key(Kind.TRIGGER, name))
        items.append({**view, "last_run": found.last_run if found else None, "stats": stats_view(found)})
    return Response(body=list_view(items, following))


async def get_trigger(call: Call) -> Response:
    """Answer with one trigger and its statistics."""
    name = call.name("trigger")
    query(call.request).finish()
    return await one_trigger(call, name)


async def one_trigger(call: Call, name: str) -> Response:
    """Answer with one trigger and its statistics as they are now."""
    key = Key(Kind.TRIGGER, name)
    view = call.operations.trigger_view(name)
    found = (await call.operations.store.stats([name])).get(name)
    return Response(
        body={
            **view, **call.operations.definitions.about(key), "last_run": found.last_run if found else None,
            "stats": stats_view(found),
        },
        headers=_etag(call, key),
    )  # fmt: skip


async def list_trigger_runs(call: Call) -> Response:
    """Answer with a trigger's runs, the newest first."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    fields = query(call.request, "state", "limit", "cursor")
    return await page_of_runs(call, fields, trigger=name, job=None)


async def fire_trigger(call: Call) -> Response:
    """Fire a trigger by hand. Its answer comes when the event is durable."""
    name = call.name("trigger")
    asked = query(call.request, WAIT)
    within_s = wait_s(asked)
    asked.finish()
    call.operations.trigger_view(name)
    fields = body(call.request, ("data", "reason", "priority", "bypass"), optional=True)
    reason, priority = fields.text("reason", longest=LONGEST_REASON), fields.priority()
    bypass = _bypass(fields)
    fields.finish()
    accepted = await call.operations.fire(
        name,
        data=fields.value("data"),
        reason=reason or "",
        priority=priority,
        bypass=bypass,
        request_id=idempotency_key(call.request.headers),
        traceparent=call.request.headers.get("Traceparent"),
    )
    return await answer_for(call.operations, accepted, within_s)


async def list_jobs(call: Call) -> Response:
    """Answer with all jobs, by name; secrets are masked."""
    fields = query(call.request, "limit", "cursor")
    limit, after = fields.limit(), fields.slug("cursor")
    fields.finish()
    invalid = call.operations.definitions.invalid(Kind.JOB)
    names, following = _page([*call.operations.jobs, *invalid], after, limit)
    return Response(body=list_view([_job(call, name) for name in names], following))


async def get_job(call: Call) -> Response:
    """Answer with one job; secrets are masked."""
    name = call.name("job")
    query(call.request).finish()
    return await one_job(call, name)


async def one_job(call: Call, name: str) -> Response:
    """Answer with one job as it is now."""
    return Response(body=_job(call, name), headers=_etag(call, Key(Kind.JOB, name)))


def _job(call: Call, name: str) -> dict[str, Any]:
    operations, key = call.operations, Key(Kind.JOB, name)
    job, about = operations.jobs.get(name), operations.definitions.about(key)
    if job is not None:
        return {**job_view(job, operations.config.secrets), **about}
    problem = operations.definitions.invalid(Kind.JOB).get(name)
    if problem is None:
        raise NotFound(f"there is no job {name!r}{near(name, operations.jobs.keys())}")
    return {**invalid_job(name, about["settings"], problem), **about}


def _etag(call: Call, key: Key) -> dict[str, str]:
    version = call.operations.definitions.version(key)
    return {} if version is None else {"ETag": f'"{version}"'}


def _page(names: list[str], after: str | None, limit: int) -> tuple[list[str], str | None]:
    ordered = sorted(names)
    start = 0 if after is None else bisect_right(ordered, after)
    page = ordered[start : start + limit]
    return page, page[-1] if start + limit < len(ordered) else None


def _bypass(fields: Fields) -> frozenset[str]:
    gates: Any = fields.value("bypass")
    if gates is None:
        return frozenset()
    if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
        fields.fault("bypass", "bypass must be a list of the names of gates")
        return frozenset()
    for gate in gates:
        if gate not in GATES:
            fields.fault("bypass", f"unknown gate {gate!r}{near(gate, GATES)}")
    return frozenset(gates)
