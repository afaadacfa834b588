"""Embedding: the engine inside of an application's own asyncio program, without HTTP; see docs/embedding.md."""

from engine.embedding.engine import Engine
from engine.embedding.functions import RunContext
from engine.embedding.views import TriggerView

__all__ = ["Engine", "RunContext", "TriggerView"]
