"""Secrets are sent and never shown: also not where a server repeats them, or writes them in another form."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
LEAST_KEY = 12
"""A part of a secret URL that is this long is taken for a key by itself."""

_SEPARATORS = re.compile(r"[/?&=]")
_SHORTEST = 4
"""What is shorter is no secret that could be kept, and would mask innocent text."""


class Masker:
    """Replaces secrets in text and values."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            # `Bearer abc` is told by `abc` alone, too.
            for text in {secret.strip(), secret.strip().rpartition(" ")[2]}:
                if len(text) >= _SHORTEST:
                    forms.update(_forms(text))
        self._forms = sorted(forms, key=len, reverse=True)
        self.longest = max(map(len, self._forms), default=0)

    def text(self, text: str) -> str:
        """Return text with all secrets masked."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def cut_text(self, text: str) -> str:
        """Mask text that was cut off: its end goes too, as it may be the beginning of a secret."""
        masked = self.text(text)
        return masked[: max(len(masked) - self.longest, 0)]

    def value(self, value: Any) -> Any:
        """Return a JSON value with all secrets masked, in the names of members too."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value


def parts_of_url(url: str, origin: str) -> list[str]:
    """Return what of a secret URL is masked where a server repeats it: all of it, and parts that look like keys.

    Its origin (scheme, host and port) may be shown.
    """
    rest = url.removeprefix(origin)
    parts = [part for part in _SEPARATORS.split(rest) if len(part) >= LEAST_KEY and "{{" not in part]
    return [url, rest, rest.lstrip("/"), *parts]


def _forms(text: str) -> Iterable[str]:
    """Yield a secret as it may be written: plainly, in a URL, in JSON, and in base64 wherever it begins there."""
    yield text
    yield quote(text, safe="")
    yield quote_plus(text)
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
        # JSON in JSON: a text that holds a document, as logs and errors of servers do.
        yield json.dumps(escaped)[1:-1]
    raw = text.encode("utf-8", "replace")
    for offset in range(3):
        # The characters at both ends also hold bits of what stands beside the secret.
        first, last = (0, 2, 3)[offset], (offset + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(b"\0" * offset + raw).decode()[first:last]
            if len(form) >= 2 * _SHORTEST:
                yield form
