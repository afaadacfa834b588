"""Polling: round after round a database is asked, and what is new is made durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import anyio

from engine.plugin import Accepted, SourceContext, StoreUnavailable
from plugins.outgoing.masking import Masker
from plugins.querying.reading import Ask, Reader, ReadFailed
from plugins.querying.rows import BadRows
from plugins.querying.statement import Statement
from plugins.sources.database.comparison import Change, Comparison
from plugins.sources.database.events import Told, events_of
from plugins.sources.database.listening import Bell
from plugins.sources.database.rows import Row, row_by_cursor, row_by_key
from plugins.sources.database.walk import Plan, Question, Step, Walk

STORE_PAUSE_S = 5.0
"""Rows that the store can't take now are offered again after this."""

PAGE_BYTES = 8 * 1024 * 1024
"""A page whose rows are larger ends early: they are held until the store has them."""

HELD_BYTES = 64 * 1024 * 1024
"""A comparison whose changes are larger is made in several looks."""

LONGEST_RETRY_S = 8.0
"""A database that fails is asked again after this at the latest, so that one that is back is noticed soon."""

SHORTEST_GAP_S = 0.1
"""Notifications bring on ten polls in a second at most."""

T = TypeVar("T")


class Pace:
    """The pause after a round: the shortest when something came, else twice the one before, up to the longest.

    After errors it grows from the shortest anew, and to `LONGEST_RETRY_S` at most.
    """

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._next_s = shortest_s
        self._retry_s = shortest_s

    def after(self, *, found: bool) -> float:
        """Return the pause after a round, in seconds."""
        self._retry_s = self._shortest_s
        pause_s = self._shortest_s if found else self._next_s
        self._next_s = min(pause_s * 2, self._longest_s)
        return pause_s

    def after_error(self) -> float:
        """Return the pause after a round that failed, in seconds."""
        pause_s = self._retry_s
        self._retry_s = min(pause_s * 2, max(LONGEST_RETRY_S, self._shortest_s), self._longest_s)
        return pause_s


class Troubles:
    """What is wrong with the parts of a source, told as one warning, without secrets."""

    def __init__(self, context: SourceContext, masker: Masker) -> None:
        self._context = context
        self._masker = masker
        self._told: dict[str, str] = {}

    def tell(self, part: str, text: str | None) -> None:
        """Say what is wrong with a part; None: nothing is."""
        if text is None:
            self._told.pop(part, None)
        else:
            self._told[part] = f"{part}: {self._masker.text(text)}"
        self._context.warn("; ".join(self._told[part] for part in sorted(self._told, reverse=True)) or None)


class Outlet:
    """Makes rows durable as events, however long the store is away."""

    def __init__(self, context: SourceContext, *, as_batch: bool) -> None:
        self._context = context
        self._as_batch = as_batch

    async def store(
        self, told: Sequence[Told], cursor: Mapping[str, Any] | None, remember: Mapping[str, Any]
    ) -> list[Accepted]:
        """Store the events of some rows with cursor and memory, in one transaction; return the answers."""
        context = self._context
        events, refused = events_of(told, as_batch=self._as_batch, max_data=context.max_data)
        for one in refused:
            context.log.warning("A row is left out: %s", one.reason, extra={"action": "database_row_refused"})
            await self._lasting(lambda one=one: context.reject(one.event, one.reason))  # type: ignore[misc]
        return await self._lasting(lambda: context.emit(*events, cursor=cursor, remember=remember))

    async def _lasting(self, offer: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await offer()
            except StoreUnavailable as error:
                self._context.log.warning(
                    "Rows can't be stored now: %s; they are offered again", error, extra={"action": "database_waits"}
                )
                await self._context.clock.sleep(STORE_PAUSE_S)


class Following:
    """Rounds along a cursor; `anew`: from where the plan starts, whatever was stored."""

    def __init__(
        self, context: SourceContext, reader: Reader, outlet: Outlet, statement: Statement, plan: Plan, *,
        key: Sequence[str], type: str, anew: bool = False,
    ) -> None:  # fmt: skip
        self._context = context
        self._reader = reader
        self._outlet = outlet
        self._anew = anew
        self._plan = plan
        self._key = tuple(key)
        self._type = type
        self._forms = {
            "written": statement.written(), "inclusive": statement.inclusive(), "whole": statement.whole(),
        }  # fmt: skip
        self._unordered = statement.unordered()
        self._walk: Walk | None = None

    async def round(self) -> bool:
        """Read what is new, page after page, and return whether there was anything.

        Raises ReadFailed and BadRows; what came before that is stored, and the next round begins after it.
        """
        walk = self._walk = self._walk or await self._load()
        try:
            return await self._pages(walk)
        except BadRows:
            # The walk may have gone further than what was stored.
            self._walk = None
            raise

    async def _pages(self, walk: Walk) -> bool:
        walk.begin_round()
        found = False
        if walk.wants_now:
            step = walk.begin_at(await self._reader.greatest(self._unordered, self._plan.column))
            await self._store(step)
            if not step.more:
                return False
        while True:
            asked = walk.question()
            rows, cut = await self._page(asked)
            step = walk.take(asked, rows, cut=cut)
            answers = await self._store(step)
            found = found or bool(step.rows)
            if not step.more:
                return found
            if step.in_place and all(answer.duplicate for answer in answers):
                raise BadRows(walk.stuck(len(rows), asked.value))

    async def _page(self, asked: Question) -> tuple[list[Row], bool]:
        """Return a page of rows, and whether it ended early."""
        rows: list[Row] = []
        size = 0

        def take(found: Sequence[Mapping[str, Any]]) -> bool:
            nonlocal size
            for values in found[: self._plan.limit - len(rows)]:
                rows.append(row_by_cursor(values, self._plan.column, self._key))
                size += rows[-1].size
            return len(rows) < self._plan.limit and size < PAGE_BYTES

        value = None if asked.form == "whole" else asked.value
        whole = await self._reader.read(Ask(sql=self._forms[asked.form], value=value), take)
        return rows, not whole

    async def _store(self, step: Step) -> list[Accepted]:
        if step.is_empty:
            return []
        told = [Told(type=self._type, key=row.id, row=row) for row in step.rows]
        return await self._outlet.store(told, step.cursor, step.remember)

    async def _load(self) -> Walk:
        """Return the walk as it was stored; one along another column has no place here."""
        context = self._context
        if self._anew:
            return Walk(self._plan, None, {})
        stored, memory = await context.cursor(), await context.remembered()
        if stored is not None and stored.get("column") != self._plan.column:
            await _begin_anew(context, memory)
            stored, memory = None, {}
        return Walk(self._plan, stored, memory if self._plan.tracked else {})


class Comparing:
    """Rounds over all rows, which are compared by their hashes; `anew`: as if none were known, whatever was stored."""

    def __init__(
        self, context: SourceContext, reader: Reader, outlet: Outlet, statement: Statement, *, key: Sequence[str],
        type: str, page: int, baseline: bool, anew: bool = False,
    ) -> None:  # fmt: skip
        self._anew = anew
        self._context = context
        self._reader = reader
        self._outlet = outlet
        self._ask = Ask(sql=statement.written())
        self._key = tuple(key)
        self._type = type
        self._page = page
        self._baseline = baseline
        self._comparison: Comparison | None = None

    async def round(self) -> bool:
        """Compare all rows with what is known of them, and return whether any changed.

        Raises ReadFailed and BadRows; what was stored before that is known.
        """
        comparison = self._comparison = self._comparison or await self._load()
        found = False
        whole = False
        while not whole:
            changes: list[Change] = []
            comparison.begin()

            def take(rows: Sequence[Mapping[str, Any]], changes: list[Change] = changes) -> bool:
                changes.extend(comparison.look([row_by_key(row, self._key) for row in rows]))
                return comparison.has_room

            whole = await self._reader.read(self._ask, take)
            found = found or bool(changes)
            await self._store(comparison, changes)
            if whole:
                found = await self._store(comparison, comparison.gone()) or found
        if comparison.is_baseline:
            await self._outlet.store((), comparison.end_baseline(), {})
            return False
        return found

    async def _store(self, comparison: Comparison, changes: Iterable[Change]) -> bool:
        """Store changes, a page of them at a time; return whether there were any."""
        found = False
        for part in _pages(changes, self._page):
            step = comparison.step(part)
            told = [
                Told(type=f"{self._type}.{change.what}", key=f"{number}:{change.row.id}", row=change.row)
                for number, change in enumerate(step.changes, step.first)
            ]
            await self._outlet.store(told, step.cursor, step.remember)
            comparison.store(part)
            found = True
        return found

    async def _load(self) -> Comparison:
        context = self._context
        stored, memory = (None, {}) if self._anew else (await context.cursor(), await context.remembered())
        if stored is not None and "sequence" not in stored:
            await _begin_anew(context, memory)
            stored, memory = None, {}
        return Comparison(self._key, stored, memory, baseline=self._baseline, held_bytes=HELD_BYTES)


async def poll(
    context: SourceContext, one_round: Callable[[], Awaitable[bool]], pace: Pace, troubles: Troubles, bell: Bell
) -> None:
    """Poll until cancelled, also whenever the bell rings; what a database refuses is told, and asked again."""
    while True:
        bell.hush()
        try:
            found = await one_round()
        except (ReadFailed, BadRows) as error:
            troubles.tell("polls have no result", str(error))
            # A bell that rings on does not make a database well that fails.
            await context.pause(pace.after_error())
        else:
            troubles.tell("polls have no result", None)
            await _rest(context, pace.after(found=found), bell)


async def _rest(context: SourceContext, pause_s: float, bell: Bell) -> None:
    """Pause, until the bell rings."""
    began_s = context.clock.monotonic()
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            await context.pause(pause_s, since_s=began_s)
            group.cancel_scope.cancel()

        group.start_soon(wait)
        await bell.heard()
        await context.pause(min(SHORTEST_GAP_S, pause_s), since_s=began_s)
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint_if_cancelled()


async def _begin_anew(context: SourceContext, memory: Mapping[str, Any]) -> None:
    """Forget what was remembered for another way of following."""
    context.log.warning(
        "What is followed was changed: it begins anew, at `start`", extra={"action": "database_begins_anew"}
    )
    for part in _pages(memory, 5000):
        await context.emit(remember=dict.fromkeys(part))


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page
