"""Callbacks: the end of a run, posted to a URL and signed."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from engine.plugin import Channel, ChannelContext, Duration, Message, Receipt, Secret, encode_json
from plugins.outgoing.answers import retry_after_s
from plugins.outgoing.client import Call, CallFailed, open_client, origin_of
from plugins.outgoing.masking import Masker, parts_of_url
from plugins.outgoing.networks import read_reach
from plugins.outgoing.signing import Signer
from plugins.outgoing.urls import read_target

GONE = 410
MOST_ANSWER_BYTES = 4096


class Callback(Channel, frozen=True, kw_only=True):
    """Post a message to a URL, signed by Standard Webhooks; an answer with a status from 200 to 299 takes it.

    - `url`: where to, http or https; of one that stands elsewhere (`{ env = … }`) only scheme, host and port are shown.
    - `secret`: what it is signed with: `whsec_…` is the key in base64, any other text the key itself.
    - `timeout`: bound of one try.
    - `allow_private`: also private and loopback addresses, or networks such as `["10.1.0.0/16"]`. By default the public
      internet alone.

    The pauses are those of the specification, 28 hours in all.
    """

    name: ClassVar[str] = "callback"
    main: ClassVar[str | None] = "url"
    pauses_s: ClassVar[tuple[float, ...]] = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0)

    url: Secret | str
    secret: Secret
    timeout: Annotated[Duration, Meta(gt=0)] = 20.0
    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        Signer(self.secret, "secret")
        read_target(self.url, read_reach(self.allow_private))

    async def deliver(self, context: ChannelContext, message: Message) -> Receipt:
        reach, secret = read_reach(self.allow_private), self.secret
        url = read_target(self.url, reach)
        body = encode_json({"type": message.type, "timestamp": message.at, "data": message.data})
        signed = Signer(secret, "secret").headers(message.id, context.clock.now(), body)
        call = Call("POST", url, {**signed, "Content-Type": "application/json"}, body)
        hidden = [secret.reveal()]
        if isinstance(self.url, Secret):
            hidden += parts_of_url(self.url.reveal(), origin_of(url))
        masker = Masker(hidden)
        try:
            async with open_client(reach, context.clock, keep_alive=False) as client:
                answer = await client.send(call, timeout_s=self.timeout, max_body_bytes=MOST_ANSWER_BYTES)
        except CallFailed as failure:
            return Receipt.not_now(masker.text(str(failure)))
        line = masker.text(f"{call.origin} answered {answer.line}")
        if 200 <= answer.status <= 299:
            return Receipt.taken(line)
        if answer.status == GONE:
            return Receipt.gone(f"{line}: it wants no more of it")
        if 300 <= answer.status <= 399:
            line += ": redirects are not followed; set `url` to where it leads"
        return Receipt.not_now(line, retry_after_s=retry_after_s(answer.headers, context.clock.now()))
