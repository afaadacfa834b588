"""What kind of file system a directory is on: whether the kernel tells of its changes, and how it counts inodes."""

from __future__ import annotations

import re

TOLD_OF = frozenset({
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "hfsplus", "jfs", "msdos", "nilfs2", "ntfs",
    "ntfs3", "ramfs", "reiserfs", "tmpfs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
"""File systems whose changes all come through this kernel, so that inotify(7) tells of them. The others (NFS,
CIFS, FUSE, 9p, overlays with layers that others write to, and what is not known here) also change without."""

_NUMBERED_ANEW = re.compile(r"fuse|9p$|vfat$|exfat$|msdos$")


def tells_of_changes(kind: str) -> bool:
    """Tell whether all changes of such a file system are told of by the kernel; where it is not known, so it is."""
    return not kind or kind in TOLD_OF


def keeps_inodes(kind: str) -> bool:
    """Tell whether a file of such a file system has one inode number for as long as it lives."""
    return _NUMBERED_ANEW.match(kind) is None
