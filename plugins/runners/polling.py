"""Long jobs of others: a request begins one, and its status URL is asked until it says that the job is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct
from yarl import URL

from engine.plugin import BadSetting, Clock, Duration, Expression, ExpressionError, Scope, Template, render
from plugins.outgoing.answers import is_whole, read_body, retry_after_s
from plugins.outgoing.client import Answer, Call, CallFailed, Client, origin_of
from plugins.outgoing.headers import Headers
from plugins.outgoing.networks import Reach
from plugins.outgoing.urls import UnsafeUrl, UrlTemplate

POLL_NAMES = frozenset({"status", "headers", "body"})
"""What is known of an answer, besides the names of the job."""

TRANSIENT = frozenset({408, 425, 429})
"""Statuses that say nothing of the job, only that the server can't answer now; so do those from 500 on."""

_SENDABLE = re.compile(r"[!-~]+")
_FATAL = frozenset({"address_refused", "redirect_refused"})


class PollFailed(Exception):
    """The status can't be asked, or can't be told; `code` is a stable word."""

    def __init__(self, reason: str, *, code: str) -> None:
        super().__init__(reason)
        self.code = code


class Poll(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the end of a long job is waited for.

    - `url`: its status URL. `{{ CEL }}` sees `status`, `headers` and `body` of the answer that began the job, besides
      what `url` of the job sees, and may stand where it may there; or the whole is one expression, such as
      `"{{ body.status_url }}"`, that leads to the same scheme, host and port. Default: the `Location` of that answer.
    - `every`: how often it is asked, at the soonest; a server's `Retry-After` may ask for longer pauses.
    - `done`: CEL over `status`, `headers` and `body` of its answer: the job is over. By default every status but 202
      says so. No answer, 408, 425, 429 and statuses from 500 on say nothing; it is asked again, within the job's
      `timeout`.
    - `success`: CEL over the last answer; by default a status from 200 to 299.
    """

    url: str | None = None
    every: Annotated[Duration, Meta(ge=0.1)] = 10.0
    done: str | None = None
    success: str | None = None


class Polling(NamedTuple):
    """The settings of `Poll`, compiled. `whole` is a URL that is one expression."""

    every_s: float
    whole: Template | None
    url: UrlTemplate | None
    done: Expression | None
    success: Expression | None

    @classmethod
    def read(cls, settings: Poll, reach: Reach, names: frozenset[str]) -> Polling:
        """Compile the settings; raise BadSetting, naming the field, for what is wrong."""
        whole, url = None, None
        try:
            text = settings.url
            if text is not None and text.lstrip().startswith("{{"):
                whole = Template(text.strip(), names | POLL_NAMES)
                if len(whole.parts) != 1:
                    raise BadSetting("url", "begins with a template, and goes on: data can't choose the target")
            elif text is not None:
                url = UrlTemplate(text, reach, names | POLL_NAMES)
        except ExpressionError as error:
            raise BadSetting("poll.url", str(error)) from None
        except BadSetting as error:
            raise BadSetting("poll.url", str(error), error.hint) from None
        found: dict[str, Expression | None] = {}
        for field, source in (("done", settings.done), ("success", settings.success)):
            try:
                found[field] = None if source is None else Expression(source, names | POLL_NAMES)
            except ExpressionError as error:
                raise BadSetting(f"poll.{field}", str(error)) from None
        return cls(settings.every, whole, url, found["done"], found["success"])

    def target(self, call: Call, answer: Answer, body: Any, scope: Scope) -> URL:
        """Return the status URL of the job that an answer tells of; raise PollFailed where there is none."""
        seen = scope.derive(status=answer.status, headers=dict(answer.headers), body=body)
        try:
            if self.url is not None:
                return self.url.render(seen)
            if self.whole is not None:
                text = render(self.whole.value(seen))
            else:
                text = answer.headers.get("location", "")
        except (ExpressionError, UnsafeUrl) as error:
            raise PollFailed(f"the status URL can't be told: {error}", code="poll_refused") from None
        if not text:
            raise PollFailed(f"{call.origin} answered {answer.line}, but names no status URL", code="poll_refused")
        try:
            # As it was written, where it can be sent so: signed URLs are no others in another spelling.
            url = call.url.join(URL(text, encoded=_SENDABLE.fullmatch(text) is not None))
            url = url.with_user(None).with_fragment(None)
            there = origin_of(url)
        except ValueError:
            raise PollFailed(f"{call.origin} names a status URL that is none", code="poll_refused") from None
        if there != call.origin:
            reason = f"{call.origin} names a status URL elsewhere, at {there}: an answer can't choose the target"
            raise PollFailed(reason, code="poll_refused")
        return url

    async def follow(
        self, client: Client, call: Call, *, clock: Clock, timeout_s: float, max_body_bytes: int, redirects: int,
        most_pause_s: float, scope: Scope, told: Callable[[str], Any], first_pause_s: float,
    ) -> Answer:  # fmt: skip
        """Ask until the job is over, and return the answer that says so; `told` gets what changes, in lines.

        Raises PollFailed where the status can't be asked or told.
        """
        pause_s, said = first_pause_s, ""
        while True:
            await clock.sleep(pause_s)
            pause_s = self.every_s
            try:
                answer = await client.send(
                    call, timeout_s=timeout_s, max_body_bytes=max_body_bytes, redirects=redirects
                )
            except CallFailed as failure:
                if failure.code in _FATAL:
                    raise PollFailed(str(failure), code=failure.code) from None
                line = f"! {failure}"
            else:
                line = f"< {answer.line}"
                if answer.status < 500 and answer.status not in TRANSIENT and self._is_done(answer, scope):
                    return answer
                asked_s = retry_after_s(answer.headers, clock.now())
                if asked_s is not None:
                    pause_s = max(pause_s, min(asked_s, most_pause_s))
            if line != said:
                said = line
                await told(line)

    def _is_done(self, answer: Answer, scope: Scope) -> bool:
        if answer.status >= 400 or self.done is None:
            return answer.status != 202
        return self._holds(self.done, answer, scope, "done")

    def succeeded(self, answer: Answer, scope: Scope) -> bool:
        """Tell whether the job that is over succeeded; raise PollFailed where that can't be told."""
        if answer.status >= 400 or self.success is None:
            return 200 <= answer.status <= 299
        return self._holds(self.success, answer, scope, "success")

    def _holds(self, expression: Expression, answer: Answer, scope: Scope, field: str) -> bool:
        if not is_whole(answer):
            reason = f"the status is larger than `max_body`, or compressed: `poll.{field}` can't be told"
            raise PollFailed(reason, code="poll_error")
        seen = scope.derive(status=answer.status, headers=dict(answer.headers), body=read_body(answer))
        try:
            return expression.holds(seen)
        except ExpressionError as error:
            raise PollFailed(f"`poll.{field}` can't be told: {error}", code="poll_error") from None


def status_call(url: URL, begun: str, headers: Headers, rendered: Mapping[str, str]) -> Call:
    """Return the request for a status: with the headers of the job's, of which secrets stay with their origin.

    `begun` is the origin of the request that began the job.
    """
    kept_back = {"content-type", "idempotency-key"}
    if origin_of(url) != begun:
        kept_back |= headers.confidential
    sent = {name: text for name, text in rendered.items() if name.lower() not in kept_back}
    return Call("GET", url, sent, None, headers.confidential)
