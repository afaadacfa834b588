"""Whether files are others by now: by what the file system says of them, which holds on every kind of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Signature = tuple[tuple[int, int, int] | None, ...]
"""Of each file its inode, size and time of change; None where it is not there."""


def signature_of(files: Iterable[Path]) -> Signature:
    """Return what tells files apart from those that they will be when somebody has changed them."""
    return tuple(_signature(file) for file in files)


def _signature(file: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
