"""File names as text: shown to people, and varied where one is taken."""

from __future__ import annotations

import os

LONGEST_NAME_BYTES = 255


def shown(name: str) -> str:
    """Return a file name or path as valid Unicode without control characters, those being escaped."""
    text = valid_text(name)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def valid_text(name: str) -> str:
    """Return a file name or path as valid Unicode: bytes that are no UTF-8 are escaped."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def variant(name: str, number: int, *, room_bytes: int) -> str:
    """Return the name with a number before its suffix (0: none), cut so that `room_bytes` more fit."""
    stem, suffix = os.path.splitext(os.fsencode(name))
    ending = (b"~%d" % number if number else b"") + suffix
    return os.fsdecode(stem[: LONGEST_NAME_BYTES - room_bytes - len(ending)] + ending)
