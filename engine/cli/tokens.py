"""The commands `token …`: where the admin token is, and others: made, rotated, revoked, with the engine or without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed, EngineSilent, NoEngine
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import AsJson, ConfigFiles, Session
from engine.cli.tree import Tree
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from engine.cli.client import Client
    from engine.http.keyring import Keyring

token_commands = Tree(
    help="Tell where the admin token is; make, rotate and revoke others.", invoke_without_command=True
)

Name = Annotated[str, typer.Argument(help="The token.", autocompletion=completing.tokens)]


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
        _say_admin(session, show)


@token_commands.command("list")
@asks("token list")
def token_list(
    session: Session,
) -> None:
    """List the tokens: what they may do, how they begin, and when they were used."""

    async def without(keyring: Keyring) -> dict[str, Any]:
        return {"items": keyring.views(), "next": None}

    found = _ask(session, lambda client: client.get("tokens"), without)
    if session.json:
        say_json(found)
        return
    say_table(
        ("name", "role", "tags", "begins", "expires", "used", "from"),
        [
            [one["name"], one["role"], ", ".join(one["tags"]) or "all", one["prefix"], _end(one), local(one["used_at"]),
             one["used_from"]]
            for one in found["items"]
        ],
        optional=("from", "begins"),
    )  # fmt: skip


def _end(one: dict[str, Any]) -> str:
    return "expired" if one["expired"] else local(one["expires_at"]) or "never"


@token_commands.command("create")
@asks(
    "token create grafana --role viewer --description 'the dashboard'",
    "token create sales --role operator --tag sales --expires-in 90d",
)
def token_create(
    session: Session,
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
    tag: Annotated[list[str] | None, typer.Option(help="It sees what has this tag alone. Repeatable.")] = None,
    expires_in: Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 90d; else it stays.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Make a token and print it: this once, as nobody can read it again."""
    given = {"name": name, "role": role, "tags": tag or None, "expires_in": expires_in, "description": description}
    body = {key: value for key, value in given.items() if value is not None}

    async def without(keyring: Keyring) -> dict[str, Any]:
        return await _create(keyring, name, role, tag or [], expires_in, description)

    made = _ask(session, lambda client: client.post("tokens", body=body, headers=claim()), without)
    _say_made(session, made)


@token_commands.command("rotate")
@asks("token rotate", "token rotate grafana --overlap 24h")
def token_rotate(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The token; else the admin token.")] = None,
    overlap: Annotated[
        str | None, typer.Option(metavar="DURATION", help="So long the old one opens too; by default 1h.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the new admin token.")] = False,
) -> None:
    """Give a token another secret and print it. Without NAME: make a new admin token, at once."""
    if name is None:
        if overlap is not None:
            raise CommandFailed("the old admin token is refused at once: --overlap is for other tokens", USAGE)
        _rotate_admin(session, show)
        return
    one = name
    body = {} if overlap is None else {"overlap": overlap}

    async def without(keyring: Keyring) -> dict[str, Any]:
        from engine.http.keyring import OVERLAP_S

        seconds = OVERLAP_S if overlap is None else _seconds("--overlap", overlap)
        keyring.view(one)
        audit = _audit("token rotate", one, {"overlap_s": seconds})
        secret = await keyring.rotate(one, overlap_s=seconds, audit=audit)
        return {**keyring.view(one), "token": secret}

    made = _ask(session, lambda client: client.post("tokens", one, "rotate", body=body, headers=claim()), without)
    _say_made(session, made)


@token_commands.command("revoke")
@asks("token revoke grafana")
def token_revoke(
    session: Session,
    name: Name,
) -> None:
    """Revoke a token: it opens nothing from now on."""

    async def without(keyring: Keyring) -> None:
        await keyring.revoke(name, audit=_audit("token revoke", name, None))

    _ask(session, lambda client: client.delete("tokens", name, headers=claim()), without)
    if session.json:
        say_json({"name": name, "revoked": True})
    else:
        say(f"Token {name} is revoked")


def _ask(session: Session, client: Callable[[Client], Any], without: Callable[[Keyring], Awaitable[Any]]) -> Any:
    """Ask the engine; where none runs on this machine's data, do it in the store's file."""
    try:
        return client(session.client())
    except ConfigError:
        raise
    except EngineSilent:
        raise
    except NoEngine:
        if session.named:
            raise
    except CommandFailed:
        raise
    except EngineError:
        # Where no engine ever started there is no admin token yet.
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
    import asyncio

    return asyncio.run(_in_file(session, without))


async def _in_file(session: Session, act: Callable[[Keyring], Awaitable[Any]]) -> Any:
    from engine.audits import Audit
    from engine.cli.offline import opened
    from engine.clock import SystemClock
    from engine.http.keyring import Keyring
    from engine.store.changes import Accept

    async with opened(session.load(), read_only=False) as store:

        async def submit(change: Accept, audit: Audit | None) -> Any:
            result = (await store.apply([change], {} if audit is None else {0: audit}))[0]
            if isinstance(result, EngineError):
                raise result

        keyring = Keyring(None, SystemClock(), submit)
        await keyring.load(store)
        return await act(keyring)


async def _create(
    keyring: Keyring, name: str, role: str, tags: list[str], expires_in: str | None, description: str | None
) -> dict[str, Any]:
    from datetime import UTC, datetime, timedelta

    from engine.tokens import ROLES, is_tag

    if role not in ROLES:
        raise CommandFailed(f"--role must be one of {', '.join(ROLES)}", USAGE)
    for tag in tags:
        if not is_tag(tag):
            raise CommandFailed("a tag is text of 1 to 128 characters without control characters", USAGE)
    end = None
    if expires_in is not None:
        end = datetime.now(UTC) + timedelta(seconds=_seconds("--expires-in", expires_in))
    asked = {"role": role, "tags": tags, "expires_in": expires_in, "description": description}
    secret = await keyring.create(
        name, ROLES[role], tags=tuple(dict.fromkeys(tags)), expires_at=end, description=description or "",
        who=_person(), audit=_audit("token create", name, asked),
    )  # fmt: skip
    return {**keyring.view(name), "token": secret}


def _seconds(option: str, text: str) -> float:
    from engine.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise CommandFailed(f"{option}: {error}", USAGE) from None


def _audit(action: str, target: str, after: Any) -> Any:
    """Return the row of the audit log of what this command does in the store's file."""
    from engine.audits import Audit, AuditOutcome
    from engine.clock import SystemClock, to_microseconds

    return Audit(
        at=to_microseconds(SystemClock().now()), action=action, target=target, outcome=AuditOutcome.DONE,
        who=_person(), means="command", after=after,
    )  # fmt: skip


def _person() -> str:
    """Return who runs this command, as the system knows it."""
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def _say_made(session: Session, made: dict[str, Any]) -> None:
    if session.json:
        say_json(made)
        return
    say(made["token"])
    former = made["former"]
    until = "" if former is None else f"; {former['prefix']}… opens too until {local(former['until'])}"
    say(f"This is token {made['name']} ({made['role']}); it is not shown again{until}", error=True)


def _rotate_admin(session: Session, show: bool) -> None:
    import os

    from engine.http.tokens import VARIABLE, rotate_admin_token

    data = session.reach().data
    if VARIABLE in os.environ:
        raise CommandFailed(f"the admin token comes from {VARIABLE}: change it there, and start the engine again")
    rotate_admin_token(data)
    _say_admin(session, show)


def _say_admin(session: Session, show: bool) -> None:
    import os

    from engine.http.tokens import read_admin_token

    value, origin, path = read_admin_token(session.reach().data, os.environ)
    if session.json:
        shown = {"origin": origin, "path": None if path is None else str(path)}
        say_json({**shown, "token": value} if show else shown)
    else:
        say(value if show else f"The admin token is in {origin}")
