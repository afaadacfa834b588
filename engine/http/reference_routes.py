"""The description of the API, and the page that shows it: all of it from here, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from engine.http.calls import Call, RouteHandler
from engine.http.described import JSON, Media, described
from engine.http.openapi import describe
from engine.http.route import Route
from engine.payload import encode_json
from engine.plugin import Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_FILES = Path(__file__).parent / "reference"


def describing(routes: Callable[[], tuple[Route, ...]]) -> RouteHandler:
    """Return the handler that answers with the description of a table of routes, which may be made after it."""

    @cache
    def content() -> bytes:
        return encode_json(describe(routes(), version("trigger-engine")))

    @described({200: JSON, 304: None})
    async def get_description(call: Call) -> Response:
        """Answer with this description, in OpenAPI 3.1."""
        return _answer(call, content(), "application/json")

    return get_description


@described({200: Media(kind="text/html", what="The page"), 304: None})
async def get_page(call: Call) -> Response:
    """Answer with a page that shows the description, and on which each route can be tried."""
    return _answer(call, _file("index.html"), "text/html; charset=utf-8")


@described({200: Media(kind="text/javascript", what="The page's script"), 304: None})
async def get_script(call: Call) -> Response:
    """Answer with the script of that page."""
    return _answer(call, _file("reference.js"), "text/javascript; charset=utf-8")


@described({200: Media(kind="text/css", what="The page's style"), 304: None})
async def get_style(call: Call) -> Response:
    """Answer with the style of that page."""
    return _answer(call, _file("reference.css"), "text/css; charset=utf-8")


def _answer(call: Call, content: bytes, kind: str) -> Response:
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if call.request.headers.get("If-None-Match") == tag:
        return Response(status=304, headers=headers)
    return Response(body=content, headers={**headers, "Content-Type": kind, "Content-Security-Policy": POLICY})


@cache
def _file(name: str) -> bytes:
    return (_FILES / name).read_bytes()
