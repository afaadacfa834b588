"""Routes about alerts: which are open, muting and acknowledging them, and trying whether people are reached."""

from __future__ import annotations

from engine.deliveries import DeliveryFilter, of_alert
from engine.http.calls import Call
from engine.http.delivery_routes import delivery_view
from engine.http.fields import body, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.http.views import list_view
from engine.plugin import Response

DELIVERIES_SHOWN = 20
LONGEST_MUTE_S = 366 * 86_400.0


async def list_alerts(call: Call) -> Response:
    """Answer with all alerts: those that are open first, then by name."""
    query(call.request).finish()
    return Response(body=list_view(call.operations.alerts.views(), None))


async def get_alert(call: Call) -> Response:
    """Answer with one alert, for whom it is open, and who was told of it last."""
    name = call.name("alert")
    query(call.request).finish()
    view = call.operations.alerts.view(name)
    found = await call.operations.store.deliveries(DeliveryFilter(run=of_alert(name)), limit=DELIVERIES_SHOWN)
    return Response(body={**view, "deliveries": [delivery_view(one) for one in found]})


async def mute_alert(call: Call) -> Response:
    """Have nobody told of an alert for a time; what is open at its end is told then. Answers when it is durable."""
    name = call.name("alert")
    query(call.request).finish()
    call.operations.alerts.view(name)
    fields = body(call.request, ("duration", "reason"))
    duration_s = fields.duration("duration")
    reason = fields.text("reason", longest=LONGEST_REASON, required=True)
    if "duration" not in fields:
        fields.fault("duration", 'duration is missing: how long nobody is told, such as "2h"')
    elif duration_s is not None and duration_s > LONGEST_MUTE_S:
        fields.fault("duration", "duration must be a year at most: else turn the alert off in the configuration")
    fields.finish()
    view = await call.operations.alerts.mute(
        name, duration_s=duration_s or 0.0, reason=reason or "", who=performer(call)
    )  # fmt: skip
    return Response(body=view)


async def unmute_alert(call: Call) -> Response:
    """End a mute; where there is none, nothing happens."""
    name = call.name("alert")
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    return Response(body=await call.operations.alerts.unmute(name, who=performer(call)))


async def acknowledge_alert(call: Call) -> Response:
    """Take on what is open of an alert: it is not told again until all of it is over."""
    name = call.name("alert")
    query(call.request).finish()
    fields = body(call.request, ("reason",), optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    view = await call.operations.alerts.acknowledge(name, reason=reason or "", who=performer(call))
    return Response(body=view)


async def test_alert(call: Call) -> Response:
    """Tell all who are told of an alert that this is a test; answers when that is durable, not when it has arrived."""
    name = call.name("alert")
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    made = await call.operations.alerts.test(name, who=performer(call))
    return Response(status=202, body={"alert": name, "deliveries": list(made)})
