"""What comes after a run: what goes with its end into one commit, and who is told of it."""

from engine.aftermath.organ import Aftermath

__all__ = ["Aftermath"]
