"""Pages of the engine itself: its checks, its configuration, its audit log and its tokens."""

from __future__ import annotations

from typing import Any

from engine.http.audit_routes import list_audit
from engine.http.calls import Call
from engine.http.config_routes import get_config
from engine.http.engine_routes import get_doctor
from engine.http.housekeeping_routes import get_housekeeping
from engine.http.page.views import View, ask
from engine.http.token_routes import list_tokens
from engine.http.views import shown

LIMIT = 50


async def make_doctor(call: Call) -> View:
    """Make the page of checks; the ledger is added up when the page asks for that, as it reads the whole store."""
    health = call.operations.health()
    whole = await ask(call, get_doctor) if "whole" in call.request.query else None
    return View(
        template="doctor.html",
        values={
            "health": health,
            "whole": whole,
            "status": await call.operations.status(),
            "housekeeping": await ask(call, get_housekeeping),
        },
    )


async def make_configuration(call: Call) -> View:
    """Make the page of the configuration as it holds, with secrets masked."""
    config = call.operations.config
    parts: dict[str, Any] = {
        "engine": config.engine,
        "defaults": config.defaults,
        "store": config.store,
        "http": config.http,
        "pools": config.pools,
        "calendars": config.calendars,
        "redaction": config.redaction,
    }
    named = {
        "jobs": call.operations.jobs,
        "sources": config.sources,
        "conditions": config.conditions,
        "maintenance": config.maintenance,
        "receivers": config.receivers,
    }
    return View(
        template="configuration.html",
        values={
            "files": [str(file) for file in config.files],
            "standing": await ask(call, get_config),
            "parts_of": {name: shown(part, config.secrets) for name, part in parts.items() if part},
            "named": {
                name: [(one, getattr(item, "defined_in", "")) for one, item in sorted(items.items())[:LIMIT]]
                for name, items in named.items()
            },
            "counts": {**{name: len(items) for name, items in named.items()}},
            "triggers": len(call.operations.trigger_names()),
        },
    )


async def make_audit(call: Call) -> View:
    """Make the page of the audit log."""
    asked = call.request.query
    found = await ask(call, list_audit, {"limit": str(LIMIT), **asked})
    return View(
        template="audit.html",
        values={
            "rows": found["items"],
            "following": found["next"],
            "first": "cursor" not in asked,
            "asked": {name: asked.get(name, "") for name in ("who", "action", "target", "outcome")},
        },
    )


async def make_tokens(call: Call) -> View:
    """Make the page of tokens."""
    found = await ask(call, list_tokens)
    return View(template="tokens.html", values={"tokens": found["items"]})
