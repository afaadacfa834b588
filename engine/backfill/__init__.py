"""Backfill: due instants that have passed are run now, a few at a time, beside what is due today."""

from engine.backfill.organ import Backfills
from engine.backfill.planning import Planning

__all__ = ["Backfills", "Planning"]
