"""Secrets in a whole engine: they are used, and stand in nothing that it shows or keeps."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.logs import LineFormatter, Masker
from engine.runs import RunState
from tests.evil_server import Received, answer, serving
from tests.fakes import until
from tests.test_runtime import comes_to, configured, fire, free_port, operations, running, stored_runs

CANARY = "c4nary"
"""Each secret holds it, and nothing else does."""

TEXT = """
[jobs.leaks.run.python]
function = "leaky:leak"
env = { SHOP_KEY = { file = "python" } }
[jobs.posts.run.http]
url = { file = "post" }
headers = { X-Key = { file = "header" } }
bearer = { file = "bearer" }
allow_private = true
[triggers.by-hand]
on.manual = true
job = "leaks"
[triggers.polls.on.http]
url = { file = "poll" }
headers = { X-Key = { file = "header" } }
bearer = { file = "bearer" }
start = "beginning"
allow_private = true
[triggers.polls]
job = "posts"
[triggers.rows.on.database]
url = { file = "database" }
query = "select id from orders where id > :cursor order by id"
cursor = "id"
[triggers.rows]
job = "leaks"
"""

PAGES = (
    "/health", "/ready", "/api/v1/status", "/api/v1/doctor", "/api/v1/triggers", "/api/v1/jobs", "/api/v1/sources",
    "/api/v1/events?limit=1000", "/api/v1/runs?limit=1000",
)  # fmt: skip


async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer with all that was sent, as careless servers do in their errors."""
    said = json.dumps({"target": request.target, **request.headers})
    status = "200 OK" if request.method == "GET" else f"500 refused {request.headers['x-key']}"
    writer.write(answer(status, said, "Content-Type: application/json", f"X-Request-ID: {request.target}"))


async def test_secrets_stand_in_no_answer_no_log_line_and_not_in_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Found in review: what a Python function raised was masked in the log alone.
    (tmp_path / "leaky.py").write_text(
        "import os\ndef leak(run):\n    raise ConnectionError('no answer to ' + os.environ['SHOP_KEY'])\n"
    )
    caplog.set_level(logging.DEBUG, "engine")
    async with serving(echo) as server:
        secrets = {
            "python": f"{CANARY}-python", "header": f"{CANARY}-header", "bearer": f"{CANARY}-bearer",
            "post": server.url(f"/{CANARY}-post/x?token={CANARY}-query"), "poll": server.url(f"/{CANARY}-poll"),
            "database": f"sqlite+aiosqlite:///{CANARY}-missing.db",
        }  # fmt: skip
        for name, secret in secrets.items():
            (tmp_path / name).write_text(secret)
        port = free_port()
        config = configured(tmp_path, TEXT, port=port)
        async with running(config, listen=True) as engine:
            await comes_to(engine, await fire(engine, "by-hand"), RunState.FAILED)
            await until(lambda: any("Run of posts failed" in message for message in caplog.messages))
            await until(lambda: any(view["warning"] for view in operations(engine).source_views()))
            shown = [await pages(port)]
    assert any(f"/{CANARY}-poll" == request.target for request in server.requests)
    assert any(request.headers.get("authorization") == f"Bearer {CANARY}-bearer" for request in server.requests)
    assert {run.code for run in await stored_runs(config)} == {"function_raised", "http_status"}
    formatter = LineFormatter(Masker(config.secrets))
    shown += [formatter.format(record) for record in caplog.records]
    kept = [path for path in config.engine.data.rglob("*") if path.is_file() and "logs" not in path.parts]
    shown += [path.read_bytes().decode("latin-1") for path in kept]
    assert kept
    assert not [text[max(text.find(CANARY) - 200, 0) :][:400] for text in shown if CANARY in text]


async def pages(port: int) -> str:
    """Return all that the API tells, as one text."""
    texts: list[str] = []
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer " + "t" * 43}) as session:

        async def get(path: str) -> Any:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                texts.append(f"{response.headers} {await response.text()}")
                return await response.json()

        for page in PAGES:
            found = await get(page)
            if page.startswith("/api/v1/runs"):
                for run in found["items"]:
                    await get(f"/api/v1/runs/{run['id']}")
    return "\n".join(texts)
