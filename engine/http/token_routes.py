"""Routes about tokens. A secret is in the answer to who has it made, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from msgspec import Struct, field

from engine.http import shapes, surroundings
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.fields import Fields, refuse
from engine.http.forms import Form, Nothing
from engine.http.keyring import OVERLAP_S
from engine.http.kinds import Instant, Line, OneOf, Schema, Slug, Span
from engine.http.views import list_view
from engine.plugin import Response
from engine.tokens import LONGEST_DESCRIPTION, ROLES, is_tag
from engine.units import parse_duration

MOST_TAGS = 32


class Tags(Struct, frozen=True):
    """The tags that a token is for."""

    @property
    def schema(self) -> Schema:
        return {"type": "array", "minItems": 1, "maxItems": MOST_TAGS, "items": Line(128).schema}

    def read(self, fields: Fields, name: str) -> tuple[str, ...] | None:
        return _tags(fields) or None


class Overlap(Struct, frozen=True):
    """For how long the secret before stays valid: unlike other durations it may be nothing."""

    @property
    def schema(self) -> Schema:
        return Span().schema

    def read(self, fields: Fields, name: str) -> float | None:
        return _overlap(fields)


class Minting(Form, frozen=True, kw_only=True):
    """A token that is to be made."""

    name: Annotated[str, Slug()]
    role: Annotated[str, OneOf(tuple(ROLES))]
    tags: Annotated[tuple[str, ...], Tags(), "It sees triggers and jobs with one of them alone"] = ()
    expires_in_s: Annotated[float | None, Span()] = field(name="expires_in", default=None)
    expires_at: Annotated[datetime | None, Instant()] = None
    description: Annotated[str, Line(LONGEST_DESCRIPTION)] = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.expires_at is not None and self.expires_in_s is not None:
            yield "expires_at", "a token has one end: expires_in or expires_at"


class Rotating(Form, frozen=True, kw_only=True):
    """For how long the secret that a token had stays valid."""

    optional: ClassVar[bool] = True

    overlap_s: Annotated[float, Overlap()] = field(name="overlap", default=OVERLAP_S)


@described({200: shapes.Page[surroundings.TokenOf]})
async def list_tokens(call: Call, query: Nothing) -> Response:
    """Answer with all tokens: what they may do, how they begin, and when they were used; no secret."""
    return Response(body=list_view(call.operations.tokens.views(), None))


@described(
    {201: surroundings.MintedToken}, keyed="in_memory",
    example={"name": "dashboard", "role": "viewer", "expires_in": "90d"},
)  # fmt: skip
async def post_token(call: Call, query: Nothing, body: Minting) -> Response:
    """Make a token, and answer with its secret, which is told this once."""
    call.audit(what=body.name)
    secret = await call.operations.tokens.create(
        body.name, ROLES[body.role], tags=body.tags, expires_at=_end(call, body), description=body.description,
        who=performer(call),
    )  # fmt: skip
    view = call.operations.tokens.view(body.name)
    return Response(status=201, body={**view, "token": secret}, headers={"Location": f"/api/v1/tokens/{body.name}"})


@described({200: surroundings.TokenOf})
async def get_token(call: Call, query: Nothing) -> Response:
    """Answer with one token, without its secret."""
    return Response(body=call.operations.tokens.view(call.name("token")))


@described({200: surroundings.MintedToken}, keyed="in_memory")
async def rotate_token(call: Call, query: Nothing, body: Rotating) -> Response:
    """Give a token another secret, and answer with it; the one it had stays valid for the overlap."""
    name, tokens = call.name("token"), call.operations.tokens
    call.audit(before=tokens.view(name), after={"overlap_s": body.overlap_s})
    secret = await tokens.rotate(name, overlap_s=body.overlap_s)
    return Response(body={**tokens.view(name), "token": secret})


@described({204: None})
async def delete_token(call: Call, query: Nothing) -> Response:
    """Revoke a token: it opens nothing from now on, nor do its sessions."""
    name = call.name("token")
    tokens = call.operations.tokens
    call.audit(before=tokens.view(name))
    await tokens.revoke(name)
    return Response(status=204)


def _tags(fields: Fields) -> tuple[str, ...]:
    value: Any = fields.value("tags")
    if value is None:
        return ()
    if not isinstance(value, list) or not value or len(value) > MOST_TAGS:
        # An empty list could be taken for nothing, and would be everything.
        fields.fault("tags", f"tags must be a list of 1 to {MOST_TAGS} tags; without it the token sees everything")
        return ()
    if not all(isinstance(tag, str) and is_tag(tag) for tag in value):
        fields.fault("tags", "a tag is text of 1 to 128 characters without control characters")
        return ()
    return tuple(dict.fromkeys(value))


def _end(call: Call, body: Minting) -> datetime | None:
    if body.expires_in_s is None:
        return body.expires_at
    try:
        return call.operations.clock.now() + timedelta(seconds=body.expires_in_s)
    except OverflowError:
        refuse([{"pointer": "#/expires_in", "detail": "that is out of range"}])
        return None


def _overlap(fields: Fields) -> float:
    """Return an overlap in seconds: unlike other durations it may be nothing."""
    value = fields.value("overlap")
    if value is None:
        return OVERLAP_S
    try:
        return parse_duration(value) if isinstance(value, str) else float("nan")
    except ValueError:
        pass
    fields.fault("overlap", 'overlap must be a duration, such as "1h" or "0s"')
    return OVERLAP_S
