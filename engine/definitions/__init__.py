"""Definitions: where jobs and triggers come from, and how another configuration comes into force."""

from engine.definitions.change import Change
from engine.definitions.organ import Definitions, Read, Reload

__all__ = ["Change", "Definitions", "Read", "Reload"]
