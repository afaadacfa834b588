"""Dispatch: slots, starts, ends. It takes runs from the queue while slots are free, and records how they end."""

from __future__ import annotations

from engine.dispatch.line import RETRY_READ_S
from engine.dispatch.organ import Dispatch, Execute, Finished

__all__ = ["RETRY_READ_S", "Dispatch", "Execute", "Finished"]
