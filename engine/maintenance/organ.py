"""Maintenance: the windows in which runs wait, those of the configuration and those that the API makes.

A window is a gate (see `engine.decide.gates`). While it is open, runs of its scope are held; what becomes of them is
said by its `after`:

- `run`: all are run when it closes.
- `latest`: of each trigger the latest one is. An older one is skipped as soon as a later one waits.
- `drop`: each is skipped at once, as nothing would come of its waiting.

Nothing is thrown away that somebody asked for (by hand, a backfill, a replay), nor what has begun (a retry): that waits
and is run. Windows that the API makes, and overrides, are durable when the call returns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from engine.clock import LONGEST_SLEEP_S, Clock, rfc3339
from engine.config.scalars import near
from engine.decide.gates import PASS, Hold, Skip, Verdict, bypassed
from engine.decide.overlap import has_begun
from engine.decide.rules import Rule
from engine.decide.windows import After, Cut, MaintenanceWindow, Overridden, Override, Scope, Spell, spell_at
from engine.errors import Conflict, EngineError, InvalidRequest, NotFound, StoreUnavailable
from engine.journal import Journal
from engine.maintenance.known import Known, Stored
from engine.maintenance.latest import CODE_LATEST, Latest
from engine.runs import Origin, Run
from engine.store.base import Store
from engine.store.changes import Accept, Memory

log = logging.getLogger("engine.maintenance")

MAINTENANCE_SOURCE = "engine:maintenance"
"""Under this id the store remembers the windows of the API by name, and overrides with a colon before it, which no name
holds."""

CODE = "maintenance"
"""Of a run that a window holds, or that is skipped for one."""

PAGE = 1_000
RETRY_S = 5.0

ASKED_AFTER_S = 60.0
"""So long after a window's end each run that waits for it is asked about by itself, whatever was told."""

_COMES_BY_ITSELF = frozenset({Origin.SCHEDULE, Origin.EVENT})

Read = Callable[[str, dict[str, Any]], MaintenanceWindow]
"""Makes a window of a name and its settings, as the configuration has them; raises ConfigError."""


class Maintenance:
    """All maintenance windows. `rules` are the triggers by name; `read` makes windows of what the API is given.

    `on_change` hears of triggers (None: maybe all) for which a window has opened or closed; `cancel_running` ends the
    runs of triggers that are running, for a reason. Both are put here before `run`.
    """

    def __init__(
        self, clock: Clock, journal: Journal, rules: Mapping[str, Rule], configured: Mapping[str, MaintenanceWindow],
        read: Read,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._rules = rules
        self._read = read
        self._known = {name: Known(name, window) for name, window in configured.items()}
        self._open: tuple[Known, ...] = ()
        self._looked_at: datetime | None = None
        self._look_again_at: datetime | None = None
        """What is known of openings holds from the one until before the other; None is without an end."""
        self._latest = Latest()
        self._told: dict[str, Known] = {}
        """The windows whose opening was told of."""
        self._changed = anyio.Event()
        self.on_change: Callable[[Collection[str] | None], None] = lambda names: None
        self.cancel_running: Callable[[Collection[str], str], None] = lambda names, reason: None

    # As a gate

    def concerns(self, rule: Rule) -> bool:
        if not self._known:
            return False
        self._look()
        return rule.trigger.name in self._latest or any(one.holds(rule) for one in self._open)

    def look(self, run: Run, rule: Rule) -> Verdict:
        if "maintenance" in bypassed(run):
            return PASS
        self._look()
        holding = [one for one in self._open if one.holds(rule)]
        droppable = run.origin in _COMES_BY_ITSELF and not has_begun(run)
        keeping = any(one.after is After.LATEST for one in holding)
        if droppable and (keeping or run.code == CODE_LATEST) and (newer := self._latest.newer(run)) is not None:
            return Skip(code=CODE, reason=f"skipped: only the latest run is kept for after maintenance, and {newer} is")
        if not holding:
            return PASS
        said = "; ".join(one.said() for one in holding)
        if droppable and (dropping := [one for one in holding if one.after is After.DROP]):
            said = dropping[0].said()
            return Skip(code=CODE, reason=f"skipped: {said}, for which nothing waits (after = drop)")
        # When it closes, all that waits is asked about in the order of the queue; what were left, a little later.
        ends_at = max(one.ends_at for one in holding if one.ends_at is not None)
        until = ends_at + timedelta(seconds=ASKED_AFTER_S)
        if droppable and keeping:
            if self._latest.note(run):
                self._changed.set()  # the one before is asked again, and gives way
            return Hold(
                code=CODE_LATEST, reason=f"held: {said}; then only the latest run of the trigger runs", until=until
            )
        return Hold(code=CODE, reason=f"held: {said}", until=until)

    # How it is

    def holding(self, trigger: str) -> list[dict[str, Any]]:
        """Return the windows of a trigger that are open now, as the API shows them beside it."""
        rule = self._rules.get(trigger)
        self._look()
        return [] if rule is None else [one.brief() for one in self._open if one.holds(rule)]

    def windows_of(self, rule: Rule) -> list[MaintenanceWindow]:
        """Return the windows that hold runs of a trigger, open or not, as they are from now on."""
        return [window for window in self.foreseen() if window.scope.holds(rule)]

    def foreseen(self) -> list[MaintenanceWindow]:
        """Return all windows that hold something, their overrides counted in."""
        found = []
        for one in self._known.values():
            window, override = one.window, one.override
            if window is None or not window.enabled:
                continue
            if override is not None:
                window = replace(window, pattern=Overridden(pattern=window.pattern, until=override.until))
            found.append(window)
        return found

    def overrides(self) -> dict[str, Override]:
        """Return the overrides that hold now, by window."""
        now = self._clock.now()
        return {
            name: one.override
            for name, one in self._known.items()
            if one.override is not None and one.override.holds(now)
        }

    def all(self) -> dict[str, MaintenanceWindow]:
        """Return all windows by name, but for those that are none any more."""
        return {name: one.window for name, one in self._known.items() if one.window is not None}

    def views(self) -> list[dict[str, Any]]:
        """Return all windows as the API shows them: those that are open first, then those that open next."""
        self._look()
        found = [one.view(self._rules.values()) for one in self._known.values()]
        return sorted(found, key=lambda view: (view["state"] != "open", view["opens_at"] or "~", view["name"]))

    def view(self, name: str) -> dict[str, Any]:
        """Return a window as the API shows it; raise NotFound."""
        self._look()
        return self._get(name).view(self._rules.values())

    def open_views(self) -> list[dict[str, Any]]:
        """Return the windows that are open now, briefly."""
        self._look()
        return [one.brief() for one in self._open]

    def check(self) -> dict[str, Any]:
        """Return how it is as a check of the engine's health: not well where a window is none any more."""
        self._look()
        wrong = [f"{one.name}: {one.problem}" for one in self._known.values() if one.problem is not None]
        said = wrong or [f"{one.said()}, for {one.scope}" for one in self._open]
        return {"name": "maintenance", "ok": not wrong, "detail": "; ".join(said) or "no window is open"}

    # Making, removing, overriding

    async def load(self, store: Store) -> None:
        """Take up what is stored: windows of the API, overrides, and which runs of triggers wait as the latest."""
        after: str | None = None
        overrides: dict[str, Override] = {}
        while page := await store.memory(MAINTENANCE_SOURCE, after=after, limit=PAGE):
            for key, value in page.items():
                if key.startswith(":"):
                    overrides[key[1:]] = msgspec.convert(value, Override)
                else:
                    self._take_stored(key, msgspec.convert(value, Stored))
            after = next(reversed(page))
        for name, override in overrides.items():
            if name in self._known:
                self._known[name].override = override
        keeping = [one for one in self._known.values() if one.after is After.LATEST]
        await self._latest.load(
            store, [name for name, rule in self._rules.items() if any(one.holds(rule) for one in keeping)]
        )  # fmt: skip

    def configure(self, windows: Mapping[str, MaintenanceWindow]) -> None:
        """Take in the windows of another configuration. Those of the API stay, but for names that it takes, and so do
        overrides; one that is open and not another one stays open."""
        for name in [name for name, one in self._known.items() if one.stored is None and name not in windows]:
            del self._known[name]
        for name, window in windows.items():
            known = self._known.get(name)
            if known is not None and known.stored is None and known.window is not None:
                if replace(known.window, defined_in=window.defined_in) == window:
                    known.window = window
                    continue
            elif known is not None:
                log.warning(
                    "Window %s of the API is left out, as the configuration has one of that name now", name,
                    extra={"action": "maintenance_hidden", "window": name},
                )  # fmt: skip
            self._known[name] = Known(name, window, None, None if known is None else known.override)
        self._forget_look()
        self._changed.set()

    def _take_stored(self, name: str, stored: Stored) -> None:
        if name in self._known and self._known[name].stored is None:
            log.warning(
                "Window %s of the API is left out, as the configuration has one of that name", name,
                extra={"action": "maintenance_hidden", "window": name},
            )  # fmt: skip
            return
        one = self._known[name] = Known(name, None, stored)
        try:
            one.window = self._read(name, stored.settings)
        except EngineError as error:
            one.problem = str(error)
            log.error(
                "Window %s of the API can't be kept any more, and holds nothing: %s", name, error,
                extra={"action": "maintenance_invalid", "window": name},
            )  # fmt: skip

    async def define(self, name: str, settings: dict[str, Any], *, who: str) -> None:
        """Make a window of settings as the configuration has them, durably; one of the API by that name is replaced.

        Raises ConfigError where they are wrong, InvalidRequest where its scope names what is not there, Conflict where
        the configuration has one of that name, and StoreUnavailable.
        """
        known = self._known.get(name)
        if known is not None and known.stored is None:
            raise Conflict(f"window {name} is one of the configuration: it can be overridden, not replaced")
        window = self._read(name, settings)
        self._check_scope(window.scope)
        stored = Stored(settings=settings, at=self._clock.now(), who=who)
        one = Known(name, window, stored, None if known is None else known.override)
        await self._store({name: msgspec.to_builtins(stored)}, partial(self._known.__setitem__, name, one))
        log.info(
            "Window %s is made (%s)%s", name, window.when, f" by {who}" if who else "",
            extra={"action": "maintenance_made", "window": name, "by": who},
        )  # fmt: skip

    def _check_scope(self, scope: Scope) -> None:
        """Refuse a window for nothing: it is a mistake."""
        rules = self._rules.values()
        tags = {tag for rule in rules for tag in (*rule.trigger.tags, *rule.job.tags)}
        for says, given, there in (
            ("there is no trigger", scope.triggers, {*self._rules}),
            ("no trigger has the job", scope.jobs, {rule.job.name for rule in rules}),
            ("no trigger, and no job of one, has the tag", scope.tags, tags),
        ):
            for name in sorted(given - there):
                hint = near(name, there)
                raise InvalidRequest(f"scope: {says} {name}" + (f"; {hint}" if hint else ""))

    async def remove(self, name: str, *, who: str) -> None:
        """Remove a window of the API, durably: what waits for it is asked again, and runs.

        Raises NotFound, Conflict where it is one of the configuration, and StoreUnavailable.
        """
        if self._get(name).stored is None:
            raise Conflict(f"window {name} is one of the configuration: override it, or take it out there")
        await self._store({name: None, f":{name}": None}, partial(self._known.pop, name, None))
        log.info(
            "Window %s is removed%s", name, f" by {who}" if who else "",
            extra={"action": "maintenance_removed", "window": name, "by": who},
        )  # fmt: skip

    async def override(
        self, name: str, *, until: datetime | None, duration_s: float | None = None, reason: str, who: str
    ) -> None:
        """Have a window count as closed until an instant or for a while, durably; without an end until this opening, or
        the next one, is over.

        Raises NotFound, Conflict where `until` is past or the window does not open again, and StoreUnavailable.
        """
        one, now = self._get(name), self._clock.now()
        if duration_s is not None:
            until = now + timedelta(seconds=duration_s)
        elif until is None:
            until = self._next_end(one, now)
        if until <= now:
            raise Conflict(f"window {name} can't be overridden until {rfc3339(until)}: that is past")
        made = Override(until=until.astimezone(UTC), reason=reason, at=now, who=who)
        await self._store({f":{name}": msgspec.to_builtins(made)}, partial(setattr, one, "override", made))
        log.info(
            "Window %s is overridden until %s: %s%s", name, rfc3339(until), reason, f" (by {who})" if who else "",
            extra={"action": "maintenance_overridden", "window": name, "by": who},
        )  # fmt: skip

    async def end_override(self, name: str, *, who: str) -> bool:
        """End the override of a window, durably; return whether it held. Raises NotFound and StoreUnavailable."""
        one = self._get(name)
        held = one.override is not None and one.override.holds(self._clock.now())
        if one.override is not None:
            await self._store({f":{name}": None}, partial(setattr, one, "override", None))
        if held:
            log.info(
                "The override of window %s is ended%s", name, f" by {who}" if who else "",
                extra={"action": "maintenance_override_ended", "window": name, "by": who},
            )  # fmt: skip
        return held

    def _next_end(self, one: Known, now: datetime) -> datetime:
        window = one.window
        spell = None if window is None else spell_at(window.pattern, now)
        if window is not None and spell is not None and not spell.is_open and spell.until is not None:
            spell = spell_at(window.pattern, spell.until)
        if spell is None or not spell.is_open or spell.until is None:
            raise Conflict(f"window {one.name} does not open again: there is nothing to override")
        return spell.until

    def _get(self, name: str) -> Known:
        one = self._known.get(name)
        if one is None:
            raise NotFound(f"there is no maintenance window {name}")
        return one

    def _store(self, values: Mapping[str, Any], then: Callable[[], Any]) -> asyncio.Future[Any]:
        """Store values; once they are durable do what follows, also where whoever asked has gone."""
        stored = self._journal.submit(Accept(entries=(), memory=Memory(source=MAINTENANCE_SOURCE, values=values)))

        def take(done: asyncio.Future[Any]) -> None:
            if done.exception() is None:
                then()
                self._forget_look()
                self._changed.set()

        stored.add_done_callback(take)
        return stored

    # As time goes on

    async def run(self, store: Store) -> None:
        """Notice that windows open and close, and tell of it; until cancelled."""
        while True:
            self._changed = anyio.Event()
            self._look()
            self._tell()
            forgot = await self._forget_ended()
            held = {name for name, rule in self._rules.items() if any(one.holds(rule) for one in self._open)}
            await self._latest.forget(store, held)
            wait_s = LONGEST_SLEEP_S if forgot else RETRY_S
            if self._look_again_at is not None:
                wait_s = min(wait_s, max((self._look_again_at - self._clock.now()).total_seconds(), 0.0))
            await self._wait(wait_s)

    async def _wait(self, seconds: float) -> None:
        """Sleep, or until a window is made, removed or overridden."""
        async with anyio.create_task_group() as group:

            async def wake() -> None:
                await self._changed.wait()
                group.cancel_scope.cancel()

            group.start_soon(wake)
            await self._clock.sleep(seconds)
            group.cancel_scope.cancel()

    def _forget_look(self) -> None:
        self._looked_at = self._look_again_at = None

    def _look(self) -> None:
        """Find out which windows are open, where that may have changed; `run` tells of it."""
        now = self._clock.now()
        known = self._looked_at is not None and self._looked_at <= now
        if known and (self._look_again_at is None or now < self._look_again_at):
            return
        self._looked_at = now
        for one in self._known.values():
            one.spell = self._spell(one, now)
        self._open = tuple(one for one in self._known.values() if one.is_open)
        ends = [
            one.spell.until for one in self._known.values() if one.spell is not None and one.spell.until is not None
        ]
        self._look_again_at = min(ends, default=None)
        if {one.name for one in self._open} != self._told.keys():
            self._changed.set()

    def _spell(self, one: Known, now: datetime) -> Spell | None:
        """Return how a window is now; None where it holds nothing, or its timer fails."""
        window, override = one.window, one.override
        if window is None or not window.enabled:
            return None
        if override is not None and override.holds(now):
            return Spell(is_open=False, since=override.at, until=override.until)
        try:
            spell = spell_at(window.pattern, now)
        except Exception as error:  # plugin code
            problem = f"its timer raised {type(error).__name__}: {error}"
            if one.problem != problem:
                log.exception("Window %s: its timer raised", one.name, extra={"action": "maintenance_raised"})
            one.problem = problem
            return None
        one.problem = None
        return spell

    def _tell(self) -> None:
        """Tell of what has opened or closed, end what is to end with that, and have what waits asked again."""
        before, now = self._told, {one.name: one for one in self._open}
        self._told = now
        for name in before.keys() - now.keys():
            log.info("Maintenance %s is over", name, extra={"action": "maintenance_over", "window": name})
        # One that was made anew while it is open may hold others than before.
        begun = [one for name, one in now.items() if before.get(name) is not one]
        for one in begun:
            self._begin(one)
        superseded = self._latest.take_superseded()
        if begun or before.keys() != now.keys():
            self.on_change(None)
        elif superseded:
            self.on_change(superseded)

    def _begin(self, one: Known) -> None:
        log.info(
            "%s is open, for %s", _capital(one.said()), one.scope,
            extra={"action": "maintenance_open", "window": one.name},
        )  # fmt: skip
        if one.window is not None and one.window.running is Cut.CANCEL:
            names = [name for name, rule in self._rules.items() if one.holds(rule)]
            self.cancel_running(names, f"{one.said()} (running = cancel)")

    async def _forget_ended(self) -> bool:
        """Have the store forget overrides that are over; return False where it can't now."""
        now = self._clock.now()
        over = [one for one in self._known.values() if one.override is not None and one.override.until <= now]
        for one in over:
            try:
                await self._store({f":{one.name}": None}, partial(setattr, one, "override", None))
            except StoreUnavailable:
                return False
        return True


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
