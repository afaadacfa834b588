"""Redaction: what of an event is replaced before anything else is done with it, by the places that are named.

A place is a path such as `data.card.number`, `data.items[*].secret` or `http.headers.x-key`: members by name, `[*]`
for each element of a list or member of an object, `[3]` for one element, `["any name"]` for names with other signs.
Where a list stands in the way of a name, each of its elements is looked at, and where no list stands at `[*]`, the
value itself: who sends the data can't hide a value by wrapping it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.json import Encoder
from msgspec.structs import replace

from engine.events import Event

REDACTED = "[redacted]"
HASHED = "hmac-sha256:"
"""How a value is written that was replaced by its keyed hash; the digest follows, in hex."""

EACH = "*"

_MARKED = re.compile(r"hmac-sha256:[0-9a-f]{64}\Z")
_STEP = re.compile(r"""\.([^.\[\]"]+)|\[(\*)\]|\[(\d{1,6})\]|\["((?:[^"\\]|\\.)*)"\]""")
_ROOTS = ("data", "http.headers", "http.query", "http.remote", "event.subject")
_SORTED = Encoder(order="deterministic")

Step = str | int | None
"""A member's name, an element's index, or None for each."""


class Place(Struct, frozen=True):
    """A place within an event: a root (`data`, `http.headers`, …) and the steps below it."""

    root: str
    steps: tuple[Step, ...]


class Redaction(Struct, frozen=True, kw_only=True):
    """What is replaced, and by what: a fixed text, or with `key` a keyed hash, which is equal for equal values."""

    places: tuple[Place, ...]
    key: bytes | None = None

    def applied(self, event: Event, *, again: bool = False) -> Event:
        """Return the event with the values at these places replaced; `again`: what was hashed before stays so."""
        changed: dict[str, Any] = {}
        data, http, subject = event.data, event.http, event.subject
        for place in self.places:
            if place.root == "data":
                data = _replaced(data, place.steps, lambda value: self._hidden(value, again))
            elif place.root == "event.subject":
                subject = None if subject is None else self._hidden(subject, again)
            elif http is not None:
                member = place.root.removeprefix("http.")
                http = {
                    **http,
                    member: _replaced(http.get(member), place.steps, lambda value: self._hidden(value, again)),
                }
        if data is not event.data:
            changed["data"] = data
        if http is not event.http:
            changed["http"] = http
        if subject is not event.subject:
            changed["subject"] = subject
        return replace(event, **changed) if changed else event

    def _hidden(self, value: Any, again: bool) -> str:
        if self.key is None:
            return REDACTED
        if again and isinstance(value, str) and _MARKED.match(value):
            return value
        return HASHED + hmac.digest(self.key, _SORTED.encode(value), "sha256").hex()


def place_of(text: str) -> Place:
    """Read a place; raise ValueError, in words that go on from `found "…", `, for what is none."""
    root = next((root for root in _ROOTS if text == root or text.startswith((f"{root}.", f"{root}["))), None)
    if root is None:
        raise ValueError(f"expected a path that begins with {', '.join(_ROOTS[:-1])} or {_ROOTS[-1]}")
    steps: list[Step] = []
    position = len(root)
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f'which can\'t be read from "{text[position:]}" on')
        name, each, index, quoted = match.groups()
        if name is not None:
            steps.append(None if name == EACH else name)
        elif each is not None:
            steps.append(None)
        elif index is not None:
            steps.append(int(index))
        else:
            steps.append(re.sub(r"\\(.)", r"\1", quoted))
        position = match.end()
    if steps and root in ("event.subject", "http.remote"):
        raise ValueError(f"which goes on below {root}, a text")
    if not steps and root in ("http.headers", "http.query"):
        steps.append(None)
    if root == "http.headers":
        steps = [step.lower() if isinstance(step, str) else step for step in steps]
    return Place(root, tuple(steps))


def _replaced(value: Any, steps: Sequence[Step], hide: Callable[[Any], str]) -> Any:
    """Return a value with what stands below the steps replaced; what is not touched is the same object."""
    if not steps:
        return hide(value)
    step, rest = steps[0], steps[1:]
    if isinstance(value, (list, tuple)):
        if isinstance(step, int):
            found = [_replaced(item, rest, hide) if place == step else item for place, item in enumerate(value)]
        else:
            # A name is looked for in each element; what `[*]` stands for is each element.
            found = [_replaced(item, rest if step is None else steps, hide) for item in value]
        return value if all(new is old for new, old in zip(found, value, strict=True)) else found
    if step == 0:
        return _replaced(value, rest, hide)  # one value where a list was meant
    if isinstance(value, dict):
        return _in_object(value, steps, hide)
    return hide(value) if step is None and not rest else value


def _in_object(value: dict[str, Any], steps: Sequence[Step], hide: Callable[[Any], str]) -> dict[str, Any]:
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if step not in value:
            return value
        found = _replaced(value[step], rest, hide)
        return value if found is value[step] else {**value, step: found}
    if isinstance(step, int):
        return value
    # It may be one object where a list of such was meant.
    whole = _in_object(value, rest, hide) if rest and isinstance(rest[0], str) else value
    members = {name: _replaced(item, rest, hide) for name, item in whole.items()}
    return value if all(members[name] is value.get(name) for name in members) else members
