"""A query whose first value says whether runs may pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta

from engine.plugin import (
    BadSetting,
    Clock,
    Condition,
    ConditionContext,
    Duration,
    Expression,
    ExpressionError,
    Scope,
    Secret,
    Verdict,
)
from plugins.outgoing.masking import Masker
from plugins.querying.statement import Statement

if TYPE_CHECKING:
    from sqlalchemy import URL

VALUE_NAMES = frozenset({"value", "row"})


class Query(Condition, frozen=True, kw_only=True):
    """Pass while the first value that a query gives is true: not false, 0, empty, null or missing.

    Nothing can be written: it is one SELECT, on a connection that reads only, given up in the end.

    - `url`: any SQLAlchemy URL with an asynchronous driver; see on.database.
    - `query`: one SELECT without parameters.
    - `min`: the value has to be a number of at least this, in the place of being true.
    - `max`: the value has to be a number of at most this.
    - `expect`: CEL over `value`, the first value of the first row, and `row`, by column; true lets pass.
    - `limit`: bound of the query; the condition's own `timeout` holds, too.
    """

    name: ClassVar[str] = "query"
    thresholds: ClassVar[frozenset[str]] = frozenset({"min", "max"})

    url: Secret | str
    query: str
    min: float | None = None
    max: float | None = None
    expect: str | None = None
    limit: Annotated[Duration, Meta(gt=0)] = 30.0

    def __post_init__(self) -> None:
        check_query(self.url, self.query)
        if self.expect is None:
            return
        if self.min is not None or self.max is not None:
            raise BadSetting("expect", "stands beside min and max", "keep one of them")
        try:
            _expression(self.expect)
        except ExpressionError as error:
            raise BadSetting("expect", str(error)) from None

    async def check(self, context: ConditionContext) -> Verdict:
        row = await first_row(self.url, self.query, context.base, context.clock, self.limit)
        value = next(iter(row.values()), None) if row else None
        if self.expect is not None:
            good = bool(row) and _expression(self.expect).holds(Scope({"value": value, "row": dict(row or {})}))
            said = f"{self.expect} is {'true' if good else 'false'}" if row else "the query gives no row"
            return Verdict.passes(said, value) if good else Verdict.holds(said, value)
        if self.min is None and self.max is None:
            said = f"the query gives {value!r}" if row else "the query gives no row"
            return Verdict.passes(said, value) if value else Verdict.holds(said, value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return Verdict.holds(f"the query gives {value!r}, and no number", value)
        if self.min is not None and value < self.min:
            return Verdict.holds(f"{value:g} is less than {self.min:g} (min)", value)
        if self.max is not None and value > self.max:
            return Verdict.holds(f"{value:g} is more than {self.max:g} (max)", value)
        return Verdict.passes(f"the query gives {value:g}", value)


def check_query(url: Secret | str, query: str) -> None:
    """Raise BadSetting where a database can't be asked, or a query is none that only reads."""
    _place(url)
    if Statement(query).asks_cursor:
        raise BadSetting("query", "has the parameter :cursor, which a condition does not have", "leave it out")


async def first_row(
    url: Secret | str, query: str, base: Path, clock: Clock, limit_s: float
) -> Mapping[str, Any] | None:
    """Return the first row of a query, None where it gives none; raise RuntimeError, in words without secrets."""
    # SQLAlchemy takes a fifth of a second to import, which engines without such a condition are spared.
    from plugins.querying import connecting, reading

    place = _place(url)
    reader = reading.Reader(place, base, clock, timeout_s=limit_s, connect_timeout_s=limit_s)
    rows: list[Mapping[str, Any]] = []

    def take(found: Sequence[Mapping[str, Any]]) -> bool:
        rows.extend(found[:1])
        return not rows

    try:
        await reader.read(reading.Ask(sql=Statement(query).written()), take)
    except reading.ReadFailed as error:
        masker = Masker(connecting.secrets_of(place, all_of_it=isinstance(url, Secret)))
        raise RuntimeError(masker.text(str(error))) from None
    finally:
        await reader.close()
    return {name: _plain(value) for name, value in rows[0].items()} if rows else None


def _plain(value: Any) -> Any:
    """Return a value as CEL and JSON know it; decimals become numbers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def _place(url: Secret | str) -> URL:
    from plugins.querying.connecting import read_url

    return read_url(url.reveal() if isinstance(url, Secret) else url)


@lru_cache(maxsize=256)
def _expression(text: str) -> Expression:
    return Expression(text, VALUE_NAMES)
