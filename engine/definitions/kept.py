"""What the store keeps of definitions: one value for each, and all that a call changes in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from engine.defined import Key, Kind
from engine.payload import encode_json
from engine.store.base import Store

DEFINITIONS_SOURCE = "engine:definitions"
"""Under this id the store remembers them: `job:NAME`, `trigger:NAME`, and `override:` before it."""

PAGE = 1_000
_OVERRIDE = "override"


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job or trigger of the API: its settings as the configuration would have them."""

    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    created_by: str = ""
    updated_by: str = ""

    @property
    def version(self) -> str:
        """Return what tells it from every other version of it."""
        return _digest(self.settings)


class Override(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds in the place of what the configuration says of a job or trigger: since when, by whom and why."""

    changes: dict[str, Any]
    at: datetime
    who: str = ""
    reason: str = ""

    @property
    def version(self) -> str:
        """Return what tells it from every other version of it."""
        return _digest(self.changes)

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {"changes": self.changes, "since": msgspec.to_builtins(self.at), "who": self.who, "reason": self.reason}


class Shelf(Struct, frozen=True, kw_only=True):
    """All definitions and overrides."""

    kept: Mapping[Key, Kept] = {}
    overrides: Mapping[Key, Override] = {}

    @classmethod
    async def load(cls, store: Store) -> Shelf:
        """Read what is stored. Raises StoreError."""
        kept: dict[Key, Kept] = {}
        overrides: dict[Key, Override] = {}
        after: str | None = None
        while page := await store.memory(DEFINITIONS_SOURCE, after=after, limit=PAGE):
            for text, value in page.items():
                *prefix, kind, name = text.split(":")
                key = Key(Kind(kind), name)
                if prefix:
                    overrides[key] = msgspec.convert(value, Override)
                else:
                    kept[key] = msgspec.convert(value, Kept)
            after = next(reversed(page))
        return cls(kept=kept, overrides=overrides)

    def with_kept(self, changes: Mapping[Key, Kept | None]) -> Shelf:
        """Return it with other definitions; None takes one away."""
        return Shelf(kept=_merged(self.kept, changes), overrides=self.overrides)

    def with_override(self, key: Key, override: Override | None) -> Shelf:
        """Return it with another override; None takes it away."""
        return Shelf(kept=self.kept, overrides=_merged(self.overrides, {key: override}))

    def differing(self, other: Shelf) -> dict[str, Any]:
        """Return what the store has to remember in place of what it does, so that it keeps `other`."""
        values: dict[str, Any] = {}
        for prefix, old, new in (("", self.kept, other.kept), (f"{_OVERRIDE}:", self.overrides, other.overrides)):
            for key in {**old, **new}:
                one = new.get(key)
                if one is not old.get(key):
                    values[f"{prefix}{key.kind}:{key.name}"] = None if one is None else msgspec.to_builtins(one)
        return values


def _merged(known: Mapping[Key, Any], changes: Mapping[Key, Any]) -> dict[Key, Any]:
    return {key: one for key, one in {**known, **changes}.items() if one is not None}


def _digest(value: Any) -> str:
    return sha256(encode_json(value)).hexdigest()[:32]
