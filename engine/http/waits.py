"""Answers that wait for the ends of runs: `?wait=30s`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import field

from engine.errors import StoreUnavailable
from engine.events import Accepted, Event
from engine.http.forms import Form
from engine.http.idempotency import key_reused
from engine.http.kinds import Span
from engine.http.operations import Operations
from engine.http.views import accepted_view, list_view
from engine.plugin import LONGEST_WAIT_S, Response, waited_view

WAIT = "wait"
"""The parameter of the query."""


class Waiting(Form, frozen=True, kw_only=True):
    """For how long the answer may wait for the ends of the runs."""

    asked_s: Annotated[float | None, Span(), f"{LONGEST_WAIT_S:g} s at most"] = field(name=WAIT, default=None)

    @property
    def wait_s(self) -> float | None:
        """For how many seconds to wait; None: not at all."""
        return None if self.asked_s is None else min(self.asked_s, LONGEST_WAIT_S)


async def answer_for(operations: Operations, accepted: Accepted, within_s: float | None) -> Response:
    """Answer for an event: 202 at once; or 200 when its runs have ended, and 202 when the time is up."""
    body: dict[str, Any] = {**accepted_view(accepted)}
    status = 202
    if within_s is not None:
        status, told = await _waited(operations, (accepted,), within_s)
        body |= told
    return Response(status=status, body=body, headers={"Location": f"/api/v1/events/{accepted.event}"})


async def refuse_another(
    operations: Operations, accepted: Accepted, key: str | None, event: Event, trigger: str | None = None
) -> None:  # fmt: skip
    """Raise Problem 422 where an Idempotency-Key was used for something else before."""
    if accepted.duplicate and key is not None and not await operations.is_repeat(accepted, event, trigger):
        raise key_reused()


async def answer_for_batch(operations: Operations, accepted: Sequence[Accepted], within_s: float | None) -> Response:
    """Answer for a batch, as for an event."""
    body, status = list_view([accepted_view(one) for one in accepted], None), 202
    if within_s is not None:
        status, told = await _waited(operations, accepted, within_s)
        body |= told
    return Response(status=status, body=body)


async def _waited(operations: Operations, accepted: Sequence[Accepted], within_s: float) -> tuple[int, dict[str, Any]]:
    runs = [run for one in accepted for run in one.runs]
    try:
        return waited_view(await operations.settled(runs, within_s))
    except StoreUnavailable:
        return 202, {"states": {}, "ends": []}  # the event is durable, whatever can't be told of its runs
