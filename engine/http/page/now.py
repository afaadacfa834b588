"""The first page: what runs, what waits and why, what failed, what comes next, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any

from msgspec import Struct

from engine.errors import EngineError
from engine.http.calls import Call
from engine.http.operations import Operations
from engine.http.page.views import View, is_scoped
from engine.http.page.waiting import waiting
from engine.http.views import pause_view
from engine.runs import FAILURES, Run
from engine.store.base import RunFilter
from engine.tallies import Statistics
from engine.triggers import PauseScope

MOST_FAILURES = 8
MOST_RUNNING = 40
MOST_ALERTS = 6
SOONEST = 14
AHEAD = timedelta(hours=24)
MOST_TICKS = 48
"""So many due instants of one trigger are drawn; one that has more is drawn as a band."""

USUAL_OVER = timedelta(days=7)


class Going(Struct, frozen=True, kw_only=True):
    """A run that runs, and how long its job usually does."""

    run: Run
    elapsed_s: float
    usual_s: float | None
    long_s: float | None

    @property
    def part(self) -> float | None:
        """How much of the usual time has passed; up to 1."""
        return None if not self.usual_s else min(self.elapsed_s / self.usual_s, 1.0)

    @property
    def is_long(self) -> bool:
        """Whether it runs for longer than nineteen in twenty do."""
        return self.long_s is not None and self.elapsed_s > max(self.long_s, 1.0)


class Coming(Struct, frozen=True, kw_only=True):
    """A trigger that is due within a day: when, its job, and where in the day its instants lie, from 0 to 1."""

    at: datetime
    trigger: str
    job: str
    ticks: list[float]
    often: bool
    maintained: bool
    paused: bool


class Banner(Struct, frozen=True, kw_only=True):
    """Something that holds for more than one run: a pause, a window, a source that is not well."""

    kind: str
    title: str
    text: str
    until: str | None = None
    place: str | None = None
    resumes: str | None = None
    """The tag that a button here resumes; empty: the engine."""


async def make(call: Call) -> View:
    """Make the page."""
    operations = call.operations
    now = operations.clock.now()
    scoped = is_scoped(call)
    status = None if scoped else await operations.status()
    failures = await operations.store.runs(RunFilter(states=FAILURES), limit=MOST_FAILURES)
    return View(
        template="now.html",
        values={
            "status": status,
            "running": await running(operations, now),
            "waiting": await waiting(operations, scoped=scoped),
            "coming": coming(operations, now),
            "failures": failures,
            "failed_lately": sum(1 for run in failures if _ended(run) > now - timedelta(hours=1)),
            "most_failures": MOST_FAILURES,
            "banners": banners(operations, status),
            "is_paused": any(pause.scope is PauseScope.ENGINE for pause in operations.pauses()),
            "hours": [now + timedelta(hours=6 * number) for number in range(5)],
        },
    )


async def running(operations: Operations, now: datetime) -> list[Going]:
    """Return what runs now, the longest first."""
    found = sorted(await operations.store.running(), key=lambda run: run.started_at or run.created_at)[:MOST_RUNNING]
    usual: dict[str, Statistics] = {}
    for job in {run.job for run in found}:
        usual[job] = await operations.counting.statistics(job=job, over=USUAL_OVER)
    return [
        Going(
            run=run, elapsed_s=max((now - (run.started_at or run.created_at)).total_seconds(), 0.0),
            usual_s=usual[run.job].duration_p50_s, long_s=usual[run.job].duration_p95_s,
        )
        for run in found
    ]  # fmt: skip


def coming(operations: Operations, now: datetime) -> list[Coming]:
    """Return the triggers that are due next, within a day; of those that are paused, from the end of that on."""
    rows: list[Coming] = []
    for at, name in (*operations.soonest(SOONEST), *_resuming(operations)):
        if at > now + AHEAD:
            continue
        if any(row.trigger == name for row in rows):  # it is on several timers
            continue
        view = operations.trigger_view(name)
        resumed = _resumed(view, now)
        instants = [] if resumed is None else _instants(operations, name, resumed, now)
        if resumed != now:
            if not instants:  # the banner tells of the pause
                continue
            at = instants[0]
        often = len(instants) > MOST_TICKS
        rows.append(
            Coming(
                at=at, trigger=name, job=str(view["job"]), often=often, maintained=bool(view["maintenance"]),
                paused=resumed != now,
                ticks=[] if often else [max((one - now) / AHEAD, 0.0) for one in instants],
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: row.at)


def _resuming(operations: Operations) -> list[tuple[datetime, str]]:
    """Return the triggers whose own pause ends, the first first: what is paused is not among what is due soonest."""
    ends = [(pause.until, pause.name) for pause in operations.pauses() if pause.scope is PauseScope.TRIGGER]
    return sorted((until, name) for until, name in ends if until is not None)[:SOONEST]


def _resumed(view: Mapping[str, Any], now: datetime) -> datetime | None:
    """Return from when on a trigger runs what is due: now, or the end of its pauses; None where they have none."""
    ends = [pause["until"] for pause in view["pauses"]]
    return None if None in ends else max((datetime.fromisoformat(end) for end in ends), default=now)


def _instants(operations: Operations, name: str, after: datetime, now: datetime) -> list[datetime]:
    """Return the due instants of a trigger within a day, and one more than are drawn where there are as many."""
    try:
        within = takewhile(lambda one: one.at < now + AHEAD, operations.upcoming(name, after))
        return [one.at for one in islice(within, MOST_TICKS + 1)]
    except EngineError:  # it is on several timers, or its timer fails: the page tells of that elsewhere
        return []


def banners(operations: Operations, status: dict[str, Any] | None) -> list[Banner]:
    """Return what holds for many runs, the gravest first; of who may not see the status, pauses alone."""
    if status is None:
        return [_of_pause(pause_view(pause)) for pause in operations.pauses()]
    alerts = [alert for alert in operations.alerts.views() if alert["open"] and not alert["muted"]][:MOST_ALERTS]
    told = {"alerts", "sources", "pauses", "maintenance", "conditions"}  # these have banners of their own
    wrong = [check for check in operations.health()["checks"] if not check["ok"] and check["name"] not in told]
    return [
        *(Banner(kind="bad", title=one["name"].capitalize(), text=one["detail"], place="/doctor") for one in wrong),
        *(_of_alert(alert) for alert in alerts),
        *(_of_source(source) for source in status["sources"] if source["problem"] or source["quarantine"]),
        *(_of_pause(pause_view(pause)) for pause in operations.pauses()),
        *(_of_window(window) for window in status["maintenance"]),
        *(
            Banner(kind="hold", title=f"Condition {name} holds runs", text=str(reason), place="/conditions")
            for name, reason in status["conditions"]["holding"].items()
        ),
    ]


def _of_alert(alert: dict[str, Any]) -> Banner:
    first = alert["subjects"][0]
    more = f", and {len(alert['subjects']) - 1} more" if len(alert["subjects"]) > 1 else ""
    text = f"{first['subject']}: {first['text']}{more}"
    kind = "bad" if alert["severity"] == "critical" else "hold"
    return Banner(kind=kind, title=f"Alert {alert['name']}", text=text, place="/alerts")


def _of_source(source: dict[str, Any]) -> Banner:
    text = source["problem"] or str(source["quarantine"]["reason"])
    return Banner(kind="bad", title=f"Source {source['title']}", text=text, place="/sources")


def _of_pause(pause: Mapping[str, Any]) -> Banner:
    name = pause["name"]
    what = {"engine": "The engine", "tag": f"All with the tag {name}"}.get(pause["scope"], f"Trigger {name}")
    who = f", by {pause['who']}" if pause["who"] else ""
    text = f"{pause['reason'] or 'no reason given'}{who}"
    place = f"/triggers/{name}" if pause["scope"] == "trigger" else None
    resumes = {"engine": "", "tag": name}.get(pause["scope"])  # a trigger has the button on its own page
    return Banner(
        kind="pause", title=f"{what} is paused", text=text, until=pause["until"], place=place, resumes=resumes
    )


def _of_window(window: dict[str, Any]) -> Banner:
    title = f"Maintenance window {window['name']} is open"
    return Banner(kind="window", title=title, text=window["description"], until=window["until"], place="/maintenance")


def _ended(run: Run) -> datetime:
    return run.finished_at or run.created_at
