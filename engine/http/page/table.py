"""The one table of pages: the navigation, the keys, the routes and who may see what all come from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.http.access import Role
from engine.http.calls import Call, RouteHandler
from engine.http.page import (
    adherence,
    alerts,
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
from engine.http.page.views import Maker, Page
from engine.plugin import Response

LOOK, WORK, SET_UP, RUN_IT = "What happens", "What there is", "What it goes by", "The engine"


def _listed(
    path: str, title: str, make: Maker, group: str, icon: str, key: str, *, role: Role = Role.VIEWER,
    whole: bool = False,
) -> Page:  # fmt: skip
    return Page(path=path, title=title, make=make, group=group, icon=icon, key=key, role=role, whole=whole)


PAGES: Final[tuple[Page, ...]] = (
    _listed("/", "Now", now.make, LOOK, "now", "n"),
    _listed("/timeline", "Timeline", timeline.make, LOOK, "timeline", "l"),
    _listed("/runs", "Runs", runs.make_list, LOOK, "runs", "r"),
    Page(path="/runs/{id}", title="Run", make=runs.make_one),
    _listed("/queue", "Queue", queue.make, LOOK, "queue", "q", whole=True),
    _listed("/events", "Events", events.make_list, LOOK, "events", "e"),
    Page(path="/events/{id}", title="Event", make=events.make_one),
    _listed("/triggers", "Triggers", triggers.make_list, WORK, "triggers", "t"),
    Page(path="/triggers/{name}", title="Trigger", make=triggers.make_one),
    Page(path="/triggers/{name}/why", title="Why", make=why.make),
    _listed("/jobs", "Jobs", jobs.make_list, WORK, "jobs", "j"),
    Page(path="/jobs/{name}", title="Job", make=jobs.make_one),
    _listed("/adherence", "Adherence", adherence.make, WORK, "adherence", "h", whole=True),
    _listed("/sources", "Sources", upkeep.make_sources, WORK, "sources", "s", whole=True),
    _listed("/calendar", "Calendar", calendar.make, SET_UP, "calendar", "c", whole=True),
    _listed("/conditions", "Conditions", upkeep.make_conditions, SET_UP, "conditions", "i", whole=True),
    _listed("/maintenance", "Maintenance", upkeep.make_maintenance, SET_UP, "maintenance", "m", whole=True),
    _listed("/backfills", "Backfills", upkeep.make_backfills, SET_UP, "backfills", "b", whole=True),
    _listed("/alerts", "Alerts", alerts.make, RUN_IT, "alerts", "w", whole=True),
    _listed("/doctor", "Doctor", inner.make_doctor, RUN_IT, "doctor", "d", whole=True),
    _listed("/configuration", "Configuration", inner.make_configuration, RUN_IT, "configuration", "o",
            role=Role.ADMIN, whole=True),
    _listed("/audit", "Audit", inner.make_audit, RUN_IT, "audit", "a", role=Role.ADMIN, whole=True),
    _listed("/tokens", "Tokens", inner.make_tokens, RUN_IT, "tokens", "k", role=Role.ADMIN, whole=True),
    Page(path="/search", title="Search", make=search.make),
    Page(path=sign_in.PLACE, title="Sign in", make=sign_in.make, role=None),
)  # fmt: skip


def handler_of(page: Page, pages: Sequence[Page] = PAGES) -> RouteHandler:
    """Return what answers with a page."""

    async def get(call: Call) -> Response:
        view = await page.make(call)
        return view if isinstance(view, Response) else answer(call, page, view, pages)

    return get
