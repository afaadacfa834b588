"""What triggers may be besides, drawn by a seed: on several sources, with joins, and with guards.

It is drawn apart from the rest, so that what a seed stood for before these were there goes on to be a part of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.dst.deciding import NUMBERED

MOST = 60
"""The largest number that a schema lets pass, where there is one."""

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer", "maximum": MOST}}}


def guards(chances: random.Random, kind: str) -> dict[str, Any]:
    """Return the guards of a trigger; `kind` is that of what it meets."""
    fields: dict[str, Any] = {}
    if chances.random() < 0.15:
        fields["schema"] = SCHEMA
    if chances.random() < (0.05 if kind == "timer" else 0.15):
        fields["breaker"] = {"limit": chances.choice([2, 5, 20]), "per": f"{chances.choice([10, 600, 20_000])}s"}
    if kind in ("ends", "all", "any") and chances.random() < 0.7:
        fields["max_hops"] = chances.choice([0, 0, 1, 2])
    return fields


def joins(chances: random.Random) -> dict[str, Any]:
    """Return how a trigger joins what comes by its inputs."""
    fields: dict[str, Any] = {"window": f"{chances.choice([5, 600, 7200, 90_000])}s"}
    if chances.random() < 0.5:
        fields["key"] = chances.choice(["event.subject", NUMBERED])
    if chances.random() < 0.4:
        fields["reset"] = "window"
    fields["use"] = chances.choice(["last", "last", "first", "all"])
    if fields["use"] == "all" and chances.random() < 0.5:
        fields["max_events"] = chances.choice([2, 3, 10])
    return fields


def inputs(chances: random.Random, jobs: Sequence[str]) -> dict[str, tuple[dict[str, Any], str, str]]:
    """Return inputs by their names: what stands in the configuration, and kind and name of what they meet.

    `jobs` are those whose ends may be an input.
    """
    could = [
        ("heard", "heard.a"),
        ("heard", "heard.b"),
        ("feed", "f0"),
        ("feed", "f1"),
        *(("ends", job) for job in jobs),
    ]
    found = {}
    for name, (kind, of) in zip("abc", chances.sample(could, chances.choice([2, 2, 3])), strict=False):
        on: dict[str, Any] = {"run": {"job": of}} if kind == "ends" else {"event" if kind == "heard" else kind: of}
        found[name] = (on, kind, of)
    return found


def keeping(chances: random.Random) -> tuple[dict[str, Any], int | None]:
    """Return for how long what is over is kept, and how much of the disk it may take."""
    if chances.random() < 0.5:
        return {}, None
    keep: dict[str, Any] = {"runs": chances.choice(["1h", "5h", "1d", "4d"]), "events": chances.choice(["72h", "80h"])}
    keep["logs"] = chances.choice(["1h", "2d"])
    return keep, chances.choice([None, None, 300_000, 1_500_000])
