"""What is in force: what files say and the API defines, as one configuration, and the one way to another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from hashlib import sha256
from typing import Any

import anyio
from anyio.to_thread import run_sync

from engine.config import Config
from engine.defined import Key, Kind
from engine.definitions.assembly import Assembled, Assembler
from engine.definitions.change import Change
from engine.definitions.kept import DEFINITIONS_SOURCE, Shelf
from engine.errors import Changed, ConfigError, Conflict, StoreUnavailable
from engine.store.base import Store
from engine.store.changes import Accept, Memory
from engine.tokens import proved

log = logging.getLogger("engine.config")


class InForce:
    """The configuration that holds. Whoever changes it has the `turn`.

    - `base`: what files, or a program, say; `shelf`: what the API defines and overrides; `assembled`: both.
    - `restart`: keys that only a restart changes; `left`: what is to go and could not yet, in words.
    - `untold`: definitions that have come to be wrong since that was told.
    - `apply` has the engine take up a configuration, `submit` makes a change durable: they are put here before use.
    """

    def __init__(self, config: Config, assembler: Assembler) -> None:
        self._assembler = assembler
        self.base = config
        self.shelf = Shelf()
        self.assembled = Assembled(config=config)
        self.unapplied = False
        """Whether something is durable that the engine has yet to take up."""
        self.restart: tuple[str, ...] = ()
        self.left: tuple[str, ...] = ()
        self.untold: set[Key] = set()
        self.turn = anyio.Lock()
        self.wake: Callable[[], None] = lambda: None
        """Called where something could not be taken up, for who sees to it."""
        self.apply: Callable[[Config], Awaitable[Change]]
        self.submit: Callable[[Accept], Awaitable[Any]]

    async def load(self, store: Store) -> Config:
        """Take up what is stored, and return the configuration with it. What no longer fits is left out, and told.

        Raises StoreError.
        """
        self.shelf = await Shelf.load(store)
        self._note(self._assembler.assemble(self.base, self.shelf))
        return self.assembled.config

    async def take(self, base: Config) -> Change:
        """Have other files hold beside the API's definitions; raise StoreUnavailable where all is as it was."""
        assembled = await run_sync(self._assembler.assemble, base, self.shelf)
        with anyio.CancelScope(shield=True):
            change = await self.apply(assembled.config)
            self.base = base
            self._note(assembled)
            self._note_applied(change)
        return change

    def _note(self, assembled: Assembled) -> None:
        """Take note of what is there now, and tell of what has come to be wrong."""
        before, self.assembled = self.assembled, assembled
        for key in assembled.invalid.keys() - before.invalid.keys():
            said = "; ".join(map(str, assembled.invalid[key]))
            log.error(
                "The %s %s of the API does not fit any more, and does not work: %s", key.kind, key.name, said,
                extra={"action": "definition_invalid", key.kind: key.name},
            )  # fmt: skip
        for key in assembled.dropped.keys() - before.dropped.keys():
            log.error(
                "What overrides the %s %s does not fit it any more, and does not hold: %s", key.kind, key.name,
                "; ".join(map(str, assembled.dropped[key])), extra={"action": "override_dropped", key.kind: key.name},
            )  # fmt: skip
        self.untold |= assembled.invalid.keys() - before.invalid.keys()

    async def commit(self, shelf: Shelf, touched: Collection[Key]) -> None:
        """Have other definitions, durably; `touched` are the others. Raises as `judged` does, and StoreUnavailable."""
        assembled = await self.judged(shelf, touched)
        with anyio.CancelScope(shield=True):  # what is durable is taken up, also where who asked is gone
            values = self.shelf.differing(shelf)
            await self.submit(Accept(entries=(), memory=Memory(source=DEFINITIONS_SOURCE, values=values)))
            self.shelf, self.unapplied = shelf, True
            self._note(assembled)
            try:
                self._note_applied(await self.apply(assembled.config))
            except BaseException:
                self.wake()
                raise

    async def judged(self, shelf: Shelf, touched: Collection[Key]) -> Assembled:
        """Return what definitions come to; raise ConfigError where one that is touched is wrong, and Conflict where
        another one would be by that, or a creator has too many."""
        self._count(shelf)
        assembled = await run_sync(self._assembler.assemble, self.base, shelf)
        wrong = [
            problem for key in touched for problem in (*assembled.invalid.get(key, ()), *assembled.dropped.get(key, ()))
        ]
        if not wrong:
            examined = await run_sync(self._assembler.examined, assembled.config, touched)
            wrong = [problem for problems in examined.values() for problem in problems]
        if wrong:
            raise ConfigError(wrong)
        for key in assembled.invalid.keys() - self.assembled.invalid.keys():
            raise Conflict(f"{key.kind} {key.name} of the API would not work any more: {assembled.invalid[key][0]}")
        return assembled

    def _count(self, shelf: Shelf) -> None:
        # By who has proved to be somebody: whom it is for is anybody's word.
        most = self.base.permits.limits.per_creator
        counted = Counter(proved(one.created_by) for one in shelf.kept.values())
        before = Counter(proved(one.created_by) for one in self.shelf.kept.values())
        for who, count in counted.items():
            if count > most and count > before[who]:
                raise Conflict(f"{who} may define {most:,} jobs and triggers ([limits] per_creator)")

    def check(self, key: Key, match: Collection[str] | None) -> None:
        """Raise Changed where a definition is none of the versions that it was taken for; None is any."""
        if match is not None and "*" not in match and (version := self.version(key)) not in match:
            raise Changed(f"the {key.kind} {key.name} is another version by now ({version}): read it, and ask again")

    def configured(self, key: Key) -> Any:
        """Return what files, or a program, define under a name."""
        return (self.base.jobs if key.kind is Kind.JOB else self.base.triggers).get(key.name)

    async def make_up(self) -> None:
        """Take up what could not be taken up when it was read or defined."""
        async with self.turn:
            if not self.unapplied and not self.left:
                return
            with suppress(StoreUnavailable):  # it is tried again
                self._note_applied(await self.apply(self.assembled.config))

    def _note_applied(self, change: Change) -> None:
        self.unapplied, self.restart, self.left = False, change.restart, change.left
        if change.left:
            self.wake()

    # What is there

    def version(self, key: Key) -> str | None:
        """Return what tells a job or trigger from every other version of it; None where there is none."""
        if (kept := self.shelf.kept.get(key)) is not None:
            return kept.version
        config = self.assembled.config
        there = (config.jobs if key.kind is Kind.JOB else config.triggers).get(key.name)
        return None if there is None else sha256(repr(there).encode()).hexdigest()[:32]
