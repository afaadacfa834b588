"""The organ of definitions: it knows from where the configuration comes, and has the engine be as it says.

One way leads to another configuration, whether files have changed, somebody asked for it or the API defines something:
all is read and checked as a whole, and then applied as a diff by the changeover. What is wrong changes nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import anyio
from anyio.to_thread import run_sync
from msgspec import Struct

from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.config import Config, Place
from engine.defined import Key, Kind
from engine.definitions.assembly import Assembled, Assembler
from engine.definitions.change import Change
from engine.definitions.kept import DEFINITIONS_SOURCE, Kept, Override, Shelf
from engine.definitions.text import read, written
from engine.definitions.watch import Signature, signature_of
from engine.errors import Changed, ConfigError, ConfigProblem, Conflict, EngineError, NotFound, StoreUnavailable
from engine.events import Event
from engine.ids import new_id
from engine.registry import Registry
from engine.store.base import Store
from engine.store.changes import Accept, Memory

log = logging.getLogger("engine.config")

SOURCE = "engine:configuration"
RELOADED, REJECTED = "engine.config.reloaded", "engine.config.rejected"
INVALID = "engine.definition.invalid"

IMPORTED = "import.toml"
"""What problems of what is imported name as its file."""

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

    `read` reads the configuration anew, where it comes from files. `apply` has the engine take up another one, `submit`
    makes a change durable, `announce` an event of the engine's own: these are put here before `run`.
    """

    def __init__(
        self, config: Config, *, clock: Clock, registry: Registry | None = None, read: Read | None = None
    ) -> None:
        self._clock = clock
        self._read = read
        self._base = config
        self._assembler = Assembler(registry=registry or Registry(), clock=clock)
        self._shelf = Shelf()
        self._assembled = Assembled(config=config)
        self._unapplied = False
        """Whether something is durable that the engine has yet to take up."""
        self._turn = anyio.Lock()
        self._asked = anyio.Event()
        self._asked_by = ""
        self._untold: set[Key] = set()
        self._loaded_at = clock.now()
        self._signature: Signature = ()
        self._note_files()
        self._restart: tuple[str, ...] = ()
        self.last: Reload | None = None
        self.apply: Callable[[Config], Awaitable[Change]]
        self.announce: Callable[[Event], Awaitable[Any]]
        self.submit: Callable[[Accept], Awaitable[Any]]

    async def load(self, store: Store) -> Config:
        """Take up what is stored, and return the configuration with it. What no longer fits is left out, and told.

        Raises StoreError.
        """
        self._shelf = await Shelf.load(store)
        self._note(self._assembler.assemble(self._base, self._shelf))
        return self._assembled.config

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
        assembled = await run_sync(self._assembler.assemble, base, self._shelf)
        with anyio.CancelScope(shield=True):
            change = await self.apply(assembled.config)
            self._base, self._restart, self._unapplied = base, change.restart, False
            self._note(assembled)
        return change

    def _note(self, assembled: Assembled) -> None:
        """Take note of what is there now, and tell of what has come to be wrong."""
        before, self._assembled = self._assembled, assembled
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
        self._untold |= assembled.invalid.keys() - before.invalid.keys()

    # Defining

    @property
    def shelf(self) -> Shelf:
        """All that the API defines and overrides."""
        return self._shelf

    @property
    def config(self) -> Config:
        """The configuration with all that the API defines and overrides."""
        return self._assembled.config

    async def define(
        self, key: Key, settings: Mapping[str, Any], *, who: str, match: Collection[str] | None = None,
        new: bool | None = None,
    ) -> bool:  # fmt: skip
        """Define a job or trigger, durably, or another version of it; return whether it is new.

        - `match`: one of these versions it has to be, None: any. `new`: whether it may not, or has to, be there.

        Raises ConfigError with all that is wrong, Conflict where files define it or its creator has too many, Changed
        where it is another version, NotFound, and StoreUnavailable: then all is as it was.
        """
        async with self._turn:
            before = self._shelf.kept.get(key)
            self._check(key, match)
            if before is not None and new:
                raise Conflict(f"there is a {key.kind} {key.name} already")
            if before is None and new is False:
                raise NotFound(f"there is no {key.kind} {key.name}")
            if before is None and (there := self._configured(key)) is not None:
                raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}, and can't be defined here")
            await self._commit(self._shelf.with_kept({key: self._kept(before, settings, who)}), [key])
        log.info(
            "The %s %s is %s by %s", key.kind, key.name, "defined" if before is None else "another one", who or "hand",
            extra={"action": "defined", key.kind: key.name, "by": who},
        )  # fmt: skip
        return before is None

    async def remove(self, key: Key, *, who: str, match: Collection[str] | None = None) -> None:
        """Remove a job or trigger of the API, durably.

        Raises NotFound, Conflict where files define it or another one needs it, Changed, and StoreUnavailable.
        """
        async with self._turn:
            if key not in self._shelf.kept:
                if (there := self._configured(key)) is not None:
                    raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}: take it out there")
                raise NotFound(f"there is no {key.kind} {key.name}")
            self._check(key, match)
            await self._commit(self._shelf.with_kept({key: None}), [key])
        log.info("The %s %s is removed by %s", key.kind, key.name, who or "hand",
                 extra={"action": "definition_removed", key.kind: key.name, "by": who})  # fmt: skip

    async def patch(
        self, key: Key, changes: Mapping[str, Any], *, who: str, reason: str = "", match: Collection[str] | None = None
    ) -> None:
        """Change single settings, durably, by a merge patch: None takes one away.

        Those of what the API defines are changed for good; what files define has others until it is reset, which may be
        those of `engine.config.overriding`. Raises ConfigError, NotFound, Conflict, Changed and StoreUnavailable.
        """
        async with self._turn:
            self._check(key, match)
            if (kept := self._shelf.kept.get(key)) is not None:
                shelf = self._shelf.with_kept({key: self._kept(kept, patched(kept.settings, changes), who)})
            elif self._configured(key) is not None:
                known = self._shelf.overrides.get(key)
                merged = patched({} if known is None else known.changes, changes)
                override = Override(changes=merged, at=self._clock.now(), who=who, reason=reason) if merged else None
                shelf = self._shelf.with_override(key, override)
            else:
                raise NotFound(f"there is no {key.kind} {key.name}")
            await self._commit(shelf, [key])
        log.info("The %s %s has other settings (by %s): %s", key.kind, key.name, who or "hand",
                 reason or "no reason given", extra={"action": "patched", key.kind: key.name, "by": who})  # fmt: skip

    async def reset(self, key: Key, *, who: str) -> bool:
        """Have what files say hold again, durably; return whether something overrode it. Raises StoreUnavailable."""
        async with self._turn:
            if key not in self._shelf.overrides:
                return False
            await self._commit(self._shelf.with_override(key, None), [key])
        log.info("The %s %s is as it is configured again (by %s)", key.kind, key.name, who or "hand",
                 extra={"action": "override_reset", key.kind: key.name, "by": who})  # fmt: skip
        return True

    def export(self) -> str:
        """Return all jobs and triggers of the API as TOML: imported and exported again, it is the same."""
        return written(self._shelf.kept)

    async def import_text(
        self, content: bytes, *, who: str, replace: bool = False, dry_run: bool = False
    ) -> tuple[dict[str, Any], Config]:
        """Define all jobs and triggers of a TOML text, all or none; with `replace` what else the API defines goes.

        Returns what that adds, changes and removes, and the configuration that it comes to. With `dry_run` it is only
        judged. Raises ConfigError with all that is wrong, Conflict where files define one of them, and
        StoreUnavailable.
        """
        found = read(content, Place(file=IMPORTED, line=1, base=self._base.base, order=0))
        async with self._turn:
            before = self._shelf
            changes: dict[Key, Kept | None] = dict.fromkeys(before.kept.keys() - found.keys()) if replace else {}
            for key, settings in found.items():
                old = before.kept.get(key)
                if old is None and (there := self._configured(key)) is not None:
                    raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}, and can't be defined here")
                if old is None or old.settings != settings:
                    changes[key] = self._kept(old, settings, who)
            shelf, assembled = before.with_kept(changes), self._assembled
            if dry_run:
                assembled = await self._judged(shelf, changes)
            elif changes:
                await self._commit(shelf, changes)
                assembled = self._assembled
        said = difference_of(before.kept, shelf.kept)
        if changes and not dry_run:
            log.info("Definitions are imported by %s: %s", who or "hand", said, extra={"action": "imported", "by": who})
        return said, assembled.config

    def _kept(self, before: Kept | None, settings: Mapping[str, Any], who: str) -> Kept:
        now = self._clock.now()
        return Kept(
            settings=dict(settings), created_at=now if before is None else before.created_at, updated_at=now,
            created_by=who if before is None else before.created_by, updated_by=who,
        )  # fmt: skip

    async def _commit(self, shelf: Shelf, touched: Collection[Key]) -> None:
        assembled = await self._judged(shelf, touched)
        with anyio.CancelScope(shield=True):  # what is durable is taken up, also where who asked is gone
            values = self._shelf.differing(shelf)
            await self.submit(Accept(entries=(), memory=Memory(source=DEFINITIONS_SOURCE, values=values)))
            self._shelf, self._unapplied = shelf, True
            self._note(assembled)
            change = await self.apply(assembled.config)
            self._unapplied, self._restart = False, change.restart

    async def _judged(self, shelf: Shelf, touched: Collection[Key]) -> Assembled:
        """Return what definitions come to; raise ConfigError where one that is touched is wrong, and Conflict where
        another one would be by that, or a creator has too many."""
        self._count(shelf)
        assembled = await run_sync(self._assembler.assemble, self._base, shelf)
        wrong = [
            problem for key in touched for problem in (*assembled.invalid.get(key, ()), *assembled.dropped.get(key, ()))
        ]
        if wrong:
            raise ConfigError(wrong)
        for key in assembled.invalid.keys() - self._assembled.invalid.keys():
            raise Conflict(f"{key.kind} {key.name} of the API would not work any more: {assembled.invalid[key][0]}")
        return assembled

    def _count(self, shelf: Shelf) -> None:
        most, counted = self._base.permits.limits.per_creator, Counter(one.created_by for one in shelf.kept.values())
        before = Counter(one.created_by for one in self._shelf.kept.values())
        for who, count in counted.items():
            if count > most and count > before[who]:
                raise Conflict(f"{who} may define {most:,} jobs and triggers ([limits] per_creator)")

    def _check(self, key: Key, match: Collection[str] | None) -> None:
        if match is not None and "*" not in match and (version := self.version(key)) not in match:
            raise Changed(f"the {key.kind} {key.name} is another version by now ({version}): read it, and ask again")

    def _configured(self, key: Key) -> Any:
        """Return what files, or a program, define under a name."""
        return (self._base.jobs if key.kind is Kind.JOB else self._base.triggers).get(key.name)

    # What is told of one

    def version(self, key: Key) -> str | None:
        """Return what tells a job or trigger from every other version of it; None where there is none."""
        if (kept := self._shelf.kept.get(key)) is not None:
            return kept.version
        config = self._assembled.config
        there = (config.jobs if key.kind is Kind.JOB else config.triggers).get(key.name)
        return None if there is None else sha256(repr(there).encode()).hexdigest()[:32]

    def about(self, key: Key) -> dict[str, Any]:
        """Return what is known of where a job or trigger comes from, as the API shows it."""
        kept, override = self._shelf.kept.get(key), self._shelf.overrides.get(key)
        if override is not None and key in self._assembled.dropped:
            problem: str | None = "; ".join(map(str, self._assembled.dropped[key]))
        else:
            problem = None
        return {
            "settings": None if kept is None else kept.settings,
            "created_at": None if kept is None else rfc3339(kept.created_at),
            "updated_at": None if kept is None else rfc3339(kept.updated_at),
            "created_by": None if kept is None else kept.created_by,
            "updated_by": None if kept is None else kept.updated_by,
            "overrides": None if override is None else {**override.view(), "problem": problem},
        }

    def invalid(self, kind: Kind) -> dict[str, str]:
        """Return what is wrong with the definitions of the API that do not work, by name."""
        return {
            key.name: "; ".join(map(str, problems))
            for key, problems in self._assembled.invalid.items()
            if key.kind is kind and self._configured(key) is None
        }

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
            await self._tell_invalid()
            await self._make_up()
            watches = self._read is not None and self._base.engine.watch
            if watches or self._unapplied:
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

    async def _make_up(self) -> None:
        """Take up what is durable and could not be taken up when it was defined."""
        if not self._unapplied:
            return
        async with self._turn:
            try:
                change = await self.apply(self._assembled.config)
            except StoreUnavailable:
                return  # it is tried again at the next look
            self._unapplied, self._restart = False, change.restart

    async def _tell_invalid(self) -> None:
        """Tell by events what of the API's definitions has come to be wrong."""
        while self._untold:
            key = self._untold.pop()
            problems = self._assembled.invalid.get(key, ())
            await self._tell(INVALID, {
                "kind": key.kind.value, "name": key.name, "errors": [problem.view() for problem in problems],
            })  # fmt: skip

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
            "defined": {kind.table: sum(key.kind is kind for key in self._shelf.kept) for kind in Kind},
            "overridden": {
                kind.table: sorted(key.name for key in self._shelf.overrides if key.kind is kind) for kind in Kind
            },
            "invalid": [
                {"kind": key.kind.value, "name": key.name, "errors": [problem.view() for problem in problems]}
                for key, problems in sorted({**self._assembled.invalid, **self._assembled.dropped}.items())
            ],
        }

    def check(self) -> dict[str, Any]:
        """Return how it is as a check of the engine's health."""
        last, detail = self.last, f"read at {rfc3339(self._loaded_at)}"
        wrong = [f"{key.kind} {key.name}" for key in sorted({**self._assembled.invalid, **self._assembled.dropped})]
        if last is None or not last.problems:
            detail += f"; these of the API do not fit, and do not hold: {', '.join(wrong)}" if wrong else ""
            return {"name": "configuration", "ok": not wrong, "detail": detail}
        first, more = last.problems[0], len(last.problems) - 1
        and_more = f" (and {more} more)" if more else ""
        said = f"the files are wrong since {rfc3339(last.at)}: {first}{and_more}; what was {detail} holds on"
        return {"name": "configuration", "ok": False, "detail": said}


def difference_of(old: Mapping[Key, Kept], new: Mapping[Key, Kept]) -> dict[str, list[str]]:
    """Return what was added, changed and removed, each as `jobs.NAME` or `triggers.NAME`."""
    return {
        "added": _names(key for key in new if key not in old),
        "changed": _names(key for key in new if key in old and new[key] is not old[key]),
        "removed": _names(key for key in old if key not in new),
    }


def _names(keys: Iterable[Key]) -> list[str]:
    return [f"{key.kind.table}.{key.name}" for key in sorted(keys)]


def patched(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as a merge patch makes it (RFC 7396): null takes a member away."""
    merged = dict(old)
    for name, value in new.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            before = merged.get(name)
            merged[name] = patched(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged
