"""What kind of file system a directory is on: whether the kernel tells of its changes, and how it counts inodes."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

TOLD_OF = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs",
    "ntfs3", "ramfs", "reiserfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
"""File systems whose changes all come through this kernel, so that inotify(7) tells of them. The others (NFS,
CIFS, FUSE, 9p, overlays with layers that others write to, and what is not known here) also change without."""

_NUMBERED_ANEW = re.compile(r"fuse|9p$|vfat$|exfat$|msdos$")

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


def tells_of_changes(kind: str) -> bool:
    """Tell whether all changes of such a file system are told of by the kernel; where it is not known, so it is."""
    return not kind or kind in TOLD_OF


def keeps_inodes(kind: str) -> bool:
    """Tell whether a file of such a file system has one inode number for as long as it lives."""
    return _NUMBERED_ANEW.match(kind) is None
