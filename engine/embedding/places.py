"""Where in a program something is defined: the file and line that errors and views name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config import Place


def caller(base: Path) -> Place:
    """Return the place of the nearest caller outside of the engine; paths in settings are relative to `base`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return _place(frame.f_code.co_filename, frame.f_lineno, base)


def definition(function: Callable[..., Any], base: Path) -> Place:
    """Return the place where a function is defined, or the caller's where it has no code of its own."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return caller(base) if code is None else _place(code.co_filename, code.co_firstlineno, base)


def _is_own(module: str) -> bool:
    return module == "engine" or module.startswith("engine.")


def _place(file: str, line: int, base: Path) -> Place:
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return Place(str(shown), line, base, 0)
