"""Requests that a source's routes refused: counted, and logged without a flood. Kept in memory alone."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339

log = logging.getLogger("engine.sources")

LOGGED, PERIOD_S = 5, 60.0
"""So many refusals of a source are logged in a period; the first one after it says how many were not."""


class RefusedRequest(Struct, frozen=True, kw_only=True):
    """A request that was answered with an error; `reason` is for the source's owner and holds no secret."""

    status: int
    reason: str
    remote: str
    request_id: str


class Refusals(Struct):
    """The refused requests of one source since the engine's start."""

    count: int = 0
    last: RefusedRequest | None = None
    last_at: datetime | None = None
    period_began_at: datetime | None = None
    in_period: int = 0
    unlogged: int = 0

    def note(self, source: str, request: RefusedRequest, now: datetime) -> None:
        """Count a refusal, and log it where not too many were of late."""
        self.count += 1
        self.last, self.last_at = request, now
        # A wall clock that was set back begins a period too.
        if self.period_began_at is None or not 0 <= (now - self.period_began_at).total_seconds() < PERIOD_S:
            self.period_began_at, self.in_period = now, 0
        self.in_period += 1
        if self.in_period > LOGGED:
            self.unlogged += 1
            return
        more = f"; {self.unlogged:,} more before it" if self.unlogged else ""
        self.unlogged = 0
        log.warning(
            "Source %s refused a request from %s with %d: %s%s",
            source, request.remote, request.status, request.reason, more,
            extra={
                "action": "request_refused", "source": source, "request_id": request.request_id,
                "remote": request.remote, "status": request.status,
            },
        )  # fmt: skip

    def view(self) -> dict[str, Any] | None:
        """Return them as the API shows them; None where there was none."""
        if self.last is None or self.last_at is None:
            return None
        return {
            "count": self.count,
            "last_at": rfc3339(self.last_at),
            "last_status": self.last.status,
            "last_reason": self.last.reason,
            "last_remote": self.last.remote,
            "last_request_id": self.last.request_id,
        }
