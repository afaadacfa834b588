"""The public kit for those who test plugins and stores: a virtual clock, and the store's contract as a suite."""

from engine.testing.clock import VirtualClock

__all__ = ["VirtualClock"]
