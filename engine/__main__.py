"""`python -m engine`: the command line; without a command it serves."""

from engine.cli import main

main()
