"""The shell around every page: templates, headers, navigation, and how an answer goes over the wire."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from datetime import datetime
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from engine.clock import rfc3339
from engine.events import at_first
from engine.http.access import Role
from engine.http.calls import Call
from engine.http.page import words
from engine.http.page.assets import ASSETS, takes_gzip
from engine.http.page.views import Page, View, is_scoped, may
from engine.plugin import Headers, Response

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""What a page may load and do: all of it comes from here, and nothing stands inline."""

THEME: Final = "engine_theme"
THEMES: Final = ("light", "dark")

PACK_LEVEL = 5
SHORTEST_PACKED = 1024

_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Vary": "Accept-Encoding, Cookie",
}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("engine.http.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=words.visible, cut=words.cut, linked=words.linked, pretty=words.pretty, span=words.span,
        about=words.about, count=words.count, percent=words.percent, size=words.size, instant=words.instant,
        kept=words.kept, at_first=at_first,
    )  # fmt: skip
    environment.globals.update(
        asset=ASSETS.url,
        plural=words.plural,
        seconds_between=words.seconds_between,
        instant=words.instant,
        min=min,
        max=max,
    )
    return environment


_ENVIRONMENT: Final = _environment()


def render(template: str, headers: Headers, values: Mapping[str, Any], *, now: datetime, zone: str) -> str:
    """Return the HTML of a template, with what every one of them knows."""
    return _ENVIRONMENT.get_template(template).render(
        clock=words.Clockwork(zone, now), now=rfc3339(now), theme=theme_of(headers), **values
    )


def answer(call: Call, page: Page, view: View, pages: Sequence[Page]) -> Response:
    """Return the answer with a page."""
    operations = call.operations
    ready, waits_for = operations.ready()
    values = {
        "title": view.title or page.title,
        "path": call.request.path,
        "here": page,
        "navigation": _navigation(call, pages),
        "who": call.who,
        "may_operate": may(call, Role.OPERATOR),
        "may_admin": may(call, Role.ADMIN),
        "scoped": is_scoped(call),
        "ready": ready,
        "not_ready": waits_for,
        **view.values,
    }
    text = render(
        view.template, call.request.headers, values, now=operations.clock.now(), zone=operations.config.engine.timezone
    )
    return html(text, call.request.headers, status=view.status)


def html(text: str, headers: Headers, *, status: int = 200) -> Response:
    """Return the answer that shows HTML; it is packed where who asks takes that."""
    body = text.encode("utf-8", "replace")
    if len(body) < SHORTEST_PACKED or not takes_gzip(headers):
        return Response(status=status, body=body, headers=_HEADERS)
    packed = gzip.compress(body, PACK_LEVEL, mtime=0)
    return Response(status=status, body=packed, headers={**_HEADERS, "Content-Encoding": "gzip"})


def theme_of(headers: Headers) -> str | None:
    """Return the theme that who looks has chosen; None is the system's."""
    try:
        chosen = SimpleCookie(headers.get("Cookie", "")).get(THEME)
    except CookieError:
        return None
    return chosen.value if chosen is not None and chosen.value in THEMES else None


def _navigation(call: Call, pages: Sequence[Page]) -> dict[str, list[Page]]:
    """Return the pages that stand in the navigation and that who asks may see, by their groups."""
    groups: dict[str, list[Page]] = {}
    for page in pages:
        seen = page.role is None or may(call, page.role)
        if page.group is not None and seen and not (page.whole and is_scoped(call)):
            groups.setdefault(page.group, []).append(page)
    return groups
