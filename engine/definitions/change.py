"""What came of another configuration, for those who asked for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.config.difference import Difference
from engine.errors import ConfigProblem


class Change(Struct, frozen=True, kw_only=True):
    """What a running engine took up.

    - `sources`: ids of those that were started anew, as their settings are others.
    - `restart`: keys that are as they were until the engine is started again.
    - `left`: what could not be taken up now, in words; the next change does so.
    """

    jobs: Difference = Difference()
    triggers: Difference = Difference()
    conditions: Difference = Difference()
    maintenance: Difference = Difference()
    sources: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        found: dict[str, Any] = {
            kind: {word: list(getattr(names, word)) for word in ("added", "changed", "removed")}
            for kind, names in self._kinds()
        }
        return {
            **found, "sources": list(self.sources), "restart_needed": list(self.restart), "left": list(self.left)
        }  # fmt: skip

    def said(self) -> str:
        """Say it in one line."""
        parts = [
            f"{kind} {word}: {', '.join(names)}"
            for kind, found in self._kinds()
            for word in ("added", "changed", "removed")
            if (names := getattr(found, word))
        ]
        if self.sources:
            parts.append(f"sources started anew: {', '.join(self.sources)}")
        if self.restart:
            parts.append(f"only a restart changes {', '.join(self.restart)}")
        return "; ".join([*parts, *self.left]) or "nothing differs"

    def _kinds(self) -> tuple[tuple[str, Difference], ...]:
        return (
            ("jobs", self.jobs), ("triggers", self.triggers), ("conditions", self.conditions),
            ("maintenance", self.maintenance),
        )  # fmt: skip


class Reload(Struct, frozen=True, kw_only=True):
    """How the last reload went: `problems` are what was wrong, `change` what was taken up where nothing was."""

    at: datetime
    who: str
    problems: tuple[ConfigProblem, ...] = ()
    change: Change | None = None

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "at": rfc3339(self.at),
            "who": self.who,
            "ok": self.change is not None,
            "errors": [problem.view() for problem in self.problems],
            "change": None if self.change is None else self.change.view(),
        }
