"""The command that prints the description of the API; it needs no engine."""

from __future__ import annotations

import typer

from engine.cli.output import say_json
from engine.cli.session import AsJson


def openapi(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Print the description of the API, in OpenAPI 3.1."""
    from importlib.metadata import version

    from engine.http.openapi import describe
    from engine.http.routes import ROUTES

    say_json(describe(ROUTES, version("trigger-engine")))
