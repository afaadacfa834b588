"""A small client of the engine's API. What fails is told with the way out."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from engine.cli.failures import USAGE, CommandFailed, EngineSilent, Gone, NoEngine, NotThere
from engine.cli.output import say
from engine.cli.program import version
from engine.ids import is_id, is_tail
from engine.logs import printable

TIMEOUT_S = 60.0
"""So long an answer may take."""

CONNECT_S = 10.0
"""So long a connection may take."""

LONGEST_WAIT_S = 60.0
"""So long a command waits in all where the engine has it wait; the engine says how long each time."""

NO_CONTENT = 204
PAGE = 1000
"""So many items of a list are asked for at once."""

API = "/api/v1"
_TRACEPARENT = re.compile(r"[0-9a-f-]{55,128}\Z")
_CHUNK_BYTES = 64 * 1024
_NO_ROUTE = "there is nothing here"


class Client:
    """Asks the engine at `url` with a token; `origin` says in words where the token comes from.

    `ca_file` holds the certificates of who may vouch for it; by default those that the system trusts do. `silent` is
    asked where nothing answers: it says which engine runs all the same, and why it may be silent.
    """

    def __init__(
        self,
        url: str,
        token: str,
        origin: str,
        *,
        ca_file: Path | None = None,
        timeout_s: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
        silent: Callable[[], str | None] = lambda: None,
    ) -> None:
        parts = parts_of(url)
        self.url = url.rstrip("/")
        self._base = parts.path.rstrip("/")
        self._host, self._port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._token, self._origin, self._ca_file = token, origin, ca_file
        self._connect_s = CONNECT_S if timeout_s is None else timeout_s
        self._timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._sleep, self._left_s = sleep, LONGEST_WAIT_S if timeout_s is None else 0.0
        self._silent = silent
        self._named: dict[tuple[str, str], str] = {}

    def briefly(self, timeout_s: float) -> Client:
        """Return a client that gives up soon, and waits for nothing."""
        return Client(
            self.url, self._token, self._origin, ca_file=self._ca_file, timeout_s=timeout_s, silent=self._silent
        )

    def get(self, *path: str, **query: Any) -> Any:
        """Return what is at a path below /api/v1; parameters that are None are left out."""
        return self._json("GET", self._to(path, query), None, {})

    def named(self, kind: str, text: str) -> str:
        """Return the id of one of the `runs` or `events` by its last digits; what is no tail of an id is left as it is.

        The latest of them alone are looked through. Raises NotThere where none of these has such an id, CommandFailed
        where several have.
        """
        tail = text.lower()
        if is_id(tail) or not is_tail(tail):
            return text
        if (kind, tail) not in self._named:
            latest = self._json("GET", _path((kind,), {"limit": PAGE}), None, {})["items"]
            found = [one["id"] for one in latest if one["id"].endswith(tail)]
            if not found:
                older = "name an older one by its whole id"
                raise NotThere(f"none of the latest {PAGE:,} {kind} has an id that ends with {tail}: {older}")
            if len(found) > 1:
                raise CommandFailed(f"the ids of several {kind} end with {tail}: {', '.join(found)}; name one", USAGE)
            self._named[kind, tail] = found[0]
        return self._named[kind, tail]

    def _to(self, path: tuple[str, ...], query: Mapping[str, Any]) -> str:
        """Return what a request goes to; a run or an event in the path may be named by the last digits of its id."""
        if len(path) > 1 and path[0] in ("runs", "events"):
            path = (path[0], self.named(path[0], path[1]), *path[2:])
        return _path(path, query)

    def whole(self, *path: str, **query: Any) -> Any:
        """Return a list whole, as one that has no next page."""
        found = self.get(*path, limit=PAGE, **query)
        items, cursor = list(found["items"]), found["next"]
        while cursor is not None:
            page = self.get(*path, limit=PAGE, cursor=cursor, **query)
            items += page["items"]
            cursor = page["next"]
        return {**found, "items": items, "next": None}

    def post(self, *path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON to a path below /api/v1, and return the answer."""
        return self._send_json("POST", path, body, headers)

    def send_toml(self, *path: str, content: bytes, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """Send a TOML text to a path below /api/v1, and return the answer."""
        sent = {"Content-Type": "application/toml", **(headers or {})}
        return self._json("POST", self._to(path, query), content, sent)

    def patch(self, *path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Have something changed at a path below /api/v1, and return the answer."""
        return self._send_json("PATCH", path, body, headers)

    def _send_json(self, method: str, path: tuple[str, ...], body: Any, headers: Mapping[str, str] | None) -> Any:
        content = json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._json(method, self._to(path, {}), content, sent)

    def delete(self, *path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Delete what is at a path below /api/v1, and return the answer."""
        return self._json("DELETE", self._to(path, {}), None, headers or {})

    def stream(self, *path: str, **query: Any) -> Iterator[bytes]:
        """Yield an answer piece by piece, for as long as it takes."""
        connection, answer = self._answer("GET", self._to(path, query), None, {}, endless=bool(query.get("follow")))
        try:
            while True:
                try:
                    chunk = answer.read1(_CHUNK_BYTES)
                except (http.client.HTTPException, OSError) as error:
                    raise self._broken(error, "GET") from None
                if not chunk:
                    return
                yield chunk
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        connection, answer = self._answer(method, path, body, headers)
        try:
            content = answer.read()
            if answer.status == NO_CONTENT:
                return None
            return json.loads(content, object_hook=lambda members: Told(members, self.url))
        except ValueError:
            raise CommandFailed(f"what answers at {self.url} is no engine: it does not speak JSON") from None
        except (http.client.HTTPException, OSError) as error:
            raise self._broken(error, method) from None
        finally:
            connection.close()

    def _answer(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, endless: bool = False
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Return an answer that is no error, and its connection, to be closed; wait where the engine says so."""
        while True:
            connection = self._connect()
            connection.sock.settimeout(None if endless else self._timeout_s)
            try:
                answer = self._send(connection, method, path, body, headers)
                if answer.status < 300:
                    return connection, answer
                content = answer.read(_CHUNK_BYTES)
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                raise self._broken(error, method) from None
            except BaseException:
                connection.close()
                raise
            connection.close()
            self._wait(answer, content)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._connect_s, context=self._trust
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_s)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise CommandFailed(
                f"the certificate of {self.url} is not trusted ({error.verify_message}): where it is of an authority "
                "of your own, name that as ca_file in a profile, or in SSL_CERT_FILE"
            ) from None
        except ssl.SSLError as error:
            connection.close()
            raise CommandFailed(
                f"TLS with {self.url} failed ({_words(error)}): does it speak plain http:// there?"
            ) from None
        except OSError as error:
            connection.close()
            said = f"no engine answers at {self.url} ({_words(error)})"
            if (running := self._silent()) is not None:
                raise EngineSilent(f"{said}, but {running}") from None
            raise NoEngine(f"{said}: {self._way_to_one()}") from None
        return connection

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CommandFailed(f"ca_file {self._ca_file} holds no certificates ({_words(error)})", USAGE) from None

    def _way_to_one(self) -> str:
        if self._host in ("localhost", "::1") or self._host.startswith("127."):
            return "start it with python -m engine"
        return "is the address right, and does it run there?"

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            authorization = {"Authorization": f"Bearer {self._token}".encode("latin-1")}
        except UnicodeEncodeError:
            raise CommandFailed(f"the token from {self._origin} is no token", USAGE) from None
        try:
            connection.request(method, self._base + path, body, {**_origin(), **headers, **authorization})
        except ValueError:  # it would echo the header, and the token with it
            raise CommandFailed(f"the token from {self._origin} is no token", USAGE) from None
        return connection.getresponse()

    def _broken(self, error: Exception, method: str) -> CommandFailed:
        if isinstance(error, TimeoutError):
            done = "" if method == "GET" else "; what it was asked for may still be done, so look before asking again"
            return CommandFailed(f"the engine at {self.url} did not answer within {self._timeout_s:.0f} s{done}")
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
            return CommandFailed(
                f"what answers at {self.url} is no engine: it does not speak HTTP"
                + ("" if self._tls else "; does it want https://?")
            )
        return CommandFailed(f"the engine at {self.url} broke off: {_words(error)}")

    def _wait(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        """Wait as long as the engine says, where it is asked too often; raise what went wrong otherwise."""
        failure, code = self._failure(answer, content)
        after = answer.headers.get("Retry-After", "")
        wait_s = float(after) if after.isascii() and after.isdigit() else None
        if code == "rate_limited" and wait_s is not None and wait_s <= self._left_s:
            self._left_s -= max(wait_s, 1.0)
            say(f"The engine at {self.url} is asked too often; on in {wait_s:.0f} s", error=True)
            self._sleep(wait_s)
            return
        if answer.status in (429, 503) and wait_s is not None:
            raise CommandFailed(f"{failure}; try again in {wait_s:.0f} s")
        raise failure

    def _failure(self, answer: http.client.HTTPResponse, content: bytes) -> tuple[CommandFailed, str]:
        """Return what went wrong in words, and the problem's code."""
        status = answer.status
        if status in (301, 302, 303, 307, 308):  # not followed: the token is for whom it was given for
            there = answer.headers.get("Location", "somewhere else")
            return CommandFailed(f"what answers at {self.url} sends on to {there}: name the engine itself"), ""
        try:
            problem = json.loads(content)
            detail, code = printable(str(problem["detail"])), str(problem.get("code", ""))
        except (ValueError, KeyError, TypeError):
            return CommandFailed(f"what answers at {self.url} is no engine: it said {status}"), ""
        if status == 401:
            way = "`trigger-engine token` tells where the engine's own is, on its machine"
            said = f"the engine at {self.url} refused the token from {self._origin}: {detail}; {way}"
            return CommandFailed(said), code
        if status == 403:
            said = f"the token from {self._origin} may not do that: {detail}; who has an admin token can make another"
            return CommandFailed(said), code
        if status == 405 or detail == _NO_ROUTE:
            says = f"the engine at {self.url} says: {detail}"
            return NotThere(f"{says}; is that a name or an id? Or it is older than this command, {version()}"), code
        if status == 404:
            return NotThere(detail), code
        if status == 410:
            return Gone(detail), code
        errors = problem.get("errors") or []
        if len(errors) > 1 or code == "invalid_config":
            detail = "\n".join(_told(error) for error in errors)
        return CommandFailed(detail, USAGE if status in (400, 422) else 1), code


class Told(dict[str, Any]):
    """What an engine told; a member that it lacks is one that its version does not have yet."""

    def __init__(self, members: Mapping[str, Any], url: str) -> None:
        super().__init__(members)
        self._url = url

    def __missing__(self, name: str) -> Any:
        """Say why there is no such member."""
        older = f"it may be older than this command, {version()}; --json prints what it tells"
        raise CommandFailed(f"the engine at {self._url} does not tell {name!r}: {older}")


def parts_of(url: str) -> SplitResult:
    """Return the parts of an engine's URL; raise CommandFailed where it is none."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise CommandFailed(f"{url!r} is no URL such as http://127.0.0.1:8080", USAGE) from None
    if "@" in parts.netloc:
        raise CommandFailed(f"the URL of {parts.hostname} holds a user: a token goes to --token, not there", USAGE)
    if not whole or parts.query or parts.fragment:
        raise CommandFailed(f"{url!r} is no URL such as http://127.0.0.1:8080", USAGE)
    return parts


def _origin() -> dict[str, str]:
    """Return what tells the engine which of its runs asks, where a run's process does."""
    traceparent, run = os.environ.get("TRACEPARENT", ""), os.environ.get("ENGINE_RUN_ID", "")
    if _TRACEPARENT.match(traceparent):
        return {"Traceparent": traceparent}
    return {"Traceparent": f"00-{run.replace('-', '')}-{'1' * 16}-01"} if is_id(run) else {}


def _path(parts: tuple[str, ...], query: Mapping[str, Any]) -> str:
    path = "/".join((API, *(quote(part, safe="") for part in parts)))
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _told(error: Mapping[str, Any]) -> str:
    """Say where a mistake is, where what is said of it does not, and what it is."""
    place = error.get("pointer") or error.get("parameter")
    return printable(f"{place}: {error['detail']}" if place else str(error["detail"]))


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
