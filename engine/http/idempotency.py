"""`Idempotency-Key`: a POST that is sent again gets the answer of the first time (draft-ietf-httpapi-idempotency-key).

What was done and answered with success is kept, durably, by who asked for what with which key. Refusals are not:
nothing was done. Routes that are `by_handler` take the key into the commit of what they do; here it is only seen to
that two requests with one key don't go side by side. What is `in_memory` holds secrets, and is on no disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from engine.errors import StoreUnavailable
from engine.http.calls import Call, Stream
from engine.http.fields import idempotency_key
from engine.http.operations import ReplyOperations
from engine.http.problems import Problem
from engine.http.route import Route
from engine.plugin import Response, encode_json
from engine.tokens import Who

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}
LARGEST_BODY_BYTES = 256 * 1024
MOST_IN_MEMORY = 100

log = logging.getLogger("engine.http")


class Idempotency:
    """Has each keyed request be done once."""

    def __init__(self) -> None:
        self._going: dict[str, str] = {}
        self._secret: dict[str, tuple[str, Response]] = {}

    async def once(self, call: Call, route: Route, who: Who) -> Response | Stream:
        """Answer a POST with a key. Raises Problem 409 while the first is in progress, 422 for another body, 429."""
        key = idempotency_key(call.request.headers)
        asked = call.request
        place = _digest(*_caller(who), asked.path, encode_json(sorted(asked.query.items())), key or "")
        request = _digest(asked.headers.get("Content-Type", ""), asked.body)
        if (going := self._going.get(place)) is not None:
            if going != request:
                raise key_reused()
            detail = "a request with this Idempotency-Key is in progress"
            raise Problem(409, detail, code="in_progress", headers={"Retry-After": "1"})
        self._going[place] = request
        try:
            return await self._way(route)(call, route, place, request)
        finally:
            del self._going[place]

    def _way(self, route: Route) -> Callable[[Call, Route, str, str], Awaitable[Response | Stream]]:
        return {"by_handler": self._plainly, "in_memory": self._secretly, "kept": self._durably}[
            route.description.keyed
        ]

    async def _plainly(self, call: Call, route: Route, place: str, request: str) -> Response | Stream:
        return await route.answer(call)

    async def _secretly(self, call: Call, route: Route, place: str, request: str) -> Response | Stream:
        known = self._secret.get(place)
        if known is not None:
            if known[0] != request:
                raise key_reused()
            return _again(known[1].status, known[1].body, dict(known[1].headers or {}))
        answer = await route.answer(call)
        if isinstance(answer, Response):
            self._secret[place] = (request, answer)
            while len(self._secret) > MOST_IN_MEMORY:
                del self._secret[next(iter(self._secret))]
        return answer

    async def _durably(self, call: Call, route: Route, place: str, request: str) -> Response | Stream:
        replies: ReplyOperations = call.operations.replies
        known = await replies.find(place)
        if known is not None:
            if known.request != request:
                raise key_reused()
            return _again(known.status, known.body, known.headers)
        if replies.full():
            detail = "too many answers are kept for their Idempotency-Keys; leave it out"
            raise Problem(429, detail, code="too_many_keys", headers={"Retry-After": "3600"})
        answer = await route.answer(call)
        if isinstance(answer, Response) and answer.status < 400 and not isinstance(answer.body, bytes):
            await _keep(replies, place, request, answer)
        return answer


def request_id_of(call: Call, place: str) -> str | None:
    """Return what a request's key is in the commit of what it asks for; None where it has none.

    Keys of other callers, and for other places, are other ones, though they read the same.
    """
    key = idempotency_key(call.request.headers)
    if key is None:
        return None
    who = () if call.who is None else _caller(call.who)
    return f"{key} ({_digest(*who, place, key)[:32]})"


async def _keep(replies: ReplyOperations, place: str, request: str, answer: Response) -> None:
    """Keep an answer. Where that can't be, what was asked for is done all the same, and so it is answered."""
    body, headers = answer.body, dict(answer.headers or {})
    if len(encode_json(body)) > LARGEST_BODY_BYTES:
        body = None
    try:
        await replies.keep(place, request=request, status=answer.status, headers=headers, body=body)
    except StoreUnavailable as error:
        log.warning(
            "An answer can't be kept for its Idempotency-Key: %s", error, extra={"action": "reply_not_kept"}
        )  # fmt: skip


def _again(status: int, body: Any, headers: dict[str, str]) -> Response:
    return Response(status=status, body=body, headers={**headers, **REPLAYED})


def key_reused() -> Problem:
    """Return the problem that a key was used for something else before."""
    return Problem(422, "this Idempotency-Key was used for a request with another body", code="key_reused")


def _caller(who: Who) -> tuple[str, str]:
    """Return what tells who asks from everybody else, also from a user, or a later token, of the same name.

    A token that sees less than one before it is not given what that one was answered.
    """
    return f"{'user' if who.means == 'proxy' else 'token'}:{who.name}", encode_json(sorted(who.tags)).decode()


def _digest(*parts: str | bytes) -> str:
    found = sha256()
    for part in parts:
        piece = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        found.update(len(piece).to_bytes(8, "big") + piece)
    return found.hexdigest()
