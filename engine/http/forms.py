"""Forms: what the members of a body, or the parameters of a query, are; read with all mistakes at once.

A form is a struct whose fields name their kinds (`engine.http.kinds`). A handler asks for one by its annotation:

    async def pause(call: Call, body: Pausing) -> Response

and gets what was sent, read and checked. The description of the API is made from the same structs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from engine.http.fields import Fields
from engine.http.fields import body as body_fields
from engine.http.fields import query as query_fields
from engine.http.kinds import Kind, Schema
from engine.plugin import Request


class Form(Struct, frozen=True, kw_only=True):
    """What a caller may send. A field without a default has to be given.

    `optional`: whether the whole body may be left out.
    """

    optional: ClassVar[bool] = False

    def mistakes(self) -> Iterable[tuple[str, str]]:
        """Yield what is wrong with members together: the name of one of them, and what is the matter."""
        return ()


class Nothing(Form, frozen=True, kw_only=True):
    """Nothing may be sent: no parameters in the query, or an empty object as body."""

    optional: ClassVar[bool] = True


class Member(Struct, frozen=True, kw_only=True):
    """One field of a form. `may_lack`: it is None where it is not given."""

    attribute: str
    name: str
    kind: Kind
    required: bool
    may_lack: bool
    default: Any
    description: str


FormType = TypeVar("FormType", bound=Form)


@cache
def members_of(form: type[Form]) -> tuple[Member, ...]:
    """Return the fields of a form, as they are read; raise TypeError where one names no kind."""
    hints = get_type_hints(form, include_extras=True)
    return tuple(_member(form, one, hints[one.name]) for one in fields(form))


def _member(form: type[Form], one: FieldInfo, hint: Any) -> Member:
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    kinds = [extra for extra in extras if hasattr(extra, "read")]
    if len(kinds) != 1:
        raise TypeError(f"{form.__name__}.{one.name} names no kind")
    return Member(
        attribute=one.name, name=one.encode_name, kind=kinds[0], required=one.required,
        may_lack=one.default is None, default=None if one.default is NODEFAULT else one.default,
        description=next((extra for extra in extras if isinstance(extra, str)), ""),
    )  # fmt: skip


def read_query(request: Request, form: type[FormType]) -> FormType:
    """Return the parameters of a query; raise Problem 422 with all that is wrong."""
    members = members_of(form)
    return _read(query_fields(request, *[one.name for one in members]), form)


def read_body(request: Request, form: type[FormType]) -> FormType:
    """Return the members of a body; raise Problem 422 with all that is wrong, and as `fields.body` does."""
    members = members_of(form)
    return _read(body_fields(request, [one.name for one in members], optional=form.optional), form)


def _read(given: Fields, form: type[FormType]) -> FormType:
    sent = read_members(given, form)
    given.finish()
    assert sent is not None  # noqa: S101 - finish has raised
    return sent


def read_members(given: Fields, form: type[FormType]) -> FormType | None:
    """Return a form of the members of an object; None where something is wrong, which is noted in `given`."""
    values: dict[str, Any] = {}
    there = given.there
    for member in members_of(form):
        if member.may_lack and member.name not in there:
            continue  # as most do
        value = member.kind.read(given, member.name)
        if value is not None:
            values[member.attribute] = value
        elif member.required and given.value(member.name) is None:
            given.fault(member.name, f"{member.name} is required")
    if given.errors:
        return None
    sent = form(**values)
    for name, detail in sent.mistakes():
        given.fault(name, detail)
    return None if given.errors else sent


@cache
def forms_of(handler: Callable[..., Any]) -> Mapping[str, type[Form]]:
    """Return the forms that a handler asks for, by the names of its parameters: `query` and `body`."""
    names = [*inspect.signature(handler).parameters][1:]
    hints = get_type_hints(handler)
    for name in names:
        if name not in ("query", "body") or not issubclass(hints[name], Form):
            raise TypeError(f"{handler.__qualname__} asks for {name}, which is no form of a query or a body")
    return {name: hints[name] for name in names}


def schema_of(form: type[Form]) -> dict[str, Any]:
    """Return the JSON Schema of a form as a body."""
    members = members_of(form)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {one.name: _described(one) for one in members},
        "additionalProperties": False,
    }
    if required := [one.name for one in members if one.required]:
        schema["required"] = required
    if form.__doc__:
        schema["description"] = inspect.cleandoc(form.__doc__)
    return schema


def parameters_of(form: type[Form]) -> list[dict[str, Any]]:
    """Return the parameters of a form as a query, as OpenAPI writes them."""
    return [
        {
            "name": one.name, "in": "query", "required": one.required, "schema": dict(one.kind.schema),
            **({"description": one.description} if one.description else {}),
        }
        for one in members_of(form)
    ]  # fmt: skip


def _described(member: Member) -> Schema:
    schema = dict(member.kind.schema)
    if not member.required:
        schema = _or_null(schema)
    if member.description:
        schema["description"] = member.description
    if isinstance(member.default, (str, int)):
        schema["default"] = member.default
    return schema


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that lets null pass, too: a member that is null is one that is not given."""
    if not schema:
        return schema
    if isinstance(schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
