"""What the table of routes is made of."""

from __future__ import annotations

from collections.abc import Awaitable

from msgspec import Struct

from engine.http.access import Role
from engine.http.calls import Call, RouteHandler, Stream
from engine.http.described import Description, description_of
from engine.http.forms import Form, forms_of, read_body, read_query
from engine.plugin import Response


class Route(Struct, frozen=True, kw_only=True):
    """One thing that can be asked for.

    `pattern` is a path in which `{name}` stands for any one segment, and `{name*}` for several; `role` what is needed,
    None for nothing. What is taken and given is said by the handler: the forms in its annotations
    (`engine.http.forms`), and its description (`engine.http.described`).
    """

    method: str
    pattern: str
    handler: RouteHandler
    role: Role | None
    summary: str

    @property
    def description(self) -> Description:
        """What the handler says of itself."""
        return description_of(self.handler)

    def answer(self, call: Call) -> Awaitable[Response | Stream]:
        """Read what the handler asks for, and have it answer; raise Problem where what was sent is wrong."""
        forms = forms_of(self.handler)
        if not forms:
            return self.handler(call)
        read: dict[str, Form] = {}
        for name, form in forms.items():
            read[name] = (read_query if name == "query" else read_body)(call.request, form)
        return self.handler(call, **read)
