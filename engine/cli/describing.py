"""The command that prints the description of the API; it needs no engine."""

from __future__ import annotations

from engine.cli.options import sharing
from engine.cli.output import say_json
from engine.cli.session import Session


@sharing(("as_json",), "openapi > openapi.json")
def openapi(session: Session) -> None:
    """Print the description of the API, in OpenAPI 3.1."""
    from importlib.metadata import version

    from engine.http.openapi import describe
    from engine.http.routes import ROUTES

    say_json(describe(ROUTES, version("trigger-engine")))
