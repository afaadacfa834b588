"""For how long the engine keeps what is over."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine.plugin.settings import BadSetting, Duration, Size
from engine.units import format_duration

DAY_S = 86400.0
KEYS_KNOWN_S = 3 * DAY_S
"""So long, at least, a sender's key is known, so that a repeat of its delivery is no second event: 72 hours."""

SHORTEST_S = 3600.0
LEAST_DISK_BYTES = 16 * 2**20


class KeepTable(Struct, frozen=True, kw_only=True):
    """For how long what is over is kept; what waits or runs stays, whatever its age. `3650d` is the longest."""

    events: Annotated[
        Duration, Meta(description="Events and what became of them, once all their runs have ended. At least `72h`.")
    ] = 30 * DAY_S
    runs: Annotated[Duration, Meta(ge=SHORTEST_S, description="Runs, from their end on.")] = 90 * DAY_S
    logs: Annotated[
        Duration, Meta(ge=SHORTEST_S, description="What runs wrote, from their end on; no longer than the run.")
    ] = 30 * DAY_S
    disk: Annotated[
        Size | None,
        Meta(
            ge=LEAST_DISK_BYTES,
            description="Where the store and the logs take more, the oldest of what is over goes earlier.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.events < KEYS_KNOWN_S:
            raise BadSetting(
                "events", f"is {format_duration(self.events)}, less than the 72h for which a sender's key is known",
                "make it 72h or more",
            )  # fmt: skip
