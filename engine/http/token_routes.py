"""Routes about tokens. A secret is in the answer to who has it made, and nowhere else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from engine.http.calls import Call
from engine.http.fields import Fields, body, query
from engine.http.keyring import OVERLAP_S
from engine.http.pause_routes import performer
from engine.http.views import list_view
from engine.plugin import Response
from engine.tokens import LONGEST_DESCRIPTION, ROLES, Role, is_tag
from engine.units import parse_duration

MOST_TAGS = 32


async def list_tokens(call: Call) -> Response:
    """Answer with all tokens: what they may do, how they begin, and when they were used; no secret."""
    query(call.request).finish()
    return Response(body=list_view(call.operations.tokens.views(), None))


async def post_token(call: Call) -> Response:
    """Make a token, and answer with its secret, which is told this once."""
    query(call.request).finish()
    fields = body(call.request, ("name", "role", "tags", "expires_in", "expires_at", "description"))
    name, role, tags = fields.slug("name"), _role(fields), _tags(fields)
    if fields.value("name") is None:
        fields.fault("name", "name is required")
    expires_at, description = _end(call, fields), fields.text("description", longest=LONGEST_DESCRIPTION)
    fields.finish()
    assert name is not None  # noqa: S101 - it was seen to
    call.audit(what=name)
    secret = await call.operations.tokens.create(
        name, role, tags=tags, expires_at=expires_at, description=description or "", who=performer(call)
    )
    view = call.operations.tokens.view(name)
    return Response(status=201, body={**view, "token": secret}, headers={"Location": f"/api/v1/tokens/{name}"})


async def get_token(call: Call) -> Response:
    """Answer with one token, without its secret."""
    query(call.request).finish()
    return Response(body=call.operations.tokens.view(call.name("token")))


async def rotate_token(call: Call) -> Response:
    """Give a token another secret, and answer with it; the one it had stays valid for the overlap."""
    name = call.name("token")
    query(call.request).finish()
    fields = body(call.request, ("overlap",), optional=True)
    overlap_s = _overlap(fields)
    fields.finish()
    tokens = call.operations.tokens
    call.audit(before=tokens.view(name), after={"overlap_s": overlap_s})
    secret = await tokens.rotate(name, overlap_s=overlap_s)
    return Response(body={**tokens.view(name), "token": secret})


async def delete_token(call: Call) -> Response:
    """Revoke a token: it opens nothing from now on, nor do its sessions."""
    name = call.name("token")
    query(call.request).finish()
    tokens = call.operations.tokens
    call.audit(before=tokens.view(name))
    await tokens.revoke(name)
    return Response(status=204)


def _role(fields: Fields) -> Role:
    value = fields.value("role")
    if isinstance(value, str) and value in ROLES:
        return ROLES[value]
    fields.fault("role", f"role must be one of {', '.join(ROLES)}")
    return Role.VIEWER


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


def _end(call: Call, fields: Fields) -> datetime | None:
    expires_at, expires_in = fields.instant("expires_at"), fields.duration("expires_in")
    if "expires_at" in fields and "expires_in" in fields:
        fields.fault("expires_at", "a token has one end: expires_in or expires_at")
    if expires_in is None:
        return expires_at
    try:
        return call.operations.clock.now() + timedelta(seconds=expires_in)
    except OverflowError:
        fields.fault("expires_in", "that is out of range")
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
