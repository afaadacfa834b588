"""What a program may ask of the configuration of its running engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.defined import Key, Kind
from engine.definitions import Change
from engine.definitions import Definitions as Desk
from engine.embedding.definitions import Definitions


class Configuration:
    """Reads configuration files anew, and overrides what files and code say; see `Engine.configuration`."""

    def __init__(self, definitions: Definitions, desk: Desk) -> None:
        self._definitions = definitions
        self._desk = desk

    async def reload(self) -> Change:
        """Read the configuration files anew, with what the program defines beside them, and take it up.

        Returns what that changes. Raises ConfigError with all that is wrong, Conflict where there are no files, and
        StoreUnavailable: then all is as it was.
        """
        return await self._desk.reload("the program")

    async def override(
        self, name: str, changes: Mapping[str, Any], *, job: bool = False, reason: str = "", who: str = ""
    ) -> None:
        """Have something hold in the place of what is said of a trigger, or of a job, durably, until `reset`.

        `changes` are those that `PATCH /triggers/{name}` takes, such as `{"interval": "10m", "priority": "high"}`; None
        takes one back. Raises ConfigError, NotFound and StoreUnavailable.
        """
        self._desk.rebase(self._definitions.whole())
        key = Key(Kind.JOB if job else Kind.TRIGGER, name)
        await self._desk.patch(key, changes, who=who or "the program", reason=reason)

    async def reset(self, name: str, *, job: bool = False, who: str = "") -> bool:
        """Have what is said of it hold again, durably; return whether something overrode it; raise StoreUnavailable."""
        self._desk.rebase(self._definitions.whole())
        return await self._desk.reset(Key(Kind.JOB if job else Kind.TRIGGER, name), who=who or "the program")

    def view(self) -> dict[str, Any]:
        """Return where it comes from, how the last reload went, and what is overridden: as `GET /config` does."""
        return self._desk.view()
