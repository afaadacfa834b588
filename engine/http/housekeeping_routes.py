"""Routes of housekeeping: how it stands, a round of it now, and copies of the store."""

from __future__ import annotations

from typing import Annotated, ClassVar

from engine.http import shapes, surroundings
from engine.http.calls import Call
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.kinds import Flag, Slug
from engine.http.views import list_view
from engine.plugin import Response

PATIENCE_S = 20.0
"""How long the answer waits for a round to be over."""


class Rounding(Form, frozen=True, kw_only=True):
    """Whether a round is done, or only said what it would do."""

    optional: ClassVar[bool] = True

    dry_run: Annotated[bool, Flag()] = False


class Copying(Form, frozen=True, kw_only=True):
    """How to call a copy of the store."""

    optional: ClassVar[bool] = True

    name: Annotated[str | None, Slug(), "By default the time"] = None


@described({200: surroundings.HousekeepingOf})
async def get_housekeeping(call: Call, query: Nothing) -> Response:
    """Answer with what is kept for how long, what was removed, ever and in the last round, and the store's size."""
    return Response(body=await call.operations.housekeeping.view())


@described({200: surroundings.HousekeepingOf, 202: surroundings.HousekeepingOf})
async def post_housekeeping(call: Call, query: Nothing, body: Rounding) -> Response:
    """Have a round done now; or, with `dry_run`, say what it would remove. 202 where it takes longer than the answer
    can wait: it goes on, and `GET` tells of it."""
    housekeeping = call.operations.housekeeping
    if body.dry_run:
        return Response(body={**await housekeeping.view(), "would_remove": await housekeeping.rehearse()})
    over = await housekeeping.begin(patience_s=PATIENCE_S)
    return Response(status=200 if over else 202, body=await housekeeping.view())


@described({200: shapes.Page[surroundings.Backup]})
async def list_backups(call: Call, query: Nothing) -> Response:
    """Answer with the copies of the store that are there, the newest first."""
    return Response(body=list_view(await call.operations.housekeeping.backups.copies(), None))


@described({201: surroundings.Backup})
async def post_backup(call: Call, query: Nothing, body: Copying) -> Response:
    """Copy the store into the directory for backups. Answers when the copy is durable and was checked."""
    return Response(status=201, body=await call.operations.housekeeping.backups.make(body.name))
