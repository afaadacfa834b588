"""What adaptive intervals need of others, whom the runtime hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from engine.events import Accepted, Event


class Door(Protocol):
    """What records a change: an event and what is remembered, in one commit."""

    async def accept(
        self, source: str, events: Sequence[Event], *, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]: ...


class TimerPaces(Protocol):
    """The timers, as far as their intervals go; see `engine.timers.Timers`."""

    def first_by(self, trigger: str, seconds: float | None) -> datetime: ...

    def set_interval(self, trigger: str, seconds: float | None, first: datetime) -> None: ...


class SourcePaces(Protocol):
    """The sources, as far as their intervals go; see `engine.sources.Sources`."""

    def set_factor(self, source_id: str, factor: float) -> None: ...
