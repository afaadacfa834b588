"""Where all pages are: those of the table, with things that are there in the place of names and ids."""

from __future__ import annotations

import os
from typing import Any

from engine.http.page import PAGES
from tests.browser.wire import Api


def places(api: Api) -> dict[str, str]:
    """Return the path of every page by a name for it."""
    found: dict[str, str] = {}
    for page in PAGES:
        if page.role is None:  # who is signed in is led on from there
            continue
        name = page.path.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "now"
        found[name] = page.path if "{" not in page.path else _filled(api, page.path)
    return found


def _filled(api: Api, path: str) -> str:
    if path.startswith("/runs/"):
        running = api.get("/runs?state=running&job=warehouse-load")["items"]
        return path.replace("{id}", running[0]["id"] if running else api.get("/runs")["items"][0]["id"])
    if path.startswith("/events/"):
        found = api.get("/events?type=order.placed")["items"]
        return path.replace("{id}", next(one["id"] for one in found if any(each["run"] for each in one["outcomes"])))
    if path.startswith("/triggers/"):
        return path.replace("{name}", "crm")
    if path.startswith("/jobs/"):
        return path.replace("{name}", "warehouse-load")
    raise AssertionError(f"say what stands in {path}")


def tokens(api: Api) -> dict[str, str]:
    """Return a token of each role, and one that is for a tag alone."""
    made = {"admin": api.token}
    for role, tags in (("viewer", []), ("operator", []), ("scoped", ["crm"])):
        asked: dict[str, Any] = {"name": f"{role}-{os.urandom(4).hex()}", "role": "operator" if tags else role}
        if tags:
            asked["tags"] = tags
        made[role] = api.post("/tokens", asked)["token"]
    return made
