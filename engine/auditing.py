"""The audit log, kept: each change that somebody asked for, and each attempt that was refused.

A change's row goes with the change itself, in one commit; see `engine.audits.NOTING`. Refusals have rows of their own,
and those that are alike are counted: the first has a row at once, and what follows within a minute another one for all
of them, so that nobody can fill the disk by being refused. Rows of what was not done that can't be stored are told in
the engine's log by the same measure.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import anyio
from msgspec.structs import replace

from engine.audits import Audit, AuditFilter, AuditOutcome, AuditRow, Chain
from engine.clock import Clock, to_microseconds
from engine.errors import ConfigError, EngineError
from engine.store.base import Store
from engine.store.changes import Accept

COUNTED_FOR_S = 60.0
"""Refusals that are alike and come within so long are counted in one row."""

MOST_KINDS = 100
"""So many kinds of refusals have rows of their own in a minute; the others are counted as one."""

OTHERS = "others"

NO_CALL = "file"
"""By what means something came to be that no call of the API asked for: a file, or a signal."""

_PLACEHOLDER = re.compile(r"\{[^}]*\}")

log = logging.getLogger("engine.audit")


class Alike:
    """Counts rows that are alike: the first of a minute is for at once, the others of it are one row at its end."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], Audit | None] = {}
        """Kinds of this minute, with the last one of those that were counted."""
        self._counts: dict[tuple[str, ...], int] = {}

    def first(self, audit: Audit) -> Audit | None:
        """Return the row that is for at once; None where it was counted with those that are alike."""
        # Of somebody who is known, each thing that is refused is told; of others, what they tried is their own word.
        what = audit.target if audit.who else ""
        kind: tuple[str, ...] = (audit.who or audit.address, audit.means, audit.action, audit.code, what)
        if kind not in self._last and len(self._last) >= MOST_KINDS:
            kind = (OTHERS,)
            audit = replace(audit, who="", role="", means="", prefix="", address=OTHERS, action=OTHERS, target="")
        if kind not in self._last:
            self._last[kind] = None
            return audit
        self._last[kind] = audit
        self._counts[kind] = self._counts.get(kind, 0) + audit.count
        return None

    def close(self) -> list[Audit]:
        """End the minute; return the rows of what was counted, each with how many it stands for."""
        last, self._last = self._last, {}
        counts, self._counts = self._counts, {}
        return [replace(audit, count=counts[kind]) for kind, audit in last.items() if audit is not None]


class AuditLog:
    """The audit log of an engine that runs."""

    def __init__(
        self, clock: Clock, store: Store, submit: Callable[[Accept, Audit | None], asyncio.Future[Any]]
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._submit = submit
        self._refusals, self._untold = Alike(), Alike()
        """Refusals without a row yet, and rows that were lost without a word in the engine's log yet."""
        self._writing: set[asyncio.Task[None]] = set()
        self._counting = anyio.Event()
        self._why_lost = ""
        self.lost = 0
        """Rows that could not be stored; the engine's own log tells of them."""

    def now(self) -> int:
        """Return the instant as rows tell it."""
        return to_microseconds(self._clock.now())

    async def write(self, audit: Audit) -> None:
        """Store a row by itself. Where it can't be, it goes to the engine's log: what it tells of has happened."""
        try:
            await self._submit(Accept(entries=()), audit)
        except EngineError as error:
            self.lost += 1
            self._why_lost = str(error)
            self._lose(audit)
        else:
            self.tell(audit)

    def _lose(self, audit: Audit) -> None:
        """Tell of a row that could not be stored: of each where something was done, else at once or with its like."""
        if audit.outcome is AuditOutcome.DONE:
            self._tell_lost(audit)
            return
        self._counting.set()
        if (first := self._untold.first(audit)) is not None:
            self._tell_lost(first)

    def _tell_lost(self, audit: Audit) -> None:
        more = "" if audit.count == 1 else f", the last of {audit.count:,} that are alike"
        log.error(
            "A row of the audit log was not stored%s: %s", more, self._why_lost,
            extra={**told(audit), "action": "audit_lost", "asked": audit.action},
        )  # fmt: skip

    def tell(self, audit: Audit) -> None:
        """Tell of a row in the engine's own log too, which may be kept where nobody here can reach it."""
        log.info("%s: %s, %s", _asked_for(audit), audit.outcome.value, _by(audit), extra=told(audit))

    def note(
        self, action: str, *, means: str, reason: str = "", target: str = "", after: Any = None,
        outcome: AuditOutcome = AuditOutcome.DONE,
    ) -> None:  # fmt: skip
        """Have it written that something was changed by no call of the API, such as by a file or a signal."""
        self._write_soon(
            Audit(
                at=self.now(), action=action, outcome=outcome, means=means, reason=reason, target=target, after=after
            )
        )  # fmt: skip

    def note_reload(self, why: str, found: dict[str, Any] | ConfigError) -> None:
        """Have it written how a reload went that no call asked for; of mistakes, where the first one is."""
        if isinstance(found, ConfigError):
            # Where, and not what: the text of a mistake may quote what stands there, secrets too.
            first, count = found.problems[0], len(found.problems)
            place = f"{first.file}:{first.line}" if first.line else first.file
            place = f"{place}: {first.path}" if first.path else place
            said = f"{why}: {place} is wrong" + (f", the first of {count} mistakes" if count > 1 else "")
            self.note("configuration reload", means=NO_CALL, reason=said, outcome=AuditOutcome.REFUSED)
        else:
            self.note("configuration reload", means=NO_CALL, reason=why, after=found)

    def refuse(self, audit: Audit) -> None:
        """Have a refusal written, with those that are alike."""
        self._counting.set()
        if (first := self._refusals.first(audit)) is not None:
            self._write_soon(first)

    def _close_minute(self) -> None:
        self._tell_untold()
        for audit in self._refusals.close():
            self._write_soon(audit)

    def _tell_untold(self) -> None:
        for audit in self._untold.close():
            self._tell_lost(audit)

    def _write_soon(self, audit: Audit) -> None:
        task = asyncio.get_running_loop().create_task(self.write(audit), name="audit")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def run(self) -> None:
        """Write and tell what was counted, a minute after the first of it."""
        while True:
            await self._counting.wait()
            await self._clock.sleep(COUNTED_FOR_S)
            self._counting = anyio.Event()
            self._close_minute()

    async def end(self) -> None:
        """Write what is left; the journal takes it still."""
        self._close_minute()
        if self._writing:
            await asyncio.wait(self._writing)
        self._tell_untold()

    async def page(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        """Return rows, the newest first; raise StoreUnavailable."""
        return await self._store.audit(which, limit=limit, before=before)

    async def chain(self) -> Chain:
        """Follow the whole chain; raise StoreUnavailable."""
        return await self._store.audit_chain()


def _asked_for(audit: Audit) -> str:
    """Return what was asked for, with what it was about in its place, where who asked is known."""
    places = len(_PLACEHOLDER.findall(audit.action))
    parts = iter([audit.target] if places == 1 else audit.target.split(","))
    if not audit.who or not audit.target or (places > 1 and places != audit.target.count(",") + 1):
        return audit.action
    return _PLACEHOLDER.sub(lambda _: next(parts), audit.action)


def _by(audit: Audit) -> str:
    if audit.who:
        return f"asked by {audit.who}"
    return "by no call" if audit.means == NO_CALL else "asked by somebody unknown"


def told(audit: Audit) -> dict[str, Any]:
    """Return a row as fields of a log record, without what was changed."""
    fields = {
        "request_id": audit.request, "who": audit.who, "role_of": audit.role, "means": audit.means,
        "address": audit.address, "target": audit.target, "status": audit.status, "code": audit.code,
        "reason": audit.reason, "count": audit.count,
    }  # fmt: skip
    return {"action": f"audit_{audit.outcome.value}", **{name: value for name, value in fields.items() if value}}
