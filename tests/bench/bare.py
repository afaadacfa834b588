"""The baseline of `intake`: aiohttp's own server with a handler that reads the body, answers 202, stores nothing."""

from __future__ import annotations

import sys

from aiohttp import web

from tests.bench.wire import HOST


async def accept(request: web.Request) -> web.Response:
    """Answer as the engine does, with made-up ids."""
    await request.read()
    event, run = "00000000-0000-7000-8000-000000000000", "00000000-0000-7000-8000-000000000001"
    return web.json_response({"event": event, "runs": [run], "duplicate": False}, status=202)


async def ready(_: web.Request) -> web.Response:
    """Answer 200."""
    return web.json_response({"ready": True})


def main() -> None:
    """Serve on the port that is the first argument."""
    app = web.Application()
    app.router.add_post("/hooks/bench", accept)
    app.router.add_get("/ready", ready)
    web.run_app(app, host=HOST, port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
