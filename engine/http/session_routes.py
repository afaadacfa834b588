"""Routes of the session: a browser begins one with a token, and ends it."""

from __future__ import annotations

from urllib.parse import parse_qsl

from engine.http import shapes
from engine.http.access import REALM
from engine.http.calls import Call
from engine.http.described import Raw, described
from engine.http.fields import Fields, body, media_type, query
from engine.http.problems import Problem
from engine.http.sessions import COOKIE, LONGEST_S, cookie_in
from engine.plugin import Response

FORM = "application/x-www-form-urlencoded"

_LONGEST_TOKEN = 4096
_LONGEST_NEXT = 2048
_LONGEST_FORM_BYTES = 16 * 1024


PROBLEMS = (400, 401, 403, 404, 422, 429)
"""Of what begins or ends a session."""

_TOKEN = {"type": "string", "minLength": 1, "maxLength": _LONGEST_TOKEN}
_ENTERING = {
    "type": "object", "properties": {"token": _TOKEN, "next": {"type": ["string", "null"]}}, "required": ["token"],
    "additionalProperties": False,
}  # fmt: skip
ENTRY = Raw(content={"application/json": _ENTERING, FORM: _ENTERING})
"""A token, and the path to go on to, as the description tells of it."""


@described({200: shapes.Person, 303: None}, problems=PROBLEMS, takes=ENTRY)
async def post_session(call: Call) -> Response:
    """Begin a session with a token; a form is sent on to `next`, JSON gets who it is."""
    query(call.request).finish()
    is_form = call.request.headers.get("Content-Type", "").lower().startswith(FORM)
    fields = _form(call) if is_form else body(call.request, ("token", "next"))
    token = fields.text("token", longest=_LONGEST_TOKEN, required=True)
    following = _next(fields)
    fields.finish()
    who, secret = call.gate.enter(token or "", call.request.remote)
    call.audit(who=who)
    headers = {"Set-Cookie": _set(call, call.gate.sessions.begin(secret))}
    if is_form:
        return Response(status=303, headers={**headers, "Location": following or "/"})
    return Response(body={"name": who.name, "role": who.role.word, "tags": list(who.tags)}, headers=headers)


@described({200: shapes.PersonBy}, problems=(400, 401, 403, 422))
async def get_session(call: Call) -> Response:
    """Say who asks, by whatever means."""
    query(call.request).finish()
    who = call.who
    if who is None:
        headers = {"WWW-Authenticate": REALM}
        raise Problem(401, "there is no session: POST /session begins one", headers=headers)
    return Response(
        body={"name": who.name, "role": who.role.word, "tags": list(who.tags), "means": who.means}
    )  # fmt: skip


@described({204: None}, problems=PROBLEMS)
async def delete_session(call: Call) -> Response:
    """End the session, if there is one."""
    query(call.request).finish()
    return Response(status=204, headers=_ended(call))


@described({303: None}, problems=PROBLEMS)
async def end_session(call: Call) -> Response:
    """End the session as a form asks for it, and send the browser to the first page."""
    query(call.request).finish()
    return Response(status=303, headers={**_ended(call), "Location": "/"})


def _ended(call: Call) -> dict[str, str]:
    cookie = cookie_in(call.request.headers)
    if cookie is not None:
        call.gate.sessions.end(cookie)
    return {"Set-Cookie": _set(call, "", age_s=0)}


def _set(call: Call, value: str, age_s: float = LONGEST_S) -> str:
    secure = "; Secure" if call.gate.is_encrypted(call.request.headers) else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={age_s:.0f}; HttpOnly; SameSite=Strict{secure}"


def _form(call: Call) -> Fields:
    media_type(call.request.headers, (FORM,))
    content = call.request.body
    if len(content) > _LONGEST_FORM_BYTES:
        raise Problem(413, "the form is too large", code="too_large")
    try:
        pairs = parse_qsl(content.decode(), keep_blank_values=True, errors="strict", max_num_fields=10)
    except ValueError:
        raise Problem(422, "the body is no form", code="invalid_fields") from None
    return Fields(dict(pairs), ("token", "next"))


def _next(fields: Fields) -> str | None:
    """Return the path to go on to: one of this site alone, or the form would send people wherever a link says."""
    value = fields.text("next", longest=_LONGEST_NEXT)
    if value is None:
        return None
    if not value.startswith("/") or value[1:2] in ("/", "\\") or not value.isascii() or not value.isprintable():
        fields.fault("next", "next must be a path of this site, such as /runs")
        return None
    return value
