"""Logs: a short sentence and a stable `action` key with ids, to standard error; secrets are masked."""

from __future__ import annotations

import base64
import json
import logging
import math
import sys
from collections.abc import Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

from engine.logsink import Sink

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
    """Replaces secrets in text, also as they are written in URLs, in base64, and with escapes.

    They are those of a collection as it is at the time, to which more may come.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._known = secrets
        self._count = -1
        self._secrets: list[str] = []

    def mask(self, text: str) -> str:
        """Return the text with each secret in it as `***`."""
        if len(self._known) != self._count:
            self._count = len(self._known)
            long = [secret for secret in tuple(self._known) if len(secret) >= _SHORTEST_SECRET]
            self._secrets = sorted({form for secret in long for form in _forms(secret)}, key=len, reverse=True)
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text


def _forms(secret: str) -> set[str]:
    """Return how a secret may be written."""
    encoded = secret.encode("utf-8", "surrogateescape")
    found = {
        secret, printable(secret), quote(encoded, safe=""), quote(encoded), quote_plus(encoded),
        json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
        base64.b64encode(encoded).decode().rstrip("="), base64.urlsafe_b64encode(encoded).decode().rstrip("="),
    }  # fmt: skip
    return {form for form in found if len(form) >= _SHORTEST_SECRET}


def instant_of(record: logging.LogRecord) -> str:
    """Return when a record was made: RFC 3339, in UTC, to the millisecond."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ids_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record has besides its sentence: its `action`, then its ids."""
    found = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    return {"action": found.pop("action"), **found} if "action" in found else found


class LineFormatter(logging.Formatter):
    """One line a record: time (RFC 3339, UTC), level, sentence, then `key=value` of its ids; then a traceback.

    The extra `stack`, text of several lines, is where something is or was; it stands below the line, too.
    """

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._mask = masker.mask

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={printable(self._mask(str(value)))}" for name, value in ids_of(record).items()]
        sentence = printable(self._mask(record.getMessage()))
        line = f"{instant_of(record)} {record.levelname.lower():7} {sentence}"
        if fields:
            line += "  " + " ".join(fields)
        if stack := record.__dict__.get("stack"):
            line += self._below(str(stack))
        if record.exc_info:
            line += self._below(self.formatException(record.exc_info))
        return self._mask(line)

    def _below(self, text: str) -> str:
        return "".join(f"\n{printable(place)}" for place in self._mask(text).rstrip().split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a record, on one line, in ASCII: `time level part message`, `action`, its ids; `stack`, `error`.

    Nothing in it, control characters and line breaks among it, can steer a terminal or begin another record.
    """

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self._mask = masker.mask

    def format(self, record: logging.LogRecord) -> str:
        made: dict[str, Any] = {
            "time": instant_of(record), "level": record.levelname.lower(), "part": record.name,
            "message": self._mask(record.getMessage()),
        }  # fmt: skip
        made |= {name if name not in made else f"{name}_": self._plain(value) for name, value in ids_of(record).items()}
        if stack := record.__dict__.get("stack"):
            made["stack"] = self._mask(str(stack))
        if record.exc_info:
            made["error"] = self._mask(self.formatException(record.exc_info))
        return json.dumps(made, ensure_ascii=True)

    def _plain(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        return self._mask(str(value))


def configure(secrets: Collection[str] = (), *, style: str = "text") -> None:
    """Send the engine's logs, and warnings of libraries, to standard error; `style` is `text`, `json` or `auto`.

    Nobody waits for who reads them. What levels hold is `engine.loglevels`' to say.
    """
    as_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    masker = Masker(secrets)
    formatter = JsonFormatter(masker) if as_json else LineFormatter(masker)
    root = logging.getLogger()
    root.handlers[:] = [Sink(sys.stderr.fileno(), formatter.format)]
    root.setLevel(logging.WARNING)
    for name in ("engine", "plugins"):
        logging.getLogger(name).setLevel(logging.INFO)


def flush() -> None:
    """Have what was logged written, in bounded time: the process is about to end at once."""
    for handler in logging.getLogger().handlers:
        handler.flush()
