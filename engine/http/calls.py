"""What the API's handlers are called with, and what they return besides a response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from msgspec import Struct

from engine.http.access import Role
from engine.http.operations import Operations
from engine.http.problems import Problem
from engine.ids import is_id, is_slug
from engine.plugin import Request, Response


class Call(Struct, frozen=True, kw_only=True):
    """One request to a route.

    - `parameters`: what stands in the path for the pattern's `{names}`.
    - `role`: None on public routes.
    - `gone`: tells whether the client has left or the engine is stopping; streams end then.
    """

    operations: Operations
    request: Request
    parameters: Mapping[str, str]
    role: Role | None
    gone: Callable[[], bool]

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


class Stream(Struct, frozen=True, kw_only=True):
    """An answer that is sent piece by piece, as it comes."""

    status: int = 200
    headers: Mapping[str, str] = {}
    chunks: AsyncIterator[bytes]


RouteHandler = Callable[..., Awaitable[Response | Stream]]
"""Called with the call, and with the forms that its parameters `query` and `body` are annotated with."""
