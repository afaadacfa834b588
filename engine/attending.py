"""What is told of an attempt while it runs, and what it is told."""

from __future__ import annotations

from datetime import datetime


class Attendant:
    """Hears of an attempt's processes and of what they used; here it does nothing with it.

    `let_go` is whether the attempt is to go on without this engine process, which stops: see `RunContext.let_go`.
    """

    __slots__ = ()

    @property
    def let_go(self) -> bool:
        return False

    def process(self, pid: int) -> None:
        """Take note of a process, the leader of its own session."""

    def used(
        self, cpu_s: float | None, peak_bytes: int | None, *, ended_at: datetime | None = None
    ) -> None:  # fmt: skip
        """Take note of what the attempt's processes have used, and when they ended where that is long ago."""
