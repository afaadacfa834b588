"""On whose behalf callers say that they ask: it is recorded, proves nothing, and gives no rights."""

from __future__ import annotations

from engine.plugin import Headers

CREATED_BY, TRIGGERED_BY, PERFORMED_BY = "X-Created-By", "X-Triggered-By", "X-Performed-By"

LONGEST_CLAIM = 128


def claim(headers: Headers, header: str) -> str | None:
    """Return what a caller says in one of these headers, or None where it says nothing that can be told.

    Printable text alone: no lone surrogates, which no UTF-8 holds, and no marks that steer a terminal.
    """
    value = headers.get(header)
    return value if value and len(value) <= LONGEST_CLAIM and value.isprintable() else None
