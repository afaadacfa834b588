"""The organ of definitions: it knows from where the configuration comes, and has the engine be as it says.

One way leads to another configuration, whether files have changed, somebody asked for it or the API defines something:
all is read and checked as a whole, and then applied as a diff by the changeover. What is wrong changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import anyio
from anyio.to_thread import run_sync
from msgspec import Struct

from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.config import Config
from engine.definitions.change import Change
from engine.definitions.watch import Signature, signature_of
from engine.errors import ConfigError, ConfigProblem, Conflict, EngineError, StoreUnavailable
from engine.events import Event
from engine.ids import new_id

log = logging.getLogger("engine.config")

SOURCE = "engine:configuration"
RELOADED, REJECTED = "engine.config.reloaded", "engine.config.rejected"

LOOK_S = 1.0
"""How often the files are looked at. What was changed is read when two looks have found the same: whoever writes has
ended by then."""

Read = Callable[[], Config]
"""Reads the files anew; raises ConfigError. It may take its time, and is called in a thread."""


class Reload(Struct, frozen=True, kw_only=True):
    """How the last reload went: `problems` are what was wrong, `change` what was taken up where nothing was."""

    at: datetime
    who: str
    problems: tuple[ConfigProblem, ...] = ()
    change: Change | None = None

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "at": rfc3339(self.at),
            "who": self.who,
            "ok": self.change is not None,
            "errors": [problem.view() for problem in self.problems],
            "change": None if self.change is None else self.change.view(),
        }


class Definitions:
    """Where jobs and triggers come from.

    `read` reads the configuration anew, where it comes from files. `apply` has the engine take up another one, and
    `announce` makes an event of the engine's own durable: both are put here before `run`.
    """

    def __init__(self, config: Config, *, clock: Clock, read: Read | None = None) -> None:
        self._clock = clock
        self._read = read
        self._base = config
        self._turn = anyio.Lock()
        self._asked = anyio.Event()
        self._asked_by = ""
        self._loaded_at = clock.now()
        self._signature: Signature = ()
        self._note_files()
        self._restart: tuple[str, ...] = ()
        self.last: Reload | None = None
        self.apply: Callable[[Config], Awaitable[Change]]
        self.announce: Callable[[Event], Awaitable[Any]]

    # Reading anew

    def ask(self, who: str) -> None:
        """Have the configuration read anew soon; `run` does it, and logs what comes of it."""
        self._asked_by = who
        self._asked.set()

    async def reload(self, who: str) -> Change:
        """Read the configuration anew, and take it up; return what that changes.

        Raises ConfigError with all that is wrong, Conflict where there are no files, and StoreUnavailable: then all is
        as it was.
        """
        if self._read is None:
            raise Conflict("the configuration is that of a program: there are no files to read anew")
        async with self._turn:
            signature = await run_sync(self._look)
            try:
                base = await run_sync(self._read)
                change = await self._take(base)
            except ConfigError as error:
                self._signature = signature
                await self._note_refused(who, error)
                raise
            except StoreUnavailable as error:
                log.error(
                    "The configuration is not taken up, as the store can't take it: %s", error,
                    extra={"action": "config_not_taken", "by": who},
                )  # fmt: skip
                raise
            self._note_files(signature)
            self._loaded_at = self._clock.now()
            self.last = Reload(at=self._loaded_at, who=who, change=change)
            log.info("The configuration is read anew (%s): %s", who, change.said(), extra={"action": "config_reloaded"})
            await self._tell(RELOADED, {"who": who, **change.view()})
            return change

    async def _take(self, base: Config) -> Change:
        change = await self.apply(base)
        self._base, self._restart = base, change.restart
        return change

    async def _note_refused(self, who: str, error: ConfigError) -> None:
        self.last = Reload(at=self._clock.now(), who=who, problems=error.problems)
        log.error(
            "The configuration is wrong, and the one before it holds on (%s):\n%s", who, error,
            extra={"action": "config_rejected", "problems": len(error.problems)},
        )  # fmt: skip
        await self._tell(REJECTED, {"who": who, "errors": [one.view() for one in error.problems]})

    async def _tell(self, kind: str, data: dict[str, Any]) -> None:
        """Tell of it by an event, for triggers that listen; that it can't be stored now is no reason to fail."""
        try:
            await self.announce(Event(type=kind, source=SOURCE, key=new_id(), subject="configuration", data=data))
        except EngineError as error:
            log.warning("The event %s is not stored: %s", kind, error, extra={"action": "event_not_stored"})

    # Watching

    async def run(self) -> None:
        """Read the configuration anew where that was asked for, or its files have changed; until cancelled."""
        before = self._signature
        while True:
            watches = self._read is not None and self._base.engine.watch
            if watches:
                await sleep_or_wake(self._clock, LOOK_S, self._asked)
            else:
                await self._asked.wait()
            asked_by, self._asked_by, self._asked = self._asked_by, "", anyio.Event()
            if not asked_by:
                found = await run_sync(self._look)
                settled, before = found == before, found
                if found == self._signature or not settled:
                    continue
                asked_by = "its files have changed"
            try:
                await self.reload(asked_by)
            except (ConfigError, StoreUnavailable):
                continue  # it is told; a store that can't now is asked again at the next look
            except Conflict as error:
                log.warning("%s", error, extra={"action": "config_not_reloaded"})

    def _look(self) -> Signature:
        base = self._base
        return signature_of((*base.files, *sorted(base.icals), *sorted(base.schemas)))

    def _note_files(self, signature: Signature | None = None) -> None:
        """Remember how the files are that were read; where they are others than before, they are looked at now."""
        found = self._look()
        self._signature = found if signature is None or len(signature) != len(found) else signature

    # How it is

    def view(self) -> dict[str, Any]:
        """Return how it is as the API shows it."""
        base, last = self._base, self.last
        return {
            "files": [str(file) for file in base.files],
            "loaded_at": rfc3339(self._loaded_at),
            "watched": self._read is not None and base.engine.watch,
            "reload": None if last is None else last.view(),
            "restart_needed": list(self._restart),
        }

    def check(self) -> dict[str, Any]:
        """Return how it is as a check of the engine's health."""
        last, detail = self.last, f"read at {rfc3339(self._loaded_at)}"
        if last is None or not last.problems:
            return {"name": "configuration", "ok": True, "detail": detail}
        first, more = last.problems[0], len(last.problems) - 1
        and_more = f" (and {more} more)" if more else ""
        said = f"the files are wrong since {rfc3339(last.at)}: {first}{and_more}; what was {detail} holds on"
        return {"name": "configuration", "ok": False, "detail": said}
