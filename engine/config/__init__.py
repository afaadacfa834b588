"""Configuration: from TOML files and the environment to the structs that the engine works with."""

from engine.config.loader import find_files, load
from engine.config.model import Config, EngineSettings, HttpSettings, StoreSettings
from engine.config.schema import schema

__all__ = [
    "Config",
    "EngineSettings",
    "HttpSettings",
    "StoreSettings",
    "find_files",
    "load",
    "schema",
]
