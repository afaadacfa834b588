"""Writing TOML 1.0: values on one line, keys and comments.

It is what `tomllib` reads back as the same. What a terminal would obey, or not show, is written as an escape.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


def toml(value: Any) -> str:
    """Write a value of JSON, or a date or time, on one line; raise ValueError for what TOML can't hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(str(key))} = {toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    raise ValueError(f"TOML has no {type(value).__name__}")


def toml_key(*keys: str) -> str:
    """Write keys, joined by dots."""
    return ".".join(key if _BARE_KEY.match(key) else _text(key) for key in keys)


def toml_comment(text: str) -> str:
    """Write text as comment lines; what a comment can't hold is shown escaped."""
    lines = (line if line.isprintable() else "".join(map(_shown, line)) for line in text.split("\n"))
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _shown(character: str) -> str:
    return character if character.isprintable() or character == "\t" else character.encode("unicode_escape").decode()


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("TOML has no text that is not Unicode") from None
    # The escapes that JSON has are among those of TOML's basic strings.
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
