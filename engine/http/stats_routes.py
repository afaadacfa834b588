"""Routes about statistics: how runs ended, and how long they took, over a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from engine.clock import rfc3339
from engine.errors import NotFound
from engine.http.calls import Call
from engine.http.fields import near, query
from engine.plugin import Response
from engine.runs import RunState
from engine.tallies import Statistics

OVER_S = 86_400.0
"""The time that is meant where none is said: a day."""

LONGEST_S = 366 * 86_400.0


async def get_trigger_stats(call: Call) -> Response:
    """Answer with how the runs of a trigger ended."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    found = await call.operations.counting.statistics(trigger=name, over=_over(call))
    return Response(body={"trigger": name, **statistics_view(found)})


async def get_job_stats(call: Call) -> Response:
    """Answer with how the runs of a job ended."""
    name = call.name("job")
    jobs = call.operations.jobs
    if name not in jobs:
        raise NotFound(f"there is no job {name!r}{near(name, jobs.keys())}")
    found = await call.operations.counting.statistics(job=name, over=_over(call))
    return Response(body={"job": name, **statistics_view(found)})


def statistics_view(found: Statistics) -> dict[str, Any]:
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


def _over(call: Call) -> timedelta:
    fields = query(call.request, "over")
    seconds = fields.duration("over") or OVER_S
    if seconds > LONGEST_S:
        fields.fault("over", "over must be at most 366 days")
    fields.finish()
    return timedelta(seconds=seconds)
