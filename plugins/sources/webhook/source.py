"""The source itself: its settings, and its route."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import anyio

from engine.plugin import BadSetting, Networks, Source, SourceContext, Whereabouts
from plugins.sources.webhook.bodies import KINDS, Kind
from plugins.sources.webhook.rate import read_rate
from plugins.sources.webhook.receiver import GZIP, Receiver
from plugins.sources.webhook.respond import Respond, check_respond
from plugins.sources.webhook.verify import Verify, check_verify, signs_bodies

LONGEST_PATH = 255

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


class Webhook(Source, frozen=True, kw_only=True):
    """Receive events at `POST /hooks/<path>`.

    - `path`: segments of letters, digits, `_`, `.` and `-`, each beginning with a letter or digit, joined by
      `/`; at most 255 characters.
    - `verify`: how senders prove who they are; `"none"` lets everybody in who reaches the listener.
    - `allow`: the networks that requests may come from, such as `10.0.0.0/8`; empty: from everywhere. Behind proxies
      see `[http] trusted_proxies`.

    - `methods`: those that are taken. Where a `GET` or `DELETE` has no body, its query is the data.
    - `bodies`: what is taken: `json`, `form` (its fields become an object), `multipart` (a form whose files are kept
      beside the event), `text`, and `cloudevents`, which have a type, subject, time and key of their own.
    - `json_field`: the field of a form that holds JSON, such as GitHub's `payload`; that is the data then.
    - `gzip`: whether bodies may be packed; the proof is over what was sent, and the size when unpacked is bounded.
    - `rate`: how many requests are taken, such as `100/s` or `600/m`; further ones are answered 429.
    - `respond`: what is answered in place of the ids.
    - `origins`: who may deliver CloudEvents here, by the names that senders give in the handshake; `*`: everybody.

    The body becomes the event's data; the subject is the path; the type is `webhook.<path>` (with
    `.` for `/`), or the vendor's event name. The key is the vendor's delivery id, or the `Idempotency-Key` of
    the request. 202 is answered once the event is durable, with its id and those of its runs.
    """

    name: ClassVar[str] = "webhook"
    main: ClassVar[str | None] = "path"
    gets_requests: ClassVar[bool] = True

    path: str
    verify: Literal["none"] | Verify
    allow: tuple[str, ...] = ()
    methods: tuple[Literal["POST", "PUT", "PATCH", "GET", "DELETE"], ...] = ("POST",)
    bodies: tuple[Kind, ...] = KINDS
    json_field: str | None = None
    gzip: bool = False
    rate: str | None = None
    respond: Respond | None = None
    origins: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        _check_path(self.path)
        try:
            Networks(self.allow)
        except ValueError as error:
            raise BadSetting("allow", str(error)) from None
        if isinstance(self.verify, Verify):
            check_verify(self.verify)
        for field in ("methods", "bodies"):
            if not getattr(self, field):
                raise BadSetting(field, "is empty; then nothing could be received")
        if "GET" in self.methods and signs_bodies(self.verify):
            raise BadSetting("methods", "has GET, which has no body that could be signed", "a token proves it")
        if self.rate is not None:
            read_rate(self.rate)
        if self.respond is not None:
            check_respond(self.respond)

    def identity(self) -> str:
        return self.path

    def try_it(self, here: Whereabouts) -> str | None:
        if here.url is None:
            return None
        proof = ""
        if isinstance(self.verify, Verify):
            token = self.verify.token[0] if isinstance(self.verify.token, tuple) else self.verify.token
            kind, _, file = token.origin.partition(" ") if token is not None else ("", "", "")
            if kind != "file":
                return None
            proof = f'-H "{self.verify.header or "X-Webhook-Token"}: $(cat {here.path(file)})" '
        data = """-H 'Content-Type: application/json' -d '{"name": "Ada"}'"""
        return f"curl -sS {proof}{data} {here.url}/hooks/{self.path}"

    async def run(self, context: SourceContext) -> None:
        path, receiver = f"/hooks/{self.path}", Receiver(self, context)
        for method in dict.fromkeys(self.methods):
            context.route(method, path, receiver, encodings=GZIP if self.gzip else ())
        context.route("OPTIONS", path, receiver.permit)
        context.ready()
        await anyio.sleep_forever()


def _check_path(path: str) -> None:
    hint = 'such as "github" or "team/deploy"'
    if not path:
        raise BadSetting("path", "is empty", hint)
    if len(path) > LONGEST_PATH:
        raise BadSetting("path", f"is longer than {LONGEST_PATH} characters")
    if path.startswith("/"):
        raise BadSetting("path", "begins with a slash; what comes after /hooks/ is meant", f'"{path.lstrip("/")}"')
    for segment in path.split("/"):
        if not _SEGMENT.match(segment):
            raise BadSetting(
                "path",
                f"has the segment {segment!r}; a segment begins with a letter or digit and goes on with "
                "letters, digits, `_`, `.` and `-` (at most 128 characters)",
                hint,
            )
