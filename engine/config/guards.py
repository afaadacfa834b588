"""Guards in the configuration: how much is too much, and how long a silence is too long."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine.decide.breakers import MOST_COUNTED
from engine.plugin.settings import Duration
from engine.triggers import Breaker


class BreakerTable(Struct, frozen=True, kw_only=True):
    """How many events may come before nothing runs any more, until somebody releases it; see docs/guards.md."""

    limit: Annotated[int, Meta(ge=1, le=MOST_COUNTED, description="So many events pass in `per`.")]
    per: Annotated[Duration, Meta(gt=0, le=86400, description="The time in which they pass, at most a day.")]

    def rule(self) -> Breaker:
        """Return it as the triggers know it."""
        return Breaker(limit=self.limit, per_s=self.per)
