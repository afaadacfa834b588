"""Conditions: named checks that let runs pass, hold them, or skip them."""

from engine.conditions.checks import Checks
from engine.conditions.desk import ConditionDesk
from engine.conditions.endings import LastRuns
from engine.conditions.organ import CONDITIONS_SOURCE, Conditions

__all__ = ["CONDITIONS_SOURCE", "Checks", "ConditionDesk", "Conditions", "LastRuns"]
