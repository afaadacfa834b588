"""Logs of runs as text for readers: valid UTF-8, the holes told, secrets masked; memory stays bounded."""

from __future__ import annotations

import base64
import codecs
import os
from collections.abc import Collection
from urllib.parse import quote, quote_plus

from engine.logcap import marker, pieces

CHUNK_BYTES = 64 * 1024
SHORTEST_SECRET = 6
"""Shorter secrets are not masked: they would blot out half of the text."""

_MASK = "***"


class LogFile:
    """A log that is read, also while it grows. It stays the same file when the log is written anew."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._descriptor = -1
        self.position = 0

    def close(self) -> None:
        """Read no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> bytes:
        """Return what comes next, or nothing where that is not there yet; a hole is told in a line."""
        if not self._is_open():
            return b""
        while True:
            start = self._data_from(self.position)
            if start is None:
                return b""
            if start > self.position:
                gap, self.position = start - self.position, start
                return marker(gap)
            chunk = os.pread(self._descriptor, CHUNK_BYTES, start)
            # What was taken out meanwhile reads as zeros.
            end = self._hole_from(start)
            if end > start:
                chunk = chunk[: end - start]
                self.position += len(chunk)
                return chunk

    def skip_to_last(self, lines: int) -> None:
        """Go to where the last `lines` lines begin."""
        if not self._is_open():
            return
        end = os.fstat(self._descriptor).st_size
        self.position = end
        if lines == 0:
            return
        left = lines
        for first, last in reversed(list(pieces(self._descriptor))):
            position = last
            while position > first:
                size = min(CHUNK_BYTES, position - first)
                position -= size
                block = os.pread(self._descriptor, size, position)
                # The newline that ends the last line begins no line.
                index = size - 1 if position + size == end and block.endswith(b"\n") else size
                while (index := block.rfind(b"\n", 0, index)) >= 0:
                    left -= 1
                    if left == 0:
                        self.position = position + index + 1
                        return
        self.position = 0

    def _is_open(self) -> bool:
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return False
        return True

    def _data_from(self, position: int) -> int | None:
        try:
            return os.lseek(self._descriptor, position, os.SEEK_DATA)
        except OSError:
            return None  # there is nothing more

    def _hole_from(self, position: int) -> int:
        try:
            return os.lseek(self._descriptor, position, os.SEEK_HOLE)
        except OSError:
            return position


class LogText:
    """Makes text of a log's bytes: what is no UTF-8 is shown as `\\xff`, and secrets as `***`.

    A secret is masked in the forms that programs write it in, too: percent-encoded, and in Base64 by itself.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                forms.update(_forms(secret))
        self._forms = sorted(forms, key=len, reverse=True)
        self._longest = max(map(len, self._forms), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def feed(self, chunk: bytes) -> str:
        """Return the text that is certain by now; what may be the beginning of a secret is held back."""
        text = self._masked(self._held + self._decoder.decode(chunk))
        keep = self._undecided(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """Return what was held back: nothing more comes."""
        text, self._held = self._masked(self._held + self._decoder.decode(b"", final=True)), ""
        return text

    def _masked(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MASK)
        return text

    def _undecided(self, text: str) -> int:
        """Return how much of the end of a text could be the beginning of a secret."""
        most = 0
        for form in self._forms:
            for size in range(min(len(form) - 1, len(text)), most, -1):
                if text.endswith(form[:size]):
                    most = size
                    break
        return most


def _forms(secret: str) -> set[str]:
    body = secret.encode("utf-8", "surrogateescape")
    return {
        secret, quote(body, safe=""), quote_plus(body),
        base64.b64encode(body).decode().rstrip("="), base64.urlsafe_b64encode(body).decode().rstrip("="),
    }  # fmt: skip
