"""A maintenance window as it is known to the engine, how it is now, and how that is said and shown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.clock import rfc3339
from engine.decide.rules import Rule
from engine.decide.windows import After, MaintenanceWindow, Override, Spell, shown


class Stored(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window of the API, as it is stored."""

    settings: dict[str, Any]
    at: datetime
    who: str = ""


class Known(Struct):
    """A window, and how it is now.

    - `stored`: for one of the API, what is stored; `problem`: why that is no window any more.
    - `spell`: how it is now, its override counted in; None before that was looked at, and where its timer fails.
    """

    name: str
    window: MaintenanceWindow | None
    stored: Stored | None = None
    override: Override | None = None
    spell: Spell | None = None
    problem: str | None = None

    @property
    def is_open(self) -> bool:
        return self.spell is not None and self.spell.is_open

    @property
    def ends_at(self) -> datetime | None:
        """When it closes, for one that is open."""
        return self.spell.until if self.spell is not None and self.spell.is_open else None

    @property
    def after(self) -> After:
        return After.RUN if self.window is None else self.window.after

    @property
    def scope(self) -> str:
        """Say for what it is."""
        return "" if self.window is None else self.window.scope.said()

    @property
    def state(self) -> str:
        """`open`, `closed`, `overridden`, `over` (it does not open again), `disabled` or `invalid`."""
        if self.problem is not None:
            return "invalid"
        if self.window is None or not self.window.enabled:
            return "disabled"
        if self.is_open:
            return "open"
        if self.spell is not None and self.override is not None and self.spell.until == self.override.until:
            return "overridden"
        return "over" if self.spell is None or self.spell.until is None else "closed"

    def holds(self, rule: Rule) -> bool:
        """Tell whether it is for the runs of a trigger."""
        return self.window is not None and self.window.enabled and self.window.scope.holds(rule)

    def said(self) -> str:
        """Name it and its end, with what it is for."""
        until = "" if self.ends_at is None else f" until {shown(self.ends_at)}"
        description = "" if self.window is None or not self.window.description else f" ({self.window.description})"
        return f"maintenance {self.name}{until}{description}"

    def brief(self) -> dict[str, Any]:
        """Return it as the API shows it beside a trigger that it holds now."""
        return {
            "name": self.name, "until": None if self.ends_at is None else rfc3339(self.ends_at),
            "after": self.after.value, "description": "" if self.window is None else self.window.description,
        }  # fmt: skip

    def view(self, rules: Iterable[Rule]) -> dict[str, Any]:
        """Return it as the API shows it; `rules` are all triggers."""
        window, spell, override, closes = self.window, self.spell, self.override, self.ends_at
        opens = None if spell is None or spell.is_open else spell.until
        scope = None if window is None else window.scope
        return {
            "name": self.name,
            "state": self.state,
            "problem": self.problem,
            "when": "" if window is None else window.when,
            "opens_at": None if opens is None else rfc3339(opens),
            "closes_at": None if closes is None else rfc3339(closes),
            "scope": {
                "tags": sorted(scope.tags if scope else ()),
                "triggers": sorted(scope.triggers if scope else ()),
                "jobs": sorted(scope.jobs if scope else ()),
            },
            "triggers": [rule.trigger.name for rule in rules if scope is not None and scope.holds(rule)],
            "after": None if window is None else window.after.value,
            "running": None if window is None else window.running.value,
            "override": None if override is None else msgspec.to_builtins(override),
            "description": "" if window is None else window.description,
            "tags": [] if window is None else list(window.tags),
            "enabled": window is not None and window.enabled,
            "defined_in": "api" if self.stored is not None else "" if window is None else window.defined_in,
            "created_at": None if self.stored is None else rfc3339(self.stored.at),
            "who": "" if self.stored is None else self.stored.who,
        }
