"""The route that runs many ended runs once more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Struct, field

from engine.http import shapes
from engine.http.asked import Reason
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.fields import Fields
from engine.http.forms import Form, Nothing
from engine.http.kinds import Flag, Id, Instant, ListOf, Schema, Slug, Whole, words_of
from engine.plugin import Response
from engine.runs import RunState
from engine.units import parse_rate
from engine.waiting import MOST_RETRIED, RETRIABLE, RetryRequest

_USUAL = RetryRequest()


class Rate(Struct, frozen=True):
    """How many, in what time."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*/\s*(s|m|h|d)$", "examples": ["10/s"]}

    def read(self, fields: Fields, name: str) -> float | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        try:
            if isinstance(value, str):
                return parse_rate(value)
        except ValueError:
            pass
        fields.fault(name, f'{name} must be a rate, such as "10/s" or "90/m"')
        return None


class Retrying(Form, frozen=True, kw_only=True):
    """Which ended runs are run once more, and how fast."""

    reason: Reason
    states: Annotated[
        frozenset[str],
        ListOf(
            words_of(sorted(RETRIABLE)),
            "states must be a list of states in which a run has ended",
            "nothing is retried together that is",
            empty=False,
        ),
    ] = _USUAL.states
    job: Annotated[str | None, Slug()] = None
    trigger: Annotated[str | None, Slug()] = None
    start: Annotated[datetime | None, Instant(), "From when on they came to be"] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant(), "Before when they came to be"] = field(name="to", default=None)
    cursor: Annotated[str | None, Id("cursor must be the `next` of the answer before")] = None
    limit: Annotated[int, Whole(1, MOST_RETRIED)] = _USUAL.limit
    rate_per_s: Annotated[float, Rate()] = field(name="rate", default=_USUAL.rate_per_s)
    dry_run: Annotated[bool, Flag(), "Only say which it would be"] = False


@described({200: shapes.Retried}, example={"reason": "the warehouse was away", "job": "import", "dry_run": True})
async def retry_runs(call: Call, query: Nothing, body: Retrying) -> Response:
    """Run once more what ended runs were for, each of them once; or say which it would be.

    Answers when all of it is durable, which takes as long as its rate says.
    """
    which = RetryRequest(
        states=frozenset(map(RunState, body.states)), job=body.job, trigger=body.trigger, start=body.start,
        end=body.end, before=body.cursor, limit=body.limit, rate_per_s=body.rate_per_s,
    )  # fmt: skip
    done = await call.operations.queue.retry_many(
        which, reason=body.reason, who=performer(call), dry_run=body.dry_run
    )  # fmt: skip
    return Response(body={
        "dry_run": body.dry_run, "count": len(done.made),
        "items": [{"run": run, "runs": list(made)} for run, made in done.made.items()],
        "refused": dict(done.refused), "known": list(done.known), "next": done.following,
    })  # fmt: skip
