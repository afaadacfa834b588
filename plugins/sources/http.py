"""Polls: a URL is asked again and again, and each change of its answer is an event."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

from msgspec import Meta, Struct, to_builtins
from msgspec.structs import replace
from yarl import URL

from engine.plugin import (
    BadSetting,
    Duration,
    Event,
    Expression,
    ExpressionError,
    InvalidEvent,
    PluginError,
    Scope,
    Secret,
    Size,
    Source,
    SourceContext,
    StoreUnavailable,
    encode_json,
    plain,
)
from plugins.outgoing.answers import is_whole, kept_headers, read_body, retry_after_s
from plugins.outgoing.client import Answer, Call, CallFailed, Client, open_client, origin_of
from plugins.outgoing.headers import Headers, read_headers
from plugins.outgoing.masking import Masker, parts_of_url
from plugins.outgoing.networks import read_reach
from plugins.outgoing.urls import read_target

TYPE = "http.changed"
LARGEST_BODY_BYTES = 16 * 1024 * 1024
LONGEST_VERSION = 200
STORE_PAUSE_S = 5.0
"""A change that the store can't take now is offered again after this."""

MOST_DOUBLINGS = 16

ANSWER_NAMES = frozenset({"status", "headers", "body"})
"""What `changed` sees."""

_VERSION = re.compile(r"(etag|modified|sha256|value):.")
_VALIDATOR = re.compile(r"[!-~ ]{1,1024}")


class Poll(Source, frozen=True, kw_only=True):
    """Ask a URL again and again, and emit an event each time its answer is another than before.

    - `url`: what is asked, http or https. One that stands elsewhere (`{ env = … }`) is a secret: the events'
      subject is then its scheme, host and port alone.
    - `every`: the time between two requests, from start to start; 1 second or more.
    - `method`: the method; after HEAD there is no body to compare.
    - `headers`: headers by name; a value that stands elsewhere is a secret.
    - `bearer`: a token, sent as `Authorization: Bearer …`.
    - `changed`: CEL over `status`, `headers` (names in lower case) and `body` (parsed where it is JSON); when its value
      is another than the last time, that is a change. Every answer then counts, whatever its status.
    - `compare`: `auto` goes by the ETag, or else Last-Modified, or else the body; `body` by the body alone, for
      servers whose ETags change without cause.
    - `start`: `now` takes the first answer for known; `beginning` makes an event of it.
    - `timeout`: bound of one exchange, from looking up the name to the last byte.
    - `max_body`: an answer with a larger body is an error; at most 16 MiB. An event holds no more than `[http]
      max_body` in any case.
    - `redirects`: how many redirects are followed, at most 20. Headers that are secret stay with their origin.
    - `backoff_max`: after errors the time between two requests doubles, up to this.
    - `allow_private`: `true` opens loopback and private networks, a list opens the networks in it; link-local
      addresses and the metadata services of clouds have to be listed. By default the public internet alone.
    """

    name: ClassVar[str] = "http"
    previews: ClassVar[bool] = True
    main: ClassVar[str | None] = "url"

    url: Secret | str
    every: Annotated[Duration, Meta(ge=1)] = 60.0
    method: Literal["GET", "HEAD"] = "GET"
    headers: dict[str, Secret | str] = {}  # noqa: RUF012 - msgspec makes a new one for each
    bearer: Secret | None = None
    changed: str | None = None
    compare: Literal["auto", "body"] = "auto"
    start: Literal["now", "beginning"] = "now"
    timeout: Annotated[Duration, Meta(gt=0)] = 30.0
    max_body: Annotated[Size, Meta(ge=0, le=LARGEST_BODY_BYTES)] = 512 * 1024
    redirects: Annotated[int, Meta(ge=0, le=20)] = 0
    backoff_max: Annotated[Duration, Meta(ge=0)] = 3600.0
    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        self.target()
        self.sent_headers()
        if self.changed is not None:
            if self.compare == "body":
                raise BadSetting("compare", "is given beside `changed`, which alone counts", "keep one of them")
            try:
                _expression(self.changed)
            except ExpressionError as error:
                raise BadSetting("changed", str(error)) from None
        if self.compare == "body" and self.method == "HEAD":
            raise BadSetting("compare", "is the body, which no answer to HEAD has", 'method = "GET"')

    def target(self) -> URL:
        """Return what is asked; raise BadSetting where it can't be."""
        return read_target(self.url, read_reach(self.allow_private))

    def sent_headers(self) -> Headers:
        """Return the headers that are sent; raise BadSetting where one can't be."""
        for name, value in self.headers.items():
            if isinstance(value, str) and "{{" in value:
                message = "holds a template, but there is no event yet whose data could fill it"
                raise BadSetting(f"headers.{name}", message)
            if name.lower() in ("if-none-match", "if-modified-since", "range", "if-range"):
                raise BadSetting(f"headers.{name}", "would make the answer another one than the change", "leave it out")
        return read_headers(self.headers, self.bearer, ())

    def identity(self) -> str:
        """Return what is watched: a new `every`, timeout or token is no new source."""
        headers = sorted((name.lower(), value) for name, value in self.headers.items() if isinstance(value, str))
        url = self.target()
        what = encode_json([str(url), self.method, headers, self.changed, self.compare])
        return f"{url.host}-{hashlib.sha256(what).hexdigest()[:12]}"

    def base_interval(self) -> float:
        return self.every

    def with_interval(self, interval_s: float) -> Self:
        return replace(self, every=interval_s)

    async def run(self, context: SourceContext) -> None:
        watch = _Watch(self, context, _Seen.read(await context.cursor()))
        context.ready()
        clock = context.clock
        async with open_client(read_reach(self.allow_private), clock, keep_alive=True) as client:
            while True:
                begun = clock.monotonic()
                pause_s = await watch.look(client)
                await context.pause(pause_s, since_s=begun)

    async def preview(self, context: SourceContext, cursor: Any) -> None:
        seen, poll = _Seen.read(await context.cursor()), self
        if cursor in ("beginning", "now"):
            seen, poll = _Seen(sequence=seen.sequence), replace(self, start=cursor)
        elif cursor is not None:
            if not isinstance(cursor, str) or not _VERSION.match(cursor):
                message = "has to be a version as it stands in the keys of events, after their number"
                raise BadSetting("cursor", message, 'such as "etag:…" or "sha256:…", or "beginning"')
            seen = _Seen(sequence=seen.sequence, version=cursor)
        watch = _Watch(poll, context, seen)
        async with open_client(read_reach(self.allow_private), context.clock, keep_alive=False) as client:
            await watch.preview(client)


class _Seen(Struct, frozen=True, kw_only=True):
    """What was last seen, as the cursor holds it: `sequence` counts the events that were made of it."""

    sequence: int = 0
    version: str | None = None
    digest: str | None = None
    etag: str | None = None
    modified: str | None = None

    @classmethod
    def read(cls, cursor: Any) -> _Seen:
        return cls() if cursor is None else cls(**cursor)


class _PollFailed(Exception):
    """An answer that nothing can be told from. `pause_s` is what the server asks to wait."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class _Watch:
    """One URL, from look to look."""

    def __init__(self, poll: Poll, context: SourceContext, seen: _Seen) -> None:
        self._poll = poll
        self._context = context
        self._seen = seen
        self._failures = 0
        self._url = poll.target()
        self._headers = poll.sent_headers()
        secrets = self._headers.secrets()
        self._subject = str(self._url)
        if isinstance(poll.url, Secret):
            self._subject = origin_of(self._url)
            secrets += parts_of_url(poll.url.reveal(), self._subject)
        self._masker = Masker(secrets)

    async def look(self, client: Client) -> float:
        """Ask once, and emit what changed; return the seconds from this look to the next."""
        poll, context = self._poll, self._context
        try:
            await self._look(client)
        except (CallFailed, _PollFailed, ExpressionError, InvalidEvent) as error:
            self._failures += 1
            pause_s = min(poll.every * 2.0 ** min(self._failures, MOST_DOUBLINGS), poll.backoff_max)
            asked_s = error.pause_s if isinstance(error, _PollFailed) else None
            pause_s = max(poll.every, pause_s, min(asked_s or 0.0, poll.backoff_max))
            context.warn(f"polls have no result: {self._masker.text(str(error))}")
            return pause_s
        context.warn(None)
        self._failures = 0
        return poll.every

    async def preview(self, client: Client) -> None:
        """Ask once, and emit what changed; raise PluginError where nothing can be told."""
        try:
            await self._look(client)
        except (CallFailed, _PollFailed, ExpressionError, InvalidEvent) as error:
            raise PluginError(self._masker.text(str(error))) from None

    async def _look(self, client: Client) -> None:
        poll, seen = self._poll, self._seen
        answer = await client.send(
            self._call(), timeout_s=poll.timeout, max_body_bytes=poll.max_body, redirects=poll.redirects
        )
        if answer.status == 304 and (seen.etag or seen.modified):
            return
        pause_s = retry_after_s(answer.headers, self._context.clock.now())
        if poll.changed is None and not 200 <= answer.status <= 299:
            raise _PollFailed(f"{origin_of(self._url)} answered {answer.line}", pause_s)
        if not is_whole(answer):
            reason = f"the body is larger than {poll.max_body} bytes (`max_body`), or compressed"
            raise _PollFailed(f"{origin_of(self._url)} answered {answer.line}, but {reason}", pause_s)
        body = read_body(answer)
        version = self._version(answer, body)
        found = _Seen(
            sequence=seen.sequence,
            version=version,
            digest=hashlib.sha256(answer.body).hexdigest() if poll.method == "GET" else None,
            # Only a good answer is worth being told "not modified" of.
            etag=_validator(answer, "etag"),
            modified=_validator(answer, "last-modified"),
        )
        if _is_same(seen, found) or (seen.version is None and poll.start == "now"):
            if found != seen:
                await self._emit((), found)
        else:
            await self._emit(self._event(answer, body, version), found)

    def _call(self) -> Call:
        headers = self._headers.render(Scope({}))
        if self._seen.etag is not None:
            headers["If-None-Match"] = self._seen.etag
        if self._seen.modified is not None:
            headers["If-Modified-Since"] = self._seen.modified
        return Call(self._poll.method, self._url, headers, confidential=self._headers.confidential)

    def _version(self, answer: Answer, body: Any) -> str:
        """Return what the answer is told from others by; its first word says what that is."""
        poll = self._poll
        if poll.changed is not None:
            scope = Scope({"status": answer.status, "headers": dict(answer.headers), "body": body})
            value = plain(_expression(poll.changed).evaluate(scope))
            return f"value:{hashlib.sha256(encode_json(value)).hexdigest()}"
        etag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
        if poll.compare == "auto" and etag:
            return _short("etag", etag.removeprefix("W/"))
        if poll.compare == "auto" and modified:
            return _short("modified", modified)
        if poll.method == "HEAD":
            raise _PollFailed(f"{origin_of(self._url)} sends neither ETag nor Last-Modified, and HEAD has no body")
        return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"

    def _event(self, answer: Answer, body: Any, version: str) -> tuple[Event]:
        mask = self._masker.value
        data = {"status": answer.status, "headers": mask(kept_headers(answer)), "body": mask(body)}
        # The number makes A, B and A again three events; it moves with the cursor, so that none is two.
        key = f"{self._seen.sequence + 1}:{version}"
        return (Event(type=TYPE, subject=self._subject, data=data, key=key),)

    async def _emit(self, events: tuple[Event, ...], found: _Seen) -> None:
        """Make a change durable together with what is known now, however long the store is away."""
        seen = _Seen(**{**to_builtins(found), "sequence": found.sequence + len(events)})
        while True:
            try:
                await self._context.emit(*events, cursor=to_builtins(seen))
            except StoreUnavailable as error:
                self._context.log.warning(
                    "A change can't be stored now: %s; it is offered again", error, extra={"action": "poll_waits"}
                )
                await self._context.clock.sleep(STORE_PAUSE_S)
            else:
                self._seen = seen
                return


@lru_cache(maxsize=256)
def _expression(text: str) -> Expression:
    return Expression(text, ANSWER_NAMES)


def _is_same(seen: _Seen, found: _Seen) -> bool:
    """Tell whether an answer is what was last seen.

    Where a server names versions in another way than the last time (one of several behind a balancer may send
    no ETag), the bodies are compared.
    """
    if seen.version is None or found.version is None:
        return False
    if seen.version == found.version:
        return True
    kinds = {seen.version.partition(":")[0], found.version.partition(":")[0]}
    return len(kinds) > 1 and "value" not in kinds and found.digest is not None and seen.digest == found.digest


def _validator(answer: Answer, name: str) -> str | None:
    text = answer.headers.get(name, "")
    return text if 200 <= answer.status <= 299 and _VALIDATOR.fullmatch(text) else None


def _short(kind: str, text: str) -> str:
    if len(text) > LONGEST_VERSION or not text.isprintable():
        text = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{kind}:{text}"
