"""Routes about the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import Struct, field

from engine.audits import AuditFilter, AuditOutcome, AuditRow, Chain
from engine.clock import from_microseconds, rfc3339
from engine.http import shapes, surroundings
from engine.http.calls import Call, Stream
from engine.http.described import Media, described
from engine.http.fields import DEFAULT_LIMIT, Fields
from engine.http.forms import Form, Nothing, members_of, read_members
from engine.http.kinds import LIMIT, Instant, Line, OneOf, Schema, words_of
from engine.http.views import list_view
from engine.plugin import Response

LINES = "application/x-ndjson"
PAGE = 500

_HIGHEST = 2**63 - 1


class Seq(Struct, frozen=True):
    """The number of a row."""

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": 1, "maximum": _HIGHEST}

    def read(self, fields: Fields, name: str) -> int | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and 0 < int(value) <= _HIGHEST):
            fields.fault(name, f"{name} must be the `next` of the list before")
            return None
        return int(value)


class OfAudit(Form, frozen=True, kw_only=True):
    """Which rows are meant."""

    who: Annotated[str | None, Line(128)] = None
    action: Annotated[str | None, Line(256)] = None
    target: Annotated[str | None, Line(256)] = None
    outcome: Annotated[str | None, OneOf(words_of(AuditOutcome))] = None
    start: Annotated[datetime | None, Instant()] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant()] = field(name="to", default=None)

    def which(self) -> AuditFilter:
        """Return the rows that are meant."""
        return AuditFilter(
            who=self.who, action=self.action, target=self.target,
            outcome=None if self.outcome is None else AuditOutcome(self.outcome), start=self.start, end=self.end,
        )  # fmt: skip


class AuditPaging(OfAudit, frozen=True, kw_only=True):
    """Which rows are meant, and which page of them."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[int | None, Seq(), "The `next` of the page before"] = None


@described({200: shapes.Page[surroundings.AuditRowOf]})
async def list_audit(call: Call, query: AuditPaging) -> Response:
    """Answer with rows of the audit log, the newest first."""
    rows = await call.operations.audit_log.page(query.which(), limit=query.limit + 1, before=query.cursor)
    page, more = rows[: query.limit], len(rows) > query.limit
    return Response(body=list_view([audit_view(row) for row in page], str(page[-1].seq) if more else None))


@described({200: Media(kind=LINES, what="The rows")})
async def export_audit(call: Call, query: OfAudit) -> Stream:
    """Send all rows that are asked for as JSON lines, the newest first, page by page."""
    which = query.which()
    headers = {"Content-Type": LINES, "Content-Disposition": 'attachment; filename="audit.jsonl"'}
    # The first page is read before the answer begins, so that what goes wrong can still be told.
    first = await call.operations.audit_log.page(which, limit=PAGE)
    return Stream(headers=headers, chunks=_lines(call, which, first))


@described({200: surroundings.ChainOf})
async def get_chain(call: Call, query: Nothing) -> Response:
    """Follow the whole chain, and say whether anything in it was changed. Reads the whole log."""
    return Response(body=chain_view(await call.operations.audit_log.chain()))


def chain_view(chain: Chain) -> dict[str, Any]:
    """Return what was found of the chain, as the API shows it."""
    return {"ok": chain.wrong is None, "rows": chain.rows, "head": chain.head.hex(), "wrong": chain.wrong}


def which_of(query: Mapping[str, str]) -> tuple[AuditFilter, list[str]]:
    """Return which rows a query asks for, and what is wrong with it, in words."""
    fields = Fields(query, [one.name for one in members_of(OfAudit)], None)
    sent = read_members(fields, OfAudit)
    return AuditFilter() if sent is None else sent.which(), [str(error["detail"]) for error in fields.errors]


def audit_view(row: AuditRow) -> dict[str, Any]:
    """Return a row as the API shows it; `hash` is that of the chain."""
    audit = row.audit
    return {
        "seq": row.seq,
        "at": rfc3339(from_microseconds(audit.at)),
        "who": audit.who or None,
        "role": audit.role or None,
        "means": audit.means or None,
        "prefix": audit.prefix or None,
        "claims": audit.claims,
        "address": audit.address or None,
        "action": audit.action,
        "target": audit.target or None,
        "outcome": audit.outcome.value,
        "status": audit.status or None,
        "code": audit.code or None,
        "reason": audit.reason or None,
        "count": audit.count,
        "before": audit.before,
        "after": audit.after,
        "request_id": audit.request or None,
        "hash": row.hash.hex(),
    }


async def _lines(call: Call, which: AuditFilter, rows: list[AuditRow]) -> AsyncIterator[bytes]:
    while rows and not call.gone():
        # ASCII alone: there are more signs that end lines than JSON escapes.
        yield "".join(json.dumps(audit_view(row), separators=(",", ":")) + "\n" for row in rows).encode()
        rows = await call.operations.audit_log.page(which, limit=PAGE, before=rows[-1].seq)
