"""Writing TOML 1.0: values on one line, keys and comments.

It is what `tomllib` reads back as the same: text whose only freedom is how it is escaped needs no library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_NOT_IN_COMMENTS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


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
    lines = (_NOT_IN_COMMENTS.sub(lambda match: f"\\x{ord(match[0]):02x}", line) for line in text.split("\n"))
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("TOML has no text that is not Unicode") from None
    # The escapes of JSON are those of TOML's basic strings, but that TOML also wants DEL escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
