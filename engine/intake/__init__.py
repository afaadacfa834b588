"""Intake: from what a source emits to a durable event with its outcomes and runs, in one commit."""

from engine.intake.door import MANUAL_SOURCE, Intake
from engine.intake.drafts import LONGEST_NAME, Starter
from engine.intake.guarding import Guarding

__all__ = ["LONGEST_NAME", "MANUAL_SOURCE", "Guarding", "Intake", "Starter"]
