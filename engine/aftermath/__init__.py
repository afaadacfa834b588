"""What comes after a run: what goes with its end into one commit, who is told of it, and how it is counted."""

from engine.aftermath.counting import Counting
from engine.aftermath.deliverer import Deliverer
from engine.aftermath.organ import Aftermath
from engine.aftermath.reports import Reports

__all__ = ["Aftermath", "Counting", "Deliverer", "Reports"]
