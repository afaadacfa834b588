"""Logs: a short sentence and a stable `action` key with ids, to standard error; secrets are masked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "stack",
}
_SHORTEST_SECRET = 6
"""Shorter secrets are not masked: they would blot out half of the text."""


def printable(text: str) -> str:
    """Return text that can stand in one line of a log or on a terminal: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class IdLogger(logging.LoggerAdapter[logging.Logger]):
    """Gives its ids to each record, beside what the call itself gives as `extra` (Python's own drops that)."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}


class Masker:
    """Replaces secrets in text: those of a collection as it is at the time, to which more may come."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._known = secrets
        self._count = -1
        self._secrets: list[str] = []

    def mask(self, text: str) -> str:
        """Return the text with each secret in it as `***`."""
        if len(self._known) != self._count:
            self._count = len(self._known)
            long = [secret for secret in tuple(self._known) if len(secret) >= _SHORTEST_SECRET]
            self._secrets = sorted(long, key=len, reverse=True)
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text


class LineFormatter(logging.Formatter):
    """One line a record: time (RFC 3339, UTC), level, sentence, then `key=value` of its ids; then a traceback.

    The extra `stack`, text of several lines, is where something is or was; it stands below the line, too.
    """

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._masker = masker

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = [f"{name}={printable(str(value))}" for name, value in record.__dict__.items() if name not in _STANDARD]
        line = f"{at} {record.levelname.lower():7} {printable(record.getMessage())}"
        if fields:
            line += "  " + " ".join(fields)
        if stack := record.__dict__.get("stack"):
            line += "".join(f"\n{printable(place)}" for place in str(stack).rstrip().splitlines())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._masker.mask(line)


def configure(secrets: Collection[str] = (), level: int = logging.INFO) -> None:
    """Send the engine's logs, and warnings of libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(Masker(secrets)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("engine", "plugins"):
        logging.getLogger(name).setLevel(level)
