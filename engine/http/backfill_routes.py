"""Routes about backfills."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from engine.backfills import MOST_PARALLEL, BackfillPlan, BackfillProgress, BackfillRequest, Order
from engine.clock import rfc3339
from engine.http import shapes
from engine.http.asked import Because, Paging, Reason
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import Fields
from engine.http.forms import Form, Nothing
from engine.http.idempotency import request_id_of
from engine.http.kinds import Flag, Line, OneOf, Schema, Slug, Whole, words_of
from engine.http.views import list_view
from engine.plugin import Response

LONGEST_REASON = 1000
SHOWN_INSTANTS = 100
"""So many instants of a plan are told one by one; the counts are always whole."""


class Moment(Struct, frozen=True):
    """An instant, or a date or time of the clock of the backfill's zone."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}", "examples": ["2026-11-21T09:30"]}

    def read(self, fields: Fields, name: str) -> datetime | None:
        text = fields.value(name)
        if text is None:
            return None
        try:
            if isinstance(text, str):
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        how = "such as 2026-11-21, 2026-11-21T09:30 or 2026-11-21T09:30:00Z"
        fields.fault(name, f"{name} must be a date or a time, {how}")
        return None


class Filling(Form, frozen=True, kw_only=True):
    """Which due instants of a trigger to run, and how."""

    trigger: Annotated[str, Slug(), "A trigger on a timer"]
    start: Annotated[datetime, Moment(), "From when on"] = field(name="from")
    end: Annotated[datetime, Moment(), "Before when; not later than now"] = field(name="to")
    timezone: Annotated[str | None, Line(64), "The zone of times without an offset; by default the timer's"] = None
    max_parallel: Annotated[int, Whole(1, MOST_PARALLEL), "How many of its runs may be open at once"] = 1
    order: Annotated[str, OneOf(words_of(Order))] = Order.OLDEST
    only_missing: Annotated[bool, Flag(), "Leave out instants that have a run that succeeded"] = False
    dry_run: Annotated[bool, Flag(), "Only say what it would run"] = False
    reason: Reason = ""

    def request(self) -> BackfillRequest:
        """Return it as the engine wants it."""
        return BackfillRequest(
            trigger=self.trigger, start=self.start, end=self.end, timezone=self.timezone,
            max_parallel=self.max_parallel, order=Order(self.order), only_missing=self.only_missing,
            reason=self.reason,
        )  # fmt: skip


@described(
    {200: shapes.BackfillPlanOf, 201: shapes.BackfillOf},
    example={"trigger": "nightly", "from": "2026-11-01", "to": "2026-11-08", "dry_run": True},
)
async def post_backfill(call: Call, query: Nothing, body: Filling) -> Response:
    """Begin a backfill, or with `dry_run` say what it would run. Its answer comes when it is durable."""
    if body.dry_run:
        return Response(body=plan_view(await call.operations.backfills.plan(body.request())))
    progress = await call.operations.backfills.begin(body.request(), request_id=request_id_of(call, "backfill"))
    location = f"/api/v1/backfills/{progress.backfill.id}"
    return Response(status=201, body=backfill_view(progress), headers={"Location": location})


@described({200: shapes.Page[shapes.BackfillOf]})
async def list_backfills(call: Call, query: Paging) -> Response:
    """Answer with backfills, the newest first."""
    found = await call.operations.backfills.page(limit=query.limit + 1, before=query.cursor)
    page = found[: query.limit]
    following = page[-1].backfill.id if len(found) > query.limit else None
    return Response(body=list_view([backfill_view(one) for one in page], following))


@described({200: shapes.BackfillOf})
async def get_backfill(call: Call, query: Nothing) -> Response:
    """Answer with one backfill, and how far it has come."""
    backfill_id = call.id("backfill")
    return Response(body=backfill_view(await call.operations.backfills.get(backfill_id)))


@described({200: shapes.BackfillOf})
async def pause_backfill(call: Call, query: Nothing, body: Because) -> Response:
    """Have a backfill make no more runs until it is resumed."""
    backfill_id = call.id("backfill")
    return Response(body=backfill_view(await call.operations.backfills.pause(backfill_id, reason=body.reason)))


@described({200: shapes.BackfillOf})
async def resume_backfill(call: Call, query: Nothing, body: Nothing) -> Response:
    """Let a paused backfill go on."""
    return Response(body=backfill_view(await call.operations.backfills.resume(call.id("backfill"))))


@described({200: shapes.BackfillOf})
async def cancel_backfill(call: Call, query: Nothing, body: Because) -> Response:
    """Have a backfill make no more runs for good, and end those that wait."""
    backfill_id = call.id("backfill")
    return Response(body=backfill_view(await call.operations.backfills.cancel(backfill_id, reason=body.reason)))


def backfill_view(progress: BackfillProgress) -> shapes.BackfillOf:
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


def plan_view(plan: BackfillPlan) -> shapes.BackfillPlanOf:
    """Return what a backfill would run."""
    zone = ZoneInfo(plan.timezone)
    instants = plan.instants
    skipped: list[shapes.SkippedInstant] = [
        {**_instant_view(instant, zone), "run": run} for instant, run in plan.skipped[:SHOWN_INSTANTS]
    ]
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


def _instant_view(at: datetime, zone: ZoneInfo) -> shapes.InstantOf:
    return {"at": rfc3339(at), "local": at.astimezone(zone).isoformat(sep=" ")}


def _at(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
