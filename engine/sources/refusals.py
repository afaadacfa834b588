"""Requests that a source's routes refused: counted, logged without a flood, and explained to who asks.

Kept in memory alone: the last ones of each kind, so that a flood of one kind does not wash away the others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import anyio.to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from engine.clock import rfc3339
from engine.plugin import Explanation

log = logging.getLogger("engine.sources")

LOGGED, PERIOD_S = 5, 60.0
"""So many refusals of a source are logged in a period; the first one after it says how many were not."""


MOST_KINDS = 20
"""Refusals of a source that are kept: the last one for each reason and address."""

_NUMBER = re.compile(r"\d[\d.,]*")


class RefusedRequest(Struct, frozen=True, kw_only=True):
    """A request that was answered with an error; `reason` is for the source's owner and holds no secret.

    `explain` looks closer at it, in a thread, once.
    """

    status: int
    reason: str
    remote: str
    request_id: str
    explain: Callable[[], Explanation] | None = None


class Kept(Struct):
    """The last request that was refused for a reason, and how many were."""

    request: RefusedRequest
    at: datetime
    count: int = 1
    explanation: Explanation | None = None


class Refusals(Struct):
    """The refused requests of one source since the engine's start."""

    count: int = 0
    last: RefusedRequest | None = None
    last_at: datetime | None = None
    period_began_at: datetime | None = None
    in_period: int = 0
    unlogged: int = 0
    kept: dict[tuple[int, str, str], Kept] = field(default_factory=dict)
    """By status, address and reason; the one that came last is at the end."""

    def note(self, source: str, request: RefusedRequest, now: datetime) -> None:
        """Count a refusal, and log it where not too many were of late."""
        self.count += 1
        self.last, self.last_at = request, now
        self._keep(request, now)
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

    def _keep(self, request: RefusedRequest, now: datetime) -> None:
        # How late each of many was makes no kinds of its own.
        kind = (request.status, request.remote, _NUMBER.sub("0", request.reason))
        before = self.kept.pop(kind, None)
        if before is None and len(self.kept) >= MOST_KINDS:
            del self.kept[next(iter(self.kept))]
        self.kept[kind] = Kept(request=request, at=now, count=1 if before is None else before.count + 1)

    async def explained(self, mask: Callable[[str], str]) -> list[dict[str, Any]]:
        """Return those that are kept as the API shows them, the last one first, each with what was wrong with it.

        `mask` takes secrets out of what plugins say.
        """
        found = list(reversed(self.kept.values()))
        await anyio.to_thread.run_sync(_explain, found)
        return [_kept_view(one, mask) for one in found]

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


def _explain(kept: list[Kept]) -> None:
    for one in kept:
        if one.explanation is None and one.request.explain is not None:
            try:
                one.explanation = one.request.explain()
            except Exception:  # the plugin's code
                ids = {"action": "explaining_failed", "request_id": one.request.request_id}
                log.exception("What was wrong with a refused request could not be looked at", extra=ids)
                one.explanation = Explanation(cause="unknown", text="looking closer failed; see the log", certain=False)
            # What it needed, the request's body among it, is let go.
            one.request = replace(one.request, explain=None)


def _kept_view(kept: Kept, mask: Callable[[str], str]) -> dict[str, Any]:
    request, found = kept.request, kept.explanation
    return {
        "at": rfc3339(kept.at),
        "count": kept.count,
        "status": request.status,
        "reason": request.reason,
        "remote": request.remote,
        "request_id": request.request_id,
        "cause": None if found is None else found.cause,
        "explanation": None if found is None else mask(found.text),
        "certain": None if found is None else found.certain,
    }
