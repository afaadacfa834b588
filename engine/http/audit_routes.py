"""Routes about the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec import field

from engine.audits import AuditFilter, AuditOutcome, AuditRow, Chain
from engine.clock import from_microseconds, rfc3339
from engine.http import shapes
from engine.http.calls import Call, Stream
from engine.http.described import JSON, Media, described
from engine.http.fields import DEFAULT_LIMIT, Fields, near, query
from engine.http.forms import Form, Nothing
from engine.http.kinds import LIMIT, Instant, Line, Number, OneOf, words_of
from engine.http.views import list_view
from engine.plugin import Response

LINES = "application/x-ndjson"
PAGE = 500

_FILTERS = ("who", "action", "target", "outcome", "from", "to")
_HIGHEST = 2**63 - 1


class OfAudit(Form, frozen=True, kw_only=True):
    """Which rows are meant."""

    who: Annotated[str | None, Line(128)] = None
    action: Annotated[str | None, Line(256)] = None
    target: Annotated[str | None, Line(256)] = None
    outcome: Annotated[str | None, OneOf(words_of(AuditOutcome))] = None
    start: Annotated[datetime | None, Instant()] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant()] = field(name="to", default=None)


class AuditPaging(OfAudit, frozen=True, kw_only=True):
    """Which rows are meant, and which page of them."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[int | None, Number(1, 999_999_999), "The `next` of the page before"] = None


@described({200: shapes.Page[Any]}, query=AuditPaging)
async def list_audit(call: Call) -> Response:
    """Answer with rows of the audit log, the newest first."""
    fields = query(call.request, *_FILTERS, "limit", "cursor")
    which, limit, before = _which(fields), fields.limit(), _number(fields)
    fields.finish()
    rows = await call.operations.audit_log.page(which, limit=limit + 1, before=before)
    page = rows[:limit]
    return Response(body=list_view([audit_view(row) for row in page], str(page[-1].seq) if len(rows) > limit else None))


@described({200: Media(kind=LINES, what="The rows")}, query=OfAudit)
async def export_audit(call: Call) -> Stream:
    """Send all rows that are asked for as JSON lines, the newest first, page by page."""
    fields = query(call.request, *_FILTERS)
    which = _which(fields)
    fields.finish()
    headers = {"Content-Type": LINES, "Content-Disposition": 'attachment; filename="audit.jsonl"'}
    # The first page is read before the answer begins, so that what goes wrong can still be told.
    first = await call.operations.audit_log.page(which, limit=PAGE)
    return Stream(headers=headers, chunks=_lines(call, which, first))


@described({200: JSON})
async def get_chain(call: Call, query: Nothing) -> Response:
    """Follow the whole chain, and say whether anything in it was changed. Reads the whole log."""
    return Response(body=chain_view(await call.operations.audit_log.chain()))


def chain_view(chain: Chain) -> dict[str, Any]:
    """Return what was found of the chain, as the API shows it."""
    return {"ok": chain.wrong is None, "rows": chain.rows, "head": chain.head.hex(), "wrong": chain.wrong}


def which_of(query: Mapping[str, str]) -> tuple[AuditFilter, list[str]]:
    """Return which rows a query asks for, and what is wrong with it, in words."""
    fields = Fields(query, _FILTERS, None)
    which = _which(fields)
    return which, [str(error["detail"]) for error in fields.errors]


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


def _which(fields: Fields) -> AuditFilter:
    outcome = fields.value("outcome")
    if outcome is not None and outcome not in set(AuditOutcome):
        fields.fault("outcome", f"unknown outcome {outcome!r}{near(str(outcome), set(AuditOutcome))}")
        outcome = None
    return AuditFilter(
        who=fields.text("who", longest=128), action=fields.text("action", longest=256),
        target=fields.text("target", longest=256), outcome=None if outcome is None else AuditOutcome(outcome),
        start=fields.instant("from"), end=fields.instant("to"),
    )  # fmt: skip


def _number(fields: Fields) -> int | None:
    value = fields.value("cursor")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and 0 < int(value) <= _HIGHEST):
        fields.fault("cursor", "cursor must be the `next` of the list before")
        return None
    return int(value)
