"""Which sources are one: the ids under which their keys and cursors are kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from datetime import date, time
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from engine.config.document import KeyPath, show_value
from engine.config.shapes import fields_of
from engine.errors import PluginError
from engine.plugin import Secret, Source
from engine.triggers import SharedSource, Trigger

_log = logging.getLogger(__name__)

_SAME = "give both the same settings: they share one source"

T = TypeVar("T")

Tell = Callable[[KeyPath, str, str | None], None]


class _Owner(Struct, frozen=True, kw_only=True):
    """Who has a source: `shared` is its name where it has one, `trigger` that of the trigger it stands in where not.

    `input` is that of the input, where the trigger has several.
    """

    id: str
    on: Source
    shared: str | None
    trigger: str | None
    input: str | None = None

    def __str__(self) -> str:
        if self.shared is not None:
            return f"source {self.shared}"
        return f"trigger {self.trigger}" if self.input is None else f"input {self.input} of trigger {self.trigger}"


class Owners:
    """Who has which source, in the order in which they came."""

    def __init__(self) -> None:
        self._by_id: dict[str, dict[str, _Owner]] = {}
        self._by_identity: dict[tuple[str, str], dict[str, _Owner]] = {}
        self._keys: dict[str, tuple[str, tuple[str, str] | None]] = {}
        self._inputs: dict[str, set[str]] = {}

    def add_shared(self, source: SharedSource) -> None:
        """Take in a source with a name, which has its id."""
        if source.id is not None:
            self.add(_Owner(id=source.id, on=source.on, shared=source.name, trigger=None), source.on.identity())

    def add_trigger(self, trigger: Trigger) -> None:
        """Take in a trigger, whose source has its id, where it has one of its own."""
        if trigger.shared is None and isinstance(trigger.on, Source):
            owner = _Owner(id=trigger.source, on=trigger.on, shared=None, trigger=trigger.name)
            self.add(owner, trigger.on.identity())
        for one in trigger.inputs:
            if one.shared is None and isinstance(one.on, Source):
                owner = _Owner(id=one.source, on=one.on, shared=None, trigger=trigger.name, input=one.name)
                self.add(owner, one.on.identity())

    def add(self, owner: _Owner, identity: str | None) -> None:
        """Take in who has a source."""
        name, same = str(owner), None if identity is None else (owner.on.name, identity)
        self._keys[name] = (owner.id, same)
        if owner.input is not None:
            self._inputs.setdefault(owner.trigger or "", set()).add(name)
        self._by_id.setdefault(owner.id, {})[name] = owner
        if same is not None:
            self._by_identity.setdefault(same, {})[name] = owner

    def forget_trigger(self, trigger: str) -> None:
        """Forget a trigger that is no more."""
        for name in (f"trigger {trigger}", *self._inputs.pop(trigger, ())):
            source, same = self._keys.pop(name, ("", None))
            _drop(self._by_id, source, name)
            if same is not None:
                _drop(self._by_identity, same, name)

    def of_id(self, source: str) -> _Owner | None:
        """Return who had a source of that id first."""
        return next(iter(self._by_id.get(source, {}).values()), None)

    def of_identity(self, plugin: str, identity: str) -> _Owner | None:
        """Return who had a source of a plugin, and of that identity, first."""
        return next(iter(self._by_identity.get((plugin, identity), {}).values()), None)


class SourceIds:
    """Gives each source its id, and tells of those that clash.

    The id of a shared source is its plugin's name and its own name, so that keys and cursor stay when its settings
    change. Any other has its plugin's name and what the plugin calls its identity, or a digest of all settings.
    `origins` are the references among the settings, `tell` takes what is wrong: key path, message and hint. `owners`
    are those who have sources already; they are joined by all who get an id here.
    """

    def __init__(self, origins: Mapping[KeyPath, str], tell: Tell, owners: Owners) -> None:
        self._origins = origins
        self._tell = tell
        self._owners = owners

    def of_shared(self, name: str, on: Source) -> str | None:
        """Return the id of the source of that name, or None after telling what is wrong."""
        return self._take(("sources", name, on.name), on, shared=name, trigger=None)

    def of_trigger(self, name: str, on: Source) -> str | None:
        """Return the id of the source that stands in a trigger, or None after telling what is wrong."""
        return self._take(("triggers", name, "on", on.name), on, shared=None, trigger=name)

    def of_input(self, trigger: str, kind: str, name: str, on: Source) -> str | None:
        """Return the id of the source that stands in an input of `on.all` or `on.any`, or None as `of_trigger`."""
        path = ("triggers", trigger, "on", kind, name, on.name)
        return self._take(path, on, shared=None, trigger=trigger, name=name)

    def _take(
        self, path: KeyPath, on: Source, *, shared: str | None, trigger: str | None, name: str | None = None
    ) -> str | None:
        try:
            identity = on.identity()
        except Exception as error:  # identity is plugin code
            _log.warning("%s: identity failed", on.name, exc_info=True, extra={"action": "plugin.identity"})
            self._tell(path, f"the plugin's identity failed with {type(error).__name__}: {error}", None)
            return None
        try:
            rest = shared or identity or self._digest(path, on)
        except PluginError as error:
            self._tell(path, f"the plugin {show_value(on.name)} can't be used: {error}", None)
            return None
        mine = _Owner(id=f"{on.name}:{rest}", on=on, shared=shared, trigger=trigger, input=name)
        other = self._owners.of_id(mine.id)
        same = None if identity is None else self._owners.of_identity(on.name, identity)
        self._owners.add(mine, identity)
        if other is not None and other.on != on:
            self._tell_settings(path, mine, other, identity)
        elif same is not None and same.id != mine.id:
            what = _described(on, identity)
            hint = f'write on.source = "{same.shared}" there' if same.shared and trigger else "only one can have it"
            self._tell(path, f"{what} is already that of {same}", hint)
        return mine.id

    def _tell_settings(self, path: KeyPath, mine: _Owner, other: _Owner, identity: str | None) -> None:
        if other.shared is not None:
            message, hint = (
                f"its id would be {mine.id}, which is that of {other}",
                f"call source {other.shared} otherwise",
            )
        elif identity is None:
            message, hint = f"the same {mine.on.name} is already used with another secret by {other}", _SAME
        else:
            what = _described(mine.on, identity)
            message, hint = f"{what} is already used with other settings by {other}", _SAME
        self._tell(path, message, hint)

    def _digest(self, path: KeyPath, on: Source) -> str:
        settings = _canonical(on, path, self._origins)
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _drop(table: dict[T, dict[str, _Owner]], key: T, name: str) -> None:
    """Take a name out of those of a key, and the key with its last name."""
    names = table.get(key, {})
    names.pop(name, None)
    if not names:
        table.pop(key, None)


def _described(on: Source, identity: str | None) -> str:
    return " ".join(part for part in (on.name, on.main, identity) if part)


def _canonical(value: Any, path: KeyPath, origins: Mapping[KeyPath, str]) -> Any:
    """Return settings as JSON values for a digest.

    Where a text stands elsewhere, the reference counts and not the text; a secret's text never counts. So a
    source keeps its id (and with it its keys and cursor) when a password changes, and the id tells nothing.
    """
    if path in origins:
        return {"reference": origins[path]}
    if isinstance(value, Secret):
        return {"secret": value.origin}
    if isinstance(value, Struct):
        fields = fields_of(type(value))
        return {field.key: _canonical(getattr(value, field.name), (*path, field.key), origins) for field in fields}
    if isinstance(value, dict):
        return {key: _canonical(item, (*path, key), origins) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item, (*path, index), origins) for index, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_canonical(item, (), {}), sort_keys=True) for item in value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
