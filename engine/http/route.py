"""What the table of routes is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from engine.http.access import Role
from engine.http.calls import Call, RouteHandler, Stream
from engine.http.forms import Form, forms_of, read_body, read_query
from engine.plugin import Response

JSON: Any = dict[str, Any]
"""An answer of which no more is said than that it is an object."""


class Raw(Struct, frozen=True, kw_only=True):
    """A body that a handler reads by itself: its schemas by media type, and whether it may be left out."""

    content: Mapping[str, Mapping[str, Any]]
    optional: bool = False


class Media(Struct, frozen=True, kw_only=True):
    """An answer that is no JSON, by its media type."""

    kind: str
    what: str


class Route(Struct, frozen=True, kw_only=True):
    """One thing that can be asked for.

    - `pattern`: a path in which `{name}` stands for any one segment, and `{name*}`, at its end, for all that are left.
    - `role`: what is needed, None for nothing.
    - `gives`: the types of its answers by status: a TypedDict, a struct or another type that msgspec knows, a `Media`,
      or None for an answer without a body.
    - `takes`: the body, where the handler reads it by itself. What it asks for otherwise is in the annotations of its
      parameters `query` and `body` (see `engine.http.forms`).
    - `keyed`: how a POST honours an `Idempotency-Key`: the server keeps its answer, or the handler takes the key into
      the commit of what it does, so that nothing is done twice even where the engine dies before it could answer.
    """

    method: str
    pattern: str
    handler: RouteHandler
    role: Role | None
    summary: str
    gives: Mapping[int, Any] = field(default_factory=lambda: {200: JSON})
    takes: Raw | None = None
    keyed: Literal["kept", "by_handler"] = "kept"

    @property
    def query(self) -> type[Form] | None:
        """The form of its query, where it is not the handler that reads it."""
        return forms_of(self.handler).get("query")

    @property
    def body(self) -> type[Form] | None:
        """The form of its body, where it is not the handler that reads it."""
        return forms_of(self.handler).get("body")

    def answer(self, call: Call) -> Awaitable[Response | Stream]:
        """Read what the handler asks for, and have it answer; raise Problem where what was sent is wrong."""
        forms = forms_of(self.handler)
        if not forms:
            return self.handler(call)
        read: dict[str, Form] = {}
        for name, form in forms.items():
            read[name] = (read_query if name == "query" else read_body)(call.request, form)
        return self.handler(call, **read)
