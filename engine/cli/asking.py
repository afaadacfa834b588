"""Asking for one thing by what people call it."""

from __future__ import annotations

from typing import Any

from engine.cli.client import Client
from engine.cli.failures import NotThere


def find_source(client: Client, name: str) -> dict[str, Any]:
    """Return a source by its id or name, or as the list shows it: by its title, or by a trigger on it."""
    try:
        found: dict[str, Any] = client.get("sources", *name.split("/"))
        return found
    except NotThere:
        known = client.whole("sources")["items"]
        meant = [one for one in known if name == one["title"] or name in one["triggers"]]
        if not meant:
            raise
    if len(meant) > 1:
        raise NotThere(f"{name} could be any of the sources {', '.join(one['name'] for one in meant)}: name one")
    one: dict[str, Any] = meant[0]
    return one
