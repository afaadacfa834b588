"""Tells when the time zone data has changed since the engine ran last, and whose next instants that moves."""

from __future__ import annotations


class ZoneData:
    """To come."""
