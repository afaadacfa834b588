"""On what kind of file system a path is."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

_ESCAPED = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: Path) -> str:
    """Return the type of the file system that a path is on, such as `ext4`; empty where that is not known."""
    try:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""
    return mounted_at(mounts, path.resolve())


def mounted_at(mounts: str, path: Path) -> str:
    """Return the type of the file system of an absolute path, by the lines of mountinfo (proc_pid_mountinfo(5))."""
    longest, found = -1, ""
    for line in mounts.splitlines():
        place, separator, rest = line.partition(" - ")
        fields = place.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), fields[4]))
        # Of several that are mounted at one place, the last covers the others.
        if len(point.parts) >= longest and path.is_relative_to(point):
            longest, found = len(point.parts), rest.split(" ")[0]
    return found
