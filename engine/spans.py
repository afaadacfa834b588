"""Spans: times in which something was so, as far as it is needed to say later why something did not run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct


class SpanKind(StrEnum):
    """What was so, and what the span's `name` names then.

    - `engine`: an engine process ran; its boot id. `ended_at` is when it was seen last, for one that was killed.
    - `standstill`: a process did nothing for long, as it or the machine stood still, or the clock was set; its boot id.
    - `trigger`: a trigger was there, with one schedule and in one state.
    - `pause`: a pause held; under what the pauses are remembered.
    - `source`: a source, or the timer of a trigger, was in trouble; its id.
    """

    ENGINE = "engine"
    STANDSTILL = "standstill"
    TRIGGER = "trigger"
    PAUSE = "pause"
    SOURCE = "source"


class Span(Struct, frozen=True, kw_only=True):
    """From when until when something was so; one without an end still is. Kind, name and beginning identify it.

    `detail` is any JSON object.
    """

    kind: SpanKind
    name: str
    began_at: datetime
    ended_at: datetime | None = None
    detail: Mapping[str, Any] = {}

    def meets(self, start: datetime, end: datetime) -> bool:
        """Tell whether some of it lies from `start` to before `end`."""
        return self.began_at < end and (self.ended_at is None or self.ended_at > start)
