"""Data that is recent enough."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from anyio.to_thread import run_sync
from msgspec import Meta

from engine.plugin import BadSetting, Condition, ConditionContext, Duration, JobName, RunState, Secret, Verdict
from plugins.conditions.ages import in_words, said_of_age
from plugins.conditions.file import written_at_s
from plugins.conditions.query import check_query, first_row


class Fresh(Condition, frozen=True, kw_only=True):
    """Pass while some data is recent: a file, what a query tells, or what a job brought when it last succeeded.

    - `max_age`: no older than this.
    - `file`: by when it was last written; relative to the configuration file.
    - `job`: by when a run of this job last succeeded.
    - `url`: the database of `query`; see the condition query.
    - `query`: by the first value of the first row: a time stamp (without a zone it is UTC), or seconds since 1970.
    - `limit`: bound of the query.
    """

    name: ClassVar[str] = "fresh"
    thresholds: ClassVar[frozenset[str]] = frozenset({"max_age"})

    max_age: Annotated[Duration, Meta(gt=0)]
    file: Path | None = None
    job: JobName | None = None
    url: Secret | str | None = None
    query: str | None = None
    limit: Annotated[Duration, Meta(gt=0)] = 30.0

    def __post_init__(self) -> None:
        given = [name for name in ("file", "job", "query") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of file, job and query"
            raise BadSetting(given[1] if given else "file", f"found {found}, expected one of them")
        if (self.url is None) != (self.query is None):
            missing = "url" if self.url is None else "query"
            raise BadSetting(missing, "is missing: a query needs both url and query")
        if self.url is not None and self.query is not None:
            check_query(self.url, self.query)

    def follows(self) -> tuple[str, ...]:
        return () if self.job is None else (self.job,)

    async def check(self, context: ConditionContext) -> Verdict:
        now = context.clock.now()
        if self.job is not None:
            last = await context.last_run(self.job, RunState.SUCCEEDED)
            if last is None:
                return Verdict.holds(f"{self.job} has not succeeded yet")
            return self._judged(f"{self.job} succeeded", (now - last.finished_at).total_seconds())
        if self.file is not None:
            written_s = await run_sync(written_at_s, context.base / self.file, abandon_on_cancel=True)
            if written_s is None:
                return Verdict.holds(f"{self.file} is not there")
            return self._judged(f"{self.file} was written", now.timestamp() - written_s)
        row = await first_row(self.url or "", self.query or "", context.base, context.clock, self.limit)
        value = next(iter(row.values()), None) if row else None
        at = _instant(value)
        if at is None:
            return Verdict.holds(
                f"the query gives {value!r:.80}, which is no time" if row else "the query gives no row"
            )
        return self._judged("the newest row is from", (now - at).total_seconds())

    def _judged(self, what: str, age_s: float) -> Verdict:
        if age_s < 0:
            # Of a clock that goes ahead: fresh, and worth telling.
            return Verdict.passes(f"{what} {in_words(-age_s)} in the future", {"age_s": round(age_s)})
        return said_of_age(what, age_s, newest_s=None, oldest_s=self.max_age)


def _instant(value: Any) -> datetime | None:
    """Return the instant that a value is, or None."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    if at is None:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
