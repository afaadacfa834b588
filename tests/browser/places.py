"""Where all pages are: those of the table, with things that are there in the place of names and ids."""

from __future__ import annotations

from engine.http.page import PAGES
from tests.browser.wire import Api


def places(api: Api) -> dict[str, str]:
    """Return the path of every page by a name for it."""
    found: dict[str, str] = {}
    for page in PAGES:
        name = page.path.strip("/").replace("/", "-").replace("{", "").replace("}", "") or "now"
        found[name] = page.path if "{" not in page.path else _filled(api, page.path)
    return found


def _filled(api: Api, path: str) -> str:
    if path.startswith("/runs/"):
        running = api.get("/runs?state=running&job=warehouse-load")["items"]
        return path.replace("{id}", running[0]["id"] if running else api.get("/runs")["items"][0]["id"])
    if path.startswith("/events/"):
        return path.replace("{id}", api.get("/events?trigger=orders")["items"][0]["id"])
    if path.startswith("/triggers/"):
        return path.replace("{name}", "crm")
    if path.startswith("/jobs/"):
        return path.replace("{name}", "warehouse-load")
    raise AssertionError(f"say what stands in {path}")
