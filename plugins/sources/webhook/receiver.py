"""What is done with each request: prove, read, emit, answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from msgspec import Raw, Struct
from msgspec.structs import replace

from engine.plugin import (
    LONGEST_WAIT_S,
    RESERVED_PREFIX,
    Accepted,
    Event,
    ExpressionError,
    InvalidEvent,
    Refusal,
    Request,
    Response,
    SourceContext,
    StoreUnavailable,
    encode_json,
    is_binary,
    parse_duration,
    parse_json,
    permitted,
    waited_view,
)
from plugins.sources.webhook.bodies import (
    FROM_QUERY,
    Content,
    Kind,
    inflated,
    kind_of,
    query_as_data,
    read_content,
    refused,
    with_files,
)
from plugins.sources.webhook.cloud import read_cloud_events
from plugins.sources.webhook.files import keep, without_paths
from plugins.sources.webhook.guard import guard_of, headers_of
from plugins.sources.webhook.rate import Quota
from plugins.sources.webhook.respond import Respond, Responder
from plugins.sources.webhook.sites import is_from_another_site
from plugins.sources.webhook.texts import to_unicode
from plugins.sources.webhook.vendors import answer_challenge, identify_by
from plugins.sources.webhook.verify import Verify, is_timed, signs_bodies

WAIT = "wait"
"""The parameter of the query by which a sender asks to be answered when the runs have ended."""

GZIP = frozenset({"gzip", "x-gzip"})
LONGEST_KEY = 255
RETRY_AFTER_S = 5
"""What a sender is told to wait when the store can't take its event."""

_NOTHING_TOLD: dict[str, Any] = {}
_EVENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}\Z")
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?\Z")

_CONFIDENTIAL = frozenset(
    "authorization proxy-authorization cookie x-api-key x-auth-token x-csrf-token x-webhook-token "
    "x-gitlab-token x-hub-signature x-hub-signature-256 x-signature x-webhook-signature webhook-signature "
    "svix-signature stripe-signature x-slack-signature x-twilio-signature x-shopify-hmac-sha256".split()
)
"""Header fields that prove who sends, and so are kept from expressions."""


class Hook(Protocol):
    """The settings of a webhook, as far as they concern what is done with its requests."""

    @property
    def path(self) -> str: ...

    @property
    def verify(self) -> Literal["none"] | Verify: ...

    @property
    def allow(self) -> tuple[str, ...]: ...

    @property
    def methods(self) -> tuple[str, ...]: ...

    @property
    def bodies(self) -> tuple[Kind, ...]: ...

    @property
    def json_field(self) -> str | None: ...

    @property
    def gzip(self) -> bool: ...

    @property
    def origins(self) -> tuple[str, ...]: ...

    @property
    def rate(self) -> str | None: ...

    @property
    def respond(self) -> Respond | None: ...


class Taken(Struct, frozen=True, kw_only=True):
    """The events of a request that are durable, and what was answered for each."""

    events: Sequence[Event]
    accepted: Sequence[Accepted]
    batch: bool = False


class Receiver:
    """Answers the requests of one webhook. All that settings decide is decided when it is made."""

    __slots__ = (
        "_challenged",
        "_codings",
        "_context",
        "_going",
        "_guard",
        "_hidden",
        "_identify",
        "_json_field",
        "_kinds",
        "_methods",
        "_open",
        "_origins",
        "_path",
        "_quota",
        "_responder",
        "_signed",
        "_timed",
        "_type",
    )  # fmt: skip

    def __init__(self, hook: Hook, context: SourceContext) -> None:
        self._context = context
        self._path = hook.path
        self._type = f"webhook.{hook.path.replace('/', '.')}"
        self._hidden = _CONFIDENTIAL | headers_of(hook.verify)
        self._guard = guard_of(hook.verify, hook.allow, context.clock)
        self._identify = identify_by(hook.verify)
        self._challenged = isinstance(hook.verify, Verify) and hook.verify.slack is not None
        self._open = hook.verify == "none"
        self._signed = signs_bodies(hook.verify)
        self._timed = isinstance(hook.verify, Verify) and is_timed(hook.verify)
        self._methods = frozenset(hook.methods)
        self._kinds = frozenset(hook.bodies)
        self._json_field = hook.json_field
        self._codings = GZIP if hook.gzip else frozenset[str]()
        self._origins = hook.origins
        self._quota = None if hook.rate is None else Quota(hook.rate, context.clock)
        self._responder = None if hook.respond is None else Responder(hook.respond)
        self._going: set[str] = set()

    async def __call__(self, request: Request) -> Response:
        """Take one request: prove, read, emit, answer. Raises Refusal for all that is not accepted."""
        if self._guard is not None:
            self._guard.check(request)
        if self._open and is_from_another_site(request.headers):
            raise refused(403, "The request was sent by a page of another site.")
        if request.method not in self._methods:
            methods = sorted(self._methods)
            raise refused(405, f"Send {' or '.join(methods)}.", {"Allow": ", ".join(methods)})
        if self._challenged and (answer := answer_challenge(request)) is not None:
            return answer
        if self._quota is not None and (wait_s := self._quota.take()):
            raise refused(429, "There were too many requests.", {**self._quota.headers(), "Retry-After": str(wait_s)})
        within_s = _wait_s(request.query[WAIT]) if WAIT in request.query else None
        coding = request.headers.get("Content-Encoding")
        try:
            if coding is not None and coding.strip().lower() != "identity":
                request = self._unpacked(request, coding)
            taken = await self._take(request)
        except InvalidEvent as error:
            raise refused(error.status, str(error)) from None
        except StoreUnavailable:
            raise _away("The event can't be stored now, and was not taken. Send it again later.") from None
        answer = await self._answer(taken, within_s)
        if self._quota is None:
            return answer
        return Response(status=answer.status, body=answer.body, headers={**answer.headers, **self._quota.headers()})

    async def permit(self, request: Request) -> Response:
        """Answer the handshake of CloudEvents: who asks whether it may deliver here is told."""
        allow = ", ".join(sorted({*self._methods, "OPTIONS"}))
        return Response(status=204, headers={"Allow": allow, **permitted(request.headers, self._origins)})

    def _unpacked(self, request: Request, coding: str) -> Request:
        if coding.strip().lower() not in self._codings:
            raise refused(415, "The body has a Content-Encoding that is not taken. Send it as it is.")
        return replace(request, body=inflated(request.body, self._context.max_data))

    async def _take(self, request: Request) -> Taken:
        """Make what a request holds durable. Raises InvalidEvent, StoreUnavailable or Refusal."""
        kind = kind_of(request)
        if kind == "cloudevents" and kind in self._kinds:
            events, batch = read_cloud_events(request, self._path, self._http(request))
            if self._timed and is_binary(request.headers) and not batch:
                # Its id is in a header, which nobody signed: a repeat is known by what was.
                events = [replace(event, key=self._identify(request).key or event.key) for event in events]
            if (traceparent := request.headers.get("Traceparent")) is not None:
                events = [replace(event, traceparent=traceparent) for event in events]
            answers = await self._context.emit(*events) if events else []
            return Taken(events=events, accepted=answers, batch=batch)
        if kind == "json" and not request.body and request.method in FROM_QUERY and not self._signed:
            content = Content(data=query_as_data(request.query, (WAIT,)))
        elif kind not in self._kinds:
            kinds = " or ".join(sorted(self._kinds))
            raise refused(415, f"The body is of a Content-Type that is not taken here. Send {kinds}.")
        else:
            content = read_content(request, kind, self._json_field)
        event = self._event(request, content.data)
        idempotent = event.key is not None and event.key == request.headers.get("Idempotency-Key")
        if not content.files:
            accepted = [await self._emit_once(event)] if idempotent else await self._context.emit(event)
            return Taken(events=[event], accepted=accepted)
        event, only = await self._emit_with_files(event, content, once=idempotent)
        return Taken(events=[event], accepted=[only])

    async def _emit(self, event: Event) -> Accepted:
        return (await self._context.emit(event))[0]

    async def _emit_once(self, event: Event) -> Accepted:
        """Emit what has an Idempotency-Key; raise Refusal where the key is in use, or was used for something else."""
        key = event.key or ""
        if key in self._going:
            raise refused(409, "A request with this Idempotency-Key is in progress.", {"Retry-After": "1"})
        self._going.add(key)
        try:
            accepted = await self._emit(event)
            if accepted.duplicate and not await self._is_same(accepted, event):
                raise refused(422, "This Idempotency-Key was used for a request with another body.")
            return accepted
        finally:
            self._going.discard(key)

    async def _is_same(self, accepted: Accepted, event: Event) -> bool:
        """Tell whether an event says what the first one of its key said, or that is gone and nobody can tell."""
        first = await self._context.stored(accepted)
        if first is None:
            return True
        again = self._context.as_stored(event)
        return encode_json(without_paths(first.data)) == encode_json(without_paths(again.data))

    async def _emit_with_files(self, event: Event, content: Content, *, once: bool) -> tuple[Event, Accepted]:
        try:
            kept = await keep(self._context.files, content.files)
        except OSError as error:
            self._context.log.error(
                "The files of a request can't be kept: %s", error, extra={"action": "files_not_kept"}
            )
            raise _away("The files can't be stored now, and were not taken. Send them again later.") from None
        members = {id(part): member for part, member in zip(content.files, kept.members, strict=True)}
        event = replace(event, data=with_files(event.data, members))
        try:
            accepted = await (self._emit_once(event) if once else self._emit(event))
        except Exception:  # whatever it was, the event is not stored; where this is cancelled, it may be
            await kept.remove()
            raise
        if accepted.duplicate:
            await kept.remove()
            return event, accepted
        try:
            await kept.settle(accepted.event)
        except OSError as error:  # it is taken all the same
            self._context.log.warning(
                "The files of event %s are not marked as its own: %s", accepted.event, error,
                extra={"action": "files_not_marked", "event": accepted.event},
            )  # fmt: skip
        return event, accepted

    async def _answer(self, taken: Taken, within_s: float | None) -> Response:
        """Return the answer for what is durable, once its runs have ended or the time is up."""
        status, told = 202, _NOTHING_TOLD
        if within_s is not None:
            runs = tuple(run for one in taken.accepted for run in one.runs)
            asked = Accepted(event=taken.accepted[0].event if taken.accepted else "", runs=runs)
            with suppress(StoreUnavailable):  # the event is durable, whatever can't be told of its runs
                status, told = waited_view(await self._context.settled(asked, within_s=within_s))
        if taken.batch:
            items = [_said(one) for one in taken.accepted]
            return Response(status=status, body={"items": items, "next": None, **told})
        (accepted,) = taken.accepted
        headers = {"Location": f"/api/v1/events/{accepted.event}"}
        if self._responder is not None and (within_s is None or status == 200):
            try:
                return self._responder.answer(self._names(taken, told))
            except (ExpressionError, InvalidEvent) as error:
                self._context.warn(f"the answer that `respond` says can't be made: {error}")
        body = _said(accepted)
        return Response(status=status, body={**body, **told} if told else body, headers=headers)

    def _names(self, taken: Taken, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the templates of an answer see."""
        event, accepted, now = taken.events[0], taken.accepted[0], self._context.clock.now()
        data = parse_json(bytes(event.data)) if isinstance(event.data, Raw) else event.data
        seen = {
            "id": accepted.event, "source": self._context.name, "type": event.type, "subject": event.subject,
            "key": event.key, "time": event.time or now, "received_at": now, "priority": event.priority,
        }  # fmt: skip
        states = {run: str(state) for run, state in told.get("states", dict[str, Any]()).items()}
        return {
            "event": seen, "data": data, "http": dict(event.http or {}), "runs": list(accepted.runs), "now": now,
            "duplicate": accepted.duplicate, "states": states,
        }  # fmt: skip

    def _event(self, request: Request, data: Any) -> Event:
        offered, key = self._identify(request)
        kind = _event_name(offered, self._type)
        if key is not None and not _KEY.match(key):
            raise refused(
                400,
                f"The delivery id or Idempotency-Key is not 1 to {LONGEST_KEY} printable ASCII characters.",
            )
        return Event(
            type=kind, subject=self._path, data=data, key=key, http=self._http(request),
            traceparent=request.headers.get("Traceparent"),
        )  # fmt: skip

    def _http(self, request: Request) -> dict[str, Any]:
        shown: dict[str, str] = {}
        hidden = self._hidden
        for field, value in request.headers.items():
            name = field.lower()
            if name not in hidden:
                text = value if value.isascii() else to_unicode(value)
                shown[name] = f"{shown[name]}, {text}" if name in shown else text
        query = request.query
        return {
            "method": request.method,
            "headers": shown,
            "query": _readable(query) if query else {},
            "remote": request.remote,
        }


def _said(accepted: Accepted) -> dict[str, Any]:
    return {"event": accepted.event, "runs": accepted.runs, "duplicate": accepted.duplicate}


def _event_name(offered: str | None, otherwise: str) -> str:
    if offered is None or not _EVENT_NAME.match(offered):
        return otherwise
    if offered.startswith(RESERVED_PREFIX):
        raise refused(400, f"The event name begins with {RESERVED_PREFIX!r}, which is kept for the engine's own.")
    return offered


def _wait_s(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise refused(422, "The parameter `wait` must be a duration, such as 30s.")
    return min(seconds, LONGEST_WAIT_S)


def _away(detail: str) -> Refusal:
    return refused(503, detail, {"Retry-After": str(RETRY_AFTER_S)})


def _readable(query: Mapping[str, str]) -> dict[str, str]:
    return {to_unicode(name): to_unicode(value) for name, value in query.items()}
