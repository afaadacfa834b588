"""The one table of pages: the navigation, the keys, the routes and who may see what all come from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.http.access import Role
from engine.http.calls import Call, RouteHandler
from engine.http.page import (
    calendar,
    events,
    inner,
    jobs,
    now,
    queue,
    runs,
    search,
    sign_in,
    timeline,
    triggers,
    upkeep,
    why,
)
from engine.http.page.shell import answer
from engine.http.page.views import Page
from engine.plugin import Response

LOOK, WORK, SET_UP, RUN_IT = "What happens", "What there is", "What it goes by", "The engine"

PAGES: Final[tuple[Page, ...]] = (
    Page(path="/", title="Now", make=now.make, group=LOOK, icon="now", key="n"),
    Page(path="/timeline", title="Timeline", make=timeline.make, group=LOOK, icon="timeline", key="l"),
    Page(path="/runs", title="Runs", make=runs.make_list, group=LOOK, icon="runs", key="r"),
    Page(path="/runs/{id}", title="Run", make=runs.make_one),
    Page(path="/queue", title="Queue", make=queue.make, group=LOOK, icon="queue", key="q"),
    Page(path="/events", title="Events", make=events.make_list, group=LOOK, icon="events", key="e"),
    Page(path="/events/{id}", title="Event", make=events.make_one),
    Page(path="/triggers", title="Triggers", make=triggers.make_list, group=WORK, icon="triggers", key="t"),
    Page(path="/triggers/{name}", title="Trigger", make=triggers.make_one),
    Page(path="/triggers/{name}/why", title="Why", make=why.make),
    Page(path="/jobs", title="Jobs", make=jobs.make_list, group=WORK, icon="jobs", key="j"),
    Page(path="/jobs/{name}", title="Job", make=jobs.make_one),
    Page(path="/sources", title="Sources", make=upkeep.make_sources, group=WORK, icon="sources", key="s"),
    Page(path="/calendar", title="Calendar", make=calendar.make, group=SET_UP, icon="calendar", key="c"),
    Page(path="/conditions", title="Conditions", make=upkeep.make_conditions, group=SET_UP, icon="conditions", key="i"),
    Page(
        path="/maintenance",
        title="Maintenance",
        make=upkeep.make_maintenance,
        group=SET_UP,
        icon="maintenance",
        key="m",
    ),
    Page(path="/backfills", title="Backfills", make=upkeep.make_backfills, group=SET_UP, icon="backfills", key="b"),
    Page(path="/doctor", title="Doctor", make=inner.make_doctor, group=RUN_IT, icon="doctor", key="d"),
    Page(
        path="/configuration",
        title="Configuration",
        make=inner.make_configuration,
        group=RUN_IT,
        icon="configuration",
        key="o",
        role=Role.ADMIN,
    ),
    Page(path="/audit", title="Audit", make=inner.make_audit, group=RUN_IT, icon="audit", key="a", role=Role.ADMIN),
    Page(path="/tokens", title="Tokens", make=inner.make_tokens, group=RUN_IT, icon="tokens", key="k", role=Role.ADMIN),
    Page(path="/search", title="Search", make=search.make),
    Page(path=sign_in.PLACE, title="Sign in", make=sign_in.make, role=None),
)


def handler_of(page: Page, pages: Sequence[Page] = PAGES) -> RouteHandler:
    """Return what answers with a page."""

    async def get(call: Call) -> Response:
        view = await page.make(call)
        return view if isinstance(view, Response) else answer(call, page, view, pages)

    return get
