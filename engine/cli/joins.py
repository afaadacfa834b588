"""Joins in words: what waits for which inputs, and until when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.cli.output import local, say
from engine.units import listed

MOST_LINES = 5
"""So many joins of a trigger are told of."""


def say_joins(trigger: Mapping[str, Any]) -> None:
    """Say which joins of a trigger wait, and for what."""
    joins = trigger.get("joins")
    if not joins:
        return
    for one in joins["items"][:MOST_LINES]:
        key = "" if one["key"] is None else f' of key "{one["key"]}"'
        has, missing = listed(list(one["has"])), listed(one["missing"])
        waits = f"waits for {missing}" if missing else "has all of its inputs"
        say(f"{trigger['name']}: run {one['run']}{key} has {has}, {waits} until {local(one['until'])}")
    more = joins["open"] - len(joins["items"][:MOST_LINES])
    if more > 0:
        say(f"{trigger['name']}: {more} more joins wait")
