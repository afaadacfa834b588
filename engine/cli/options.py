"""The options that commands share, declared once: where the configuration is, which engine is asked, how to print.

A command is a function whose first parameter is the `Session` that these options make; the rest are its own:

    @asks("pools warehouse --limit 4 --reason 'the night load'")
    def pools(session: Session, name: …) -> None:

What stands in quotes are its examples: they end its help, and a test parses each.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from engine.cli.completing import profiles
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url

Profile = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="NAME", autocompletion=profiles,
        help="An engine by its name in profiles.toml (or ENGINE_PROFILE).",
    ),
]  # fmt: skip

Own = ParamSpec("Own")
Written = Callable[Concatenate[Session, Own], None]
Command = Callable[..., None]

_SHARED: dict[str, tuple[Any, Any]] = {
    "config": (ConfigFiles, None),
    "as_json": (AsJson, False),
    "url": (Url, None),
    "token": (Token, None),
    "profile": (Profile, None),
}

SHARED = frozenset(_SHARED)
"""The parameters that commands share."""


def asks(*examples: str) -> Callable[[Written[Own]], Command]:
    """Make a command of a function: one that asks the engine, with all shared options."""
    return sharing(tuple(_SHARED), *examples)


def stands_alone(*examples: str) -> Callable[[Written[Own]], Command]:
    """Make a command of a function: one that needs no engine, with `--config` and `--json` alone."""
    return sharing(("config", "as_json"), *examples)


def sharing(names: tuple[str, ...], *examples: str) -> Callable[[Written[Own]], Command]:
    """Make a command of a function, with the shared options of these names."""
    shared = {name: _SHARED[name] for name in names}

    def decorate(function: Callable[..., None]) -> Command:
        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()

        @functools.wraps(function)
        def command(ctx: typer.Context, **given: Any) -> None:
            options = {name: given.pop(name) for name in shared}
            function(Session.of(ctx, **options), **given)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(
                inspect.Parameter(name, keyword, annotation=annotation, default=default)
                for name, (annotation, default) in shared.items()
            ),
        ]
        # What typer reads of a command.
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.examples = examples  # type: ignore[attr-defined]
        return command

    return decorate
