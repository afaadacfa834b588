"""Commands that take in definitions, and that make a configuration of what other programs have."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.configuring import definitions, write_file
from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.options import sharing
from engine.cli.output import say, say_json
from engine.cli.session import Session
from engine.cli.tree import Group, Tree

if TYPE_CHECKING:
    from collections.abc import Callable


class ImportCommands(Group):
    """Takes `import FILE` for `import definitions FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = any(word in self.commands for word in args)
        if not named and any(word == "-" or not word.startswith("-") for word in args):
            args = ["definitions", *args]
        return super().parse_args(ctx, args)


import_commands = Tree(
    cls=ImportCommands, help="Take in definitions, or make a configuration of what other programs have.",
    no_args_is_help=True,
)  # fmt: skip
import_commands.command()(definitions)


@import_commands.callback()
def importing() -> None:
    """Take in definitions that were exported, or make a configuration of what other programs have."""


@import_commands.command()
@sharing(
    ("as_json",), "import crontab /etc/crontab --system -o config.toml", "import crontab - --timezone Europe/Berlin"
)
def crontab(
    session: Session,
    file: Annotated[str, typer.Argument(help="The crontab; - is standard input: `crontab -l | … import crontab -`.")],
    system: Annotated[
        bool | None,
        typer.Option("--system/--no-system", help="Whether it has a column of users; by default found out."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="As whom the engine runs; default: who runs this.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The zone of cron's machine; default: that of this machine.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file; one that is there is left alone."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 where a line is wrong.")] = False,
) -> None:
    """Write the configuration that does what a crontab does; what can't be carried over is said there, in comments."""
    from engine.cli.crontab import is_system, read, write

    text = _read(file)
    has_users = is_system(text, "" if file == "-" else os.path.abspath(file)) if system is None else system
    name = user or _user()
    result = write(
        read(text, system=has_users),
        title="a crontab" if file == "-" else file,
        timezone=_zone(timezone),
        user=name,
        home=_home(name),
        refused=_judge(),
    )
    if output is not None:
        write_file(Path(output), result.text.encode(), force=force)
    lines = [{"line": one.line, "text": one.text, "message": one.message, "bad": one.bad} for one in result.problems]
    if session.json:
        say_json({"config": result.text, "jobs": result.jobs, "triggers": result.triggers, "problems": lines})
    elif output is None:
        sys.stdout.buffer.write(result.text.encode())
        sys.stdout.flush()
    if not session.json:
        for one in result.problems:
            say(f"{_named(file)}:{one.line}: not carried over: {one.message}", error=True)
        made = f"triggers: {result.triggers}, jobs: {result.jobs}, not carried over: {len(lines)}"
        say(f"{_named(file)}: {made}", error=True)
    if strict and any(one.bad for one in result.problems):
        raise typer.Exit(FAILED)


def _read(file: str) -> str:
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{_named(file)} can't be read: {error.strerror}") from None
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CommandFailed(f"{_named(file)}:{line}: is not UTF-8; convert it first, such as with iconv") from None


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())


def _home(user: str) -> str | None:
    import pwd

    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return None


def _zone(named: str | None) -> str:
    import zoneinfo

    zone = named or _local_zone()
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise CommandFailed(
            f'there is no time zone "{zone}"; --timezone names one, such as Europe/Berlin', USAGE
        ) from None
    return zone


def _local_zone() -> str:
    """Return the name of this machine's zone, as far as it can be told; UTC where it can't."""
    variable = os.environ.get("TZ", "").removeprefix(":")
    if variable and not variable.startswith("/"):
        return variable
    link = os.path.realpath("/etc/localtime")
    _, found, name = link.partition("/zoneinfo/")
    return name if found else "UTC"


def _judge() -> Callable[[str], str | None]:
    """Return what says why the engine's own cron timer refuses an expression."""
    from engine.registry import Registry

    timer: Callable[..., object] | None = Registry.discover().timers.get("cron")
    if timer is None:
        raise CommandFailed("the timer cron is not installed, and all that is imported would be on it")

    def refused(expression: str) -> str | None:
        try:
            timer(expression=expression)
        except ValueError as error:
            return str(error)
        return None

    return refused
