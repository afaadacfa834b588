"""A webhook that runs, seen from the sender's side; and senders that sign by other people's packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pytest
from msgspec import Struct
from multidict import CIMultiDict

from engine.plugin import Handler, Refusal, Request, Response
from engine.testing import VirtualClock
from plugins.sources.webhook import Verify, Webhook
from tests.fakes import FakeSourceContext

REMOTE = "192.0.2.1"


class Sent(Struct, frozen=True, kw_only=True):
    """What a sender posts."""

    body: bytes
    headers: dict[str, str]


class Hook:
    """A webhook under a virtual clock."""

    def __init__(
        self, verify: Literal["none"] | Verify = "none", *, path: str = "in", allow: tuple[str, ...] = ()
    ) -> None:
        self.clock = VirtualClock()
        self.webhook = Webhook(path=path, verify=verify, allow=allow)
        self.context = FakeSourceContext(clock=self.clock)
        self._handler: Handler | None = None

    @property
    def now_s(self) -> int:
        """The time, in whole seconds since 1970."""
        return int(self.clock.now().timestamp())

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, remote: str = REMOTE, method: str = "POST"
    ) -> Response:
        """Post a request; raises Refusal."""
        if self._handler is None:
            async with self.context.running(self.webhook):
                self._handler = self.context.routes["POST", f"/hooks/{self.webhook.path}"]
        request = Request(
            method=method, path=f"/hooks/{self.webhook.path}", query={}, headers=CIMultiDict(headers or {}),
            remote=remote, body=body,
        )  # fmt: skip
        return await self._handler(request)

    async def send(self, sent: Sent, *, remote: str = REMOTE) -> Response:
        """Post what a sender sends."""
        return await self.post(sent.body, sent.headers, remote=remote)

    async def event(self, sent: Sent) -> Any:
        """Post it, and return the event that it became."""
        assert (await self.send(sent)).status == 202
        return self.context.emitted[-1]

    async def refusal(self, body: bytes, headers: Mapping[str, str] | None = None, *, remote: str = REMOTE) -> Refusal:
        """Post what has to be refused, and return how it was."""
        count = len(self.context.emitted)
        with pytest.raises(Refusal) as caught:
            await self.post(body, headers, remote=remote)
        assert len(self.context.emitted) == count
        return caught.value


Sender = Callable[[str, bytes, int], Sent]
"""Signs a body with a secret, at a time."""
