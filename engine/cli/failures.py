"""How commands fail: with a sentence and an exit code."""

from __future__ import annotations

import signal

FAILED, USAGE = 1, 2

INTERRUPTED, PIPE_CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE
"""The exit codes that shells give to what these signals end."""


class CommandFailed(Exception):
    """Raise to end the command with a sentence that says what is wrong and the way out."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class NoEngine(CommandFailed):
    """No engine answers at the address."""


class EngineSilent(NoEngine):
    """No engine answers at the address, though one works on the data directory."""


class NotThere(CommandFailed):
    """The engine has nothing of that name or id."""


class Gone(NotThere):
    """What had that id was removed after its time, or was never there."""
