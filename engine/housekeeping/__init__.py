"""Housekeeping: what is over is removed after its time, the disk is watched, and copies of the store are made."""

from engine.housekeeping.organ import Housekeeping

__all__ = ["Housekeeping"]
