"""The organ of alerts: it looks again and again, tells through the outbox, and remembers what it told.

What is told of an alert, and that it is open or over, is one commit: an engine that dies tells nothing twice, and one
that comes back tells of what was over when it was away. The configuration is asked each time, so a reload counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.alerts import announcing
from engine.alerts.announcing import Announce, announce_turn, to_nobody
from engine.alerts.counted import Counted, Counts
from engine.alerts.facts import Facts
from engine.alerts.kept import (
    ACKNOWLEDGED,
    ALERTS_SOURCE,
    MUTE,
    OPEN,
    Acknowledgement,
    Kept,
    Mute,
    open_key,
    open_value,
)
from engine.alerts.looking import IN_STORE, Look
from engine.alerts.messages import RECOVERED, TEST, event_of, test_of, told_of
from engine.alerts.telling import Line, Teller, Unkept
from engine.alerts.view import alert_view
from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.config.scalars import near
from engine.decide.alerts import COUNTED, Alert, Course, Round, Severity, Turn, What
from engine.decide.ends import watch
from engine.deliveries import Delivery, DeliveryState, Receiver, named_subject
from engine.errors import Conflict, EngineError, NotFound, StoreError, StoreUnavailable
from engine.logs import Masker
from engine.runs import Run, RunState
from engine.store.base import Store
from engine.store.changes import Accept

log = logging.getLogger("engine.alerts")

LOOK_S = 10.0
"""How often it is looked for all of them."""

LEAST_S = 0.5
"""It is not looked again any sooner."""

RETRY_S = 5.0
PAGE = 1_000

_LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}


class Alerts:
    """All alerts. `configured` and `receivers` say what there is now; `counts` hears of the ends that this hears of.

    `facts` is what is looked at; it is set before `run`. `announce` is told at once of what changes.
    """

    facts: Facts
    announce: Announce = staticmethod(to_nobody)

    def __init__(
        self, *, clock: Clock, store: Store, submit: Callable[[Accept], Awaitable[Any]], line: Line, counts: Counts,
        configured: Callable[[], Mapping[str, Alert]], receivers: Callable[[], Mapping[str, Receiver]],
        secrets: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._configured = configured
        self._teller = Teller(clock=clock, store=store, submit=submit, line=line, receivers=receivers)
        self._counted = Counted(clock=clock, store=store, counts=counts, remember=self._teller.remember)
        self._mask = Masker(secrets).mask
        self._courses: dict[str, Course] = {}
        self._mutes: dict[str, Mute] = {}
        self._acknowledged: dict[str, Acknowledgement] = {}
        self._problems: dict[str, str] = {}
        self._looked_at: datetime | None = None
        self._undelivered: list[tuple[str, str, datetime]] = []
        self._owed: list[tuple[dict[str, Any], tuple[Delivery, ...]]] = []
        """What was told past the store and is yet to be kept: what is open by it, and how the deliveries went."""
        self._look: Look | None = None
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    # What it hears

    def ended(self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None) -> None:
        """Count the end of a run, and have it counted elsewhere, too."""
        self._counted.ended(run, state, code, at, duration_s)

    def note_given_up(self, delivery: Delivery, why: str) -> None:
        """Take note that somebody could not be told of something, and why."""
        self._undelivered.append((delivery.target, f"{named_subject(delivery)}: {why}", self._clock.now()))

    # Life

    async def load(self) -> None:
        """Take up what is stored; raise StoreError."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        after: str | None = None
        while page := await self._store.memory(ALERTS_SOURCE, after=after, limit=PAGE):
            for key, value in page.items():
                if key.startswith(OPEN):
                    kept = msgspec.convert(value, Kept)
                    ago_s = max((now - kept.told_at).total_seconds(), 0.0)
                    self._course(kept.alert).restore(kept.standing(now_s), told_ago_s=ago_s)
                elif key.startswith(MUTE):
                    self._mutes[key.removeprefix(MUTE)] = msgspec.convert(value, Mute)
                elif key.startswith(ACKNOWLEDGED):
                    self._acknowledged[key.removeprefix(ACKNOWLEDGED)] = msgspec.convert(value, Acknowledgement)
                else:
                    self._counted.take_up(key, value)
            after = max(page)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        self._look = Look(self._store, self.facts, self._counted.ends)
        self._watch()
        while not self._counted.is_recalled:
            try:
                await self._counted.recall()
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
        while True:
            await sleep_or_wake(self._clock, self._pause_s(), self._wake)
            self._wake.clear()
            try:
                await self.look()
            except StoreUnavailable:  # what was not told past it waits; what is open, is open
                await self._clock.sleep(RETRY_S)
            except EngineError:
                log.exception("Alerts can't be looked for", extra={"action": "alerts_failed"})

    def _pause_s(self) -> float:
        """Return when to look again: in ten seconds, or when what changed is to be told."""
        configured, now_s = self._configured(), self._clock.monotonic()
        due = [
            course.due_in_s(configured[name], now_s)
            for name, course in self._courses.items()
            if name in configured and name not in self._mutes
        ]
        return min([LOOK_S, *(max(due_s, LEAST_S) for due_s in due if due_s is not None)])

    async def end(self) -> None:
        """Remember what was counted to the end."""
        try:
            await self._counted.remember()
        except EngineError as error:
            log.info("The last failures in a row are not stored: %s", error, extra={"action": "alerts_not_stored"})

    def _watch(self) -> None:
        """Count over the times that the alerts want."""
        alerts = [one for one in self._configured().values() if one.enabled]
        rates = {one.over_s for one in alerts if one.what in COUNTED and one.what is not What.MISSED}
        self._counted.watch(rates, {one.over_s for one in alerts if one.what is What.MISSED})
        if self._look is not None:
            watch(self._look.undelivered, {one.over_s for one in alerts if one.what is What.UNDELIVERED})

    # Looking

    async def look(self) -> None:
        """Look for all alerts once, and tell what is to be told.

        A store that is away keeps none from being looked for but those that are about what is in it, and what opens is
        told past it. Raises StoreUnavailable at the end, where something is left to be looked for, told or remembered.
        """
        assert self._look is not None  # noqa: S101 - it runs
        async with self._one_at_a_time:
            self._watch()
            self._note_undelivered(self._look)
            configured, away = self._configured(), list[StoreUnavailable]()
            enabled = [alert for alert in configured.values() if alert.enabled]
            for alert in sorted(enabled, key=lambda alert: alert.what in IN_STORE):
                if away and alert.what in IN_STORE:
                    break  # each of them would wait for it
                with _noting(away):
                    await self._look_for(alert)
                await asyncio.sleep(0)
            self._looked_at = self._clock.now()
            with _noting(away):
                await self._keep_owed()
            with _noting(away):
                await self._end_mutes(configured)
            for name in [name for name in self._courses if name not in configured or not configured[name].enabled]:
                with _noting(away):
                    await self._forget(name)
            unkept: list[Unkept] = []
            for alert in enabled:
                with _noting(away):
                    await self._tell_of(alert, unkept)
            if unkept:
                await self._tell_past_store(unkept)
            if away:
                raise away[0]
            await self._counted.remember()

    def _note_undelivered(self, look: Look) -> None:
        undelivered, self._undelivered = self._undelivered, []
        for target, what, at in undelivered:
            look.given_up[target] = self._mask(what)
            for window in look.undelivered.values():
                window.add(target, "", RunState.FAILED, at, 1)

    async def _look_for(self, alert: Alert) -> None:
        assert self._look is not None  # noqa: S101 - it runs
        now, now_s = self._clock.now(), self._clock.monotonic()
        try:
            findings = await self._look.findings(alert, now)
        except StoreError:
            raise
        except Exception as error:  # a timer's
            if self._problems.get(alert.name) != str(error):
                log.exception(
                    "Alert %s can't be looked for", alert.name, extra={"action": "alert_failed", "alert": alert.name}
                )
            self._problems[alert.name] = self._mask(str(error))
            return
        self._problems.pop(alert.name, None)
        course = self._courses.get(alert.name)
        if course is None:
            if not findings:
                return
            course = self._course(alert.name)
        masked = {name: msgspec.structs.replace(one, text=self._mask(one.text)) for name, one in findings.items()}
        for turn in course.look(alert, masked, now, now_s):
            self._log(alert, turn)
            announce_turn(self.announce, alert, turn, now)

    async def _tell_of(self, alert: Alert, unkept: list[Unkept]) -> None:
        """Tell what of an alert is to be told now, and drop its course where nothing is left of it.

        What the store can't keep and is told past it comes to what is `unkept`.
        """
        course, now, now_s = self._courses.get(alert.name), self._clock.now(), self._clock.monotonic()
        if course is None:
            return
        told = course.due(
            alert, now_s, muted=self._is_muted(alert.name, now), acknowledged=alert.name in self._acknowledged
        )  # fmt: skip
        if told is not None:
            await self._tell(alert, course, told, now, now_s, unkept)
        if not course.standings:
            del self._courses[alert.name]
            if self._acknowledged.pop(alert.name, None) is not None:
                await self._teller.remember({f"{ACKNOWLEDGED}{alert.name}": None})

    async def _tell(
        self, alert: Alert, course: Course, told: Round, now: datetime, now_s: float, unkept: list[Unkept]
    ) -> None:  # fmt: skip
        """Have a round delivered and remembered, in one commit."""
        values: dict[str, Any] = {open_key(alert.name, one.subject): None for one in told.over}
        values |= {
            open_key(alert.name, one.subject): open_value(alert.name, one, now) for one in (*told.began, *told.still)
        }  # fmt: skip
        silent = self._is_muted(alert.name, now) or (event_of(told) == RECOVERED and not alert.recovery)
        targets = () if silent else self._teller.targets(alert)
        try:
            superseded = await self._teller.superseded(alert, targets, now) if targets else ()
            message = told_of(alert, told, now)
            deliveries = self._teller.deliveries(alert, event_of(told), message, now) if targets else ()
            await self._teller.commit(values, deliveries, superseded)
        except StoreUnavailable:
            if targets and told.began:
                unkept.append(Unkept(alert, course, Round(began=told.began, still=told.still), now, now_s))
            raise
        course.told(told, now, now_s)

    async def _tell_past_store(self, unkept: list[Unkept]) -> None:
        """Tell at once what the store can't keep: that it can't may be what is to be told. The rest waits for it."""
        for (alert, course, told, now, now_s), made in zip(unkept, await self._teller.at_once(unkept), strict=True):
            if not any(one.state is DeliveryState.DELIVERED for one in made):
                continue
            standing = (*told.began, *told.still)
            values = {open_key(alert.name, one.subject): open_value(alert.name, one, now) for one in standing}
            self._owed.append((values, made))
            course.told(told, now, now_s)
            ids = {"action": "alert_told_past_store", "alert": alert.name}
            log.warning("Alert %s was told at once, as the store can't keep it", alert.name, extra=ids)

    async def _keep_owed(self) -> None:
        """Have it kept what was told past the store, and tell those who were not reached by that."""
        while self._owed:
            values, made = self._owed[0]
            waiting = [one for one in made if one.state is DeliveryState.WAITING]
            done = [one for one in made if one.state is not DeliveryState.WAITING]
            await self._teller.commit(values, (*done, *(self._teller.joined(one) for one in waiting)))
            del self._owed[0]

    async def _forget(self, name: str) -> None:
        """Forget how an alert stood that is not there any more, or not looked at: nobody is told that it is over."""
        keys = [open_key(name, one.subject) for one in self._courses[name].standings.values() if one.told_at]
        self._acknowledged.pop(name, None)
        await self._teller.remember(dict.fromkeys([*keys, f"{ACKNOWLEDGED}{name}"]))
        del self._courses[name]
        self._changed(name, announcing.GONE)
        log.info("Alert %s is not looked at any more", name, extra={"action": "alert_gone", "alert": name})

    async def _end_mutes(self, configured: Mapping[str, Alert]) -> None:
        now = self._clock.now()
        over = [name for name, mute in self._mutes.items() if mute.until <= now or name not in configured]
        if over:
            await self._teller.remember({f"{MUTE}{name}": None for name in over})
            for name in over:
                del self._mutes[name]
                self._changed(name, announcing.UNMUTED)

    def _is_muted(self, name: str, now: datetime) -> bool:
        """Tell whether a mute holds; one whose end can't be stored now is over all the same."""
        mute = self._mutes.get(name)
        return mute is not None and mute.until > now

    def _course(self, name: str) -> Course:
        return self._courses.setdefault(name, Course())

    def _changed(self, name: str, changed: str) -> None:
        announcing.announce_change(self.announce, name, changed, self._clock.now())

    def _log(self, alert: Alert, turn: Turn) -> None:
        one, ids = turn.standing, {"alert": alert.name, "subject": turn.standing.subject}
        if turn.opened:
            log.log(
                _LEVELS[alert.severity], "Alert %s: %s: %s", alert.name, one.subject, one.text,
                extra={"action": "alert_opened", "severity": alert.severity.value, **ids},
            )  # fmt: skip
        else:
            log.info("Alert %s is over: %s", alert.name, one.subject, extra={"action": "alert_over", **ids})

    # What faces ask

    def views(self) -> list[dict[str, Any]]:
        """Return all alerts as the API shows them: those that are open first, then by name."""
        views = [self._view(alert) for alert in self._configured().values()]
        return sorted(views, key=lambda view: (not view["open"], view["name"]))

    def view(self, name: str) -> dict[str, Any]:
        """Return one alert as the API shows it; raise NotFound."""
        return self._view(self._named(name))

    def status(self) -> dict[str, Any]:
        """Return what is open, by name: how many subjects, and how bad it is."""
        configured = self._configured()
        return {
            name: {"severity": configured[name].severity.value, "open": len(course.open)}
            for name, course in sorted(self._courses.items())
            if name in configured and course.open
        }

    def counted_open(self) -> Iterator[tuple[str, Severity, int]]:
        """Yield each alert that is looked at, how bad it is, and for how many subjects it is open."""
        for name, alert in self._configured().items():
            if alert.enabled:
                course = self._courses.get(name)
                yield name, alert.severity, 0 if course is None else len(course.open)

    def check(self) -> dict[str, Any]:
        """Return what health says of it: one that is critical is not well while it is open, whoever is told of it."""
        configured, opened, critical = self._configured(), 0, list[str]()
        for name, course in sorted(self._courses.items()):
            if name not in configured or not (subjects := course.open):
                continue
            opened += 1
            if configured[name].severity is Severity.CRITICAL:
                more = f" (and {len(subjects) - 1} more)" if len(subjects) > 1 else ""
                critical.append(f"{name}: {subjects[0].subject}: {subjects[0].text}{more}")
        said = "; ".join(critical) or (f"open: {opened}, none of them critical" if opened else "none is open")
        return {"name": "alerts", "ok": not critical, "detail": said}

    async def mute(self, name: str, *, duration_s: float, reason: str, who: str = "") -> dict[str, Any]:
        """Have nobody told of an alert for a time, durably; it is still seen. What is open at its end is told then.

        Raises NotFound and StoreUnavailable.
        """
        alert, now = self._named(name), self._clock.now()
        made = Mute(since=now, until=now + timedelta(seconds=duration_s), who=who, reason=reason)
        await self._teller.remember({f"{MUTE}{name}": msgspec.to_builtins(made)})
        self._mutes[name] = made
        self._changed(name, announcing.MUTED)
        log.info(
            "Alert %s is muted until %s: %s", name, rfc3339(made.until), reason,
            extra={"action": "alert_muted", "alert": name, "who": who},
        )  # fmt: skip
        return self._view(alert)

    async def unmute(self, name: str, *, who: str = "") -> dict[str, Any]:
        """End a mute, durably; raise NotFound and StoreUnavailable."""
        alert = self._named(name)
        if name in self._mutes:
            await self._teller.remember({f"{MUTE}{name}": None})
            self._mutes.pop(name, None)
            self._changed(name, announcing.UNMUTED)
            log.info(
                "Alert %s is not muted any more", name, extra={"action": "alert_unmuted", "alert": name, "who": who}
            )
            self._wake.set()
        return self._view(alert)

    async def acknowledge(self, name: str, *, reason: str, who: str = "") -> dict[str, Any]:
        """Take on what is open: it is not told again until all of it is over; what opens besides is told.

        Raises NotFound, Conflict where nothing is open, and StoreUnavailable.
        """
        alert = self._named(name)
        if name not in self._courses or not self._courses[name].open:
            raise Conflict(f"alert {name} is not open")
        made = Acknowledgement(at=self._clock.now(), who=who, reason=reason)
        await self._teller.remember({f"{ACKNOWLEDGED}{name}": msgspec.to_builtins(made)})
        self._acknowledged[name] = made
        self._changed(name, announcing.ACKNOWLEDGED)
        return self._view(alert)

    async def test(self, name: str, *, who: str = "") -> tuple[str, ...]:
        """Tell all who are told of an alert that this is a test; return the ids of the deliveries.

        Raises NotFound, Conflict where nobody is told of it, and StoreUnavailable.
        """
        alert, now = self._named(name), self._clock.now()
        deliveries = self._teller.deliveries(alert, TEST, test_of(alert, who), now)
        if not deliveries:
            raise Conflict(f"nobody is told of alert {name}: its notify names no [notify.NAME] that is enabled")
        await self._teller.commit({}, deliveries)
        return tuple(one.id for one in deliveries)

    def _view(self, alert: Alert) -> dict[str, Any]:
        name = alert.name
        return alert_view(
            alert, self._courses.get(name), mute=self._mutes.get(name), acknowledged=self._acknowledged.get(name),
            problem=self._problems.get(name), looked_at=self._looked_at,
        )  # fmt: skip

    def _named(self, name: str) -> Alert:
        configured = self._configured()
        if name not in configured:
            hint = near(name, configured)
            raise NotFound(f"there is no alert {name}" + (f"; {hint}" if hint else ""))
        return configured[name]


@contextmanager
def _noting(away: list[StoreUnavailable]) -> Iterator[None]:
    """Take note that the store was away for something, and let the rest be done."""
    try:
        yield
    except StoreUnavailable as error:
        away.append(error)
