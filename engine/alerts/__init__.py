"""Alerts: what goes wrong is seen, told once to those who want to know, and told to be over when it is."""

from engine.alerts.facts import Facts
from engine.alerts.organ import Alerts
from engine.alerts.usual import Usual

__all__ = ["Alerts", "Facts", "Usual"]
