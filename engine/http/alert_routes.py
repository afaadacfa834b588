"""Routes about alerts: which are open, muting and acknowledging them, and trying whether people are reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import field

from engine.deliveries import DeliveryFilter, of_alert
from engine.http import shapes, surroundings
from engine.http.asked import Because, Reason
from engine.http.calls import Call, performer
from engine.http.delivery_routes import delivery_view
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.kinds import Span
from engine.http.views import list_view
from engine.plugin import Response

DELIVERIES_SHOWN = 20
LONGEST_MUTE_S = 366 * 86_400.0


class Muting(Form, frozen=True, kw_only=True):
    """For how long nobody is told of an alert, and why."""

    duration_s: Annotated[float, Span(), "How long, a year at most"] = field(name="duration")
    reason: Reason

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.duration_s > LONGEST_MUTE_S:
            yield "duration", "duration must be a year at most: else turn the alert off in the configuration"


@described({200: shapes.Page[surroundings.AlertOf]})
async def list_alerts(call: Call, query: Nothing) -> Response:
    """Answer with all alerts: those that are open first, then by name."""
    return Response(body=list_view(call.operations.alerts.views(), None))


@described({200: surroundings.WholeAlert})
async def get_alert(call: Call, query: Nothing) -> Response:
    """Answer with one alert, for whom it is open, and who was told of it last."""
    name = call.name("alert")
    view = call.operations.alerts.view(name)
    found = await call.operations.store.deliveries(DeliveryFilter(run=of_alert(name)), limit=DELIVERIES_SHOWN)
    return Response(body={**view, "deliveries": [delivery_view(one) for one in found]})


@described({200: surroundings.AlertOf}, example={"duration": "2h", "reason": "the warehouse moves"})
async def mute_alert(call: Call, query: Nothing, body: Muting) -> Response:
    """Have nobody told of an alert for a time; what is open at its end is told then. Answers when it is durable."""
    name = call.name("alert")
    call.audit(before={"muted": call.operations.alerts.view(name)["muted"]})
    view = await call.operations.alerts.mute(
        name, duration_s=body.duration_s, reason=body.reason, who=performer(call)
    )  # fmt: skip
    return Response(body=view)


@described({200: surroundings.AlertOf})
async def unmute_alert(call: Call, query: Nothing, body: Nothing) -> Response:
    """End a mute; where there is none, nothing happens."""
    name = call.name("alert")
    call.audit(before={"muted": call.operations.alerts.view(name)["muted"]})
    return Response(body=await call.operations.alerts.unmute(name, who=performer(call)))


@described({200: surroundings.AlertOf}, example={"reason": "on it"})
async def acknowledge_alert(call: Call, query: Nothing, body: Because) -> Response:
    """Take on what is open of an alert: it is not told again until all of it is over."""
    name = call.name("alert")
    view = await call.operations.alerts.acknowledge(name, reason=body.reason, who=performer(call))
    return Response(body=view)


@described({202: surroundings.AlertTested})
async def test_alert(call: Call, query: Nothing, body: Nothing) -> Response:
    """Tell all who are told of an alert that this is a test; answers when that is durable, not when it has arrived."""
    name = call.name("alert")
    made = await call.operations.alerts.test(name, who=performer(call))
    return Response(status=202, body={"alert": name, "deliveries": list(made)}, headers={
        "Location": f"/api/v1/alerts/{name}",
    })  # fmt: skip
