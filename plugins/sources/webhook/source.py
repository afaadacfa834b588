"""The source itself: its settings, and its route."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

import anyio

from engine.plugin import BadSetting, Networks, Source, SourceContext, Whereabouts
from plugins.sources.webhook.receiver import Receiver
from plugins.sources.webhook.verify import Verify, check_verify

LONGEST_PATH = 255

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


class Webhook(Source, frozen=True, kw_only=True):
    """Receive events at `POST /hooks/<path>`.

    - `path`: segments of letters, digits, `_`, `.` and `-`, each beginning with a letter or digit, joined by
      `/`; at most 255 characters.
    - `verify`: how senders prove who they are; `"none"` lets everybody in who reaches the listener.
    - `allow`: the networks that requests may come from, such as `10.0.0.0/8`; empty: from everywhere. Behind proxies
      see `[http] trusted_proxies`.

    The body is JSON and becomes the event's data; the subject is the path; the type is `webhook.<path>` (with
    `.` for `/`), or the vendor's event name. The key is the vendor's delivery id, or the `Idempotency-Key` of
    the request. 202 is answered once the event is durable, with its id and those of its runs.
    """

    name: ClassVar[str] = "webhook"
    main: ClassVar[str | None] = "path"
    gets_requests: ClassVar[bool] = True

    path: str
    verify: Literal["none"] | Verify
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_path(self.path)
        try:
            Networks(self.allow)
        except ValueError as error:
            raise BadSetting("allow", str(error)) from None
        if isinstance(self.verify, Verify):
            check_verify(self.verify)

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
        context.route("POST", f"/hooks/{self.path}", Receiver(self.path, self.verify, self.allow, context))
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
