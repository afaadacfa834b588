"""Every error that the engine raises on purpose, in one tree.

    EngineError
    ├── ConfigError             what is wrong with the configuration: all of it, with places
    ├── ExpressionError         a CEL expression or template that can't be compiled or evaluated
    ├── SchemaError             a JSON Schema that is wrong, or that is not taken
    ├── InvalidEvent            what a sender or a plugin offered is not an event
    ├── NotFound                no trigger, job, event or run of that name
    ├── Conflict                the thing exists, but its state forbids what was asked
    ├── InvalidRequest          what was asked for makes no sense, whatever the state of things
    ├── PluginError             a plugin can't be loaded or broke the plugin contract
    └── StoreError
        ├── StoreUnavailable    the store can't take it now (full, locked, away): try again
        │   └── QueueFull       too much waits: try again when there is less
        ├── StoreInUse          another engine owns this store
        ├── StoreDamaged        the file fails its integrity check
        │   └── StoreLost       another engine has taken over: this one writes nothing more
        └── StoreVersion        the file was written by a newer engine

An error's text names the thing, the place and the way out; it never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def said(error: BaseException) -> str:
    """Return what an error of foreign code says, whatever its methods do."""
    try:
        return str(error)
    except Exception:
        return "it can't say what"


class EngineError(Exception):
    """Base of all errors that are the engine's own."""


@dataclass(frozen=True, kw_only=True)
class ConfigProblem:
    """One mistake in the configuration: where it stands, what it is, and what would be right."""

    file: str
    line: int
    path: str
    message: str
    hint: str | None = None

    def view(self) -> dict[str, object]:
        """Return it as the API shows it."""
        return {
            "file": self.file, "line": self.line, "path": self.path, "message": self.message, "hint": self.hint,
            "detail": str(self),
        }  # fmt: skip

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.path}: {self.message}{hint}" if self.path else f"{place}: {self.message}{hint}"


class ConfigError(EngineError):
    """The configuration has mistakes; `problems` lists all of them, in the order of the files."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ExpressionError(EngineError):
    """An expression or template is wrong (at `check`) or fails on the data that it met (at run time)."""


class SchemaError(EngineError):
    """A JSON Schema is wrong, or can't be taken: `pointer` says which part of it, `hint` what would be right."""

    def __init__(self, pointer: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.hint = hint


class InvalidEvent(EngineError):
    """What was offered at the door is not an event; nothing of it is stored.

    `status` is the HTTP status that a sender over HTTP gets (400, 413 or 422).
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class NotFound(EngineError):
    """There is no such trigger, job, event or run."""


class Conflict(EngineError):
    """The thing is there, but its state forbids what was asked; the text says which state."""


class Changed(Conflict):
    """The thing is there, but another one than whoever asked took it for; the text says which."""


class InvalidRequest(EngineError):
    """What was asked for makes no sense, whatever the state of things; the text says what would."""


class PluginError(EngineError):
    """A plugin can't be loaded, or broke the contract of `engine.plugin`."""


class StoreError(EngineError):
    """Base of what can be wrong with the store."""


class StoreUnavailable(StoreError):
    """The store can't take it now (disk full, locked, I/O error); nothing was stored. Try again later."""


class QueueFull(StoreUnavailable):
    """So much waits that no more is taken now from this source; nothing was stored. Try again later."""


class StoreInUse(StoreError):
    """Another engine works on this store; `pid` is its process id where it is known."""

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class StoreDamaged(StoreError):
    """The store's file fails its integrity check; it is left as it is."""


class StoreLost(StoreDamaged):
    """Another engine has taken the store over while this one stood still; to this one it is lost for good."""


class StoreVersion(StoreError):
    """The store's file was written by a newer engine; it is left as it is."""
