"""Routes about runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import field
from msgspec.structs import replace

from engine.http import shapes
from engine.http.asked import Paging
from engine.http.calls import Call
from engine.http.delivery_routes import deliveries_of
from engine.http.described import described
from engine.http.forms import Nothing
from engine.http.gone import not_there
from engine.http.kinds import Instant, Line, Slug, SomeOf, words_of
from engine.http.slices import before_of, page_of
from engine.http.views import list_view, run_summary, run_view
from engine.ids import first_id_at
from engine.plugin import Response
from engine.runs import ENDED, Origin, Run, RunState
from engine.store.base import RunFilter


class OfStates(Paging, frozen=True, kw_only=True):
    """Which of a trigger's runs are meant: all that is named has to hold."""

    origin: Annotated[frozenset[str] | None, SomeOf(words_of(Origin), "origin"), "Several with commas"] = None
    start: Annotated[datetime | None, Instant(), "Those that came to be from then on"] = field(
        name="from", default=None
    )
    end: Annotated[datetime | None, Instant(), "Those that came to be before"] = field(name="to", default=None)
    text: Annotated[str | None, Line(256), "It stands in a name, the code or the trace"] = None
    state: Annotated[frozenset[str] | None, SomeOf(words_of(RunState), "state"), "Several with commas"] = None


class OfRuns(OfStates, frozen=True, kw_only=True):
    """Which runs are meant."""

    job: Annotated[str | None, Slug()] = None
    trigger: Annotated[str | None, Slug()] = None
    tag: Annotated[str | None, Line(128), "Those of triggers with this tag, their own or their job's"] = None


@described({200: shapes.Page[shapes.RunSummary]})
async def list_runs(call: Call, query: OfRuns) -> Response:
    """Answer with runs, the newest first; `state` may hold several, with commas between them."""
    triggers = None if query.trigger is None else frozenset({query.trigger})
    if query.tag is not None:
        tagged = call.operations.tagged(query.tag)
        triggers = tagged if triggers is None else triggers & tagged
    return await page_of_runs(call, query, triggers=triggers, job=query.job)


async def page_of_runs(call: Call, query: OfStates, *, triggers: frozenset[str] | None, job: str | None) -> Response:
    """Answer with the runs that a query asks for."""
    states = None if query.state is None else frozenset(map(RunState, query.state))
    which = RunFilter(
        states=states, job=job, triggers=triggers, text=query.text,
        origins=None if query.origin is None else frozenset(map(Origin, query.origin)),
    )  # fmt: skip
    store = call.operations.store

    async def find(*, limit: int, before: str | None, since: str | None) -> list[Run]:
        return await store.runs(replace(which, since=since), limit=limit, before=before)

    page, following = await page_of(
        store, call.operations.clock, "runs", find, lambda run: run.id, limit=query.limit,
        before=before_of(query.cursor, query.end), since=None if query.start is None else first_id_at(query.start),
        narrowed=which != RunFilter(),
    )  # fmt: skip
    items = [run_summary(run, await event_ids(call, run)) for run in page]
    return Response(body=list_view(items, following))


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
