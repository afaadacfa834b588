"""How what the API defines is shown where it does not fit any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def invalid_trigger(name: str, settings: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """Return a trigger that is none any more, with the members of every other; `problem` says why."""
    return {
        "name": name, "job": settings.get("job"), "preset": settings.get("preset"), "on": settings.get("on"),
        "source": None, "inputs": [], "state": "invalid", "state_reason": problem, "source_problem": None,
        "refused_requests": None, "enabled": False, "paused": None, "pauses": [], "maintenance": [],
        "filter": settings.get("filter"), "conditions": [], "otherwise": None, "priority": settings.get("priority"),
        "quarantine": None, "tags": settings.get("tags", []), "description": settings.get("description", ""),
        "defined_in": "api", "next_at": None, "next_fires_at": None, "adaptive": None,
    }  # fmt: skip


def invalid_job(name: str, settings: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """Return a job that is none any more; `problem` says why."""
    return {
        "name": name, "run": settings.get("run"), "state": "invalid", "state_reason": problem,
        "tags": settings.get("tags", []), "description": settings.get("description", ""), "enabled": False,
        "defined_in": "api",
    }  # fmt: skip
