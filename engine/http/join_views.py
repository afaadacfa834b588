"""What the API shows of triggers on several sources: their inputs, and the joins that wait."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

from engine.clock import rfc3339
from engine.decide.functions import text_of
from engine.decide.joins import JoinWindow
from engine.http.views import shown
from engine.registry import SHARED_KEY
from engine.triggers import Input, Join, Trigger
from engine.units import format_duration

MOST_JOINS = 20
"""So many joins that wait are shown of a trigger."""


def settings_view(trigger: Trigger, secrets: Collection[str]) -> Any:
    """Return the settings of what a trigger is on, as the configuration writes them; secrets are masked."""
    if not trigger.inputs:
        return shown(trigger.on, secrets)
    return {one.name: _input_view(trigger, one, secrets) for one in trigger.inputs}


def joins_view(trigger: Trigger, waiting: Sequence[JoinWindow], secrets: Collection[str]) -> dict[str, Any]:
    """Return the members of a trigger's view that are about its inputs; null where it is on one source alone.

    `waiting` are its joins that wait, as they began; the first of them are shown.
    """
    if not trigger.inputs:
        return {"inputs": None, "join": None, "joins": None}
    inputs = [{"name": one.name, "source": one.source, "on": one.on.name} for one in trigger.inputs]
    if trigger.join is None:
        return {"inputs": inputs, "join": None, "joins": None}
    return {
        "inputs": inputs, "join": _join_view(trigger.join),
        "joins": {"open": len(waiting), "items": [_waiting_view(one) for one in islice(waiting, MOST_JOINS)]},
    }  # fmt: skip


def _input_view(trigger: Trigger, one: Input, secrets: Collection[str]) -> dict[str, Any]:
    on = {SHARED_KEY: one.shared.name} if one.shared is not None else {one.on.name: shown(one.on, secrets)}
    filter_ = text_of(one.filter) if callable(one.filter) else one.filter
    return {
        **on,
        **({} if filter_ is None else {"filter": filter_}),
        **({} if trigger.join is None else {"use": one.use.value}),
    }


def _join_view(join: Join) -> dict[str, Any]:
    return {
        "window": format_duration(join.window_s), "reset": join.reset.value,
        "key": text_of(join.key) if callable(join.key) else join.key, "max_open": join.max_open,
        "max_events": join.max_events,
    }  # fmt: skip


def _waiting_view(window: JoinWindow) -> dict[str, Any]:
    return {
        "run": window.run, "key": window.key or None,
        "until": rfc3339(window.due_at if window.closes_at is None else window.closes_at),
        "has": {name: [*events] for name, events in window.used.items()}, "missing": window.missing,
    }  # fmt: skip
