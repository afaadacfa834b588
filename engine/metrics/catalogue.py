"""The metrics by name: what each is, its labels, and what it says. The documentation's table is made of this."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

PREFIX = "trigger_engine_"


class Kind(StrEnum):
    """What a figure does: a counter only grows, and begins anew with the process; a gauge goes up and down.

    `unknown` is for old names alone, which end as only those of counters may now.
    """

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    UNKNOWN = "unknown"


class Family(Struct, frozen=True, kw_only=True):
    """One metric. `name` is whole; that of a counter ends in `_total`."""

    name: str
    kind: Kind
    says: str
    labels: tuple[str, ...] = ()


def _family(kind: Kind, name: str, says: str, *labels: str) -> Family:
    return Family(name=PREFIX + name, kind=kind, says=says, labels=labels)


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

FAMILIES: tuple[Family, ...] = (
    # The engine
    _family(_G, "info", "1; the label tells the version.", "version"),
    _family(_G, "ready", "1 where it takes events, as /ready says."),
    _family(_G, "check_ok", "1 where a check of /health is well, else 0.", "check"),
    _family(_G, "triggers", "Triggers, by how they stand.", "state"),
    _family(_G, "jobs", "Jobs."),
    # Events
    _family(
        _C, "events_total",
        "Events at the triggers that they met, by the kind of their source and what became of them: the ledger's rows.",
        "source", "outcome",
    ),
    _family(_C, "events_duplicate_total", "Events that had come before, by their key; nothing was stored of them."),
    # Runs
    _family(
        _C, "runs_total", "Runs that ended, by job and state. A record of missed instants counts as these.", "job",
        "state",
    ),
    _family(
        _C, "runs_not_done_total", "Runs that were skipped, missed, cancelled or expired, by the code of the reason.",
        "state", "code",
    ),
    _family(_C, "run_attempts_total", "Attempts that ended, but for those that a stop of the engine cut off.", "job"),
    _family(
        _C, "run_retries_total", "Attempts that failed or timed out, and after which another one was to come.", "job",
        "state",
    ),
    _family(_H, "run_duration_seconds", "How long the last attempt of each ended run took.", "job"),
    _family(
        _H, "run_lateness_seconds",
        "How long after its due instant each run began, counted when its first attempt ends.", "trigger",
    ),
    _family(_G, "trigger_failures_in_a_row", "Runs of a trigger that failed or timed out since its last good one.",
            "trigger"),
    _family(_G, "trigger_last_end_timestamp_seconds", "When a run of a trigger ended last.", "trigger"),
    _family(_G, "trigger_next_due_timestamp_seconds", "When a trigger's timer is due next.", "trigger"),
    _family(_G, "adaptive_interval_seconds", "The interval in force of a trigger that adapts it.", "trigger"),
    # What waits
    _family(_G, "runs", "Runs that have not ended, by state.", "state"),
    _family(_G, "queue_runs", "Runs that are ready and wait for a slot, by lane.", "lane"),
    _family(_G, "queue_oldest_age_seconds", "How long ago the oldest of them was made; 0 where none waits.", "lane"),
    _family(_G, "queue_pushes_back", "1 where so many runs wait that sources have to."),
    _family(_G, "pool_limit", "How much a pool holds; the engine's slots are pool `engine`.", "pool"),
    _family(_G, "pool_taken", "How much of it is taken.", "pool"),
    _family(_G, "windows_open", "Windows of debounces and batches that are open, and joins that wait."),
    _family(_G, "maintenance_open", "1 while a maintenance window is open, else 0.", "window"),
    _family(_G, "pauses", "Pauses that hold, by what they are of.", "scope"),
    _family(
        _G, "condition_state", "1 for the state that a condition is in, 0 for the others.", "condition", "state"
    ),
    # Alerts
    _family(
        _G, "alerts_open", "Subjects for which an alert is open, muted or not; 0 where it is looked at and is not.",
        "alert", "severity",
    ),
    # Sources
    _family(_G, "source_up", "1 where a source runs well, else 0.", "source", "plugin"),
    _family(_C, "source_events_total", "Events of a source that were stored.", "source"),
    _family(_C, "source_rejected_total", "What came to it and was not valid.", "source"),
    _family(_C, "source_pushed_back_total", "Calls that had to wait, as the engine could not take them.", "source"),
    _family(_C, "source_restarts_total", "How often it was started again.", "source"),
    _family(_G, "source_lag_seconds", "How old its last event was when it was durable.", "source"),
    _family(_G, "source_last_event_timestamp_seconds", "When its last event was durable.", "source"),
    # The store, the disk, the loop
    _family(_G, "store_writable", "1 where the store can be written and takes events."),
    _family(_H, "store_commit_seconds", "How long each commit took, from its begin until it was durable."),
    _family(_H, "store_commit_changes", "How many changes were in each."),
    _family(_G, "store_changes_waiting", "Changes that wait for their commit."),
    _family(_G, "store_size_bytes", "How large the store's files are."),
    _family(_G, "store_lease_age_seconds", "How long ago the lease on the store was renewed."),
    _family(_G, "disk_free_bytes", "What is free on the disk that has the least, of the store's and the logs'."),
    _family(_H, "loop_lag_seconds", "How long the event loop takes to come to what it is asked, twice a second."),
    _family(_C, "loop_blocked_total", "How often it was held up for a quarter of a second or more."),
    _family(_C, "loop_blocked_seconds_total", "For how long, in all."),
    _family(_G, "threads", "Threads of the process."),
)  # fmt: skip
"""The engine's own, in the order in which they are shown. Beside them stand `process_…`, by which Prometheus' client
libraries tell of the process: CPU seconds, memory, open files, when it started."""

ALIASES: tuple[Family, ...] = (
    Family(
        name="schedules_total", kind=Kind.UNKNOWN, labels=("type", "status"),
        says="Triggers on timers, by the timer and how they stand.",
    ),
    Family(
        name="schedule_executions_total", kind=_C, labels=("status",), says="Runs of due instants that ended, by state."
    ),
    Family(name="schedule_execution_duration_seconds", kind=_H, says="How long the last attempt of each took."),
    Family(name="schedule_misfires_total", kind=_C, says="Due instants that were missed."),
    Family(
        name="distributed_locks_acquired_total", kind=_C, says="How often the lease on the store was had or renewed."
    ),
)  # fmt: skip
"""The names of the scheduler service that went before, where `[metrics] aliases` is set."""
