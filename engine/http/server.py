"""The listener: takes requests, finds who answers them, and sees that every answer is one.

Requests below `/hooks/` go straight to the sources that registered their paths; everything else goes through
the table of routes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from engine.cloudevents import permitted
from engine.errors import EngineError, StoreDamaged
from engine.http.access import Gate, offered
from engine.http.answers import Answer, Heads, stream_headers
from engine.http.bodies import read_body
from engine.http.calls import Call, Stream
from engine.http.clients import counted_as
from engine.http.connection import Listener, while_there
from engine.http.crowd import CROWDED, CROWDED_CLIENT
from engine.http.doorlog import DoorLog
from engine.http.idempotency import HEADER as IDEMPOTENCY_KEY
from engine.http.idempotency import Idempotency
from engine.http.keyring import Keyring
from engine.http.operations import Operations
from engine.http.page import is_for_people, shown_fault
from engine.http.problems import Problem, problem_of
from engine.http.quotas import GUESSING, LIMITED, WRONG_TOKEN, Guesses, RateLimit
from engine.http.routes import METRICS, Router, allowed, is_guarded
from engine.http.scope import narrowed
from engine.http.sessions import Sessions
from engine.http.tokens import AdminToken
from engine.http.waits import WAIT
from engine.http.witness import Asking, Witness
from engine.ids import new_id
from engine.logids import IDS
from engine.networks import client_of
from engine.plugin import Handler, Refusal, Request, Response
from engine.tokens import Who

HOOKS: Final = "/hooks/"
API: Final = "/api/"
EVENTS: Final = "/api/v1/events"
SESSION: Final = "/session"
PROBES: Final = frozenset({"/live", "/ready", "/livez", "/readyz"})
"""Answered whatever a client's rate is: an engine that is busy is not to be taken for one that is dead."""

TOLD: Final = {
    CROWDED: "connections were more than there may be: slow or idle ones were closed, or the new one",
    CROWDED_CLIENT: "connections were more than one client may have: slow or idle ones were closed, or the new one",
    LIMITED: "requests were refused by [http] rate_limit",
    WRONG_TOKEN: "requests had a wrong token",
    GUESSING: "requests had a token that was not looked at, after too many wrong ones",
}
BACKLOG = 1024
"""Connections that the kernel keeps while the engine is busy."""

ACCEPTED_AT_ONCE = 8
"""Connections that are taken over from it in one turn of the event loop."""

ACCEPT_TURNS = 4
"""Turns of the event loop until a connection that the kernel handed over is known to the listener."""

MOST_PARAMETERS = 100
_NO_QUERY: Mapping[str, str] = {}
_REQUEST_ID = re.compile(r"[\x20-\x7e]{1,128}\Z")
_SHORTEST_WAIT_S = 0.05  # aiohttp takes a time-out of 0 for none

log = logging.getLogger("engine.http")


class HttpServer:
    """Serves HTTP on one address.

    `host` and `port` are those of the configuration unless they are given; port 0 takes a free one. `keyring` holds the
    tokens; without one the admin's is all there is.
    """

    def __init__(
        self,
        operations: Operations,
        admin: AdminToken,
        *,
        host: str | None = None,
        port: int | None = None,
        router: Router | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        settings = operations.config.http
        self._operations = operations
        self._max_body_bytes = settings.max_body_bytes
        self._proxies = settings.trusted_proxies
        self.host = settings.host if host is None else host
        self._port = settings.port if port is None else port
        self._doors = settings.doors
        self._told = DoorLog(TOLD)
        monotonic = operations.clock.monotonic
        self._guesses = Guesses(monotonic, self._told)
        self._rates = None if self._doors.rate is None else RateLimit(self._doors.rate, monotonic, self._told)
        self._gate = Gate(
            keyring or Keyring(admin), self.host, self._guesses, Sessions(monotonic), trusted=settings.trusted_header,
            hosts=settings.hosts,
        )  # fmt: skip
        self._witness = Witness(operations.audit_log, lambda: operations.config.secrets)
        self._router = router or Router()
        self._heads = Heads(operations.clock)
        self._idempotency = Idempotency()
        self._listener: Listener | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._stopping = False

    @property
    def port(self) -> int:
        """The port that it listens on, once it is bound."""
        return self._port

    @property
    def url(self) -> str:
        """The address as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._port}"

    def bind(self) -> socket.socket:
        """Take the address, and return what listens on it: who connects from now on waits until `start`.

        Raises EngineError, with the way out, where it can't be had.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            self._socket = socket.create_server((self.host, self._port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise EngineError(_no_address(self.host, self._port, error)) from None
        self._port = self._socket.getsockname()[1]
        return self._socket

    async def start(self) -> None:
        """Answer requests, on the address that `bind` took or takes now."""
        listening = self._socket or self.bind()
        self._socket = None
        answer = self._answer if self._rates is None else self._limited
        self._listener = Listener(answer, self._heads, self._doors, self._told, self._proxies)
        loop = asyncio.get_running_loop()
        # asyncio accepts as many at a time as it has the kernel keep: few, so that there is room for each.
        self._server = await loop.create_server(self._listener, sock=listening, backlog=ACCEPTED_AT_ONCE)
        listening.listen(BACKLOG)
        log.info("Listening on %s", self.url, extra={"action": "http_listening", "url": self.url})

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let begun requests end within `grace_s` seconds, then close what is left."""
        self._stopping = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        server, listener = self._server, self._listener
        if server is None or listener is None:
            return
        self._server = None
        self._told.tell()
        server.close()
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        left = listener.connections
        listener.pre_shutdown()
        try:
            async with asyncio.timeout(max(grace_s, _SHORTEST_WAIT_S) + _SHORTEST_WAIT_S):
                await listener.shutdown(max(grace_s, _SHORTEST_WAIT_S))
        except TimeoutError:
            await listener.shutdown(_SHORTEST_WAIT_S)
        for connection in [*left, *listener.connections]:
            if connection.transport is not None:
                connection.transport.abort()
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)  # a transport closes a turn after it was told to
        self._told.tell()

    async def _limited(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request where there is a limit to how often a client may ask."""
        target = request.raw_path.partition("?")[0]
        if self._rates is None or target in PROBES:
            return await self._answer(request)
        try:
            said = self._rates.take(self._counted_by(request, target))
        except Problem as problem:
            return self._heads.problem(problem, target, _request_id(request))
        answer = await self._answer(request)
        if isinstance(answer, Answer):
            answer.add(said)
        return answer

    def _counted_by(self, request: web.BaseRequest, target: str) -> str:
        address = self._client(request)
        token = offered(request.headers) if target.startswith(API) else None
        if token and self._guesses.knows(address, token):
            return f"token {sha256(token.encode('utf-8', 'surrogateescape')).hexdigest()}"
        return counted_as(address)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = _request_id(request)
        target = request.raw_path
        path, reason, explain = "", None, None
        IDS.set({"request_id": request_id})
        if log.isEnabledFor(logging.DEBUG):
            ids = {"action": "http_request", "remote": self._client(request)}
            log.debug("%s %s", request.method, target.partition("?")[0], extra=ids)
        try:
            path, query_text = _split(request, target)
            if path.startswith(HOOKS):
                return self._heads.answer(await self._hook(request, path, query_text), request_id)
            return await self._routed(request, path, query_text, request_id)
        except (EngineError, Refusal) as error:
            problem = problem_of(error)
            if isinstance(error, Refusal):
                reason, explain = error.reason, error.explain
            elif isinstance(error, StoreDamaged) and path.startswith(HOOKS):
                # What became of it is the owner's business alone.
                reason, problem.detail = problem.detail, "The event can't be stored now, and was not taken."
        except Problem as raised:
            problem = raised
        except ConnectionError:
            raise
        except Exception as error:  # a source's handler, or a fault of ours: the sender gets no trace of it
            log.exception(
                "A request failed: %s %s",
                request.method,
                target.partition("?")[0],
                extra={"action": "http_request_failed", "request_id": request_id, "error": repr(error)},
            )
            problem = Problem(500, "the engine failed to answer; its log says why under this request_id", close=True)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer was begun and can't be finished")
        if path.startswith(HOOKS):
            self._operations.note_refused(
                path, status=problem.status, reason=reason or problem.detail, remote=self._client(request),
                request_id=request_id, explain=explain,
            )  # fmt: skip
        if is_for_people(request.method, path, request.headers):
            now = self._operations.clock.now()
            fault = shown_fault(problem, target, request.headers, request_id, now=now)
            return self._heads.answer(fault, request_id, close=problem.close)
        return self._heads.problem(problem, target.partition("?")[0], request_id)

    def _client(self, request: web.BaseRequest) -> str:
        """Return the address of who asks: the peer's, or what trusted proxies say of it."""
        peer = request.remote or ""
        if self._proxies is None:
            return peer
        return client_of(peer, request.headers.getall("X-Forwarded-For", ()), self._proxies)

    async def _hook(self, request: web.BaseRequest, path: str, query_text: str) -> Response:
        method = request.method
        self._gate.check_page(request.headers)
        found = self._operations.route(method, path)
        handler = found if callable(found) else self._other_method(found, method, path)
        if isinstance(handler, Response):
            return handler
        asked = Request(
            method=method,
            path=path,
            query=_query(query_text) if query_text else _NO_QUERY,
            headers=request.headers,
            remote=self._client(request),
            body=await read_body(
                request,
                self._max_body_bytes,
                lambda: self._operations.encodings(path),
                timeout_s=self._doors.body_timeout_s,
            ),
        )
        if WAIT in asked.query:
            return await while_there(request, handler(asked))
        return await handler(asked)

    def _other_method(self, methods: tuple[str, ...] | None, method: str, path: str) -> Handler | Response:
        if not methods:
            if self._operations.may_answer(path):
                # It may be there in a moment, or is not any more as the engine ends: nobody is to give up for that.
                detail = "no source receives here now; one may in a moment"
                raise Problem(503, detail, code="not_ready", headers={"Retry-After": "2"})
            raise Problem(404, "no source receives here")
        if method == "OPTIONS":
            return Response(status=204, headers={"Allow": allowed(methods)})
        if method == "HEAD" and callable(handler := self._operations.route("GET", path)):
            return handler
        raise Problem(405, f"{method} is not allowed here; {allowed(methods)} are", headers={"Allow": allowed(methods)})

    async def _routed(
        self, request: web.BaseRequest, path: str, query_text: str, request_id: str
    ) -> web.StreamResponse:
        asking = Asking(request.method, request.headers, self._client(request), request_id)
        try:
            return await self._asked(request, path, query_text, asking)
        except Exception as error:  # it is answered by who called; here it is written down
            await self._witness.not_done(asking, error)
            raise

    async def _asked(self, request: web.BaseRequest, path: str, query_text: str, asking: Asking) -> web.StreamResponse:
        method, request_id = asking.method, asking.request_id
        found = self._router.find(path, "GET" if method == "HEAD" else method)
        if found is not None:
            asking.parameters = found[1]
            known = found[0].get("GET" if method == "HEAD" else method)
            asking.pattern = path if known is None else known.pattern
        takes_token = path.startswith(API) or (found is not None and is_guarded(found[0]) and not self._is_public(path))
        if takes_token or path.startswith(SESSION):
            self._gate.check_site(request.headers, http_1_0=request.version < (1, 1))
        who = None if method == "OPTIONS" else self._who(request, path, asking.address, takes_token=takes_token)
        asking.who = who
        if found is None:
            raise Problem(404, "there is nothing here")
        methods, parameters = found
        if method == "OPTIONS":
            permission = permitted(request.headers) if path == EVENTS else {}
            options = Response(status=204, headers={"Allow": allowed(methods), **permission})
            return self._heads.answer(options, request_id)
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            names = allowed(methods)
            raise Problem(405, f"{method} is not allowed here; {names} are", headers={"Allow": names})
        if route.role is not None and (who is None or who.role < route.role) and not self._is_public(path):
            raise Problem(403, f"this takes the role {route.role.name.lower()}", code="role_needed")
        asking.body = await read_body(request, self._max_body_bytes, timeout_s=self._doors.body_timeout_s)
        note = self._witness.begin(asking)
        operations = self._operations
        call = Call(
            operations=narrowed(operations, who.tags) if who is not None and who.tags else operations,
            request=Request(
                method=method,
                path=path,
                query=_single(query_text),
                headers=request.headers,
                remote=asking.address,
                body=asking.body,
            ),
            parameters=parameters,
            role=None if who is None else who.role,
            who=who,
            gate=self._gate,
            note=note,
            gone=lambda: self._stopping or request.transport is None or request.transport.is_closing(),
        )
        keyed = method == "POST" and IDEMPOTENCY_KEY in request.headers
        once = self._idempotency.once(call, route, who) if keyed and who is not None else None
        answering = route.answer(call) if once is None else once
        if note is not None:
            answering = self._witness.noting(note, answering)
        answer = await (while_there(request, answering) if WAIT in call.request.query else answering)
        if isinstance(answer, Stream):
            return await self._stream(request, answer, request_id)
        return self._heads.answer(answer, request_id)

    def _is_public(self, path: str) -> bool:
        return path == METRICS and self._operations.config.metrics.public

    def _who(self, request: web.BaseRequest, path: str, address: str, *, takes_token: bool) -> Who | None:
        """Return who asks: where a token is taken somebody has to, elsewhere nobody may."""
        headers, method, peer = request.headers, request.method, request.remote or ""
        if takes_token or (path.startswith(SESSION) and offered(headers)):
            return self._gate.who(headers, method, address, peer)
        try:
            return self._gate.guest(headers, method, address, peer)
        except Problem:
            if method in ("GET", "HEAD"):
                return None
            raise

    async def _stream(self, request: web.BaseRequest, stream: Stream, request_id: str) -> web.StreamResponse:
        headers = {"Date": self._heads.date(), "Server": "trigger-engine"}
        response = web.StreamResponse(
            status=stream.status, headers={**headers, **stream_headers(stream.headers, request_id)}
        )
        await response.prepare(request)
        try:
            if request.method != "HEAD":
                async for chunk in stream.chunks:
                    await response.write(chunk)
            if not self._stopping:
                await response.write_eof()
                return response
        finally:
            await _close(stream.chunks)
        # Cut off by the stop: without its last chunk the client knows that there would have been more.
        raise ConnectionResetError("the engine stops")


def _request_id(request: web.BaseRequest) -> str:
    asked = request.headers.get("X-Request-ID")
    return asked if asked is not None and _REQUEST_ID.match(asked) else new_id()


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close: Any = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


def _split(request: web.BaseRequest, target: str) -> tuple[str, str]:
    """Return the decoded path of a request and its query, still encoded."""
    if request.version < (1, 0):
        raise Problem(400, "HTTP/0.9 is not spoken", code="malformed_request", close=True)
    if not target.startswith("/"):
        if "://" not in target:
            raise Problem(400, "the target of the request is no path", code="malformed_request", close=True)
        target = str(request.rel_url)
    path, _, query_text = target.partition("?")
    if "%" in path:
        if "%2f" in path.lower() or "%00" in path:
            raise Problem(404, "there is nothing here")
        try:
            path = unquote(path, errors="strict")
        except UnicodeDecodeError:
            raise Problem(400, "the path is not valid UTF-8", code="malformed_request") from None
    return path, query_text.partition("#")[0]


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise Problem(400, f"the query is not valid UTF-8, or has more than {MOST_PARAMETERS} parameters") from None


def _query(text: str) -> Mapping[str, str]:
    """Return a query's parameters; of one that is repeated the first counts."""
    return dict(reversed(_pairs(text)))


def _single(text: str) -> Mapping[str, str]:
    """Return a query's parameters; a repeated one is refused, as nobody can tell which counts."""
    if not text:
        return _NO_QUERY
    pairs = _pairs(text)
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        detail = f"the query parameter {twice!r} is given twice"
        raise Problem(422, detail, code="invalid_fields", errors=[{"parameter": twice, "detail": detail}])
    return values


def _no_address(host: str, port: int, error: OSError) -> str:
    place = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{place} is in use by another program, perhaps another engine: "
            "stop it, or choose another port in [http] listen"
        )
    if error.errno == errno.EACCES:
        return f"{place} may not be listened on by this user: choose a port above 1023 in [http] listen"
    # From Python 3.13 on asyncio raises without a number where no address could be bound.
    if error.errno in (errno.EADDRNOTAVAIL, None) or isinstance(error, socket.gaierror):
        return f"{place} can't be listened on: {host} is no address of this machine; see [http] listen"
    return f"{place} can't be listened on: {error.strerror or error}; see [http] listen"
