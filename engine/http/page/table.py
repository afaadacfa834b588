"""The one table of pages: the navigation, the keys, the routes and who may see what all come from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.http.calls import Call, RouteHandler
from engine.http.page import now, search, sign_in
from engine.http.page.shell import answer
from engine.http.page.views import Page
from engine.plugin import Response

LOOK, WORK, SET_UP, RUN_IT = "What happens", "What there is", "What it goes by", "The engine"

PAGES: Final[tuple[Page, ...]] = (
    Page(path="/", title="Now", make=now.make, group=LOOK, icon="now", key="n"),
    Page(path="/search", title="Search", make=search.make),
    Page(path=sign_in.PLACE, title="Sign in", make=sign_in.make, role=None),
)


def handler_of(page: Page, pages: Sequence[Page] = PAGES) -> RouteHandler:
    """Return what answers with a page."""

    async def get(call: Call) -> Response:
        view = await page.make(call)
        return view if isinstance(view, Response) else answer(call, page, view, pages)

    return get
