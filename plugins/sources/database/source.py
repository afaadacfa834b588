"""The plugin: rows of a database become events."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import anyio
from msgspec import Meta
from msgspec.structs import replace

from engine.plugin import (
    RESERVED_PREFIX,
    BadSetting,
    Duration,
    PluginError,
    Secret,
    Source,
    SourceContext,
    encode_json,
)
from plugins.outgoing.masking import Masker
from plugins.querying.statement import Statement, check_following
from plugins.sources.database.walk import Plan

if TYPE_CHECKING:
    from sqlalchemy import URL

    from plugins.querying.reading import Reader
    from plugins.sources.database.polling import Comparing, Following

LONGEST_TYPE = 200
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class Database(Source, frozen=True, kw_only=True):
    """Poll a database with a query, and emit an event for each row that is new, or, with `changes`, changed.

    - `url`: any SQLAlchemy URL with an asynchronous driver, such as `sqlite+aiosqlite:///app.db` (a relative path is
      relative to the configuration file). Of one that stands elsewhere (`{ env = … }`) nothing is shown.
    - `query`: one SELECT. Its only parameter is `:cursor`; it ends with `order by` the cursor's column, and may have a
      `limit`.
    - `cursor`: the column whose value says how far the rows were read; it only ever grows.
    - `key`: the column, or columns, that tell rows apart where several share a value of the cursor, or, with
      `changes`, at all. Without it the cursor's values must be unique.
    - `start`: `now` takes the rows that are there for known; `beginning` makes events of them; any other value is that
      of the cursor after which rows are new.
    - `look_back`: so far before the cursor it is read again, for rows that are committed late: a duration where the
      cursor is a date or time stamp (also as text), a whole number where it is a number.
    - `changes`: `hash` compares all rows with those of the last poll, for queries without a cursor.
    - `emit`: an event for each `row`, or one for each `batch`: a page of rows, in `data.rows`.
    - `type`: the events' type. Default: `row.NAME` for a source that has a name, else `row`; with `changes` followed by
      `.inserted`, `.updated` or `.deleted`.
    - `min`: the pause after a poll that brought rows.
    - `every`: each poll without new rows doubles the pause, up to this. After errors it grows from `min` to 8s at most.
    - `listen`: a channel of PostgreSQL: `notify` on it brings on the next poll at once. Polls go on without.
    - `page`: so many rows are read and stored at once, at most; full pages follow each other without a pause.
    - `timeout`: bound of one query, until its page is read.
    - `connect_timeout`: bound of one connection attempt, and of waiting for SQLite's locks, there at most 5s.
    """

    name: ClassVar[str] = "database"
    previews: ClassVar[bool] = True

    url: Secret | str
    query: str
    cursor: str | None = None
    key: str | tuple[str, ...] | None = None
    start: int | float | datetime | date | str = "now"
    look_back: Duration | Annotated[int, Meta(ge=0)] = 0
    changes: Literal["hash"] | None = None
    emit: Literal["row", "batch"] = "row"
    type: str | None = None
    min: Annotated[Duration, Meta(gt=0)] = 1.0
    every: Annotated[Duration, Meta(gt=0)] = 30.0
    listen: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    page: Annotated[int, Meta(ge=2, le=10_000)] = 500
    timeout: Annotated[Duration, Meta(gt=0)] = 10.0
    connect_timeout: Annotated[Duration, Meta(gt=0)] = 10.0

    def __post_init__(self) -> None:
        from plugins.querying.connecting import check_listening

        url = self._place()
        statement = Statement(self.query)
        if self.cursor is not None and self.changes is not None:
            raise BadSetting("changes", "is given beside `cursor`, which alone counts", "keep one of them")
        if self.min > self.every:
            raise BadSetting("min", "is longer than `every`", "the pause grows from `min` to `every`")
        if self.listen is not None:
            check_listening(url, self.listen)
        if self.type is not None and (not 0 < len(self.type) <= LONGEST_TYPE or self.type.startswith(RESERVED_PREFIX)):
            message = f"has to be text of 1 to {LONGEST_TYPE} characters that does not begin with {RESERVED_PREFIX!r}"
            raise BadSetting("type", message, 'such as "order.placed"')
        if self.key in ("", ()):
            raise BadSetting("key", "names no column", 'such as key = "id"')
        if self.changes is not None:
            self._check_comparing(statement)
        elif self.cursor is None:
            raise BadSetting("cursor", "is missing", 'name the column to follow, or give changes = "hash"')
        else:
            check_following(statement, start=self.start, tracked=self._plan(statement, self.start).tracked)
            if url.get_backend_name() == "sqlite" and isinstance(self.start, date):
                message = "is a date, but SQLite has none: its columns hold texts or numbers"
                raise BadSetting("start", message, 'write it as it stands there: start = "2030-01-31 02:00:00"')

    def _check_comparing(self, statement: Statement) -> None:
        if not self.keys:
            raise BadSetting("key", "is missing: with `changes` rows are known by it", 'such as key = "id"')
        if statement.asks_cursor:
            raise BadSetting("query", "has `:cursor`, but with `changes` there is none", "leave that condition out")
        if self.start not in ("now", "beginning"):
            raise BadSetting("start", "is a value, but with `changes` there is no cursor", '"now" or "beginning"')
        if self.look_back:
            raise BadSetting("look_back", "is of no use with `changes`, which reads all rows", "leave it out")

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the key: of those that say more than the cursor does."""
        named = (self.key,) if isinstance(self.key, str) else self.key or ()
        return () if named == (self.cursor,) else named

    def identity(self) -> str:
        """Return what is polled: a new pause, page, limit or password is no new source."""
        from plugins.querying.connecting import place_of

        url = self._place()
        what = [place_of(url), Statement(self.query).fingerprint(), self.cursor, self.keys, self.changes]
        digest = hashlib.sha256(encode_json(what)).hexdigest()[:12]
        shown = url.get_backend_name() if isinstance(self.url, Secret) else (url.database or "").rpartition("/")[2]
        return f"{_NOT_IN_NAMES.sub('-', shown).strip('-')[:40] or 'database'}-{digest}"

    def base_interval(self) -> float:
        return self.every

    def with_interval(self, interval_s: float) -> Self:
        return replace(self, every=interval_s)

    def type_for(self, source: str) -> str:
        """Return the events' type for a source with this id: named ones have another than their identity."""
        if self.type is not None:
            return self.type
        name = source.partition(":")[2] or source
        return "row" if name == self.identity() else f"row.{name}"[:LONGEST_TYPE]

    async def run(self, context: SourceContext) -> None:
        # SQLAlchemy takes a fifth of a second to import, which engines without such a source are spared.
        from plugins.sources.database import listening, polling

        url, bell, failures = self._place(), listening.Bell(), list[Exception]()
        troubles = polling.Troubles(context, self._masker(url))
        async with self._reader(url, context) as reader, anyio.create_task_group() as group:
            rounds = self._rounds(context, reader, self.start)
            if self.listen is not None:
                listener = listening.Listener(
                    url, self.listen, context.clock, connect_timeout_s=self.connect_timeout, ring=bell.ring,
                    tell=partial(troubles.tell, f"notifications on {self.listen!r} do not come"),
                )  # fmt: skip
                group.start_soon(listener.run)
            context.ready()
            try:
                await polling.poll(context, rounds.round, polling.Pace(self.min, self.every), troubles, bell)
            except Exception as error:  # by itself, as the engine knows it: a group would wrap it
                failures.append(error)
                group.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def preview(self, context: SourceContext, cursor: Any) -> None:
        from plugins.querying.reading import ReadFailed
        from plugins.querying.rows import BadRows

        url = self._place()
        start = self.start if cursor is None else self._chosen(cursor, await context.cursor(), url)
        try:
            async with self._reader(url, context) as reader:
                await self._rounds(context, reader, start, anew=cursor is not None).round()
        except (ReadFailed, BadRows) as error:
            raise PluginError(self._masker(url).text(str(error))) from None

    def _chosen(self, cursor: Any, stored: Any, url: URL) -> Any:
        """Return where to begin in place of `start`; raise BadSetting where this source can't begin there."""
        from plugins.sources.database.values import chosen

        if cursor in ("beginning", "now"):
            start = cursor
        elif self.changes is not None:
            raise BadSetting("cursor", "is given, but with `changes` there is none", '"beginning" shows all rows')
        elif isinstance(cursor, bool) or not isinstance(cursor, (int, float, str)):
            raise BadSetting("cursor", "has to be a number or text", "as it stands in the column")
        else:
            try:
                start = chosen(cursor, stored, has_stamps=url.get_backend_name() != "sqlite")
            except ValueError as error:
                raise BadSetting("cursor", str(error)) from None
        try:
            replace(self, start=start)
        except BadSetting as error:
            raise BadSetting("cursor", str(error), error.hint) from None
        return start

    @asynccontextmanager
    async def _reader(self, url: URL, context: SourceContext) -> AsyncIterator[Reader]:
        from plugins.querying.reading import Reader

        reader = Reader(
            url, context.base, context.clock, timeout_s=self.timeout, connect_timeout_s=self.connect_timeout
        )
        try:
            yield reader
        finally:
            await reader.close()

    def _rounds(
        self, context: SourceContext, reader: Reader, start: Any, *, anew: bool = False
    ) -> Following | Comparing:
        from plugins.sources.database import polling

        outlet = polling.Outlet(context, as_batch=self.emit == "batch")
        statement, type_ = Statement(self.query), self.type_for(context.name)
        if self.changes is None:
            plan = self._plan(statement, start)
            return polling.Following(context, reader, outlet, statement, plan, key=self.keys, type=type_, anew=anew)
        return polling.Comparing(
            context, reader, outlet, statement, key=self.keys, type=type_, page=self.page, baseline=start == "now",
            anew=anew,
        )  # fmt: skip

    def _masker(self, url: URL) -> Masker:
        from plugins.querying.connecting import secrets_of

        return Masker(secrets_of(url, all_of_it=isinstance(self.url, Secret)))

    def _plan(self, statement: Statement, start: Any) -> Plan:
        return Plan(
            column=self.cursor or "", start=start, keyed=bool(self.keys), look_back=self.look_back,
            limit=min(self.page, statement.limit or self.page), may_be_cut=statement.may_be_cut,
        )  # fmt: skip

    def _place(self) -> URL:
        """Return the URL; raise BadSetting where it can't be asked."""
        from plugins.querying.connecting import read_url

        return read_url(self.url.reveal() if isinstance(self.url, Secret) else self.url)
