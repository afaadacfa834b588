"""A small client of the engine's API."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from engine.cli.failures import USAGE, CommandFailed, Gone, NoEngine, NotThere
from engine.ids import is_id

TIMEOUT_S = 60.0
NO_CONTENT = 204
API = "/api/v1"
_TRACEPARENT = re.compile(r"[0-9a-f-]{55,128}\Z")
_CHUNK_BYTES = 64 * 1024


class Client:
    """Asks the engine at `url` with a token; `origin` says in words where the token comes from."""

    def __init__(self, url: str, token: str, origin: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise CommandFailed(f"{url!r} is no URL such as http://127.0.0.1:8080", USAGE)
        self.url = url.rstrip("/")
        self._base = parts.path.rstrip("/")
        self._host, self._port, self._tls = parts.hostname, port, parts.scheme == "https"
        self._token, self._origin = token, origin

    def get(self, *path: str, **query: Any) -> Any:
        """Return what is at a path below /api/v1; parameters that are None are left out."""
        return self._json("GET", _path(path, query), None, {})

    def post(self, *path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON to a path below /api/v1, and return the answer."""
        return self._send_json("POST", path, body, headers)

    def send_toml(self, *path: str, content: bytes, headers: Mapping[str, str] | None = None, **query: Any) -> Any:
        """Send a TOML text to a path below /api/v1, and return the answer."""
        sent = {"Content-Type": "application/toml", **(headers or {})}
        return self._json("POST", _path(path, query), content, sent)

    def patch(self, *path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Have something changed at a path below /api/v1, and return the answer."""
        return self._send_json("PATCH", path, body, headers)

    def _send_json(self, method: str, path: tuple[str, ...], body: Any, headers: Mapping[str, str] | None) -> Any:
        content = json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        return self._json(method, _path(path, {}), content, sent)

    def delete(self, *path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Delete what is at a path below /api/v1, and return the answer."""
        return self._json("DELETE", _path(path, {}), None, headers or {})

    def stream(self, *path: str, **query: Any) -> Iterator[bytes]:
        """Yield an answer piece by piece, for as long as it takes."""
        connection = self._connect(None if query.get("follow") else TIMEOUT_S)
        try:
            answer = self._send(connection, "GET", _path(path, query), None, {})
            while chunk := answer.read1(_CHUNK_BYTES):
                yield chunk
        except (http.client.HTTPException, OSError) as error:
            raise CommandFailed(f"the engine at {self.url} broke off: {_words(error)}") from None
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        connection = self._connect(TIMEOUT_S)
        try:
            answer = self._send(connection, method, path, body, headers)
            content = answer.read()
            return json.loads(content) if content or answer.status != NO_CONTENT else None
        except ValueError:
            raise CommandFailed(f"what answers at {self.url} is no engine: it does not speak JSON") from None
        except (http.client.HTTPException, OSError) as error:
            raise CommandFailed(f"the engine at {self.url} broke off: {_words(error)}") from None
        finally:
            connection.close()

    def _connect(self, timeout_s: float | None) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            raise NoEngine(
                f"no engine answers at {self.url} ({_words(error)}): start it with python -m engine"
            ) from None
        connection.sock.settimeout(timeout_s)
        return connection

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
        answer = connection.getresponse()
        if answer.status >= 300:
            raise self._failure(answer.status, answer.read(_CHUNK_BYTES))
        return answer

    def _failure(self, status: int, content: bytes) -> CommandFailed:
        try:
            problem = json.loads(content)
            detail = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return CommandFailed(f"what answers at {self.url} is no engine: it said {status}")
        if status == 401:
            return CommandFailed(f"the engine at {self.url} refused the token from {self._origin}: {detail}")
        if status == 404:
            return NotThere(detail)
        if status == 410:
            return Gone(detail)
        errors = problem.get("errors") or []
        if len(errors) > 1 or problem.get("code") == "invalid_config":
            detail = "\n".join(_told(error) for error in errors)
        return CommandFailed(detail, USAGE if status in (400, 422) else 1)


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
    return f"{place}: {error['detail']}" if place else str(error["detail"])


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
