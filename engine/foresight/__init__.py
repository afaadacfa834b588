"""Foresight: what would run, wait or be skipped, and what another configuration would change.

All of it is computed over a time that nobody waits for: no clock, no I/O, no organ. So it stands below the organs, and
whoever asks (the API, the command line) hands it what it has to know of the world.
"""

from engine.foresight.desk import Desk, Page
from engine.foresight.durations import DEFAULT_DURATION_S, Durations, Length, past_lengths
from engine.foresight.forecast import Forecast
from engine.foresight.load import Load, Window
from engine.foresight.plan import Horizon, plan
from engine.foresight.questions import Question
from engine.foresight.simulation import Downtime, Simulation, TooMany, World
from engine.foresight.tally import Tally

__all__ = [
    "DEFAULT_DURATION_S",
    "Desk",
    "Downtime",
    "Durations",
    "Forecast",
    "Horizon",
    "Length",
    "Load",
    "Page",
    "Question",
    "Simulation",
    "Tally",
    "TooMany",
    "Window",
    "World",
    "past_lengths",
    "plan",
]
