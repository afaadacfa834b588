"""What is told of the end of a run: in words for people, and as data for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.aftermath.series import Series
from engine.clock import rfc3339
from engine.deliveries import RECOVERED, Delivery
from engine.following import TYPE_PREFIX, end_event
from engine.payload import encode_json
from engine.plugin.channels import Message, Mood
from engine.runs import Run, RunState
from engine.store.changes import End, Finish
from engine.units import format_size, format_span

LARGEST_OUTPUTS_BYTES = 64 * 1024
"""Larger outputs are left out of what is told."""

LONGEST_TEXT = 4_000

RECOVERED_TYPE = "engine.job.recovered"

_MOODS = {
    RunState.SUCCEEDED: Mood.SUCCESS,
    RunState.FAILED: Mood.FAILURE,
    RunState.TIMED_OUT: Mood.FAILURE,
    RunState.EXPIRED: Mood.WARNING,
    RunState.CANCELLED: Mood.WARNING,
}


class Told(Struct, frozen=True, kw_only=True):
    """A message as it is stored: it is the same at each try. For the fields see `engine.plugin.Message`."""

    type: str
    title: str
    text: str
    mood: Mood
    data: Mapping[str, Any]


def told_of(
    run: Run, end: Finish | End, series: Series | None, mask: Callable[[Any], Any], also: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return what is told of an end; `series` are the failures that it ends, where it does; `mask` hides secrets.

    `also` is a line that people are told besides.

    What is masked is told and stored so: neither a receiver nor the store learns a secret of the configuration.
    """
    state = end.step.state
    outputs = end.outputs if isinstance(end, Finish) else run.outputs
    size = 0 if outputs is None else len(encode_json(outputs))
    left_out = f"they are larger than {format_size(LARGEST_OUTPUTS_BYTES)}" if size > LARGEST_OUTPUTS_BYTES else None
    data = end_event(run, end, without_outputs=left_out).data
    lines = [end.step.reason, "", f"run {run.id}, of trigger {run.trigger}"]
    if isinstance(end, Finish):
        took = end.attempt.finished_at - end.attempt.started_at
        times = "once" if end.attempt_count == 1 else f"{end.attempt_count} times"
        lines.append(f"tried {times}, the last time for {format_span(took.total_seconds())}")
    if run.scheduled_for is not None:
        lines.append(f"due at {rfc3339(run.scheduled_for)}")
    if also is not None:
        lines.append(also)
    kind, mood, title = f"{TYPE_PREFIX}{state.value}", _MOODS.get(state, Mood.INFO), f"{run.job} {_said(state)}"
    if series is not None:
        failures = "1 failure" if series.count == 1 else f"{series.count} failures"
        kind, title = RECOVERED_TYPE, f"{run.job} works again"
        lines.insert(1, f"after {failures}, since {rfc3339(series.since)}")
        data = {**data, "failures": series.count, "failing_since": rfc3339(series.since)}
    return {
        "type": kind, "title": mask(title), "text": mask("\n".join(lines))[:LONGEST_TEXT], "mood": mood.value,
        "data": mask(data),
    }  # fmt: skip


def message_of(delivery: Delivery) -> Message:
    """Return the message of a delivery, as its channel gets it."""
    told = msgspec.convert(delivery.message, Told)
    return Message(
        id=delivery.id, type=told.type, at=delivery.created_at, title=told.title, text=told.text, mood=told.mood,
        data=told.data,
    )  # fmt: skip


def masked(mask: Callable[[str], str]) -> Callable[[Any], Any]:
    """Return what masks a JSON value: each text in it, in the names of members too."""

    def all_of(value: Any) -> Any:
        if isinstance(value, str):
            return mask(value)
        if isinstance(value, Mapping):
            return {mask(name): all_of(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [all_of(item) for item in value]
        return rfc3339(value) if isinstance(value, datetime) else value

    return all_of


def event_of(state: RunState, series: Series | None) -> str:
    """Return what a delivery tells, in a word."""
    return state.value if series is None else RECOVERED


def _said(state: RunState) -> str:
    said = {RunState.TIMED_OUT: "timed out", RunState.CANCELLED: "was cancelled", RunState.SKIPPED: "was skipped"}
    return said.get(state, state.value)
