"""The commands `token …`: where the admin token is, and a new one."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.failures import CommandFailed
from engine.cli.options import stands_alone
from engine.cli.output import say, say_json
from engine.cli.session import AsJson, ConfigFiles, Session
from engine.cli.tree import Tree

token_commands = Tree(help="Tell where the admin token is.", invoke_without_command=True)


@token_commands.callback()
def token_place(
    ctx: typer.Context,
    show: Annotated[bool, typer.Option("--show", help="Print the token itself.")] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
) -> None:
    """Tell where the admin token is."""
    session = ctx.obj = Session.of(ctx, config, as_json)
    if ctx.invoked_subcommand is None:
        _say_token(session, show)


@token_commands.command("rotate")
@stands_alone("token rotate", "token rotate --show")
def token_rotate(
    session: Session,
    show: Annotated[bool, typer.Option("--show", help="Print the new token.")] = False,
) -> None:
    """Make a new admin token. The old one is refused at once, by a running engine too."""
    import os

    from engine.http.tokens import VARIABLE, rotate_admin_token

    data = session.reach().data
    if VARIABLE in os.environ:
        raise CommandFailed(f"the admin token comes from {VARIABLE}: change it there, and start the engine again")
    rotate_admin_token(data)
    _say_token(session, show)


def _say_token(session: Session, show: bool) -> None:
    import os

    from engine.http.tokens import read_admin_token

    value, origin, path = read_admin_token(session.reach().data, os.environ)
    if session.json:
        shown = {"origin": origin, "path": None if path is None else str(path)}
        say_json({**shown, "token": value} if show else shown)
    else:
        say(value if show else f"The admin token is in {origin}")
