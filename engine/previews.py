"""What a preview of a source shows."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from engine.events import Event


class Found(Struct, frozen=True, kw_only=True):
    """An event that would be emitted.

    - `duplicate`: one with its key came before, so that it would not be stored again.
    - `refused`: why it would be recorded as refused, and run nothing.
    """

    event: Event
    duplicate: bool = False
    refused: str | None = None


class Preview(Struct, frozen=True, kw_only=True):
    """What a source would emit if it looked now.

    - `stored`: its cursor as it is, or None before the first.
    - `cursor`: as it would be afterwards, or None where that is not known, as there is `more` than what is shown.
    """

    found: tuple[Found, ...]
    stored: Any
    cursor: Any
    more: bool
