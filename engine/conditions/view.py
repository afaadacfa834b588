"""A condition as faces show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.clock import rfc3339
from engine.conditions.kept import Change, Override
from engine.conditions.organ import Conditions
from engine.decide.conditions import Reading
from engine.units import format_duration


def condition_view(conditions: Conditions, name: str, held: Mapping[str, int], check: Any) -> dict[str, Any]:
    """Return a condition with what is known of it; `held` counts held runs by trigger, `check` is what it asks."""
    one, reading = conditions.all[name], conditions.reading(name)
    triggers = conditions.triggers_of(name)
    override = conditions.override_of(name)
    return {
        "name": name,
        "state": "disabled" if not one.enabled else "unknown" if reading is None else reading.answer.value,
        "reason": "it was not asked for yet" if reading is None else reading.said(),
        **_reading_view(reading),
        "checking": conditions.is_checked(name),
        "check": check if one.joins is None else {one.joins.value: list(one.of)},
        "every": format_duration(one.every_s) if one.joins is None else None,
        "timeout": format_duration(one.timeout_s) if one.joins is None else None,
        "on_error": one.on_error.value if one.joins is None else None,
        "shadow": one.shadow,
        "enabled": one.enabled,
        "override": None if override is None else _override_view(override),
        "always": name in conditions.always,
        "triggers": triggers,
        "waiting": sum(held.get(trigger, 0) for trigger in triggers),
        "description": one.description,
        "tags": list(one.tags),
        "defined_in": one.defined_in,
        "changes": [_change_view(change) for change in conditions.changes(name)],
    }


def _reading_view(reading: Reading | None) -> dict[str, Any]:
    return {
        "value": None if reading is None else reading.value,
        "failed": reading is not None and reading.failed,
        "checked_at": None if reading is None else rfc3339(reading.at),
    }


def _override_view(override: Override) -> dict[str, Any]:
    return {
        "since": rfc3339(override.since), "who": override.who, "reason": override.reason, "enabled": override.enabled,
        "shadow": override.shadow, "thresholds": dict(override.thresholds),
    }  # fmt: skip


def _change_view(change: Change) -> dict[str, Any]:
    return {
        "at": rfc3339(change.at), "state": change.answer.value, "reason": change.reason, "value": change.value,
        "failed": change.failed,
    }  # fmt: skip
