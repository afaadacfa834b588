"""Who saw it: the one place through which each changing call of the API, and each refusal, comes to the audit log.

A call that changes something leaves a note, which the journal takes with the first change that the call makes, so that
both are one commit. Handlers that know more than the request tells say so with `Call.audit`.

Not in the log: events that are accepted (they are rows of their own, and too many), and what only asks, which is told
at the level DEBUG.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any, TypeVar

import msgspec

from engine.audits import NOTING, Audit, AuditOutcome
from engine.errors import EngineError
from engine.http.claims import CREATED_BY, PERFORMED_BY, TRIGGERED_BY, claim
from engine.http.disclosure import hidden, names_secret
from engine.http.operations import AuditOperations
from engine.http.problems import Problem, problem_of
from engine.http.quotas import PREFIX
from engine.logs import Masker
from engine.plugin import Headers, Refusal
from engine.tokens import Who

CLAIMS = {CREATED_BY: "created_by", TRIGGERED_BY: "triggered_by", PERFORMED_BY: "performed_by"}
"""How rows name what callers say on whose behalf they ask."""

ASKING = frozenset({
    ("POST", "/api/v1/simulate"), ("POST", "/api/v1/plan"), ("POST", "/api/v1/triggers/{name}/test"),
})  # fmt: skip
"""Calls that change nothing, in spite of their method."""

RECORDED_ELSEWHERE = frozenset({("POST", "/api/v1/events")})
"""Calls whose success is a row of another kind; their refusals are in the log."""

NOT_SHOWN = "(not shown)"
LARGEST_SHOWN_BYTES = 16 * 1024
LONGEST_REASON = 1000
DEEPEST_SHOWN = 20

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = frozenset({401, 403})
_GUESSING = "too_many_wrong_tokens"
_PAYLOADS = frozenset({"data", "payload", "body", "event", "events"})
"""Members that hold what others sent: it stands in the event, where it is redacted."""

T = TypeVar("T")

log = logging.getLogger("engine.audit")


class Asking:
    """One call to the API, as far as it is known by now."""

    __slots__ = ("address", "body", "headers", "method", "note", "parameters", "pattern", "request_id", "who")

    def __init__(self, method: str, headers: Headers, address: str, request_id: str) -> None:
        self.method = method
        self.headers = headers
        self.address = address
        self.request_id = request_id
        self.pattern = ""
        self.parameters: Mapping[str, str] = {}
        self.who: Who | None = None
        self.body = b""
        self.note: CallNote | None = None

    @property
    def only_asks_who(self) -> bool:
        """Whether it only asks who it is, as each page does before anybody has signed in."""
        return (self.method, self.pattern) == ("GET", "/session")

    @property
    def changes(self) -> bool:
        """Whether it is to change something."""
        return self.method not in _SAFE and (self.method, self.pattern) not in ASKING


class CallNote:
    """The row of one call, until it is stored."""

    def __init__(self, make: Callable[[CallNote], Audit]) -> None:
        self._make = make
        self._carrier: asyncio.Future[Any] | None = None
        self._taken: Audit | None = None
        self._over = False
        self.before: Any = None
        self.after: Any = None
        self.what: str | None = None
        self.reason: str | None = None
        self.who: Who | None = None

    def take(self, carrier: asyncio.Future[Any]) -> Audit | None:
        """Return the row for the first change; see `engine.audits.Note`."""
        if self._over or self._carrier is not None:
            return None
        self._carrier = carrier
        self._taken = self.audit()
        return self._taken

    def audit(self) -> Audit:
        """Return the row as it is known now."""
        return self._make(self)

    async def stored(self) -> Audit | None:
        """Return the row that was stored with a change, once it is known whether it was; no other takes it now."""
        self._over = True
        carrier = self._carrier
        if carrier is None:
            return None
        await asyncio.wait([carrier])
        return None if carrier.cancelled() or carrier.exception() is not None else self._taken


class Witness:
    """Writes down what the API is asked to change, and whom it refuses."""

    def __init__(self, audit: AuditOperations, secrets: Callable[[], Set[str]]) -> None:
        self._audit = audit
        self._secrets = secrets

    def begin(self, asking: Asking) -> CallNote | None:
        """Return the note that a call leaves, or None where it leaves none."""
        if not asking.changes:
            if log.isEnabledFor(logging.DEBUG):
                who = asking.who
                log.debug(
                    "%s asked: %s %s", "nobody" if who is None else who.said(), asking.method, asking.pattern,
                    extra={"action": "audit_read", "request_id": asking.request_id, "address": asking.address},
                )  # fmt: skip
            return None
        if (asking.method, asking.pattern) in RECORDED_ELSEWHERE:
            return None
        asking.note = CallNote(lambda note: self._row(asking, note, AuditOutcome.DONE))
        return asking.note

    async def noting(self, note: CallNote, answering: Awaitable[T]) -> T:
        """Return what is answered to a call, once its row is stored."""
        before = NOTING.set(note)
        try:
            answer = await answering
        finally:
            NOTING.reset(before)
        stored = await note.stored()
        if stored is None:
            await self._audit.write(note.audit())
        else:
            self._audit.tell(stored)
        return answer

    async def not_done(self, asking: Asking, error: Exception) -> None:
        """Write down that a call was refused, or failed after it had changed something."""
        if isinstance(error, Problem):
            problem = error
        elif isinstance(error, (EngineError, Refusal)):
            problem = problem_of(error)
        else:
            problem = Problem(500, "the engine failed to answer")
        note = asking.note
        stored = None if note is None else await note.stored()
        if stored is not None:
            self._audit.tell(stored)
        if isinstance(error, ConnectionError):
            return  # who asked has left, and is not told how it went
        if asking.only_asks_who or not (asking.changes or problem.status in _REFUSED or problem.code == _GUESSING):
            return
        failed = stored is not None or problem.status >= 500
        row = self._row(asking, note, AuditOutcome.FAILED if failed else AuditOutcome.REFUSED, problem)
        if failed:
            await self._audit.write(row)
        else:
            self._audit.refuse(row)

    def _row(
        self, asking: Asking, note: CallNote | None, outcome: AuditOutcome, problem: Problem | None = None
    ) -> Audit:  # fmt: skip
        sent = _sent(asking.body) if asking.who is not None else None
        who = asking.who if note is None or note.who is None else note.who
        after = sent if note is None or note.after is None else note.after
        given = sent.get("reason") if isinstance(sent, dict) else None
        reason = (note.reason if note is not None else None) or (given if isinstance(given, str) else "")
        target = (note.what if note is not None else None) or ",".join(asking.parameters.values())
        mask = Masker(self._secrets()).mask
        return Audit(
            at=self._audit.now(),
            who="" if who is None else who.name,
            role="" if who is None else who.role.word,
            means="" if who is None else who.means,
            prefix=_prefix(asking) if who is None else who.prefix,
            address=asking.address,
            request=asking.request_id,
            claims={name: mask(value) for header, name in CLAIMS.items() if (value := claim(asking.headers, header))},
            action=_clean(f"{asking.method} {asking.pattern or 'an unknown path'}")[:256],
            target=mask(_clean(target))[:256],
            outcome=outcome,
            status=0 if problem is None else problem.status,
            code="" if problem is None else problem.code,
            reason=mask(_clean(problem.detail if problem is not None else reason))[:LONGEST_REASON],
            before=None if note is None else _bounded(_shown(note.before, mask)),
            after=None if asking.who is None and note is None else _bounded(_shown(after, mask)),
        )


def _prefix(asking: Asking) -> str:
    """Return how a token that opened nothing begins: no more than lists of tokens show."""
    offered = asking.headers.get("Authorization", "").partition(" ")[2].strip() or asking.headers.get("X-API-Key", "")
    return offered[:PREFIX] if len(offered) >= 4 * PREFIX and offered.isascii() and offered.isprintable() else ""


def _sent(body: bytes) -> Any:
    if not body:
        return None
    if len(body) > LARGEST_SHOWN_BYTES:
        return {"bytes": len(body)}
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {"bytes": len(body)}


def _shown(value: Any, mask: Callable[[str], str], depth: int = 0) -> Any:
    """Return a value as the log shows it: without secrets, and without what others sent."""
    if depth > DEEPEST_SHOWN:
        return NOT_SHOWN
    if isinstance(value, str):
        return mask(_clean(value))
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)  # JSON of the store has no such numbers
    if isinstance(value, Mapping):
        return {
            mask(_clean(str(name))): hidden(item)
            if names_secret(str(name)) and not isinstance(item, Mapping)
            else NOT_SHOWN
            if depth == 0 and name in _PAYLOADS and item is not None
            else _shown(item, mask, depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_shown(item, mask, depth + 1) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else mask(_clean(str(value)))


def _bounded(value: Any) -> Any:
    """Return a value that is not too large for a row, or how large it is."""
    size = len(msgspec.json.encode(value))
    return value if size <= 2 * LARGEST_SHOWN_BYTES else {"bytes": size}


def _clean(text: str) -> str:
    """Return text that can be stored: lone surrogates, which no UTF-8 holds, are replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
