"""What the outside may ask of a running engine: the implementation of `engine.http.operations.Operations`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from engine.clock import Clock, rfc3339
from engine.config import Config
from engine.decide.rules import Rule
from engine.dispatch import RETRY_READ_S, Dispatch
from engine.errors import NotFound, StoreUnavailable
from engine.events import Accepted, Event
from engine.http.views import shown
from engine.intake import Intake
from engine.journal import Journal
from engine.logs import Masker
from engine.loopwatch import LoopWatch
from engine.plugin import Handler, Settled
from engine.registry import SHARED_KEY
from engine.runlogs import RunLogs
from engine.runs import ENDED
from engine.sources import Routes, Sources, SourceState
from engine.store.base import Store
from engine.timers import Timers
from engine.triggers import SharedSource, Trigger, TriggerState

LOOK_AGAIN_S = 30.0
"""Who waits for a run's end looks at the store at least so often."""


class Changes:
    """Lets those wait who want to know when a run's state changes."""

    def __init__(self) -> None:
        self._watched: dict[str, list[anyio.Event]] = {}

    def tell(self, run_id: str) -> None:
        """Wake all that wait for the run."""
        for event in self._watched.pop(run_id, ()):
            event.set()

    @contextmanager
    def watch(self, run_id: str) -> Iterator[anyio.Event]:
        """Give an event that is set at the run's next change, also one before it is waited for."""
        event = anyio.Event()
        self._watched.setdefault(run_id, []).append(event)
        try:
            yield event
        finally:
            events = self._watched.get(run_id)
            if events is not None and event in events:
                events.remove(event)
                if not events:
                    del self._watched[run_id]

    async def wait(self, run_id: str, timeout_s: float) -> None:
        """Return when the run has changed, or after `timeout_s`."""
        with self.watch(run_id) as event, anyio.move_on_after(timeout_s):
            await event.wait()


class SourceMemory:
    """What sources may read of what is stored for them: see `engine.sources.Memory`."""

    def __init__(self, store: Store, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    async def cursor(self, source: str) -> Any:
        return await self._store.cursor(source)

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        return await self._store.memory(source, after=after, limit=limit)

    async def settled(self, run_id: str) -> Settled | None:
        while True:
            with self._changes.watch(run_id) as changed:
                try:
                    run = await self._store.run(run_id)
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_READ_S)
                    continue
                if run is None:
                    return None
                if run.state in ENDED:
                    return Settled(
                        run=run.id, job=run.job, trigger=run.trigger, state=run.state, code=run.code, reason=run.reason
                    )
                with anyio.move_on_after(LOOK_AGAIN_S):
                    await changed.wait()


class Operations:
    """The running engine, for its faces."""

    def __init__(
        self, *, config: Config, clock: Clock, store: Store, journal: Journal, intake: Intake, dispatch:
        Dispatch, timers: Timers, sources: Sources, routes: Routes, run_logs: RunLogs, changes: Changes,
        rules: Mapping[str, Rule], version: str, boot: str, loop_watch: LoopWatch,
    ) -> None:  # fmt: skip
        self.config = config
        self.clock = clock
        self.store = store
        self._journal = journal
        self._intake = intake
        self._dispatch = dispatch
        self._timers = timers
        self._sources = sources
        self._routes = routes
        self._run_logs = run_logs
        self._changes = changes
        self._rules = rules
        self._version = version
        self._boot = boot
        self._loop_watch = loop_watch
        self._mask = Masker(config.secrets).mask
        self._started_at: datetime = clock.now()
        self.state = "starting"
        """`starting`, `running` or `stopping`."""

    async def hear(self, events: Sequence[Event]) -> list[Accepted]:
        return await self._intake.hear(events)

    async def fire(
        self, trigger: str, *, data: Any, reason: str, priority: int | None, bypass: frozenset[str],
        request_id: str | None,
    ) -> Accepted:  # fmt: skip
        return await self._intake.fire(
            trigger, data=data, reason=reason, priority=priority, bypass=bypass, request_id=request_id
        )

    async def status(self) -> dict[str, Any]:
        counts = await self.store.counts()
        return {
            "state": self.state,
            "version": self._version,
            "pid": os.getpid(),
            "boot": self._boot,
            "started_at": rfc3339(self._started_at),
            "uptime_s": round((self.clock.now() - self._started_at).total_seconds(), 3),
            "data": str(self.config.engine.data),
            "concurrency": self._dispatch.concurrency,
            "runs": {state.value: count for state, count in sorted(counts.items())},
            "triggers": len(self._rules),
            "jobs": len(self.config.jobs),
            "sources": self.source_views(),
            "loop": self._loop_watch.view(),
            "store": {
                "url": self.config.store.url,
                "commits": self._journal.commits,
                "changes": self._journal.changes,
                "waiting": self._journal.depth,
            },
        }

    def next_at(self, trigger: str) -> datetime | None:
        """Return a trigger's next due instant, where it has one."""
        return self._timers.next_at(trigger)

    def source_views(self) -> list[dict[str, Any]]:
        """Return how each source is: those that run, and the shared ones that do not."""
        views = {state.id: self._source_view(state) for state in self._sources.states}
        for key, source in self._shared_sources().items():
            if key not in views:
                view = self._source_view(SourceState(id=key, source=source.on))
                # A timer with a name runs in the triggers that use it.
                used = any(self._rules[name].trigger.works for name in view["triggers"])
                state = "disabled" if not source.enabled else "running" if used else "unused"
                views[key] = {**view, "state": state, "problem": None}
        return list(views.values())

    def source_view(self, name: str) -> dict[str, Any]:
        for view in self.source_views():
            if name in (view["name"], view["shared"]):
                return view
        raise NotFound(f"there is no source {name}")

    def _source_view(self, state: SourceState) -> dict[str, Any]:
        shown = {**state.view(), "problem": state.problem(self.clock)}
        named = self._shared_sources().get(state.id)
        return {
            # What plugins say went wrong may quote their settings.
            **{name: self._mask(value) if isinstance(value, str) else value for name, value in shown.items()},
            "name": state.id,
            "triggers": [
                name
                for name, rule in self._rules.items()
                if rule.trigger.source == state.id or (named is not None and rule.trigger.shared == named)
            ],
            "shared": None if named is None else named.name,
            "description": "" if named is None else named.description,
            "tags": [] if named is None else list(named.tags),
        }

    def _shared_sources(self) -> dict[str, SharedSource]:
        return {source.id or source.name: source for source in self.config.sources.values()}

    def trigger_names(self) -> list[str]:
        return list(self._rules)

    def trigger_view(self, name: str) -> dict[str, Any]:
        rule = self._rules.get(name)
        if rule is None:
            raise NotFound(f"there is no trigger {name}")
        trigger = rule.trigger
        next_at = self._timers.next_at(name)
        state, why = TriggerState.ACTIVE, trigger.why_disabled()
        if why is not None:
            state, why = TriggerState.DISABLED, f"trigger {name} {why}"
        elif self._timers.is_completed(name):
            state, why = TriggerState.COMPLETED, "its timer has no further due instant"
        return {
            "name": trigger.name,
            "job": trigger.job,
            "on": _on(trigger, self.config.secrets),
            "source": trigger.source,
            "state": state.value,
            "state_reason": why,
            "enabled": trigger.enabled,
            "paused": None,
            "filter": trigger.filter,
            "priority": trigger.priority,
            "tags": list(trigger.tags),
            "description": trigger.description,
            "defined_in": trigger.defined_in,
            "created_at": None,
            "updated_at": None,
            "next_at": None if next_at is None else rfc3339(next_at),
        }

    def ready(self) -> tuple[bool, list[str]]:
        if self.state != "running":
            return False, [f"the engine is {self.state}"]
        problems = [self._mask(problem) for problem in self._sources.not_ready()]
        if self._journal.failure is not None:
            problems.append(str(self._journal.failure))
        return not problems, problems

    def health(self) -> dict[str, Any]:
        failure = self._journal.failure
        sources = [self._mask(text) for text in (*self._sources.not_ready(), *self._sources.warnings())]
        timers = [f"{name}: {problem}" for name, problem in self._timers.problems().items()]
        blocked = self._loop_watch.problem()
        checks = [
            {"name": "store", "ok": failure is None, "detail": str(failure or "writes")},
            {"name": "sources", "ok": not sources, "detail": "; ".join(sources) or "all run"},
            {"name": "timers", "ok": not timers, "detail": "; ".join(timers) or "all run"},
            {"name": "loop", "ok": blocked is None, "detail": blocked or "turns"},
        ]
        status = "failing" if failure is not None else "ok" if all(check["ok"] for check in checks) else "degraded"
        return {"status": status, "checks": checks}

    def route(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        return self._routes.find(method, path)

    def log_path(self, run_id: str) -> Path:
        return self._run_logs.path(run_id)

    async def wait_change(self, run_id: str, timeout_s: float) -> None:
        await self._changes.wait(run_id, timeout_s)


def _on(trigger: Trigger, secrets: Collection[str]) -> dict[str, Any]:
    """Return a trigger's source as the configuration writes it; secrets are masked."""
    if trigger.shared is not None:
        return {SHARED_KEY: trigger.shared.name}
    return {trigger.on.name: shown(trigger.on, secrets)}
