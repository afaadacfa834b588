"""What a page's function hands on, and how it asks the API's own handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.http.access import Role
from engine.http.calls import Call, RouteHandler
from engine.http.route import Route
from engine.plugin import Response


class View(Struct, frozen=True, kw_only=True):
    """What a template is to show.

    `title` is the page's where it is not that of its row; `status` that of the answer.
    """

    template: str
    values: Mapping[str, Any]
    title: str | None = None
    status: int = 200


Maker = Callable[[Call], Awaitable[View | Response]]
"""Makes the view of a page; a response, such as a redirection, is sent as it is."""


class Page(Struct, frozen=True, kw_only=True):
    """One page.

    - `path`: as the patterns of routes are written.
    - `group`, `icon`: where it stands in the navigation, and with which sign; None: it does not.
    - `key`: the letter that opens it, after `g`.
    - `role`: what it takes to see it; None where it takes nothing.
    - `whole`: whether it takes a token that is not for some tags alone.
    """

    path: str
    title: str
    make: Maker
    group: str | None = None
    icon: str | None = None
    key: str | None = None
    role: Role | None = Role.VIEWER
    whole: bool = False


async def ask(call: Call, handler: RouteHandler, query: Mapping[str, str | None] | None = None) -> Any:
    """Return what the API answers: so a page shows what the API shows, and refuses what it refuses.

    Parameters that are None, or empty, are left out. The path's parameters are the page's own.
    """
    asked = {name: value for name, value in (query or {}).items() if value}
    route = Route(method="GET", pattern="", handler=handler, role=None, summary="")
    answer = await route.answer(replace(call, request=replace(call.request, query=asked, body=b"")))
    return answer.body if isinstance(answer, Response) else None


def may(call: Call, role: Role) -> bool:
    """Tell whether who asks may do what takes a role."""
    return call.role is not None and call.role >= role


def is_scoped(call: Call) -> bool:
    """Tell whether who asks has a token that is for some tags alone."""
    return call.who is not None and bool(call.who.tags)


def redirect(place: str) -> Response:
    """Return the answer that leads to another place of ours."""
    return Response(status=303, body=b"", headers={"Location": place, "Content-Type": "text/plain; charset=utf-8"})
