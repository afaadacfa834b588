"""Shaping that takes its time: throttles, what expires, and what is forgotten. See docs/shaping.md."""

from __future__ import annotations

from engine.shaping.organ import Shaper

__all__ = ["Shaper"]
