"""Pages of the engine itself: its checks, its configuration, its audit log and its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.config.document import show_path
from engine.config.origins import PLAIN, Setting
from engine.errors import NotFound
from engine.http.audit_routes import list_audit
from engine.http.calls import Call
from engine.http.config_routes import get_config, list_settings, settings_of
from engine.http.engine_routes import get_doctor
from engine.http.housekeeping_routes import get_housekeeping
from engine.http.page.views import View, ask
from engine.http.token_routes import list_tokens

LIMIT = 50


async def make_doctor(call: Call) -> View:
    """Make the page of checks; the ledger is added up when the page asks for that, as it reads the whole store."""
    health = call.operations.health()
    watched = {one["name"] for one in health["checks"]}
    whole = await ask(call, get_doctor) if "whole" in call.request.query else None
    return View(
        template="doctor.html",
        values={
            "health": health,
            "whole": whole,
            # What the engine checks all the time stands beside it, in the list of checks.
            "wrong": [one for one in whole["checks"] if not one["ok"] and one["name"] not in watched] if whole else [],
            "status": await call.operations.status(),
            "housekeeping": await ask(call, get_housekeeping),
        },
    )


async def make_configuration(call: Call) -> View:
    """Make the page of the configuration as it holds, each setting with where it comes from; secrets are masked."""
    if call.request.query.get("name"):
        return await _make_settings(call)
    config, operations = call.operations.config, call.operations
    named: dict[str, Mapping[str, Any]] = {
        "triggers": operations.config.triggers, "jobs": operations.jobs, "sources": config.sources,
        "conditions": config.conditions, "maintenance": config.maintenance, "calendars": config.calendars,
        "notify": config.receivers, "alerts": _of_files(config.alerts), "presets": _of_files(config.presets),
    }  # fmt: skip
    tables = {table: settings_of(call, table) for table in PLAIN}
    tables = dict(sorted(tables.items(), key=lambda one: all(each.origin == "default" for each in one[1])))
    standing = await ask(call, get_config)
    return View(
        template="configuration.html",
        values={
            "files": [str(file) for file in config.files],
            "standing": standing,
            "tables": {table: _shown(found, table) for table, found in tables.items() if found},
            "named": {
                table: [(one, item.defined_in) for one, item in sorted(items.items())[:LIMIT]]
                for table, items in named.items()
            },
            "counts": {table: len(items) for table, items in named.items()},
            "overridden": standing["overridden"],
        },
    )


async def _make_settings(call: Call) -> View:
    """Make the page of the settings of one thing that has a name."""
    table, name = (call.request.query.get(key, "") for key in ("table", "name"))
    await ask(call, list_settings, {"table": table, "name": name})
    where = _place_of(call, table, name)
    if where is None:
        raise NotFound(f"there is no {name} among the {table}")
    return View(
        template="settings.html",
        title=f"{name}, settings",
        values={
            "table": table,
            "name": name,
            "where": where,
            "settings": _shown(settings_of(call, table, name), show_path((table, name))),
        },
    )


def _place_of(call: Call, table: str, name: str) -> str | None:
    """Return where something with a name is defined; None where there is none."""
    config = call.operations.config
    known: Any = config.receivers if table == "notify" else getattr(config, table, {})
    one = known.get(name) if isinstance(known, Mapping) else None
    return None if one is None else getattr(one, "defined_in", None) or "built in"


def _of_files(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is not built in."""
    return {name: one for name, one in items.items() if one.defined_in}


def _shown(settings: Sequence[Setting], prefix: str) -> dict[str, Any]:
    """Return settings as the page shows them: the keys below their table's, the values as TOML, defaults apart."""
    rows = [
        {
            "key": one.key.removeprefix(f"{prefix}."),
            "value": one.text,
            "origin": one.origin,
            "said": one.said,
        }
        for one in settings
    ]
    return {
        "set": [row for row in rows if row["origin"] != "default"],
        "defaults": [row for row in rows if row["origin"] == "default"],
    }


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
