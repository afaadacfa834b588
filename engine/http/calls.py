"""What the API's handlers are called with, and what they return besides a response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from engine.http.access import Gate, Role
from engine.http.claims import CREATED_BY, PERFORMED_BY, claim
from engine.http.operations import Operations
from engine.http.problems import Problem
from engine.http.witness import CallNote
from engine.ids import is_id, is_slug
from engine.plugin import Request, Response
from engine.tokens import FOR, Who


class Call(Struct, frozen=True, kw_only=True):
    """One request to a route.

    - `parameters`: what stands in the path for the pattern's `{names}`.
    - `role`: None on public routes where nobody is known.
    - `who`: who asks, as far as it is proved; on public routes by a session alone, and else None.
    - `note`: what it leaves in the audit log; see `audit`.
    - `gate`: what lets callers in, for those who begin and end sessions.
    - `gone`: tells whether the client has left or the engine is stopping; streams end then.
    """

    operations: Operations
    request: Request
    parameters: Mapping[str, str]
    role: Role | None
    who: Who | None
    gate: Gate
    note: CallNote | None = None
    gone: Callable[[], bool]

    def audit(
        self, *, before: Any = None, after: Any = None, what: str | None = None, reason: str | None = None,
        who: Who | None = None,
    ) -> None:  # fmt: skip
        """Say what the audit log can't tell from the request, before the call makes its first change.

        - `before`, `after`: what it changes, as JSON; secrets are masked. `after` is else what was sent.
        - `what`: what it is about, where that does not stand in the path. `reason`: why.
        """
        note = self.note
        if note is None:
            return
        note.before = before if before is not None else note.before
        note.after = after if after is not None else note.after
        note.what, note.reason, note.who = what or note.what, reason or note.reason, who or note.who

    def id(self, what: str) -> str:
        """Return the id in the path; raise Problem 404 where it can't be the id of a `what`."""
        value = self.parameters["id"]
        if not is_id(value):
            raise Problem(404, f"there is no {what} of that id")
        return value

    def name(self, what: str) -> str:
        """Return the name in the path; raise Problem 404 where it can't be the name of a `what`."""
        value = self.parameters["name"]
        if not is_slug(value):
            raise Problem(404, f"there is no {what} of that name")
        return value


def performer(call: Call) -> str:
    """Return who asks: the token or the user, and on whose behalf where the caller says so."""
    return _said(call, claim(call.request.headers, PERFORMED_BY))


def creator(call: Call) -> str:
    """Return who defines something: who asks, and for whom where the caller says so."""
    headers = call.request.headers
    return _said(call, claim(headers, CREATED_BY) or claim(headers, PERFORMED_BY))


def _said(call: Call, claimed: str | None) -> str:
    owner = "nobody" if call.who is None else call.who.said()
    return owner if claimed is None else f"{owner}{FOR}{claimed}"


class Stream(Struct, frozen=True, kw_only=True):
    """An answer that is sent piece by piece, as it comes."""

    status: int = 200
    headers: Mapping[str, str] = {}
    chunks: AsyncIterator[bytes]


RouteHandler = Callable[..., Awaitable[Response | Stream]]
"""Called with the call, and with the forms that its parameters `query` and `body` are annotated with."""
