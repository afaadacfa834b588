"""The route that runs many ended runs once more."""

from __future__ import annotations

from typing import Any

from engine.http.calls import Call
from engine.http.fields import Fields, body, near, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.ids import is_id
from engine.plugin import Response
from engine.runs import RunState
from engine.units import parse_rate
from engine.waiting import MOST_RETRIED, RETRIABLE, RetryRequest

_RETRY = ("states", "job", "trigger", "from", "to", "cursor", "limit", "rate", "reason", "dry_run")
_USUAL = RetryRequest()


async def retry_runs(call: Call) -> Response:
    """Run once more what ended runs were for, each of them once; or say which it would be.

    Answers when all of it is durable, which takes as long as its rate says.
    """
    query(call.request).finish()
    fields = body(call.request, _RETRY)
    reason = fields.text("reason", longest=LONGEST_REASON, required=True)
    which = RetryRequest(
        states=_states(fields), job=fields.slug("job"), trigger=fields.slug("trigger"), start=fields.instant("from"),
        end=fields.instant("to"), before=_cursor(fields), limit=_limit(fields), rate_per_s=_rate(fields),
    )  # fmt: skip
    dry_run: Any = fields.value("dry_run")
    if dry_run is not None and not isinstance(dry_run, bool):
        fields.fault("dry_run", "dry_run must be true or false")
    fields.finish()
    done = await call.operations.queue.retry_many(
        which, reason=reason or "", who=performer(call), dry_run=dry_run is True
    )  # fmt: skip
    return Response(body={
        "dry_run": dry_run is True, "count": len(done.made),
        "items": [{"run": run, "runs": list(made)} for run, made in done.made.items()],
        "refused": dict(done.refused), "known": list(done.known), "next": done.following,
    })  # fmt: skip


def _states(fields: Fields) -> frozenset[RunState]:
    value: Any = fields.value("states")
    if value is None:
        return _USUAL.states
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        fields.fault("states", "states must be a list of states in which a run has ended")
        return _USUAL.states
    for one in value:
        if one not in RETRIABLE:
            fields.fault("states", f"nothing that is {one!r} is retried together{near(one, RETRIABLE)}")
    return frozenset(RunState(one) for one in value if one in RETRIABLE)


def _cursor(fields: Fields) -> str | None:
    value: Any = fields.value("cursor")
    if value is not None and not (isinstance(value, str) and is_id(value)):
        fields.fault("cursor", "cursor must be the `next` of the answer before")
        return None
    return value


def _limit(fields: Fields) -> int:
    value: Any = fields.value("limit")
    if value is None:
        return _USUAL.limit
    if type(value) is not int or not 1 <= value <= MOST_RETRIED:
        fields.fault("limit", f"limit must be a whole number from 1 to {MOST_RETRIED}")
        return _USUAL.limit
    return value


def _rate(fields: Fields) -> float:
    value: Any = fields.value("rate")
    if value is None:
        return _USUAL.rate_per_s
    try:
        if isinstance(value, str):
            return parse_rate(value)
    except ValueError:
        pass
    fields.fault("rate", 'rate must be a rate, such as "10/s" or "90/m"')
    return _USUAL.rate_per_s
