"""The organ of definitions: it knows from where the configuration comes, and has the engine be as it says.

One way leads to another configuration, whether files have changed, somebody asked for it or the API defines something:
all is read and checked as a whole, and then applied as a diff by the changeover. What is wrong changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import anyio
from anyio.to_thread import run_sync

from engine.audits import beside
from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.config import Config, Place
from engine.config.origins import Setting
from engine.defined import Key, Kind
from engine.definitions.assembly import Assembler
from engine.definitions.change import Change, Reload
from engine.definitions.explained import explained
from engine.definitions.force import InForce
from engine.definitions.kept import Kept, Override, Shelf
from engine.definitions.patching import difference_of, patched
from engine.definitions.text import placed, read, written
from engine.definitions.watch import Signature, signature_of
from engine.errors import ConfigError, ConfigProblem, Conflict, EngineError, NotFound, StoreUnavailable
from engine.events import Event
from engine.ids import new_id
from engine.registry import Registry

log = logging.getLogger("engine.config")

SOURCE = "engine:configuration"

MOST_LOGGED = 20
"""So many mistakes of a file are told in one line of the log."""

RELOADED, REJECTED = "engine.config.reloaded", "engine.config.rejected"
INVALID = "engine.definition.invalid"

IMPORTED = "import.toml"
"""What problems of what is imported name as its file."""

LOOK_S = 1.0
"""How often the files are looked at. What was changed is read when two looks have found the same: whoever writes has
ended by then."""

AGAIN_S = 30.0
"""How often it is tried to let go what is gone from the configuration: a job, once its runs have ended."""

Read = Callable[[], Config]
"""Reads the files anew; raises ConfigError. It may take its time, and is called in a thread."""


class Definitions:
    """Where jobs and triggers come from.

    `read` reads the configuration anew, where it comes from files. `announce` makes an event of the engine's own
    durable; it is put here, and what `force` needs is put there, before `run`.
    """

    def __init__(
        self, config: Config, *, clock: Clock, registry: Registry | None = None, read: Read | None = None
    ) -> None:
        self._clock = clock
        self._read = read
        self._registry = registry or Registry()
        self.force = InForce(config, Assembler(registry=self._registry, clock=clock))
        self.force.wake = self._wake
        self._asked = anyio.Event()
        self._asked_by = ""
        self._again_s = 0.0
        self._loaded_at = clock.now()
        self._signature: Signature = ()
        self._note_files()
        self.last: Reload | None = None
        self.announce: Callable[[Event], Awaitable[Any]]
        self.on_taken: Callable[[], None] = lambda: None
        """Called when what was read anew is in force."""
        self.note: Callable[[str, dict[str, Any] | ConfigError], None] = lambda why, found: None
        """Hears why a reload was that no call asked for, and what it changed or what was wrong: for the audit log."""

    # Reading anew

    def ask(self, who: str) -> None:
        """Have the configuration read anew soon; `run` does it, and logs what comes of it."""
        self._asked_by = who
        self._wake()

    def _wake(self) -> None:
        self._asked.set()

    async def reload(self, who: str) -> Change:
        """Read the configuration anew, and take it up; return what that changes.

        Raises ConfigError with all that is wrong, Conflict where there are no files, and StoreUnavailable: then all is
        as it was.
        """
        if self._read is None:
            raise Conflict("the configuration is that of a program: there are no files to read anew")
        async with self.force.turn:
            signature = await run_sync(self._look)
            try:
                base = await run_sync(self._read)
                change = await self.force.take(base)
                self.on_taken()
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
            await self._tell_invalid()
            return change

    # Defining

    @property
    def shelf(self) -> Shelf:
        """All that the API defines and overrides."""
        return self.force.shelf

    @property
    def config(self) -> Config:
        """The configuration with all that the API defines and overrides."""
        return self.force.assembled.config

    async def define(
        self, key: Key, settings: Mapping[str, Any], *, who: str, match: Collection[str] | None = None,
        new: bool | None = None,
    ) -> bool:  # fmt: skip
        """Define a job or trigger, durably, or another version of it; return whether it is new.

        - `match`: one of these versions it has to be, None: any. `new`: whether it may not, or has to, be there.

        Raises ConfigError with all that is wrong, Conflict where files define it or its creator has too many, Changed
        where it is another version, NotFound, and StoreUnavailable: then all is as it was.
        """
        async with self.force.turn:
            before = self.force.shelf.kept.get(key)
            self.force.check(key, match)
            if before is not None and new:
                raise Conflict(f"there is a {key.kind} {key.name} already")
            if before is None and new is False:
                raise NotFound(f"there is no {key.kind} {key.name}")
            if before is None and (there := self.force.configured(key)) is not None:
                raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}, and can't be defined here")
            await self.force.commit(self.force.shelf.with_kept({key: self._kept(before, settings, who)}), [key])
        log.info(
            "The %s %s is %s by %s", key.kind, key.name, "defined" if before is None else "another one", who or "hand",
            extra={"action": "defined", key.kind: key.name, "by": who},
        )  # fmt: skip
        return before is None

    async def remove(self, key: Key, *, who: str, match: Collection[str] | None = None) -> None:
        """Remove a job or trigger of the API, durably.

        Raises NotFound, Conflict where files define it or another one needs it, Changed, and StoreUnavailable.
        """
        async with self.force.turn:
            if key not in self.force.shelf.kept:
                if (there := self.force.configured(key)) is not None:
                    raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}: take it out there")
                raise NotFound(f"there is no {key.kind} {key.name}")
            self.force.check(key, match)
            await self.force.commit(self.force.shelf.with_kept({key: None}), [key])
        log.info("The %s %s is removed by %s", key.kind, key.name, who or "hand",
                 extra={"action": "definition_removed", key.kind: key.name, "by": who})  # fmt: skip

    async def patch(
        self, key: Key, changes: Mapping[str, Any], *, who: str, reason: str = "", match: Collection[str] | None = None
    ) -> None:
        """Change single settings, durably, by a merge patch: None takes one away.

        Those of what the API defines are changed for good; what files define has others until it is reset, which may be
        those of `engine.config.overriding`. Raises ConfigError, NotFound, Conflict, Changed and StoreUnavailable.
        """
        await self.patch_all((key,), changes, who=who, reason=reason, match=match)

    async def patch_all(
        self, keys: Collection[Key], changes: Mapping[str, Any], *, who: str, reason: str = "",
        match: Collection[str] | None = None,
    ) -> None:  # fmt: skip
        """Change the same settings of many, in one commit: of all or none. See `patch`."""
        async with self.force.turn:
            shelf = self.force.shelf
            for key in keys:
                self.force.check(key, match)
                shelf = self._patched(shelf, key, changes, who, reason)
            await self.force.commit(shelf, keys)
        for key in keys:
            log.info(
                "The %s %s has other settings (by %s): %s", key.kind, key.name, who or "hand",
                reason or "no reason given", extra={"action": "patched", key.kind: key.name, "by": who},
            )  # fmt: skip

    def _patched(self, shelf: Shelf, key: Key, changes: Mapping[str, Any], who: str, reason: str) -> Shelf:
        if (kept := shelf.kept.get(key)) is not None:
            return shelf.with_kept({key: self._kept(kept, patched(kept.settings, changes), who)})
        if self.force.configured(key) is None:
            raise NotFound(f"there is no {key.kind} {key.name}")
        known = shelf.overrides.get(key)
        merged = patched({} if known is None else known.changes, changes)
        override = Override(changes=merged, at=self._clock.now(), who=who, reason=reason) if merged else None
        return shelf.with_override(key, override)

    def rebase(self, base: Config) -> None:
        """Take in what a program has defined meanwhile, which the engine has taken up already."""
        self.force.base = base

    async def reset(self, key: Key, *, who: str) -> bool:
        """Have what files say hold again, durably; return whether something overrode it. Raises StoreUnavailable."""
        async with self.force.turn:
            if key not in self.force.shelf.overrides:
                return False
            await self.force.commit(self.force.shelf.with_override(key, None), [key])
        log.info("The %s %s is as it is configured again (by %s)", key.kind, key.name, who or "hand",
                 extra={"action": "override_reset", key.kind: key.name, "by": who})  # fmt: skip
        return True

    def export(self) -> str:
        """Return all jobs and triggers of the API as TOML: imported and exported again, it is the same."""
        return written(self.force.shelf.kept)

    async def import_text(
        self, content: bytes, *, who: str, replace: bool = False, dry_run: bool = False
    ) -> tuple[dict[str, Any], Config]:
        """Define all jobs and triggers of a TOML text, all or none; with `replace` what else the API defines goes.

        Returns what that adds, changes and removes, and the configuration that it comes to. With `dry_run` it is only
        judged. Raises ConfigError with all that is wrong, Conflict where files define one of them, and
        StoreUnavailable.
        """
        found, lines = read(content, Place(file=IMPORTED, line=1, base=self.force.base.base, order=0))
        try:
            return await self._import(found, who, replace=replace, dry_run=dry_run)
        except ConfigError as error:
            raise placed(error, IMPORTED, lines) from None

    async def _import(
        self, found: Mapping[Key, dict[str, Any]], who: str, *, replace: bool, dry_run: bool
    ) -> tuple[dict[str, Any], Config]:
        async with self.force.turn:
            before = self.force.shelf
            changes: dict[Key, Kept | None] = dict.fromkeys(before.kept.keys() - found.keys()) if replace else {}
            for key, settings in found.items():
                old = before.kept.get(key)
                if old is None and (there := self.force.configured(key)) is not None:
                    raise Conflict(f"{key.kind} {key.name} is defined in {there.defined_in}, and can't be defined here")
                if old is None or old.settings != settings:
                    changes[key] = self._kept(old, settings, who)
            shelf, assembled = before.with_kept(changes), self.force.assembled
            if dry_run:
                assembled = await self.force.judged(shelf, changes)
            elif changes:
                await self.force.commit(shelf, changes)
                assembled = self.force.assembled
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

    # What is told of one

    def version(self, key: Key) -> str | None:
        """Return what tells a job or trigger from every other version of it; None where there is none."""
        return self.force.version(key)

    def about(self, key: Key) -> dict[str, Any]:
        """Return what is known of where a job or trigger comes from, as the API shows it."""
        kept, override = self.force.shelf.kept.get(key), self.force.shelf.overrides.get(key)
        problems = self.force.assembled.dropped.get(key, ())
        return {
            "settings": None if kept is None else kept.settings,
            "created_at": None if kept is None else rfc3339(kept.created_at),
            "updated_at": None if kept is None else rfc3339(kept.updated_at),
            "created_by": None if kept is None else kept.created_by,
            "updated_by": None if kept is None else kept.updated_by,
            "overrides": None
            if override is None
            else {
                **override.view(),
                "problem": "; ".join(map(str, problems)) or None,
            },
        }

    def settings(
        self, table: str, name: str | None, *, config: Config, show: Callable[[Any, Any], Any]
    ) -> list[Setting]:
        """Return the settings of a table, or of what it has by that name, as they hold in `config`, each with where
        it comes from; none of what a program defines. Raises NotFound. `show` makes what anybody may see of a value,
        given the texts that are secret."""
        return explained(
            table, name, config=config, shelf=self.force.shelf, assembled=self.force.assembled,
            registry=self._registry, show=show,
        )  # fmt: skip

    def invalid(self, kind: Kind) -> dict[str, str]:
        """Return what is wrong with the definitions of the API that do not work, by name."""
        return {
            key.name: "; ".join(map(str, problems))
            for key, problems in self.force.assembled.invalid.items()
            if key.kind is kind and self.force.configured(key) is None
        }

    async def _note_refused(self, who: str, error: ConfigError) -> None:
        self.last = Reload(at=self._clock.now(), who=who, problems=error.problems)
        said = [str(problem) for problem in error.problems[:MOST_LOGGED]]
        if more := len(error.problems) - len(said):
            said.append(f"and {more} more, which `check` tells")
        log.error(
            "The configuration is wrong, and the one before it holds on (%s): %s", who, "; ".join(said),
            extra={"action": "config_rejected", "problems": len(error.problems)},
        )  # fmt: skip
        with beside():
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
            watches = self._read is not None and self.force.base.engine.watch
            if watches or self.force.unapplied or self.force.left:
                await sleep_or_wake(self._clock, LOOK_S, self._asked)
            else:
                await self._asked.wait()
            asked_by, self._asked_by, self._asked = self._asked_by, "", anyio.Event()
            if not asked_by:
                if not watches:
                    continue
                found = await run_sync(self._look)
                settled, before = found == before, found
                if found == self._signature or not settled:
                    continue
                asked_by = "its files have changed"
            try:
                self.note(asked_by, (await self.reload(asked_by)).view())
            except ConfigError as error:
                self.note(asked_by, error)
            except StoreUnavailable:
                continue  # it is told; a store that can't now is asked again at the next look
            except Conflict as error:
                log.warning("%s", error, extra={"action": "config_not_reloaded"})
            except Exception as error:  # plugins are asked much when a configuration is read
                self._signature = before
                await self._note_refused(asked_by, _unexpected(error))

    async def _make_up(self) -> None:
        """Have the engine take up what it could not before, where there is something."""
        now_s = self._clock.monotonic()
        if self.force.unapplied or (self.force.left and now_s >= self._again_s):
            self._again_s = now_s + AGAIN_S
            await self.force.make_up()

    async def _tell_invalid(self) -> None:
        """Tell by events what of the API's definitions has come to be wrong."""
        while self.force.untold:
            key = self.force.untold.pop()
            problems = self.force.assembled.invalid.get(key, ())
            await self._tell(INVALID, {
                "kind": key.kind.value, "name": key.name, "errors": [problem.view() for problem in problems],
            })  # fmt: skip

    def _look(self) -> Signature:
        base = self.force.base
        return signature_of((*base.files, *sorted(base.icals), *sorted(base.schemas)))

    def _note_files(self, signature: Signature | None = None) -> None:
        """Remember how the files are that were read; where they are others than before, they are looked at now."""
        found = self._look()
        self._signature = found if signature is None or len(signature) != len(found) else signature

    # How it is

    def view(self) -> dict[str, Any]:
        """Return how it is as the API shows it."""
        base, last = self.force.base, self.last
        return {
            "files": [str(file) for file in base.files],
            "loaded_at": rfc3339(self._loaded_at),
            "watched": self._read is not None and base.engine.watch,
            "reload": None if last is None else last.view(),
            "restart_needed": list(self.force.restart),
            "left": list(self.force.left),
            "defined": {kind.table: sum(key.kind is kind for key in self.force.shelf.kept) for kind in Kind},
            "overridden": {
                kind.table: sorted(key.name for key in self.force.shelf.overrides if key.kind is kind) for kind in Kind
            },
            "invalid": [
                {"kind": key.kind.value, "name": key.name, "errors": [problem.view() for problem in problems]}
                for key, problems in sorted(self.force.assembled.wrong.items())
            ],
        }

    def check(self) -> dict[str, Any]:
        """Return how it is as a check of the engine's health."""
        last, detail = self.last, f"read at {rfc3339(self._loaded_at)}"
        wrong = [f"{key.kind} {key.name}" for key in sorted(self.force.assembled.wrong)]
        if last is None or not last.problems:
            detail += f"; these of the API do not fit, and do not hold: {', '.join(wrong)}" if wrong else ""
            return {"name": "configuration", "ok": not wrong, "detail": detail}
        first, more = last.problems[0], len(last.problems) - 1
        and_more = f" (and {more} more)" if more else ""
        said = f"the files are wrong since {rfc3339(last.at)}: {first}{and_more}; what was {detail} holds on"
        return {"name": "configuration", "ok": False, "detail": said}


def _unexpected(error: Exception) -> ConfigError:
    log.exception("Reading the configuration anew failed", extra={"action": "config_failed"})
    said = f"reading it failed with {type(error).__name__}: {error}"
    return ConfigError([ConfigProblem(file="", line=0, path="", message=said)])
