"""What a handler says of itself beside its annotations: its answers, and how it takes what is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from msgspec import Struct

Handler = TypeVar("Handler", bound=Callable[..., Any])

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


class Description(Struct, frozen=True, kw_only=True):
    """What a handler says of itself.

    - `gives`: the types of its answers by status: a TypedDict, a struct or another type that msgspec knows, a tuple
      of such of which one comes, a `Media`, or None for an answer without a body.
    - `problems`: the statuses of problems that are its own; those that many routes have are not named.
    - `takes`: the body, where the handler reads it by itself. What it asks for otherwise is in the annotations of its
      parameters `query` and `body` (see `engine.http.forms`).
    - `query`: a form of the query of a handler that reads it by itself.
    - `keyed`: how a POST honours an `Idempotency-Key`: the server keeps its answer, or the handler takes the key into
      the commit of what it does, so that nothing is done twice even where the engine dies before it could answer. An
      answer that holds a secret is kept `in_memory` alone.
    - `example`: a body that could be sent. `headers`: those that it reads, beside the ones that all have.
    """

    gives: Mapping[int, Any]
    problems: tuple[int, ...] = ()
    takes: Raw | None = None
    query: Any = None
    keyed: Literal["kept", "by_handler", "in_memory"] = "kept"
    example: Any = None
    headers: tuple[str, ...] = ()


PLAIN = Description(gives={200: JSON})
_NAME = "described"


def described(
    gives: Mapping[int, Any], *, problems: tuple[int, ...] = (), takes: Raw | None = None, query: Any = None,
    keyed: Literal["kept", "by_handler", "in_memory"] = "kept", example: Any = None, headers: tuple[str, ...] = (),
) -> Callable[[Handler], Handler]:  # fmt: skip
    """Describe a handler; see `Description`."""
    description = Description(
        gives=gives, problems=problems, takes=takes, query=query, keyed=keyed, example=example,
        headers=headers,
    )  # fmt: skip

    def describe(handler: Handler) -> Handler:
        setattr(handler, _NAME, description)
        return handler

    return describe


def description_of(handler: Callable[..., Any]) -> Description:
    """Return what a handler says of itself; where it says nothing, that it answers 200 with an object."""
    found: Description = getattr(handler, _NAME, PLAIN)
    return found
