"""Routes about backfills."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from engine.backfills import MOST_PARALLEL, BackfillPlan, BackfillProgress, BackfillRequest, Order
from engine.clock import rfc3339
from engine.errors import InvalidRequest
from engine.http.calls import Call
from engine.http.fields import Fields, body, idempotency_key, query
from engine.http.views import list_view
from engine.plugin import Response

LONGEST_REASON = 1000
SHOWN_INSTANTS = 100
"""So many instants of a plan are told one by one; the counts are always whole."""

_MEMBERS = (
    "trigger", "from", "to", "timezone", "max_parallel", "order", "only_missing", "dry_run", "reason",
)  # fmt: skip


async def post_backfill(call: Call) -> Response:
    """Begin a backfill, or with `dry_run` say what it would run. Its answer comes when it is durable."""
    query(call.request).finish()
    fields = body(call.request, _MEMBERS)
    dry_run, request = _flag(fields, "dry_run"), _request(fields)
    if dry_run:
        return Response(body=plan_view(await call.operations.backfills.plan(request)))
    request_id = idempotency_key(call.request.headers)
    progress = await call.operations.backfills.begin(request, request_id=request_id)
    location = f"/api/v1/backfills/{progress.backfill.id}"
    return Response(status=201, body=backfill_view(progress), headers={"Location": location})


async def list_backfills(call: Call) -> Response:
    """Answer with backfills, the newest first."""
    fields = query(call.request, "limit", "cursor")
    limit, before = fields.limit(), fields.cursor()
    fields.finish()
    found = await call.operations.backfills.page(limit=limit + 1, before=before)
    page = found[:limit]
    following = page[-1].backfill.id if len(found) > limit else None
    return Response(body=list_view([backfill_view(one) for one in page], following))


async def get_backfill(call: Call) -> Response:
    """Answer with one backfill, and how far it has come."""
    backfill_id = call.id("backfill")
    query(call.request).finish()
    return Response(body=backfill_view(await call.operations.backfills.get(backfill_id)))


async def pause_backfill(call: Call) -> Response:
    """Have a backfill make no more runs until it is resumed."""
    backfill_id, reason = _asked(call, "reason")
    return Response(body=backfill_view(await call.operations.backfills.pause(backfill_id, reason=reason)))


async def resume_backfill(call: Call) -> Response:
    """Let a paused backfill go on."""
    backfill_id, _ = _asked(call)
    return Response(body=backfill_view(await call.operations.backfills.resume(backfill_id)))


async def cancel_backfill(call: Call) -> Response:
    """Have a backfill make no more runs for good, and end those that wait."""
    backfill_id, reason = _asked(call, "reason")
    return Response(body=backfill_view(await call.operations.backfills.cancel(backfill_id, reason=reason)))


def backfill_view(progress: BackfillProgress) -> dict[str, Any]:
    """Return a backfill as the API shows it."""
    backfill = progress.backfill
    return {
        "id": backfill.id,
        "trigger": backfill.trigger,
        "from": rfc3339(backfill.from_at),
        "to": rfc3339(backfill.to_at),
        "timezone": backfill.timezone,
        "max_parallel": backfill.max_parallel,
        "order": backfill.order.value,
        "only_missing": backfill.only_missing,
        "skipped": backfill.skipped,
        "reason": backfill.reason,
        "state": backfill.state.value,
        "state_reason": backfill.state_reason,
        "holds": progress.holds,
        "created_at": rfc3339(backfill.created_at),
        "finished_at": _at(backfill.finished_at),
        "total": backfill.total,
        "done": progress.done,
        "outcomes": {state.value: count for state, count in progress.ends.items()},
        "not_run": progress.not_run,
        "running": progress.running,
        "waiting": progress.waiting,
        "left": backfill.total - backfill.position,
        "current": _at(progress.current),
        "rate_per_s": None if progress.rate_per_s is None else round(progress.rate_per_s, 3),
        "expected_end_at": _at(progress.expected_end_at),
    }


def plan_view(plan: BackfillPlan) -> dict[str, Any]:
    """Return what a backfill would run."""
    zone = ZoneInfo(plan.timezone)
    instants = plan.instants
    skipped = [{**_instant_view(instant, zone), "run": run} for instant, run in plan.skipped[:SHOWN_INSTANTS]]
    return {
        "dry_run": True,
        "trigger": plan.trigger,
        "from": rfc3339(plan.from_at),
        "to": rfc3339(plan.to_at),
        "timezone": plan.timezone,
        "total": len(instants),
        "first": _at(min(instants, default=None)),
        "last": _at(max(instants, default=None)),
        "instants": [_instant_view(instant, zone) for instant in instants[:SHOWN_INSTANTS]],
        "skipped": {"total": len(plan.skipped), "instants": skipped},
    }


def _instant_view(at: datetime, zone: ZoneInfo) -> dict[str, Any]:
    return {"at": rfc3339(at), "local": at.astimezone(zone).isoformat(sep=" ")}


def _at(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _request(fields: Fields) -> BackfillRequest:
    trigger, start, end = fields.slug("trigger"), _moment(fields, "from"), _moment(fields, "to")
    timezone, reason = fields.text("timezone", longest=64), fields.text("reason", longest=LONGEST_REASON)
    only_missing, order = _flag(fields, "only_missing"), _order(fields)
    max_parallel = fields.value("max_parallel")
    if max_parallel is None:
        max_parallel = 1
    elif type(max_parallel) is not int or not 1 <= max_parallel <= MOST_PARALLEL:
        fields.fault("max_parallel", f"max_parallel must be a whole number from 1 to {MOST_PARALLEL}")
    if trigger is None and "trigger" not in fields:
        fields.fault("trigger", "trigger is required")
    fields.finish()
    if trigger is None or start is None or end is None:
        raise InvalidRequest("trigger, from and to are required")
    return BackfillRequest(
        trigger=trigger, start=start, end=end, timezone=timezone, max_parallel=max_parallel, order=order,
        only_missing=only_missing, reason=reason or "",
    )  # fmt: skip


def _moment(fields: Fields, name: str) -> datetime | None:
    """Return an instant, or a date or time of the clock of the backfill's zone."""
    text = fields.value(name)
    if text is None:
        fields.fault(name, f"{name} is required")
        return None
    try:
        if isinstance(text, str):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    fields.fault(name, f"{name} must be a date or a time, such as 2026-11-21, 2026-11-21T09:30 or 2026-11-21T09:30:00Z")
    return None


def _flag(fields: Fields, name: str) -> bool:
    value = fields.value(name)
    if value is not None and not isinstance(value, bool):
        fields.fault(name, f"{name} must be true or false")
    return value is True


def _order(fields: Fields) -> Order:
    value = fields.value("order")
    if value is None:
        return Order.OLDEST
    if isinstance(value, str) and value in set(Order):
        return Order(value)
    fields.fault("order", f"order must be one of {', '.join(Order)}")
    return Order.OLDEST


def _asked(call: Call, *known: str) -> tuple[str, str]:
    """Return the backfill that is meant, and the reason that is given."""
    backfill_id = call.id("backfill")
    query(call.request).finish()
    fields = body(call.request, known, optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON) if known else None
    fields.finish()
    return backfill_id, reason or ""
