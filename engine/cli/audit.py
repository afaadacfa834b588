"""The command `audit`: who had what changed, or was refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.failures import FAILED, USAGE, CommandFailed, NoEngine
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from engine.audits import AuditFilter, AuditRow
    from engine.store.base import Store

PAGE = 500
SHOWN = 20


@asks("audit --outcome refused --from 2026-11-20T00:00:00Z", "audit --check")
def audit(
    session: Session,
    who: Annotated[str | None, typer.Option(help="Of this token or user.")] = None,
    action: Annotated[str | None, typer.Option(help='Of this action, such as "POST /api/v1/pause".')] = None,
    target: Annotated[str | None, typer.Option(help="About this trigger, run or other thing.")] = None,
    outcome: Annotated[str | None, typer.Option(help="done, refused or failed.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="From then on, in RFC 3339.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before then.")] = None,
    limit: Annotated[
        int | None, typer.Option("-n", "--limit", min=1, help="So many rows; 20, or with --json all.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Follow the chain: was anything changed since?")] = False,
) -> None:
    """List who had what changed, or was refused, the newest first; with --json one row a line.

    By the engine where it runs, else from the store's file.
    """
    wanted = {"who": who, "action": action, "target": target, "outcome": outcome, "from": start, "to": end}
    if check:
        if limit is not None or any(wanted.values()):
            raise CommandFailed("--check looks at the whole log: it stands alone", USAGE)
        _say_chain(session, _chain(session))
        return
    rows = _rows(session, wanted, limit if limit is not None or session.json else SHOWN)
    if session.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=True, separators=(",", ":")))
        return
    say_table(
        ("row", "at", "who", "from", "outcome", "action", "target", "why"),
        [
            [one["seq"], local(one["at"]), one["who"], one["address"], _outcome(one), one["action"], one["target"],
             one["reason"]]
            for one in rows
        ],
        optional=("from", "row"),
    )  # fmt: skip


def _outcome(one: dict[str, Any]) -> str:
    status = f" ({one['status']})" if one["status"] else ""
    return f"{one['outcome']}{status}" + (f", {one['count']} times" if one["count"] > 1 else "")


def _say_chain(session: Session, chain: dict[str, Any]) -> None:
    if session.json:
        say_json(chain)
    elif chain["ok"]:
        say(f"{chain['rows']} rows, as they were written; the last one's hash is {chain['head']}")
    else:
        say(f"The audit log is not what was written: {chain['wrong']}")
    if not chain["ok"]:
        raise typer.Exit(FAILED)


def _chain(session: Session) -> dict[str, Any]:
    if _runs(session):
        found: dict[str, Any] = session.client().get("audit", "chain")
        return found
    from engine.cli.offline import read_store
    from engine.http.audit_routes import chain_view

    return chain_view(read_store(session, lambda store: store.audit_chain()))


def _rows(session: Session, wanted: dict[str, str | None], limit: int | None) -> Iterator[dict[str, Any]]:
    page = _by_engine(session, wanted) if _runs(session) else _from_file(session, wanted)
    for place, row in enumerate(page):
        if place == limit:
            return
        yield row


def _runs(session: Session) -> bool:
    """Tell whether an engine answers; raise where one is named and does not, or none can be asked."""
    try:
        session.client().get("audit", limit=1)
    except ConfigError:
        raise
    except NoEngine:
        if session.named:
            raise
        return False
    except CommandFailed:
        raise
    except EngineError:
        if session.named or session.token or (session.reach().data / "admin.token").exists():
            raise
        return False
    return True


def _by_engine(session: Session, wanted: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    client, cursor = session.client(), None
    while True:
        found = client.get("audit", **wanted, limit=PAGE, cursor=cursor)
        yield from found["items"]
        cursor = found["next"]
        if cursor is None:
            return


def _from_file(session: Session, wanted: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    from engine.cli.offline import read_store
    from engine.http.audit_routes import audit_view, which_of

    which, wrong = which_of({name: value for name, value in wanted.items() if value is not None})
    if wrong:
        raise CommandFailed("; ".join(wrong), USAGE)
    before: int | None = None
    while True:
        rows = read_store(session, partial(_page, which, before))
        yield from map(audit_view, rows)
        if len(rows) < PAGE:
            return
        before = rows[-1].seq


async def _page(which: AuditFilter, before: int | None, store: Store) -> list[AuditRow]:
    return await store.audit(which, limit=PAGE, before=before)
