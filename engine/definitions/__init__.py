"""Definitions: where jobs and triggers come from, and how another configuration comes into force."""

from engine.definitions.change import Change, Reload
from engine.definitions.organ import Definitions, Read

__all__ = ["Change", "Definitions", "Read", "Reload"]
