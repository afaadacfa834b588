"""Where the file of a store lies: whether it is still the same file, and whether SQLite can be trusted there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from engine.errors import StoreUnavailable
from engine.mounts import filesystem_of

NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\d?|smbfs|ncpfs|afs|coda|ceph|lustre|gpfs|beegfs|ocfs2|gfs2|glusterfs|davfs\d?"
    r"|fuse\.(sshfs|s3fs|glusterfs|ceph-fuse|curlftpfs|rclone|davfs\d?|gcsfuse|goofys|juicefs|smbnetfs))\Z"
)
"""File systems that several machines may change: locks and shared memory, which the write-ahead log needs, do not hold
there (sqlite.org/wal.html and howtocorrupt.html)."""


class Identity(Struct, frozen=True):
    """Which file it is."""

    device: int
    inode: int


class FilePlace:
    """The file of a store, and its write-ahead log, as they were when they were opened."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._log = f"{self._path}-wal"
        self._file = _identity(self._path)
        self._log_file = _identity(self._log)

    def lost(self) -> str | None:
        """Say what became of the files where they are not the same ones any more."""
        if (found := _identity(self._path)) != self._file:
            return f"{self._path} was {'removed or moved away' if found is None else 'replaced by another file'}"
        if self._log_file is None:
            self._log_file = _identity(self._log)
        elif (found := _identity(self._log)) != self._log_file:
            what = "removed or moved away" if found is None else "replaced by another file"
            return f"the write-ahead log {self._log} was {what}"
        return None


def lost_text(lost: str) -> str:
    """Say what to do where the store's file is not the one that was opened."""
    return (
        f"{lost} while the engine ran; nothing more is written. What was acknowledged is in the file that was open: "
        "put it back, with its write-ahead log where there is one, and start the engine"
    )


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Identity(found.st_dev, found.st_ino)


def refuse_network(path: Path) -> None:
    """Raise StoreUnavailable where the file is, or would be, on a network file system."""
    kind = filesystem_of(path.parent)
    if NETWORK.match(kind):
        raise StoreUnavailable(
            f"{path} is on a network file system ({kind}), whose locks can't be trusted: two engines could write it at "
            "once. Name a directory on a local disk in [engine] data, or another [store] url."
        )
