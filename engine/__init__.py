"""A durable trigger engine: on this, when that, run this; and a reason for all that did or did not happen.

`from engine import Engine` embeds it in a program. What that needs is loaded when it is first asked for: plugins import
`engine.plugin`, and with it this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.backfills import BackfillProgress, BackfillRequest, BackfillState
    from engine.decide.upcoming import Upcoming
    from engine.deliveries import Delivery, DeliveryState
    from engine.embedding import Engine, RunContext, TriggerView
    from engine.errors import (
        ConfigError,
        Conflict,
        EngineError,
        InvalidEvent,
        InvalidRequest,
        NotFound,
        StoreDamaged,
        StoreError,
        StoreInUse,
        StoreUnavailable,
    )
    from engine.events import Accepted, Event
    from engine.plugin import Outcome
    from engine.runs import Run, RunState
    from engine.tallies import Statistics
    from engine.triggers import Pause
    from engine.waiting import Flushed, FlushRequest, QueuePage

__all__ = [
    "Accepted",
    "BackfillProgress",
    "BackfillRequest",
    "BackfillState",
    "ConfigError",
    "Conflict",
    "Delivery",
    "DeliveryState",
    "Engine",
    "EngineError",
    "Event",
    "FlushRequest",
    "Flushed",
    "InvalidEvent",
    "InvalidRequest",
    "NotFound",
    "Outcome",
    "Pause",
    "QueuePage",
    "Run",
    "RunContext",
    "RunState",
    "Statistics",
    "StoreDamaged",
    "StoreError",
    "StoreInUse",
    "StoreUnavailable",
    "TriggerView",
    "Upcoming",
]

_MODULES = {
    "engine.backfills": ("BackfillProgress", "BackfillRequest", "BackfillState"),
    "engine.decide.upcoming": ("Upcoming",),
    "engine.deliveries": ("Delivery", "DeliveryState"),
    "engine.embedding": ("Engine", "RunContext", "TriggerView"),
    "engine.events": ("Accepted", "Event"),
    "engine.plugin": ("Outcome",),
    "engine.runs": ("Run", "RunState"),
    "engine.tallies": ("Statistics",),
    "engine.triggers": ("Pause",),
    "engine.waiting": ("FlushRequest", "Flushed", "QueuePage"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load what is exported when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF.get(name, "engine.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
