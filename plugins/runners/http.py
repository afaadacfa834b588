"""Requests as runs: a method, a URL, headers and a body; the answer says how the attempt ended."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from msgspec import Meta
from yarl import URL

from engine.plugin import (
    BadSetting,
    Duration,
    Expression,
    ExpressionError,
    Outcome,
    RunContext,
    Runner,
    RunState,
    Secret,
    Size,
    StoreUnavailable,
    Template,
    encode_json,
    parse_json,
)
from plugins.outgoing.answers import is_json, is_whole, kept_headers, read_body, retry_after_s
from plugins.outgoing.bodies import compiled, rendered, template
from plugins.outgoing.client import Answer, Call, CallFailed, open_client, origin_of
from plugins.outgoing.headers import Headers, literal, read_headers
from plugins.outgoing.masking import Masker, parts_of_url
from plugins.outgoing.networks import Reach, read_reach
from plugins.outgoing.signing import SIGNED_HEADERS, Signer
from plugins.outgoing.urls import UnsafeUrl, UrlTemplate
from plugins.runners.polling import Poll, PollFailed, Polling, status_call
from plugins.runners.writing import write_log

KEPT_BODY_BYTES = 32 * 1024
"""So much of the answer's body becomes an output of the run; its log holds up to `max_body`."""

LARGEST_BODY_BYTES = 16 * 1024 * 1024

ANSWER_NAMES = frozenset({"status", "headers", "body"})
"""What `success` sees besides the names of the job."""


class Http(Runner, frozen=True, kw_only=True):
    """Send a request; an answer with a status from 200 to 299 is success.

    - `url`: where to, http or https. `{{ CEL }}` may stand in segments of the path and in values of the query,
      and is percent-encoded there; an empty value or `..` in the path fails the attempt (`unsafe_url`). A URL
      that stands elsewhere (`{ env = … }`) is a secret: of it no more is shown than scheme, host and port.
    - `method`: the method.
    - `headers`: headers by name. Values may hold `{{ CEL }}`; one that stands elsewhere is a secret.
    - `bearer`: a token, sent as `Authorization: Bearer …`.
    - `body`: the body as text; `{{ CEL }}` may stand in it, but not in JSON: that is `json`.
    - `json`: the body as JSON: any value, in whose texts `{{ CEL }}` may stand. A text that is one expression
      stands for its value: `json = "{{ data }}"` sends the event's data.
    - `success`: a list of statuses, or CEL over `status`, `headers` (names in lower case), `body` (parsed where it is
      JSON) and what the job's templates see. By default 200 to 299.
    - `sign`: a secret with which the request is signed by Standard Webhooks, in the headers `webhook-id`,
      `webhook-timestamp` and `webhook-signature`. The id is that of the run, the same over all attempts: to a receiver
      another attempt is the same message again. `whsec_…` is the key in base64, any other text the key itself.
    - `poll`: the answer begins a long job, whose status is asked until it is over; the run's outputs are then of the
      last answer. An engine that is started anew goes on asking.
    - `timeout`: bound of the whole exchange, from looking up the name to the last byte.
    - `max_body`: so much of the answer's body is read, at most 16 MiB; what is beyond is cut off.
    - `redirects`: how many redirects are followed, at most 20. Headers that are secret stay with their origin.
    - `retry_after_max`: a server's `Retry-After` puts off the next attempt, at most by this.
    - `allow_private`: `true` opens loopback and private networks, a list opens the networks in it; link-local
      addresses and the metadata services of clouds have to be listed. By default the public internet alone.
    """

    name: ClassVar[str] = "http"
    main: ClassVar[str | None] = "url"

    url: Secret | str
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, Secret | str] = {}  # noqa: RUF012 - msgspec makes a new one for each
    bearer: Secret | None = None
    body: Secret | str | None = None
    json: Any = None
    success: tuple[int, ...] | str | None = None
    sign: Secret | None = None
    poll: Poll | None = None
    timeout: Annotated[Duration, Meta(gt=0)] = 30.0
    max_body: Annotated[Size, Meta(ge=0, le=LARGEST_BODY_BYTES)] = 64 * 1024
    redirects: Annotated[int, Meta(ge=0, le=20)] = 0
    retry_after_max: Annotated[Duration, Meta(ge=0)] = 3600.0
    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        read_reach(self.allow_private)
        if isinstance(self.success, tuple) and not (self.success and all(100 <= code <= 599 for code in self.success)):
            raise BadSetting("success", "is no list of statuses", "such as [200, 409], or CEL")
        if self.body is None and self.json is None:
            return
        if self.body is not None and self.json is not None:
            raise BadSetting("json", "is given beside `body`", "keep one of them")
        if self.method in ("GET", "HEAD"):
            field = "body" if self.json is None else "json"
            raise BadSetting(field, f"is given, but a {self.method} has no body", 'such as method = "POST"')

    def check(self, names: Collection[str]) -> None:
        plan = _Plan.read(self, frozenset(names))
        if isinstance(self.body, str) and "{{" in self.body and _looks_like_json(self.body, plan.headers):
            message = "puts templates into JSON as text: data could add members to it"
            raise BadSetting("body", message, 'write the value itself: json = { id = "{{ data.id }}" }')

    async def run(self, context: RunContext) -> Outcome:
        plan = _plan_of(self, frozenset(context.scope.names))
        if plan.polling is not None and (noted := context.noted) is not None:
            return await self._follow(plan.polling, URL(noted["url"], encoded=True), plan, context, again=True)
        try:
            call = plan.call(self.method, context)
        except ExpressionError as error:
            return Outcome.failed("template_error", plan.masker.text(str(error)))
        except UnsafeUrl as error:
            return Outcome.failed("unsafe_url", plan.masker.text(str(error)))
        shown = call.origin if isinstance(self.url, Secret) else str(call.url)
        first_line = f"> {self.method} {plan.masker.text(shown)}\n"
        try:
            async with open_client(plan.reach, context.clock, keep_alive=False) as client:
                answer = await client.send(
                    call, timeout_s=self.timeout, max_body_bytes=self.max_body, redirects=self.redirects
                )
        except CallFailed as failure:
            reason = plan.masker.text(str(failure))
            await write_log(context, f"{first_line}! {reason}\n".encode())
            return Outcome.failed(failure.code, reason)
        body = read_body(answer)
        if answer.url != call.url:
            first_line += f"> redirected to {origin_of(answer.url)}\n"
        await write_log(context, first_line.encode() + _transcript(answer, plan.masker))
        outcome = self._judge(answer, body, plan, context)
        if plan.polling is None or outcome.state is not RunState.SUCCEEDED:
            return outcome
        try:
            url = plan.polling.target(call, answer, body, context.scope)
        except PollFailed as failure:
            return Outcome.failed(failure.code, plan.masker.text(str(failure)), outputs=outcome.outputs)
        await _note(context, url, plan.masker)
        asked_s = retry_after_s(answer.headers, context.clock.now()) or 0.0
        first_s = max(plan.polling.every_s, min(asked_s, self.retry_after_max))
        return await self._follow(plan.polling, url, plan, context, first_pause_s=first_s)

    async def _follow(
        self, polling: Polling, url: URL, plan: _Plan, context: RunContext, *, first_pause_s: float = 0.0,
        again: bool = False,
    ) -> Outcome:  # fmt: skip
        """Ask for the status of the job that was begun until it is over; `again` after the engine was started anew."""
        masker = plan.masker

        async def tell(line: str) -> None:
            await write_log(context, f"{masker.text(line)}\n".encode())

        await tell(f"> GET {url}" + (" (goes on: the engine was started anew)" if again else ""))
        try:
            call = status_call(url, plan.url.origin, plan.headers, plan.headers.render(context.scope))
            async with open_client(plan.reach, context.clock, keep_alive=False) as client:
                answer = await polling.follow(
                    client, call, clock=context.clock, timeout_s=self.timeout, max_body_bytes=self.max_body,
                    redirects=self.redirects, most_pause_s=self.retry_after_max, scope=context.scope, told=tell,
                    first_pause_s=first_pause_s,
                )  # fmt: skip
            outputs = _outputs(answer, read_body(answer), masker)
            await write_log(context, _transcript(answer, masker))
            succeeded = polling.succeeded(answer, context.scope)
        except ExpressionError as error:
            return Outcome.failed("template_error", masker.text(str(error)))
        except PollFailed as failure:
            return Outcome.failed(failure.code, masker.text(str(failure)))
        line = masker.text(f"the job that {call.origin} began is over: {answer.line}")
        if succeeded:
            return Outcome.succeeded(line, outputs=outputs)
        if answer.status >= 400 or polling.success is None:
            return Outcome.failed("http_status", line, outputs=outputs)
        return Outcome.failed("success_false", f"{line}, and `{polling.success.text}` is false", outputs=outputs)

    def _judge(self, answer: Answer, body: Any, plan: _Plan, context: RunContext) -> Outcome:
        """Return the outcome that an answer stands for."""
        outputs = _outputs(answer, body, plan.masker)
        line = f"answered {plan.masker.text(answer.line)}"
        pause_s = retry_after_s(answer.headers, context.clock.now())
        if pause_s is not None:
            pause_s = min(pause_s, self.retry_after_max)
        if not isinstance(self.success, str):
            status = answer.status
            if status in self.success if self.success is not None else 200 <= status <= 299:
                return Outcome.succeeded(line, outputs=outputs)
            return Outcome.failed("http_status", line, outputs=outputs, retry_after_s=pause_s)
        if not is_whole(answer):
            reason = f"{line}, but its body is larger than `max_body`, or compressed: `success` can't be told"
            return Outcome.failed("success_error", reason, outputs=outputs, retry_after_s=pause_s)
        scope = context.scope.derive(status=answer.status, headers=dict(answer.headers), body=body)
        try:
            holds = plan.success is None or plan.success.holds(scope)
        except ExpressionError as error:
            reason = f"{line}, but success can't be told: {plan.masker.text(str(error))}"
            return Outcome.failed("success_error", reason, outputs=outputs, retry_after_s=pause_s)
        if holds:
            return Outcome.succeeded(line, outputs=outputs)
        reason = f"{line}, and `{self.success}` is false"
        return Outcome.failed("success_false", reason, outputs=outputs, retry_after_s=pause_s)


class _Plan(NamedTuple):
    """The settings of a job, compiled."""

    reach: Reach
    url: UrlTemplate
    headers: Headers
    body: Template | None
    json: Any
    success: Expression | None
    signer: Signer | None
    polling: Polling | None
    masker: Masker

    @classmethod
    def read(cls, settings: Http, names: frozenset[str]) -> _Plan:
        """Compile the settings; raise BadSetting, naming the field, for what is wrong."""
        reach = read_reach(settings.allow_private)
        headers = read_headers(settings.headers, settings.bearer, names)
        url, body, success = _revealed(settings.url), settings.body, None
        try:
            target = UrlTemplate(url, reach, names)
        except BadSetting as error:
            if isinstance(settings.url, Secret):
                # What is wrong may be told with parts of the URL, which is a secret here.
                raise BadSetting("url", "is no URL that may be a target, or has mistakes", error.hint) from None
            raise
        if isinstance(settings.success, str):
            try:
                success = Expression(settings.success, names | ANSWER_NAMES)
            except ExpressionError as error:
                raise BadSetting("success", str(error)) from None
        signer = None if settings.sign is None else Signer(settings.sign, "sign")
        polling = None if settings.poll is None else Polling.read(settings.poll, reach, names)
        if signer is not None:
            for field in headers.fields:
                if field.name.lower() in SIGNED_HEADERS:
                    raise BadSetting(f"headers.{field.name}", "is set where `sign` is given", "leave it out")
        text = None
        if body is not None:
            text = literal(body.reveal()) if isinstance(body, Secret) else template("body", body, names)
        secrets = [*headers.secrets()]
        secrets += [item.reveal() for item in (body, settings.bearer, settings.sign) if isinstance(item, Secret)]
        if isinstance(settings.url, Secret):
            secrets += parts_of_url(url, target.origin)
        content = compiled("json", settings.json, names)
        return cls(reach, target, headers, text, content, success, signer, polling, Masker(secrets))

    def call(self, method: str, context: RunContext) -> Call:
        """Return the request of an attempt; raises ExpressionError and UnsafeUrl."""
        scope = context.scope
        try:
            url = self.url.render(scope)
        except ExpressionError as error:
            raise ExpressionError(f"the URL: {error}") from None
        headers = self.headers.render(scope)
        body, kind = None, None
        if self.body is not None:
            try:
                body, kind = self.body.render(scope).encode("utf-8", "replace"), "text/plain; charset=utf-8"
            except ExpressionError as error:
                raise ExpressionError(f"the body: {error}") from None
        elif self.json is not None:
            body, kind = encode_json(rendered(self.json, scope)), "application/json"
        given = {name.lower() for name in headers}
        if kind is not None and "content-type" not in given:
            headers["Content-Type"] = kind
        if method not in ("GET", "HEAD") and "idempotency-key" not in given:
            headers["Idempotency-Key"] = context.run_id
        if "traceparent" not in given:
            headers["traceparent"] = context.traceparent
        if self.signer is not None:
            headers |= self.signer.headers(context.run_id, context.clock.now(), body or b"")
        return Call(method, url, headers, body, self.headers.confidential)


def _plan_of(settings: Http, names: frozenset[str]) -> _Plan:
    headers = tuple(settings.headers.items())
    content = None if settings.json is None else encode_json(settings.json)
    return _cached_plan(
        settings.url, headers, settings.bearer, settings.body, content, settings.success, settings.sign, settings.poll,
        settings.allow_private, names,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _cached_plan(
    url: Secret | str, headers: tuple[tuple[str, Secret | str], ...], bearer: Secret | None, body: Secret | str | None,
    content: bytes | None, success: tuple[int, ...] | str | None, sign: Secret | None, poll: Poll | None,
    allow_private: bool | tuple[str, ...], names: frozenset[str],
) -> _Plan:  # fmt: skip
    """Compile what a job's requests are made of once for all of its runs."""
    settings = Http(
        url=url, headers=dict(headers), bearer=bearer, body=body, json=None if content is None else parse_json(content),
        success=success, sign=sign, poll=poll, allow_private=allow_private,
    )  # fmt: skip
    return _Plan.read(settings, names)


def _revealed(text: Secret | str) -> str:
    return text.reveal() if isinstance(text, Secret) else text


def _looks_like_json(body: str, headers: Headers) -> bool:
    for field in headers.fields:
        if field.name.lower() == "content-type":
            return is_json(field.value.text)
    text = body.lstrip()
    return text[:1] in ("{", "[") and not text.startswith("{{")


def _outputs(answer: Answer, body: Any, masker: Masker) -> dict[str, Any]:
    """Return what is kept of an answer as the run's outputs, without secrets; the body as text where it is cut."""
    outputs: dict[str, Any] = {"status": answer.status, "headers": masker.value(kept_headers(answer))}
    shown = masker.cut_text(body) if answer.truncated and isinstance(body, str) else masker.value(body)
    if len(encoded := encode_json(shown)) > KEPT_BODY_BYTES:
        text = shown if isinstance(shown, str) else encoded[:KEPT_BODY_BYTES].decode("utf-8", "ignore")
        outputs["body"], outputs["truncated"] = _shortened(text), True
    else:
        outputs["body"] = shown
        if answer.truncated:
            outputs["truncated"] = True
    return outputs


def _shortened(text: str) -> str:
    """Return the beginning of a text, as much as `KEPT_BODY_BYTES` as JSON."""
    while len(encode_json(text)) > KEPT_BODY_BYTES:
        text = text[: len(text) // 2 if len(text) > 2 * KEPT_BODY_BYTES else len(text) * 9 // 10]
    return text


def _transcript(answer: Answer, masker: Masker) -> bytes:
    """Return an answer as the run's log shows it."""
    lines = [f"< {answer.line}", *(f"< {name}: {value}" for name, value in kept_headers(answer).items())]
    text = answer.body.decode("utf-8", "surrogateescape")
    shown = masker.cut_text(text) if answer.truncated else masker.text(text)
    note = f"\n[cut off after {len(answer.body)} bytes]\n" if answer.truncated else "\n" if answer.body else ""
    head = masker.text("\n".join(lines))
    return f"{head}\n\n".encode() + shown.encode("utf-8", "surrogateescape") + note.encode()


async def _note(context: RunContext, url: URL, masker: Masker) -> None:
    """Note a status URL, so that it is still known after a crash; not one that repeats a secret."""
    text = str(url)
    if masker.text(text) != text:
        context.log.warning(
            "the status URL repeats a secret, so it is not noted: after a crash the request is sent again",
            extra={"action": "poll_not_noted"},
        )
        return
    try:
        await context.note({"url": text})
    except StoreUnavailable:
        context.log.warning(
            "the status URL can't be noted now: after a crash the request is sent again",
            extra={"action": "poll_not_noted"},
        )
