"""What of settings is told to whom: who may not define them sees no value that may be a secret.

A secret that the configuration takes from a variable or a file is masked for everybody. One that stands in it as it
is, in a program's environment say, can't be told from other text: so what stands in the places where secrets are put
is for admins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from engine.http.views import shown
from engine.tokens import Role

HIDDEN: Final = "***"
_CHANGE: Final = frozenset({"key", "from", "to"})

_SECRET = re.compile(
    r"secret|passw|passphrase|token|authorization|cookie|api[-_ ]?key|credential|private[-_ ]?key", re.IGNORECASE
)
_PLACES = frozenset({"env", "headers", "verify"})
"""Tables whose values may be secrets, whatever their names are."""


def names_secret(name: str) -> bool:
    """Tell whether a member's name says that its value is a secret."""
    return _SECRET.search(name) is not None


def hidden(value: Any) -> Any:
    """Return what stands for a secret; that there is none, or whether there is one, may be told."""
    return value if value is None or isinstance(value, bool) else HIDDEN


def disclosed(role: Role | None, settings: Any) -> Any:
    """Return settings of a job or trigger as somebody with a role may see them."""
    return settings if role is not None and role >= Role.ADMIN else without_secrets(settings)


def without_secrets(value: Any) -> Any:
    """Return a value without what may be a secret by its place or its name; numbers and what is not set are none."""
    if isinstance(value, Mapping):
        if value.keys() == _CHANGE:
            return _change(value)
        return {name: _member(str(name), item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return shown(value) if isinstance(value, str) else value


def _change(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a setting that is another one; it is named by its path."""
    parts = str(value["key"]).split(".")
    if not (_PLACES.isdisjoint(parts[:-1]) and not names_secret(parts[-1])):
        return {**value, "from": hidden(value["from"]), "to": hidden(value["to"])}
    return {name: without_secrets(item) for name, item in value.items()}


def _member(name: str, item: Any) -> Any:
    if name in _PLACES and isinstance(item, Mapping):
        return dict.fromkeys(item, HIDDEN)
    if isinstance(item, str) and item and names_secret(name):
        return HIDDEN
    return without_secrets(item)
