"""The command that tells each setting and where it comes from; it needs no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.failures import USAGE, CommandFailed, NotThere
from engine.cli.options import stands_alone
from engine.cli.output import say_json, say_table
from engine.cli.session import Session

if TYPE_CHECKING:
    from engine.config.origins import Setting


@stands_alone("settings", "settings http --all", "settings triggers.nightly")
def settings(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[TABLE]", help="One table alone, such as http, or triggers.NAME, jobs.NAME, …"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that nothing says.")] = False,
) -> None:
    """Tell each setting of the configuration as it holds, and where it comes from: a line of a file, the environment,
    a preset. What the API defines and overrides is not in it: the running engine's page tells that."""
    found = [one for one in _settings(session, name) if everything or one.origin != "default"]
    if session.json:
        say_json({"items": [one.view() for one in found]})
        return
    rows = [[one.key, one.text, one.said] for one in found]
    say_table(("setting", "value", "where it comes from"), rows)


def _settings(session: Session, name: str | None) -> Sequence[Setting]:
    """Return what is asked for; raise CommandFailed where that is no table, NotThere where it has no such name."""
    from engine.cli.offline import find_plugins
    from engine.config.origins import NAMED, PLAIN, Origins
    from engine.config.scalars import near
    from engine.http.views import shown

    table, _, part = (name or "").partition(".")
    if name is not None and ((table in PLAIN) == bool(part) or table not in (*PLAIN, *NAMED)):
        hint = f"{table}.NAME" if table in NAMED else table if table in PLAIN else near(table, [*PLAIN, *NAMED])
        raise CommandFailed(f'"{name}" is no table of settings ({hint})', USAGE)
    config = session.load()
    origins = Origins(config, find_plugins(session), shown)
    if name is None:
        return [one for key in PLAIN for one in origins.table(key)]
    if not part:
        return origins.table(table)
    found = origins.named(table, part)
    if not found:
        known = [str(path[1]) for path in config.written if path[0] == table and len(path) > 1]
        raise NotThere(f"the configuration has no {table}.{part} ({near(part, known) if known else 'there are none'})")
    return found
