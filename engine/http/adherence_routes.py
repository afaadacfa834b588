"""Routes about how well timers were kept: as JSON, and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import field

from engine.adherence import Adherence
from engine.clock import rfc3339
from engine.http import shapes
from engine.http.calls import Call, Stream
from engine.http.described import JSON, Media, described
from engine.http.fields import DEFAULT_LIMIT, Fields, query
from engine.http.forms import Form
from engine.http.kinds import LIMIT, Instant, OneOf, Slug, Span
from engine.http.views import list_view
from engine.plugin import Response
from engine.runs import RunState

OVER = timedelta(days=7)
"""The time up to now that is meant where none is said."""

LONGEST = timedelta(days=400)
"""So long are the tallies of days kept."""

AT_ONCE = 50
"""So many triggers go into one piece of a table."""

FORMATS = ("csv", "json")
CSV_TYPE = "text/csv; charset=utf-8; header=present"
COLUMNS = (
    "trigger", "from", "to", "due", "ran", "succeeded", "failed", "timed_out", "cancelled", "skipped", "expired",
    "missed", "no_run", "kept_rate", "success_rate", "late_p50_s", "late_p95_s", "late_p99_s", "late_max_s",
    "late_mean_s", "not_run",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


TABLE = Media(kind="text/csv", what="A table")


class OfReport(Form, frozen=True, kw_only=True):
    """Which time is reported, and how."""

    start: Annotated[datetime | None, Instant()] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant()] = field(name="to", default=None)
    over: Annotated[float | None, Span(), "So long up to now"] = None
    format: Annotated[str | None, OneOf(("json", "csv"))] = None


class OfAdherence(OfReport, frozen=True, kw_only=True):
    """Which time is reported, and which page of triggers."""

    limit: Annotated[int, LIMIT] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Slug(), "The `next` of the page before"] = None


@described({200: (shapes.Page[Any], TABLE)}, query=OfAdherence)
async def list_adherence(call: Call) -> Response | Stream:
    """Answer with how well all timers were kept, by trigger: a page of JSON, or one table of CSV."""
    fields = query(call.request, "from", "to", "over", "limit", "cursor", "format")
    start, end = _span(call, fields)
    limit, after, as_csv = fields.limit(), fields.slug("cursor"), _wants_csv(call, fields)
    fields.finish()
    reports, names = call.operations.reports, call.operations.reports.names()
    if as_csv:
        return _table(call, names, start, end, "adherence.csv")
    first = 0 if after is None else bisect_right(names, after)
    page = names[first : first + limit]
    found = await reports.adherence(page, start=start, end=end)
    following = page[-1] if first + limit < len(names) else None
    return Response(body=list_view([adherence_view(one) for one in found], following))


@described({200: (JSON, TABLE)}, query=OfReport, problems=(409,))
async def get_adherence(call: Call) -> Response | Stream:
    """Answer with how well the timer of one trigger was kept."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    fields = query(call.request, "from", "to", "over", "format")
    start, end = _span(call, fields)
    as_csv = _wants_csv(call, fields)
    fields.finish()
    if as_csv:
        return _table(call, [name], start, end, f"adherence-{name}.csv")
    [found] = await call.operations.reports.adherence([name], start=start, end=end)
    return Response(body=adherence_view(found))


def adherence_view(found: Adherence) -> dict[str, Any]:
    """Return a report as the API shows it."""
    states = {state.value: found.by_state.get(state, 0) for state in RunState if state in _SHOWN}
    return {
        "trigger": found.trigger,
        "from": rfc3339(found.start),
        "to": rfc3339(found.end),
        "due": found.due,
        "ran": found.ran,
        **states,
        "no_run": sum(count for code, count in found.not_run.items() if code.startswith("no_run:")),
        "kept_rate": found.kept_rate,
        "success_rate": found.success_rate,
        "late_p50_s": _rounded(found.lateness.p50_s),
        "late_p95_s": _rounded(found.lateness.p95_s),
        "late_p99_s": _rounded(found.lateness.p99_s),
        "late_max_s": _rounded(found.lateness.max_s),
        "late_mean_s": _rounded(found.lateness.mean_s),
        "not_run": dict(found.not_run),
    }


_SHOWN = frozenset(state for state in RunState if state.value in COLUMNS)


def lines_of(rows: Iterable[Sequence[Any]]) -> str:
    """Write lines of CSV (RFC 4180). What a spreadsheet would take for a formula is text there."""
    written = io.StringIO()
    writer = csv.writer(written)
    for row in rows:
        writer.writerow([_harmless(cell) for cell in row])
    return written.getvalue()


def _table(call: Call, names: Sequence[str], start: datetime, end: datetime, file: str) -> Stream:
    async def chunks() -> AsyncIterator[bytes]:
        yield lines_of([COLUMNS]).encode()
        for first in range(0, len(names), AT_ONCE):
            # Of those that went meanwhile there is nothing to tell any more.
            there = set(call.operations.trigger_names())
            part = [name for name in names[first : first + AT_ONCE] if name in there]
            found = await call.operations.reports.adherence(part, start=start, end=end)
            yield lines_of(_row(one) for one in found).encode()

    headers = {"Content-Type": CSV_TYPE, "Content-Disposition": f'attachment; filename="{file}"'}
    return Stream(headers=headers, chunks=chunks())


def _row(found: Adherence) -> list[Any]:
    view = adherence_view(found)
    view["not_run"] = "; ".join(f"{code} {count}" for code, count in found.not_run.items())
    return [view[column] for column in COLUMNS]


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA):
        return f"'{cell}"
    return cell


def _wants_csv(call: Call, fields: Fields) -> bool:
    asked = fields.text("format", longest=10)
    if asked is None:
        kinds = [part.partition(";")[0].strip() for part in call.request.headers.get("Accept", "").lower().split(",")]
        return "text/csv" in kinds
    if asked not in FORMATS:
        fields.fault("format", f"format must be {' or '.join(FORMATS)}")
    return asked == "csv"


def _span(call: Call, fields: Fields) -> tuple[datetime, datetime]:
    now = call.operations.clock.now()
    over_s, start, end = fields.duration("over"), fields.instant("from"), fields.instant("to") or now
    if over_s is not None and start is not None:
        fields.fault("over", "give over, or from: both say where it begins")
    if over_s is not None and over_s > LONGEST.total_seconds():
        fields.fault("over", f"over must be at most {LONGEST.days} days")
    elif start is None:
        start = end - (OVER if over_s is None else timedelta(seconds=over_s))
    start = start or end
    if end <= start:
        fields.fault("to", "to must be later than from")
    elif end - start > LONGEST:
        fields.fault("from", f"from and to may be {LONGEST.days} days apart")
    return start.astimezone(UTC), min(end.astimezone(UTC), now)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")
