"""Patterns: regular expressions of which it is known that no text makes them take long.

The engine is that of the Rust crate `regex`: a time that is linear in the text, no look-around, no back references.
But the factor grows with the states that a pattern has, and a counted repetition such as `.{1,500}` has very many: half
a microsecond for each byte at `LARGEST_BYTES`, where one without takes a nanosecond. A pattern that begins with `^` and
has an end looks at the beginning of a text only, and may be larger.
"""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs

LARGEST_BYTES, LARGEST_ANCHORED_BYTES = 64 * 1024, 4 * 1024 * 1024
"""How large a compiled pattern may be."""

HINT = "without look-around and back references; a repetition of many needs a pattern that begins with ^ and has an end"

_ENDLESS = re.compile(r"[*+]|,\s*\}")
_COUNTED = re.compile(r"\{\s*\d")


def is_quick(pattern: str) -> bool:
    """Tell whether a pattern is one that can be taken."""
    if _compiles(pattern, LARGEST_BYTES):
        return True
    anchored = pattern.startswith("^") and "|" not in pattern and _ENDLESS.search(pattern) is None
    return anchored and _compiles(pattern, LARGEST_ANCHORED_BYTES)


def is_large(pattern: str) -> bool:
    """Tell whether a pattern, also one of a dialect like this, is too large by what it repeats."""
    return _COUNTED.search(pattern) is not None and _compiles(pattern, None) and not is_quick(pattern)


def options_of(size_bytes: int | None) -> dict[str, Any]:
    """Return how patterns are compiled."""
    return {"pattern_options": jsonschema_rs.RegexOptions(size_limit=size_bytes)}


def _compiles(pattern: str, size_bytes: int | None) -> bool:
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, **options_of(size_bytes))
    except ValueError:
        return False
    return True
