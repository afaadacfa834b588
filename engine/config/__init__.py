"""Configuration: from TOML files and the environment to the structs that the engine works with."""

from engine.config.document import Place, node_of
from engine.config.given import TRIGGER_KEYS, Given, problem, window_reader
from engine.config.loader import find_files, load, load_sent
from engine.config.model import Config, EngineSettings, HttpSettings, Preset, StoreSettings
from engine.config.reach import Reach, reach
from engine.config.schema import schema

__all__ = [
    "TRIGGER_KEYS",
    "Config",
    "EngineSettings",
    "Given",
    "HttpSettings",
    "Place",
    "Preset",
    "Reach",
    "StoreSettings",
    "find_files",
    "load",
    "load_sent",
    "node_of",
    "problem",
    "reach",
    "schema",
    "window_reader",
]
