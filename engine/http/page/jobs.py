"""Jobs: the list, and one with its limits, its triggers and how it ran."""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta

from engine.defined import Kind
from engine.http.calls import Call
from engine.http.page.sparklines import sparkline
from engine.http.page.triggers import INVALID, LIMIT, LONGEST_WORD, RUNS
from engine.http.page.views import View, ask
from engine.http.run_routes import list_runs
from engine.http.stats_routes import statistics_view
from engine.http.trigger_routes import get_job
from engine.http.views import job_view
from engine.tallies import Width

MOST_TRIGGERS = 50


async def make_list(call: Call) -> View:
    """Make the list."""
    operations, asked = call.operations, call.request.query
    sought = asked.get("q", "").strip()[:LONGEST_WORD]
    names = sorted(name for name in operations.jobs if sought.lower() in name.lower())
    start = bisect_right(names, asked["cursor"]) if "cursor" in asked else 0
    page = names[start : start + LIMIT]
    now, jobs = operations.clock.now(), operations.jobs
    rows = []
    for name in page:
        view = job_view(jobs[name], operations.config.secrets)
        line = await sparkline(operations.store, now, Width.HOUR, job=name)
        runner = next(iter(view["run"] or ()), "")
        rows.append({**view, "runner": runner, "stats": statistics_view(line.sums), "line": line})
    return View(
        template="jobs.html",
        values={
            "jobs": rows,
            "total": len(names),
            "following": page[-1] if start + LIMIT < len(names) else None,
            "first": start == 0,
            "q": sought,
            "invalid": sorted(operations.definitions.invalid(Kind.JOB).items())[:LIMIT],
        },
    )


async def make_one(call: Call) -> View:
    """Make the page of one job."""
    operations = call.operations
    job = await ask(call, get_job)
    if job.get("state") == INVALID:
        return View(template="invalid.html", title=job["name"], values={"one": job, "table": "jobs"})
    name, now = job["name"], operations.clock.now()
    runs = await ask(call, list_runs, {"job": name, "limit": str(RUNS)})
    spans = []
    for label, over in (
        ("24 hours", timedelta(days=1)),
        ("7 days", timedelta(days=7)),
        ("28 days", timedelta(days=28)),
    ):
        found = await operations.counting.statistics(job=name, over=over)
        spans.append({"label": label, **statistics_view(found)})
    triggers = sorted(operations.triggers_of(name))
    runner = next(iter(job["run"]))
    return View(
        template="job.html",
        title=name,
        values={
            "job": job,
            "runner": runner,
            "settings": job["run"][runner],
            "triggers": triggers[:MOST_TRIGGERS],
            "more_triggers": max(len(triggers) - MOST_TRIGGERS, 0),
            "runs": runs["items"],
            "more": runs["next"] is not None,
            "spans": spans,
            "line": await sparkline(operations.store, now, Width.HOUR, job=name),
            "month": await sparkline(operations.store, now, Width.DAY, job=name),
        },
    )
