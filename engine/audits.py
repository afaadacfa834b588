"""The audit log's rows: who had something done, or was refused, and the chain that shows where one was changed.

Each row is text (JSON), and has a hash of itself and of the hash of the row before: SHA-256 of that hash, the row's
number in eight bytes, and the text. Numbers begin at 1 and leave none out. Whoever changes, removes or moves a row
without writing all later ones anew is found out; whoever does write them anew is, by a hash that was noted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Protocol

import msgspec
from msgspec import Struct

FIRST = bytes(32)
"""Stands for the hash before the first row."""


UNREADABLE = "this row can't be read"


class AuditOutcome(StrEnum):
    """What became of what was asked for."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Audit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row: who asked for what, from where, and what came of it.

    - `at`: microseconds since 1970, UTC. `request`: the id under which the log tells of it.
    - `who role means prefix`: what is proved of who asked; empty where nothing is. `claims`: what it says of itself,
      and may be a lie.
    - `action`: the method and the pattern of the path, or the command; `target`: what it was about.
    - `status code`: the answer, where it was refused or failed; `count`: how many alike the row stands for.
    - `reason`: why, as the caller gives it, or as it is told why not.
    - `before after`: what was changed, as JSON; secrets are masked.
    """

    at: int
    action: str
    outcome: AuditOutcome
    who: str = ""
    role: str = ""
    means: str = ""
    prefix: str = ""
    address: str = ""
    request: str = ""
    target: str = ""
    status: int = 0
    code: str = ""
    reason: str = ""
    count: int = 1
    claims: dict[str, str] = {}
    before: Any = None
    after: Any = None


class AuditRow(Struct, frozen=True, kw_only=True):
    """A row as it is stored: its number, its text, and its hash."""

    seq: int
    text: str
    hash: bytes

    @property
    def audit(self) -> Audit:
        """What it tells; a text that somebody broke is told as it is."""
        try:
            return read(self.text)
        except msgspec.MsgspecError:
            return Audit(at=0, action=UNREADABLE, outcome=AuditOutcome.FAILED, after=self.text)


class AuditFilter(Struct, frozen=True, kw_only=True):
    """Which rows a list holds; what is None does not restrict. `start` and `end` are `at` of rows, the latter not."""

    who: str | None = None
    action: str | None = None
    target: str | None = None
    outcome: AuditOutcome | None = None
    start: datetime | None = None
    end: datetime | None = None


class Chain(Struct, frozen=True, kw_only=True):
    """What a look at the whole log found: how many rows there are, the last hash, and what is wrong, in words."""

    rows: int
    head: bytes
    wrong: str | None = None

    def check(self) -> dict[str, Any]:
        """Return it as one of doctor's checks."""
        detail = self.wrong or (f"{self.rows} rows, the last is {self.head.hex()[:16]}" if self.rows else "empty")
        return {"name": "audit", "ok": self.wrong is None, "detail": detail}


class Note(Protocol):
    """What a call leaves in the log with the first change that it makes."""

    def take(self, carrier: Any) -> Audit | None:
        """Return the row, once; `carrier` is the future of the change that it is stored with."""
        ...


NOTING: ContextVar[Note | None] = ContextVar("engine_audit", default=None)
"""The note of the call that is being answered. The journal asks for it, so that a change and its row are one commit,
whichever organ makes the change."""


@contextmanager
def beside() -> Iterator[None]:
    """Have what is stored in this block not be what the call changes, such as that it was refused."""
    before = NOTING.set(None)
    try:
        yield
    finally:
        NOTING.reset(before)


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Audit)


def text_of(audit: Audit) -> str:
    """Return a row's text: one line, and ASCII controls are escaped in it, as in all JSON."""
    return _encoder.encode(audit).decode()


def read(text: str) -> Audit:
    """Return what a row tells; raise msgspec.DecodeError where the text is none."""
    return _decoder.decode(text)


def linked(before: bytes, seq: int, text: str) -> bytes:
    """Return the hash of a row after one with the hash `before`."""
    return sha256(before + seq.to_bytes(8, "big") + text.encode("utf-8", "surrogateescape")).digest()


def verify(rows: Iterable[AuditRow], head: tuple[int, bytes] | None) -> Chain:
    """Follow the chain from the first row; `head` is what the store says of the last one.

    Stops at the first row that is not what it was.
    """
    seq, before = 0, FIRST
    for row in rows:
        seq += 1
        if row.seq != seq:
            if row.seq < seq:
                return Chain(rows=seq - 1, head=before, wrong=f"there is a row with the number {row.seq}")
            gone = f"row {seq} is gone" if row.seq == seq + 1 else f"rows {seq} to {row.seq - 1} are gone"
            return Chain(rows=seq - 1, head=before, wrong=f"{gone}: the next one has the number {row.seq}")
        if linked(before, seq, row.text) != row.hash:
            return Chain(rows=seq - 1, head=before, wrong=f"row {seq} is not what was written, or follows another one")
        before = row.hash
    last, known = (0, FIRST) if head is None else head
    if last > seq:
        gone = f"row {last} is gone" if last == seq + 1 else f"rows {seq + 1} to {last} are gone"
        return Chain(rows=seq, head=before, wrong=f"{gone}: the end was cut off")
    if (last, known) != (seq, before):
        return Chain(rows=seq, head=before, wrong=f"the log ends with row {seq}, and by its head with {last}")
    return Chain(rows=seq, head=before)
