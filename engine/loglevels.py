"""Levels of the log, part by part, changeable while the engine runs, for a time if so wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

import anyio
from msgspec import Struct

from engine.clock import Clock, rfc3339, sleep_or_wake

log = logging.getLogger("engine.logs")

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
    "critical": logging.CRITICAL,
}  # fmt: skip

PARTS = frozenset(
    {
        "engine", "engine.adaptive", "engine.alerts", "engine.audit", "engine.backfill", "engine.chronicle",
        "engine.cli", "engine.conditions", "engine.config", "engine.counting", "engine.decide",
        "engine.delivery", "engine.dispatch", "engine.failures", "engine.following", "engine.foresight",
        "engine.gates", "engine.heartbeats", "engine.hindsight", "engine.housekeeping", "engine.http",
        "engine.intake", "engine.journal", "engine.lease", "engine.logs", "engine.loop", "engine.maintenance",
        "engine.pauses", "engine.pools", "engine.processes", "engine.quarantine", "engine.registry",
        "engine.run", "engine.run.python", "engine.shaping", "engine.shared", "engine.sources",
        "engine.steering", "engine.timers", "engine.traces", "plugins",
    }
)  # fmt: skip
"""The parts of the engine that have a level of their own."""

LIBRARIES = frozenset({"aiohttp", "aiosqlite", "apprise", "asyncio", "opentelemetry", "sqlalchemy", "watchfiles"})
"""Libraries whose log may be looked at, too; by default what is less than a warning is not shown."""

LONGEST_S = 7 * 86_400.0


def mistake_in(part: str) -> str | None:
    """Say what is wrong with the name of a part, and what may be meant; None where nothing is."""
    if part in PARTS or part.startswith("plugins.") or part.partition(".")[0] in LIBRARIES:
        return None
    close = get_close_matches(part, PARTS | LIBRARIES, n=1)
    return f"there is no part {part} of the engine" + (f"; did you mean {close[0]}?" if close else "")


class Changed(Struct, frozen=True, kw_only=True):
    """A level that was changed while the engine runs: `until` is when it goes back by itself; None: at the end."""

    level: str
    until: datetime | None
    who: str


class LogLevels:
    """The levels of this process: those of the configuration, and what people changed since its start."""

    def __init__(self, clock: Clock, *, level: str = "info", levels: Mapping[str, str] | None = None) -> None:
        self._clock = clock
        self._configured = _configured(level, levels or {})
        self._applied = False
        self._changed: dict[str, Changed] = {}
        self._wake = anyio.Event()

    def apply(self) -> None:
        """Have them hold."""
        self._applied = True
        for part, level in self._configured.items():
            logging.getLogger(part).setLevel(LEVELS[level])

    def configure(self, level: str, levels: Mapping[str, str]) -> None:
        """Take up another configuration; what people changed holds on."""
        before, self._configured = self._configured, _configured(level, levels)
        if not self._applied:
            return
        for part in before.keys() | self._configured.keys():
            if part not in self._changed:
                self._take_back(part)

    def view(self) -> dict[str, Any]:
        """Return them as the API shows them."""
        parts = sorted(self._configured.keys() | self._changed.keys())
        return {
            "levels": {part: self._changed[part].level if part in self._changed else self._configured[part]
                       for part in parts},
            "configured": dict(sorted(self._configured.items())),
            "changed": {
                part: {"level": one.level, "until": None if one.until is None else rfc3339(one.until), "who": one.who}
                for part, one in sorted(self._changed.items())
            },
            "parts": sorted(PARTS),
        }  # fmt: skip

    def change(self, levels: Mapping[str, str | None], *, for_s: float | None = None, who: str = "") -> None:
        """Change levels, for a time or until the engine ends; None has what is configured hold again."""
        until = None if for_s is None else self._clock.now() + timedelta(seconds=for_s)
        for part, level in levels.items():
            if level is None:
                self._reset(part)
                continue
            self._changed[part] = Changed(level=level, until=until, who=who)
            logging.getLogger(part).setLevel(LEVELS[level])
            log.info(
                "The level of %s is %s%s", part, level, "" if until is None else f" until {rfc3339(until)}",
                extra={"action": "log_level", "logger": part, "who": who},
            )  # fmt: skip
        self._wake.set()

    async def run(self) -> None:
        """Let levels go back when their time is over, until cancelled; at the end all do."""
        try:
            while True:
                self._wake = anyio.Event()
                now = self._clock.now()
                ends = [one.until for one in self._changed.values() if one.until is not None]
                for part in [part for part, one in self._changed.items() if one.until is not None and one.until <= now]:
                    self._reset(part)
                    ends = [one.until for one in self._changed.values() if one.until is not None]
                if not ends:
                    await self._wake.wait()
                else:
                    await sleep_or_wake(self._clock, min((min(ends) - now).total_seconds(), 30.0), self._wake)
        finally:
            for part in list(self._changed):
                self._reset(part)

    def _reset(self, part: str) -> None:
        if self._changed.pop(part, None) is None:
            return
        said = self._take_back(part) or "that of what it is a part of"
        log.info("The level of %s is %s again", part, said, extra={"action": "log_level_over", "logger": part})

    def _take_back(self, part: str) -> str | None:
        """Have what is configured hold; return that, None where nothing is."""
        level = self._configured.get(part)
        logging.getLogger(part).setLevel(logging.NOTSET if level is None else LEVELS[level])
        return level


def _configured(level: str, levels: Mapping[str, str]) -> dict[str, str]:
    return {"engine": level, "plugins": level, **levels}
