"""The command line. Nothing is imported before it is needed, so that short commands start fast."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.cli.program import NAME


def main() -> None:
    """Run the command that the arguments name, and exit: 0, 1 (it failed), 2 (usage or config); as signals have it."""
    try:
        find_own_packages()
        from engine.cli.app import app
    except KeyboardInterrupt:  # later ones are the command's
        from engine.cli.failures import INTERRUPTED

        sys.exit(INTERRUPTED)
    app(prog_name=NAME)


def find_own_packages() -> None:
    """Import the packages of the engine's own plugins from beside the engine itself.

    `python -m` looks into the working directory first: a folder `plugins` that lies there would else hide the
    package of that name. All other modules are found as ever, those of the working directory first.
    """
    place = str(Path(__file__).resolve().parent.parent.parent)
    if sys.path[:1] == [place]:
        return
    import importlib
    import importlib.metadata

    points = importlib.metadata.entry_points(group="engine.plugins")
    own = {point.value.partition(".")[0] for point in points if point.dist is not None and point.dist.name == NAME}
    sys.path.insert(0, place)
    try:
        for package in own:
            importlib.import_module(package)
    finally:
        sys.path.remove(place)
