"""Timers: all time sources of an engine on one heap. See `organ`."""

from engine.timers.firings import EVENT_TYPE
from engine.timers.organ import Timers
from engine.timers.state import ASK_AGAIN_S, SOURCE_PREFIX, said_of_end
from engine.timers.zonedata import ZONES_SOURCE, ZoneData

__all__ = ["ASK_AGAIN_S", "EVENT_TYPE", "SOURCE_PREFIX", "ZONES_SOURCE", "Timers", "ZoneData", "said_of_end"]
