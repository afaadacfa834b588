"""The command line. Nothing is imported before it is needed, so that short commands start fast."""

from __future__ import annotations


def main() -> None:
    """Run the command that the arguments name and exit: 0, 1 (it failed) or 2 (usage or config)."""
    from engine.cli.app import app

    app(prog_name="trigger-engine")
