"""Routes about triggers and jobs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from engine.defined import Key, Kind
from engine.errors import NotFound
from engine.events import Event
from engine.http import shapes
from engine.http.asked import LONGEST_REASON as LONGEST_REASON
from engine.http.asked import Reason
from engine.http.calls import Call
from engine.http.definition_lists import OfJobs, OfTriggers, page_of_names, wants_job, wants_trigger
from engine.http.definition_views import invalid_job
from engine.http.described import described
from engine.http.disclosure import disclosed
from engine.http.fields import near
from engine.http.forms import Form, Nothing
from engine.http.idempotency import request_id_of
from engine.http.kinds import Anything, ListOf, Priority
from engine.http.run_routes import OfStates, page_of_runs
from engine.http.views import job_view, list_view, stats_view
from engine.http.waits import Waiting, answer_for, refuse_another
from engine.plugin import Response
from engine.triggers import GATES

BYPASS = ListOf(tuple(sorted(GATES)), "bypass must be a list of the names of gates", "unknown gate")
"""Gates that a fire passes whatever they say."""


class Firing(Form, frozen=True, kw_only=True):
    """What a trigger is fired with."""

    optional: ClassVar[bool] = True

    data: Annotated[Any, Anything(), "The data of the event"] = None
    reason: Reason = ""
    priority: Annotated[int | None, Priority()] = None
    bypass: Annotated[frozenset[str], BYPASS] = frozenset()


@described({200: shapes.Page[shapes.TriggerOf]})
async def list_triggers(call: Call, query: OfTriggers) -> Response:
    """Answer with all triggers and their statistics, by name."""
    wanted = wants_trigger(call.operations, query)
    names, following = await page_of_names(call.operations.clock, call.operations.trigger_names(), query, wanted)
    stats = await call.operations.store.stats(names)
    items = []
    for name in names:
        found = stats.get(name)
        view = _trigger(call, name)
        items.append({**view, "last_run": found.last_run if found else None, "stats": stats_view(found)})
    return Response(body=list_view(items, following))


def _trigger(call: Call, name: str) -> dict[str, Any]:
    view = {**call.operations.trigger_view(name), **call.operations.definitions.about(Key(Kind.TRIGGER, name))}
    return {**view, "on": disclosed(call.role, view["on"]), "settings": disclosed(call.role, view["settings"])}


@described({200: shapes.TriggerOf})
async def get_trigger(call: Call, query: Nothing) -> Response:
    """Answer with one trigger and its statistics."""
    return await one_trigger(call, call.name("trigger"))


async def one_trigger(call: Call, name: str) -> Response:
    """Answer with one trigger and its statistics as they are now."""
    key = Key(Kind.TRIGGER, name)
    found = (await call.operations.store.stats([name])).get(name)
    return Response(
        body={
            **_trigger(call, name), "last_run": found.last_run if found else None,
            "stats": stats_view(found),
        },
        headers=_etag(call, key),
    )  # fmt: skip


@described({200: shapes.Page[shapes.RunSummary]})
async def list_trigger_runs(call: Call, query: OfStates) -> Response:
    """Answer with a trigger's runs, the newest first."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    return await page_of_runs(call, query, triggers=frozenset({name}), job=None)


@described(
    {200: shapes.Waited, 202: shapes.Waited},
    keyed="by_handler",
    example={"data": {"table": "orders"}, "reason": "the import was wrong", "priority": "high"},
)
async def fire_trigger(call: Call, query: Waiting, body: Firing) -> Response:
    """Fire a trigger by hand. Its answer comes when the event is durable."""
    name = call.name("trigger")
    key = request_id_of(call, f"fire {name}")
    accepted = await call.operations.fire(
        name,
        data=body.data,
        reason=body.reason,
        priority=body.priority,
        bypass=body.bypass,
        request_id=key,
        traceparent=call.request.headers.get("Traceparent"),
    )
    fired = Event(type="manual", subject=name, data=body.data)
    await refuse_another(call.operations, accepted, key, fired, name)
    return await answer_for(call.operations, accepted, query.wait_s)


@described({200: shapes.Page[shapes.JobOf]})
async def list_jobs(call: Call, query: OfJobs) -> Response:
    """Answer with all jobs, by name; secrets are masked, and for all but admins what may be one."""
    jobs, invalid = call.operations.jobs, call.operations.definitions.invalid(Kind.JOB)

    def wanted(name: str) -> bool:
        # One that is invalid has nothing that could be looked at, but its name.
        return wants_job(jobs[name], query) if name in jobs else (query.tag, query.enabled, query.text) == (None,) * 3

    names, following = await page_of_names(call.operations.clock, [*jobs, *invalid], query, wanted)
    return Response(body=list_view([_job(call, name) for name in names], following))


@described({200: shapes.JobOf})
async def get_job(call: Call, query: Nothing) -> Response:
    """Answer with one job; secrets are masked, and for all but admins what may be one."""
    name = call.name("job")
    return await one_job(call, name)


async def one_job(call: Call, name: str) -> Response:
    """Answer with one job as it is now."""
    return Response(body=_job(call, name), headers=_etag(call, Key(Kind.JOB, name)))


def _job(call: Call, name: str) -> dict[str, Any]:
    operations, key = call.operations, Key(Kind.JOB, name)
    job, about = operations.jobs.get(name), operations.definitions.about(key)
    about["settings"] = disclosed(call.role, about["settings"])
    if job is not None:
        view = job_view(job, operations.config.secrets)
        return {**view, "run": disclosed(call.role, view["run"]), **about}
    problem = operations.definitions.invalid(Kind.JOB).get(name)
    if problem is None:
        raise NotFound(f"there is no job {name!r}{near(name, operations.jobs.keys())}")
    return {**invalid_job(name, about["settings"], problem), **about}


def _etag(call: Call, key: Key) -> dict[str, str]:
    version = call.operations.definitions.version(key)
    return {} if version is None else {"ETag": f'"{version}"'}
