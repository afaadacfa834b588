"""A URL that answers as it should."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from yarl import URL

from engine.plugin import (
    BadSetting,
    Condition,
    ConditionContext,
    Duration,
    Expression,
    ExpressionError,
    Scope,
    Secret,
    Verdict,
)
from plugins.outgoing.answers import read_body
from plugins.outgoing.client import Call, CallFailed, open_client, origin_of
from plugins.outgoing.headers import Headers, read_headers
from plugins.outgoing.masking import Masker, parts_of_url
from plugins.outgoing.networks import read_reach
from plugins.outgoing.urls import read_target

ANSWER_NAMES = frozenset({"status", "headers", "body"})
MOST_BODY_BYTES = 512 * 1024


class Answers(Condition, frozen=True, kw_only=True):
    """Pass while a URL answers as it should: with a status from 200 to 299, or as `expect` says.

    - `url`: http or https; of one that stands elsewhere (`{ env = … }`) only scheme, host and port are shown.
    - `method`: `GET` or `HEAD`.
    - `headers`: header fields of the request.
    - `bearer`: a token that is sent as `Authorization: Bearer …`.
    - `expect`: CEL over `status`, `headers` (names in lower case) and `body`; true lets pass.
    - `limit`: bound of the request; the condition's own `timeout` holds, too.
    - `redirects`: so many are followed.
    - `allow_private`: also private and loopback addresses, or networks such as `["10.1.0.0/16"]`. By default the public
      internet alone.
    """

    name: ClassVar[str] = "http"
    main: ClassVar[str | None] = "url"

    url: Secret | str
    method: Literal["GET", "HEAD"] = "GET"
    headers: dict[str, Secret | str] = {}  # noqa: RUF012 - msgspec makes a new one for each
    bearer: Secret | None = None
    expect: str | None = None
    limit: Annotated[Duration, Meta(gt=0)] = 30.0
    redirects: Annotated[int, Meta(ge=0, le=20)] = 0
    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        self.target()
        self.sent_headers()
        if self.expect is not None:
            try:
                _expression(self.expect)
            except ExpressionError as error:
                raise BadSetting("expect", str(error)) from None

    def target(self) -> URL:
        """Return what is asked; raise BadSetting where it can't be."""
        return read_target(self.url, read_reach(self.allow_private))

    def sent_headers(self) -> Headers:
        """Return the headers that are sent; raise BadSetting where one can't be."""
        for name, value in self.headers.items():
            if isinstance(value, str) and "{{" in value:
                raise BadSetting(f"headers.{name}", "holds a template, but there is no event whose data could fill it")
        return read_headers(self.headers, self.bearer, ())

    async def check(self, context: ConditionContext) -> Verdict:
        url, headers = self.target(), self.sent_headers()
        call = Call(self.method, url, headers.render(Scope({})), confidential=headers.confidential)
        hidden = headers.secrets()
        if isinstance(self.url, Secret):
            hidden += parts_of_url(self.url.reveal(), origin_of(url))
        masker = Masker(hidden)
        try:
            async with open_client(read_reach(self.allow_private), context.clock, keep_alive=False) as client:
                answer = await client.send(
                    call, timeout_s=self.limit, max_body_bytes=MOST_BODY_BYTES, redirects=self.redirects
                )
        except CallFailed as error:
            return Verdict.holds(masker.text(str(error)))
        said = masker.text(f"{call.origin} answered {answer.line}")
        if self.expect is None:
            good = 200 <= answer.status <= 299
            return Verdict.passes(said, answer.status) if good else Verdict.holds(said, answer.status)
        scope = Scope({"status": answer.status, "headers": dict(answer.headers), "body": read_body(answer)})
        try:
            good = _expression(self.expect).holds(scope)
        except ExpressionError as error:
            return Verdict.holds(masker.text(f"{said}, but expect: {error}"), answer.status)
        text = f"{said}, and {self.expect} is {'true' if good else 'false'}"
        return Verdict.passes(text, answer.status) if good else Verdict.holds(text, answer.status)


@lru_cache(maxsize=256)
def _expression(text: str) -> Expression:
    return Expression(text, ANSWER_NAMES)
