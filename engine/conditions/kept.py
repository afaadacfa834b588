"""What of a condition outlives the engine: what overrides its configuration, and its latest changes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.plugin.conditions import Answer

MOST_CHANGES = 20
"""So many of the latest changes of an answer are remembered."""


class Override(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds in the place of the configuration: since when, by whom and why.

    - `enabled`, `shadow`: None: as it is configured. `thresholds`: settings of the check, as they are written.
    """

    since: datetime
    reason: str
    who: str = ""
    enabled: bool | None = None
    shadow: bool | None = None
    thresholds: Mapping[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing."""
        return self.enabled is None and self.shadow is None and not self.thresholds


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a condition's answer, with the sentence and the value that it saw."""

    at: datetime
    answer: Answer
    reason: str
    value: Any = None
    failed: bool = False
