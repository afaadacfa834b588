"""Forms that many routes share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from engine.http.fields import DEFAULT_LIMIT
from engine.http.forms import Form
from engine.http.kinds import CURSOR, LIMIT, Line, Slug

LONGEST_REASON = 1000

Reason = Annotated[str, Line(LONGEST_REASON), "Why; it is recorded with who asked"]


class Paging(Form, frozen=True, kw_only=True):
    """Which page of a list."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[str | None, CURSOR, "The `next` of the page before"] = None


class PagingByName(Form, frozen=True, kw_only=True):
    """Which page of a list that is in the order of names."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Slug(), "The `next` of the page before"] = None


class Because(Form, frozen=True, kw_only=True):
    """Why it is asked."""

    optional: ClassVar[bool] = True

    reason: Reason = ""
