"""Maintenance windows: what holds runs while something they need is worked on."""

from engine.maintenance.organ import MAINTENANCE_SOURCE, Maintenance

__all__ = ["MAINTENANCE_SOURCE", "Maintenance"]
