"""Routes about statistics: how runs ended, and how long they took, over a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from msgspec import field

from engine.clock import rfc3339
from engine.errors import NotFound
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import near
from engine.http.forms import Form
from engine.http.kinds import Span
from engine.plugin import Response
from engine.runs import RunState
from engine.tallies import Statistics

OVER_S = 86_400.0
"""The time that is meant where none is said: a day."""

LONGEST_S = 366 * 86_400.0


class Over(Form, frozen=True, kw_only=True):
    """Over how long, up to now."""

    over_s: Annotated[float, Span(), "At most 366 days"] = field(name="over", default=OVER_S)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.over_s > LONGEST_S:
            yield "over", "over must be at most 366 days"


@described({200: shapes.TriggerStatistics})
async def get_trigger_stats(call: Call, query: Over) -> Response:
    """Answer with how the runs of a trigger ended."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    found = await call.operations.counting.statistics(trigger=name, over=timedelta(seconds=query.over_s))
    return Response(body={"trigger": name, **statistics_view(found)})


@described({200: shapes.JobStatistics})
async def get_job_stats(call: Call, query: Over) -> Response:
    """Answer with how the runs of a job ended."""
    name = call.name("job")
    jobs = call.operations.jobs
    if name not in jobs:
        raise NotFound(f"there is no job {name!r}{near(name, jobs.keys())}")
    found = await call.operations.counting.statistics(job=name, over=timedelta(seconds=query.over_s))
    return Response(body={"job": name, **statistics_view(found)})


def statistics_view(found: Statistics) -> shapes.StatisticsOf:
    """Return statistics as the API shows them: `failed` counts time-outs too."""
    ends = found.ends
    return {
        "from": rfc3339(found.start),
        "to": rfc3339(found.end),
        "total": found.total,
        "succeeded": ends.get(RunState.SUCCEEDED, 0),
        "failed": ends.get(RunState.FAILED, 0) + ends.get(RunState.TIMED_OUT, 0),
        "skipped": ends.get(RunState.SKIPPED, 0),
        "missed": ends.get(RunState.MISSED, 0),
        "by_state": {state.value: ends[state] for state in RunState if state in ends},
        "success_rate": found.success_rate,
        "duration_mean_s": _rounded(found.duration_mean_s),
        "duration_p50_s": _rounded(found.duration_p50_s),
        "duration_p95_s": _rounded(found.duration_p95_s),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")
