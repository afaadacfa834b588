"""A client of the API for tests: one call, one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from msgspec import Struct
from multidict import CIMultiDictProxy

from engine.http.server import HttpServer
from tests.described import hold_against_description
from tests.fake_operations import TOKEN


class Got(Struct, kw_only=True):
    """An answer: `json` is None where the body is none."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    json: Any


class Client:
    """Asks one server, with the admin token unless told otherwise; each answer has to be one that is described."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Got:
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        data = body
        if body is not None and not isinstance(body, (bytes, AsyncIterator)):
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method,
            self._url + path,
            data=data,
            headers=sent,
            skip_auto_headers=("Content-Type",),
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            is_json = "json" in answer.headers.get("Content-Type", "")
            value = json.loads(content) if content and is_json else None
            hold_against_description(method, path, answer.status, answer.headers.get("Content-Type", ""), value)
            return Got(status=answer.status, headers=answer.headers, body=content, json=value)


@asynccontextmanager
async def asking(server: HttpServer) -> AsyncIterator[Client]:
    """Connect to a server."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(session, server.url)


async def raw(server: HttpServer, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are, and return all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(sent)
        await writer.drain()
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
