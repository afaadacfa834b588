"""The gate of schemas: whether an event's data is as its source and its trigger say."""

from __future__ import annotations

from typing import Any

from engine.decide.rules import Rule
from engine.events import Seen

_LONGEST_PLACE = 200


def misfit(rule: Rule, data: Any, encoded: bytes, seen: list[Seen]) -> str | None:
    """Say what is wrong with data, which is `encoded` as JSON, and note in `seen` what was looked at; None: it fits."""
    for schema, name in rule.schemas:
        found = schema.violation(data, encoded)
        if found is None:
            seen.append(Seen("schema", "pass", {"schema": name} if name else None))
            continue
        place = found.pointer[:_LONGEST_PLACE]
        seen.append(Seen("schema", "drop", {"schema": name, "at": place, "keyword": found.keyword}))
        return f"data{f' at {place}' if place else ''}: {found.text}{f' ({name})' if name else ''}"
    return None
