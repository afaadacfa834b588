"""Routes about runs."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.delivery_routes import deliveries_of
from engine.http.fields import Fields, near, query
from engine.http.gone import not_there
from engine.http.views import list_view, run_summary, run_view
from engine.plugin import Response
from engine.runs import ENDED, Run, RunState
from engine.store.base import RunFilter

_STATES = frozenset(state.value for state in RunState)


async def list_runs(call: Call) -> Response:
    """Answer with runs, the newest first; `state` may hold several, with commas between them."""
    fields = query(call.request, "state", "job", "trigger", "limit", "cursor")
    return await page_of_runs(call, fields, trigger=fields.slug("trigger"), job=fields.slug("job"))


async def page_of_runs(call: Call, fields: Fields, *, trigger: str | None, job: str | None) -> Response:
    """Answer with the runs that a query asks for; raise Problem 422 where it is wrong."""
    states = _states(fields)
    limit, before = fields.limit(), fields.cursor()
    fields.finish()
    which = RunFilter(states=states, job=job, triggers=frozenset({trigger}) if trigger else None)
    runs = await call.operations.store.runs(which, limit=limit + 1, before=before)
    page = runs[:limit]
    items = [run_summary(run, await event_ids(call, run)) for run in page]
    return Response(body=list_view(items, page[-1].id if len(runs) > limit else None))


async def get_run(call: Call) -> Response:
    """Answer with one run, its trace and its attempts."""
    run_id = call.id("run")
    query(call.request).finish()
    run = await call.operations.store.run(run_id)
    if run is None:
        raise await not_there(call, "run", run_id)
    body = {**run_view(run, await event_ids(call, run)), "waits_for": call.operations.pools.waits_for(run)}
    if run.state in ENDED:
        body["deliveries"] = await deliveries_of(call, run_id)
    if run.state is RunState.HELD and run.trigger in call.operations.trigger_names():
        # Its trace tells what held it when it came here; this is how that is now.
        body["conditions"] = call.operations.trigger_view(run.trigger)["conditions"]
    return Response(body=body)


async def event_ids(call: Call, run: Run) -> list[str]:
    """Return the ids of a run's events, oldest first."""
    if run.event_count <= 1:
        return [run.event]
    return [event.id for event in await call.operations.store.run_events(run.id)]


def _states(fields: Fields) -> frozenset[RunState] | None:
    text = fields.value("state")
    if text is None:
        return None
    names = text.split(",")
    for name in names:
        if name not in _STATES:
            fields.fault("state", f"unknown state {name!r}{near(name, _STATES)}")
    return frozenset(RunState(name) for name in names if name in _STATES)
