"""Routes about runs."""

from __future__ import annotations

from typing import Annotated

from engine.http import shapes
from engine.http.asked import Paging
from engine.http.calls import Call
from engine.http.delivery_routes import deliveries_of
from engine.http.described import described
from engine.http.forms import Nothing
from engine.http.gone import not_there
from engine.http.kinds import Slug, SomeOf, words_of
from engine.http.views import list_view, run_summary, run_view
from engine.plugin import Response
from engine.runs import ENDED, Run, RunState
from engine.store.base import RunFilter


class OfStates(Paging, frozen=True, kw_only=True):
    """Which of a trigger's runs are meant."""

    state: Annotated[frozenset[str] | None, SomeOf(words_of(RunState), "state"), "Several with commas"] = None


class OfRuns(OfStates, frozen=True, kw_only=True):
    """Which runs are meant."""

    job: Annotated[str | None, Slug()] = None
    trigger: Annotated[str | None, Slug()] = None


@described({200: shapes.Page[shapes.RunSummary]})
async def list_runs(call: Call, query: OfRuns) -> Response:
    """Answer with runs, the newest first; `state` may hold several, with commas between them."""
    return await page_of_runs(call, query, trigger=query.trigger, job=query.job)


async def page_of_runs(call: Call, query: OfStates, *, trigger: str | None, job: str | None) -> Response:
    """Answer with the runs that a query asks for."""
    states = None if query.state is None else frozenset(map(RunState, query.state))
    which = RunFilter(states=states, job=job, triggers=frozenset({trigger}) if trigger else None)
    runs = await call.operations.store.runs(which, limit=query.limit + 1, before=query.cursor)
    page = runs[: query.limit]
    items = [run_summary(run, await event_ids(call, run)) for run in page]
    return Response(body=list_view(items, page[-1].id if len(runs) > query.limit else None))


@described({200: shapes.WholeRun}, problems=(410,))
async def get_run(call: Call, query: Nothing) -> Response:
    """Answer with one run, its trace and its attempts."""
    run_id = call.id("run")
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
