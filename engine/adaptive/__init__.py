"""Adaptive intervals: what is learnt of runs and of the machine, what is decided of it, and what is remembered."""

from engine.adaptive.cases import ADAPTIVE_SOURCE
from engine.adaptive.machine import Machine, Reading
from engine.adaptive.organ import Adaptation
from engine.adaptive.remembered import schedules_in_force

__all__ = ["ADAPTIVE_SOURCE", "Adaptation", "Machine", "Reading", "schedules_in_force"]
