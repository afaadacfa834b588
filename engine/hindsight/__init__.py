"""Hindsight: what should have run in a time that has passed, what did, and why the rest did not.

It reads the store and knows no organ, so that it answers as well when no engine runs.
"""

from engine.hindsight.inquiry import Subject, inquire, subject_of
from engine.hindsight.lines import Line
from engine.hindsight.periods import Period
from engine.hindsight.proof import Proof, prove

__all__ = ["Line", "Period", "Proof", "Subject", "inquire", "prove", "subject_of"]
