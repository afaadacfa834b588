"""The route of Prometheus."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.described import Media, described
from engine.http.fields import query
from engine.plugin import Response

EXPOSED = (
    Media(kind="text/plain", what="The metrics"), Media(kind="application/openmetrics-text", what="The metrics"),
)  # fmt: skip


@described({200: EXPOSED})
async def get_metrics(call: Call) -> Response:
    """Answer with all metrics, in the text format of Prometheus or as OpenMetrics."""
    query(call.request).finish()
    headers = call.request.headers
    exposed = await call.operations.metrics.scrape(
        accept=headers.get("Accept", ""), accept_encoding=headers.get("Accept-Encoding", "")
    )
    return Response(body=exposed.body, headers=exposed.headers)
