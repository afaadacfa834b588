"""Text as it comes in headers: it may be no Unicode at all."""

from __future__ import annotations


def to_bytes(text: str) -> bytes:
    """Return bytes to compare, for any text: a header that is no UTF-8 has lone surrogates in it."""
    return text.encode("utf-8", "surrogatepass")


def to_unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
