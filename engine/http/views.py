"""What the API shows: JSON values made from the nouns. Times are RFC 3339 in UTC."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.decide.functions import text_of
from engine.events import Accepted, Cause, Outcome
from engine.http import shapes
from engine.jobs import Job, RetryOn
from engine.plugin import Plugin, Secret, Timer
from engine.plugin.timers import TIMER_FIELDS
from engine.replays import replay_of
from engine.runs import Attempt, Run, RunState, Step
from engine.store.base import Ledger, StoredEvent, TriggerStats
from engine.triggers import Pause, Trigger
from engine.units import format_duration, format_size

MASK = "***"
_PASSWORD = re.compile(r"(://[^\s/?#@:]*:)[^\s/?#]+@")
MOST_BROKEN_ROWS = 100
"""Rows that break the ledger's rule, as `doctor` lists them; the count is always whole."""


def accepted_view(accepted: Accepted) -> shapes.Accepted:
    """Return the answer for an event that is durable."""
    view: shapes.Accepted = {
        "event": accepted.event,
        "runs": list(accepted.runs),
        "duplicate": accepted.duplicate,
    }
    if accepted.outcomes:
        view["outcomes"] = [outcome_view(outcome) for outcome in accepted.outcomes]
    return view


def outcome_view(outcome: Outcome) -> shapes.OutcomeOf:
    """Return one row of the ledger."""
    return {
        "trigger": outcome.trigger,
        "outcome": outcome.outcome.value,
        "run": outcome.run,
        "code": outcome.code,
        "reason": outcome.reason,
        "gates": [{"gate": seen.gate, "verdict": seen.verdict, "saw": seen.saw} for seen in outcome.gates],
    }


def event_view(stored: StoredEvent) -> shapes.EventOf:
    """Return an event with its outcomes."""
    event = stored.event
    return {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": _at(event.time),
        "received_at": _at(event.received_at),
        "key": event.key,
        "data": event.data,
        "priority": event.priority,
        "cause": cause_view(event.cause),
        "outcomes": [outcome_view(outcome) for outcome in stored.outcomes],
    }


def cause_view(cause: Cause | None) -> shapes.Cause | None:
    """Return what caused an event or a run; None where that came from outside."""
    return None if cause is None else {"run": cause.run, "hops": cause.hops, "via": list(cause.via)}


def run_summary(run: Run, events: Sequence[str]) -> shapes.RunSummary:
    """Return a run as lists show it, without trace and attempts; `events` are the ids, oldest first."""
    return {
        "id": run.id,
        "job": run.job,
        "trigger": run.trigger,
        "origin": run.origin.value,
        "state": run.state.value,
        "code": run.code,
        "reason": run.reason,
        "priority": run.priority,
        "events": list(events),
        "attempt": run.attempt,
        "created_at": _at(run.created_at),
        "due_at": _at(run.due_at),
        "expires_at": _at(run.expires_at),
        "scheduled_for": _at(run.scheduled_for),
        "replay_of": replay_of(run),
        "cause": cause_view(run.cause),
        "started_at": _at(run.started_at),
        "finished_at": _at(run.finished_at),
        "exit_code": run.exit_code,
        "outputs": run.outputs,
    }


def run_view(run: Run, events: Sequence[str]) -> shapes.RunOf:
    """Return a run with its trace and its attempts."""
    return {
        **run_summary(run, events),
        "trace": [step_view(step) for step in run.trace],
        "attempts": [attempt_view(attempt) for attempt in run.attempts],
    }


def step_view(step: Step) -> shapes.StepOf:
    """Return one line of a trace."""
    return {"at": _at(step.at), "state": step.state.value, "code": step.code, "reason": step.reason}


def attempt_view(attempt: Attempt) -> shapes.AttemptOf:
    """Return one ended attempt."""
    return {
        "number": attempt.number,
        "started_at": _at(attempt.started_at),
        "finished_at": _at(attempt.finished_at),
        "state": attempt.state.value,
        "code": attempt.code,
        "reason": attempt.reason,
        "exit_code": attempt.exit_code,
        "counted": attempt.counted,
        "cpu_s": attempt.cpu_s,
        "peak_bytes": attempt.peak_bytes,
    }


def stats_view(stats: TriggerStats | None) -> shapes.Stats:
    """Return statistics of ended runs: `failed` counts time-outs too.

    `success_rate` is the part that succeeded of those that succeeded or failed; null before the first.
    """
    counts: Mapping[RunState, int] = stats.by_state if stats else {}
    succeeded = counts.get(RunState.SUCCEEDED, 0)
    failed = counts.get(RunState.FAILED, 0) + counts.get(RunState.TIMED_OUT, 0)
    judged = succeeded + failed
    return {
        "total": sum(counts.values()),
        "succeeded": succeeded,
        "failed": failed,
        "skipped": counts.get(RunState.SKIPPED, 0),
        "missed": counts.get(RunState.MISSED, 0),
        "success_rate": succeeded / judged if judged else None,
        "duration_mean_s": stats.duration_mean_s if stats else None,
        "by_state": {state.value: count for state, count in counts.items()},
    }


def otherwise_view(trigger: Trigger) -> Any:
    """Return what becomes of a trigger's runs that its conditions do not let pass, as the configuration writes it."""
    return "skip" if trigger.hold_s is None else {"hold": format_duration(trigger.hold_s)}


def said_of_conditions(summary: Mapping[str, Any]) -> str:
    """Say which conditions do not let runs pass."""
    holding = "; ".join(f"{name}: {reason}" for name, reason in summary["holding"].items())
    return holding or ("all that were asked let pass" if summary["total"] else "none")


def job_view(job: Job, secrets: Collection[str] = ()) -> shapes.JobOf:
    """Return a job as it is configured; secrets among its runner's settings are masked."""
    retry = job.retry
    return {
        "name": job.name,
        "run": {runner_name(job.runner): shown(job.runner, secrets)},
        "timeout": format_duration(job.timeout_s),
        "retry": {
            "attempts": retry.attempts,
            "delay": format_duration(retry.delay_s),
            "factor": retry.factor,
            "max_delay": format_duration(retry.max_delay_s),
            "jitter": retry.jitter,
            "on": _retry_on(retry.on),
        },
        "concurrency": job.concurrency,
        "concurrency_key": job.concurrency_key if not callable(job.concurrency_key) else text_of(job.concurrency_key),
        "pools": dict(job.pools),
        "overlap": job.overlap.value,
        "on_crash": job.on_crash.value,
        "notify": job.notify and {"to": list(job.notify.to), "on": sorted(job.notify.on)},
        "callback": job.callback and {**shown(job.callback.channel, secrets), "on": sorted(job.callback.on)},
        "log": {"max": format_size(job.log_bytes)},
        "description": job.description,
        "tags": list(job.tags),
        "enabled": job.enabled,
        "defined_in": job.defined_in,
    }


def limits_view(trigger: Trigger) -> dict[str, Any]:
    """Return what a trigger says of the limits of its runs; None is as its job has it."""
    retry = trigger.retry and {
        "attempts": trigger.retry.attempts,
        "delay": _span(trigger.retry.delay_s),
        "factor": trigger.retry.factor,
        "max_delay": _span(trigger.retry.max_delay_s),
        "jitter": trigger.retry.jitter,
        "on": _retry_on(trigger.retry.on),
    }
    return {
        "timeout": _span(trigger.timeout_s),
        "pause_after": trigger.pause_after,
        "deadline": _deadline(trigger),
        "retry": retry and {key: value for key, value in retry.items() if value is not None},
    }


def _deadline(trigger: Trigger) -> str | None:
    deadline = trigger.deadline
    if deadline is None:
        return None
    return _span(deadline.after_s) if deadline.at is None else deadline.at.isoformat("minutes")


def _retry_on(on: RetryOn | None) -> dict[str, Any] | None:
    return None if on is None else {"exit_codes": sorted(on.exit_codes), "codes": sorted(on.codes)}


def pause_view(pause: Pause) -> shapes.PauseOf:
    """Return a pause as the API shows it."""
    return {
        "scope": pause.scope.value, "name": pause.name, "reason": pause.reason, "who": pause.who,
        "since": _at(pause.since), "until": _at(pause.until),
    }  # fmt: skip


def runner_name(runner: Any) -> str:
    """Return how the configuration calls a plugin."""
    return runner.name if isinstance(runner, Plugin) else type(runner).__name__


def title_of(plugin: Plugin, base: Path, secrets: Collection[str] = ()) -> str:
    """Return a plugin as people know it: its name and its main setting, where that is no secret.

    Paths are shown relative to `base` where they are below it.
    """
    main = None if plugin.main is None else getattr(plugin, plugin.main)
    if isinstance(main, Path) and main.is_relative_to(base):
        main = main.relative_to(base)
    if isinstance(main, tuple) and all(isinstance(one, str) for one in main):
        main = ", ".join(main)
    return f"{plugin.name} {shown(str(main), secrets)}" if isinstance(main, (str, Path)) and main else str(plugin.name)


def shown(value: Any, secrets: Collection[str] = ()) -> Any:
    """Return a setting as JSON, with every secret masked, also inside longer text, and so is the password of a URL."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Enum):
        return shown(value.value, secrets)
    if isinstance(value, str):
        for secret in secrets:
            if secret and secret in value:
                value = value.replace(secret, MASK)
        return _PASSWORD.sub(rf"\1{MASK}@", value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Struct):
        return {key: shown(item, secrets) for key, item in _settings(value)}
    if isinstance(value, Mapping):
        return {str(shown(str(key), secrets)): shown(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item, secrets) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((shown(item, secrets) for item in value), key=str)  # a set has no order of its own to show
    if isinstance(value, (date, time)):
        return value.isoformat()
    return shown(str(value), secrets) if isinstance(value, PurePath) else type(value).__name__


def _settings(value: Struct) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a struct by their keys; of those that every timer has, the ones that were made."""
    for name, key in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if not (isinstance(value, Timer) and name in TIMER_FIELDS and item in (None, ())):
            yield key, item


def doctor_view(ledger: Ledger, damage: Sequence[str], checks: Sequence[Mapping[str, Any]] = ()) -> shapes.Doctor:
    """Return what `doctor` found: the ledger's sums, the store's integrity, and the engine's own checks.

    `missing` is how many rows break the ledger's rule; the first of them are told in words in `broken`.
    """
    missing = len(ledger.missing)
    told = "every event has its outcome" if not missing else "; ".join(ledger.missing[:3])
    found: list[shapes.Check] = [
        {"name": "ledger", "ok": not missing, "detail": told},
        {"name": "integrity", "ok": not damage, "detail": "; ".join(damage) or "the store is whole"},
        *[shapes.Check(name=c["name"], ok=bool(c["ok"]), detail=c["detail"]) for c in checks],
    ]
    return {
        "ok": all(check["ok"] for check in found),
        "ledger": {
            "accepted": ledger.accepted,
            "ended": ledger.ended,
            "waiting": ledger.waiting,
            "purged": ledger.purged,
            "missing": missing,
        },
        "broken": list(ledger.missing[:MOST_BROKEN_ROWS]),
        "triggers": [
            {
                "trigger": one.trigger or None,
                "accepted": one.accepted,
                "ended": one.ended,
                "waiting": one.waiting,
                "purged": one.purged,
            }
            for one in ledger.triggers
        ],
        "checks": found,
    }


def list_view(items: Sequence[Any], cursor: str | None) -> dict[str, Any]:
    """Return one page of a list; `cursor` is where the next one goes on, None at the end."""
    return {"items": list(items), "next": cursor}


def _at(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _span(seconds: float | None) -> str | None:
    return None if seconds is None else format_duration(seconds)
