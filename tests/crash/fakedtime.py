"""The wall clock of a process, set from outside while it runs: libfaketime with a file that says how far it is off.

Monotonic time stays as it is, so sleeps take what they take.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

_PLACES = ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib")


def library() -> Path | None:
    """Return where libfaketime is installed, or None."""
    for place in _PLACES:
        path = Path(place) / "faketime" / "libfaketimeMT.so.1"
        if path.exists():
            return path
    return None


class FakedTime:
    """The wall clock of the processes that are started in `environment`; `set` steps it."""

    def __init__(self, file: Path, at: datetime) -> None:
        self._file = file
        self._off_s = 0.0
        self.set(at)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, at: datetime) -> None:
        """Step the clock to an instant, from where it goes on."""
        self._off_s = (at - datetime.now(UTC)).total_seconds()
        # In one step: who reads a file that is half written would see the true time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._off_s:+.3f}\n")
        os.replace(new, self._file)

    def now(self) -> datetime:
        """Return what the clock shows."""
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self._off_s, UTC)
