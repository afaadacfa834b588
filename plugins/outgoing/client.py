"""The guarded client: it connects to where it may, in bounded time, and reads a bounded answer.

A name is resolved once for a connection, and the addresses that are found are those that are connected to: a
name that leads elsewhere a moment later (DNS rebinding) gains nothing. Each socket is guarded once more when it
is made, whatever led to it: an address written as a host, or a redirect.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import aiohttp
import anyio
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from engine.plugin import Clock
from plugins.outgoing.networks import Reach, host_refusal

USER_AGENT = "trigger-engine"
CONFIDENTIAL = frozenset("authorization cookie proxy-authorization x-api-key x-auth-token".split())
"""Header fields that prove who sends: they go to the origin they were meant for alone, and are never shown."""

MOST_HEADERS, LONGEST_HEADER_BYTES = 128, 8190

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_T = TypeVar("_T")


class CallFailed(Exception):
    """There is no answer; `code` is a stable word and the text a sentence, which names no more than the origin."""

    def __init__(self, reason: str, *, code: str) -> None:
        super().__init__(reason)
        self.code = code


class AddressRefused(OSError):
    """An address is none that a connection may be made to."""


class Call(NamedTuple):
    """A request. `confidential` names (in lower case) the headers that another origin must not get."""

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None = None
    confidential: frozenset[str] = frozenset()

    @property
    def origin(self) -> str:
        """Return scheme, host and port: what may be shown of any URL."""
        return origin_of(self.url)


class Answer(NamedTuple):
    """An answer: header names in lower case, and the body, cut where it is longer than was asked for.

    `url` is the one that answered: after redirects, another than was asked.
    """

    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    url: URL

    @property
    def line(self) -> str:
        """Return the status as people read it: `503 Service Unavailable`."""
        return f"{self.status} {self.phrase}".strip()


def origin_of(url: URL) -> str:
    """Return the scheme, host and port of a URL."""
    return str(url.origin())


class Client:
    """A session of requests; made by `open_client`."""

    def __init__(self, session: aiohttp.ClientSession, reach: Reach, clock: Clock) -> None:
        self._session = session
        self._reach = reach
        self._clock = clock

    async def send(self, call: Call, *, timeout_s: float, max_body_bytes: int, redirects: int = 0) -> Answer:
        """Send a request and return its answer, all within `timeout_s`, also where it comes byte by byte.

        Up to `redirects` redirects are followed, never from https to http; from one origin to another without
        confidential headers. 303, and 301 and 302 after a POST, become a GET (RFC 9110, section 15.4). Raises
        CallFailed: address_refused, http_unreachable, http_timeout, http_broken, redirect_refused.
        """

        async def follow() -> Answer:
            current, left = call, redirects
            while True:
                answer = await self._exchange(current, max_body_bytes)
                location = answer.headers.get("location")
                if redirects == 0 or answer.status not in _REDIRECTS or location is None:
                    return answer
                if left == 0:
                    reason = f"{call.origin} redirects more than {redirects} times"
                    raise CallFailed(reason, code="redirect_refused")
                left -= 1
                current = self._redirected(current, answer.status, location)

        try:
            return await _within(self._clock, timeout_s, follow)
        except TimeoutError:
            reason = f"{call.origin} did not answer in whole within {timeout_s:g}s"
            raise CallFailed(reason, code="http_timeout") from None

    async def _exchange(self, call: Call, max_body_bytes: int) -> Answer:
        try:
            async with self._session.request(
                call.method, call.url, headers=call.headers, data=call.body, allow_redirects=False
            ) as response:
                body, truncated = await _read(response, max_body_bytes)
                if truncated:
                    response.close()
                headers: dict[str, str] = {}
                for name, value in response.headers.items():
                    text = _readable(value)
                    name = _readable(name).lower()
                    headers[name] = f"{headers[name]}, {text}" if name in headers else text
                phrase = _readable(response.reason or "")
                return Answer(response.status, phrase, headers, body, truncated, call.url)
        except aiohttp.ClientConnectorError as error:
            raise _not_connected(call, error) from None
        except aiohttp.InvalidURL:
            reason = f"{call.origin} is no address that can be connected to"
            raise CallFailed(reason, code="http_unreachable") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = f"{call.origin} broke off its answer, or it is not HTTP: {_sentence(error)}"
            raise CallFailed(reason, code="http_broken") from None

    def _redirected(self, call: Call, status: int, location: str) -> Call:
        """Return the request that a redirect asks for; raise CallFailed where it must not be followed."""
        try:
            url = call.url.join(URL(location))
            host = url.raw_host
        except ValueError:
            url, host = call.url, None
        why = None
        if not host or url.scheme not in ("http", "https"):
            why = "to what is no http or https URL"
        elif url.scheme == "http" and call.url.scheme == "https":
            why = f"from https to {origin_of(url)}"
        elif (refusal := host_refusal(host, self._reach)) is not None:
            why = f"to {origin_of(url)}: {refusal}"
        if why is not None:
            raise CallFailed(f"{call.origin} redirects {why}", code="redirect_refused")
        method, body, headers = call.method, call.body, dict(call.headers)
        if (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {name: text for name, text in headers.items() if name.lower() != "content-type"}
        if url.origin() != call.url.origin():
            kept_back = CONFIDENTIAL | call.confidential
            headers = {name: text for name, text in headers.items() if name.lower() not in kept_back}
        return Call(method, url.with_user(None).with_fragment(None), headers, body, call.confidential)


@asynccontextmanager
async def open_client(reach: Reach, clock: Clock, *, keep_alive: bool) -> AsyncIterator[Client]:
    """Open a client and close it, with its connections, at the end of the block.

    With `keep_alive` a connection serves several requests. It knows no proxies, cookies or credentials but
    those that a call brings, whatever the environment says.
    """
    connector = aiohttp.TCPConnector(
        resolver=_GuardedResolver(reach),
        socket_factory=lambda address: _guarded_socket(address, reach),
        use_dns_cache=False,
        force_close=not keep_alive,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        trust_env=False,
        max_headers=MOST_HEADERS,
        max_field_size=LONGEST_HEADER_BYTES,
        max_line_size=LONGEST_HEADER_BYTES,
        skip_auto_headers=("Content-Type",),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )
    async with session:
        yield Client(session, reach, clock)


class _GuardedResolver(AbstractResolver):
    """The system's resolver, of whose answers only those are left that may be connected to."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        judged = [(result, self._reach.refusal(result["host"])) for result in found]
        allowed = [result for result, refusal in judged if refusal is None]
        if judged and not allowed:
            raise AddressRefused(f"{judged[0][0]['host']} is {judged[0][1]}")
        return allowed

    async def close(self) -> None:
        await self._system.close()


def _guarded_socket(address: AddrInfoType, reach: Reach) -> socket.socket:
    family, kind, protocol, _, place = address
    if (refusal := reach.refusal(str(place[0]))) is not None:
        raise AddressRefused(f"{place[0]!s} is {refusal}")
    return socket.socket(family=family, type=kind, proto=protocol)


async def _within(clock: Clock, limit_s: float, work: Callable[[], Awaitable[_T]]) -> _T:
    """Return what `work` returns; cancel it and raise TimeoutError when the clock says that its time is over."""
    results: list[_T] = []
    failed: list[CallFailed] = []
    async with anyio.create_task_group() as group:

        async def expire() -> None:
            await clock.sleep(limit_s)
            group.cancel_scope.cancel()

        group.start_soon(expire)
        try:
            results.append(await work())
        except CallFailed as failure:
            failed.append(failure)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not results:
        raise TimeoutError
    return results[0]


async def _read(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """Return the body, at most `most` bytes of it, and whether there was more."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            return bytes(body[:most]), True
    return bytes(body), False


def _not_connected(call: Call, error: aiohttp.ClientConnectorError) -> CallFailed:
    cause: Any = getattr(error, "certificate_error", None) or error.os_error
    if isinstance(cause, AddressRefused):
        reason = f"{call.origin} is not connected to: {cause}; set `allow_private` where it is meant"
        return CallFailed(reason, code="address_refused")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        what = "its name can't be resolved"
    elif isinstance(error, aiohttp.ClientSSLError):
        what = "no TLS connection"
    else:
        what = "no connection"
    text = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or _sentence(cause)
    return CallFailed(f"{call.origin} can't be reached: {what}: {text}", code="http_unreachable")


def _sentence(error: BaseException) -> str:
    """Return what an error says, in one bounded line: a server may have written it."""
    text = " ".join(str(error).split())
    return _readable(text)[:200] or type(error).__name__


def _readable(text: str) -> str:
    """Return text of a header, which need not be valid Unicode, as text that is."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
