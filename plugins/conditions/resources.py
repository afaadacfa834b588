"""How busy the machine is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar

from anyio.to_thread import run_sync
from msgspec import Meta

from engine.plugin import BadSetting, Condition, ConditionContext, Verdict

SEEN_FOR_S = 0.2
"""How long the use of the CPUs is looked at."""

Part = Annotated[float, Meta(gt=0, le=1)]


class Resources(Condition, frozen=True, kw_only=True):
    """Pass while the machine has room.

    - `cpu_max`: at most this part of the CPUs is busy, 0 to 1.
    - `memory_max`: at most this part of the memory is in use.
    - `disk_max`: at most this part of the disk at `path` is full.
    - `path`: relative to the configuration file.
    - `load_max`: the load average of one minute, for each CPU, is at most this.
    """

    name: ClassVar[str] = "resources"
    thresholds: ClassVar[frozenset[str]] = frozenset({"cpu_max", "memory_max", "disk_max", "load_max"})

    cpu_max: Part | None = None
    memory_max: Part | None = None
    disk_max: Part | None = None
    path: Path = Path(".")
    load_max: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if all(limit is None for limit in self._limits().values()):
            raise BadSetting("cpu_max", "is missing, and so is every other limit", "such as cpu_max = 0.85")

    def _limits(self) -> dict[str, float | None]:
        return {"cpu": self.cpu_max, "memory": self.memory_max, "disk": self.disk_max, "load": self.load_max}

    async def check(self, context: ConditionContext) -> Verdict:
        found: dict[str, float] = {}
        if self.cpu_max is not None:
            found["cpu"] = await busy_part(context)
        if self.memory_max is not None:
            found["memory"] = memory_part()
        if self.disk_max is not None:
            # A file system that is away may keep the call for long.
            found["disk"] = await run_sync(disk_part, context.base / self.path, abandon_on_cancel=True)
        if self.load_max is not None:
            found["load"] = load_each()
        limits = self._limits()
        over = [name for name, value in found.items() if value > (limits[name] or 0)]
        said = ", ".join(_said(name, value) for name, value in found.items() if not over or name in over)
        if not over:
            return Verdict.passes(said, found)
        above = " and ".join(_said(name, limits[name] or 0, bare=True) for name in over)
        return Verdict.holds(f"{said}, above {above}", found)


async def busy_part(context: ConditionContext) -> float:
    """Return the part of the CPUs that is busy, as it was for a moment."""
    import psutil  # takes 20 ms to import, which engines without such a condition are spared

    before = psutil.cpu_times()
    await context.clock.sleep(SEEN_FOR_S)
    after = psutil.cpu_times()
    spent = [late - early for early, late in zip(before, after, strict=True)]
    fields = dict(zip(after._fields, spent, strict=True))
    idle = fields["idle"] + fields.get("iowait", 0.0)
    # Guests are counted in user and nice already.
    total = sum(spent) - fields.get("guest", 0.0) - fields.get("guest_nice", 0.0)
    return round(min(max(1 - idle / total, 0.0), 1.0), 4) if total > 0 else 0.0


def memory_part() -> float:
    """Return the part of the memory that is in use."""
    import psutil

    return round(psutil.virtual_memory().percent / 100, 4)


def disk_part(path: Path) -> float:
    """Return the part of a disk that is full."""
    import psutil

    return round(psutil.disk_usage(str(path)).percent / 100, 4)


def load_each() -> float:
    """Return the load average of one minute for each CPU."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 4)


def _said(name: str, value: float, *, bare: bool = False) -> str:
    text = f"{value:.2f}" if name == "load" else f"{value:.0%}"
    return text if bare else f"{name} {text}"
