"""The command line. Nothing is imported before it is needed, so that short commands start fast."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command that the arguments name and exit: 0, 1 (it failed) or 2 (usage or config)."""
    find_own_packages()
    from engine.cli.app import app

    app(prog_name="trigger-engine")


def find_own_packages() -> None:
    """Look for modules beside the engine's own package first.

    `python -m` puts the working directory first: a folder `plugins` that lies there would else hide the package of
    the same name, which holds the built-in plugins.
    """
    place = str(Path(__file__).resolve().parent.parent.parent)
    if sys.path[:1] != [place]:
        sys.path.insert(0, place)
