"""Sources: what a running one is offered, how each is, and the supervisor that runs them all."""

from engine.sources.context import Context, Door, Memory
from engine.sources.previewing import Previews
from engine.sources.refusals import RefusedRequest
from engine.sources.routes import Routes
from engine.sources.state import SourceState, Trouble
from engine.sources.supervisor import Sources

__all__ = [
    "Context",
    "Door",
    "Memory",
    "Previews",
    "RefusedRequest",
    "Routes",
    "SourceState",
    "Sources",
    "Trouble",
]
