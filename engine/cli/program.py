"""What the program is called, and its version."""

from __future__ import annotations

NAME = "trigger-engine"


def version() -> str:
    """Return the version of what is installed."""
    import importlib.metadata

    return importlib.metadata.version(NAME)
