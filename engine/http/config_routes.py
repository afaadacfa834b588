"""Routes about the configuration as a whole: how it stands, reading it anew, and all definitions at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from engine.config.origins import NAMED, PLAIN, Setting
from engine.http.calls import Call, creator, performer
from engine.http.described import JSON, Media, Raw, described
from engine.http.fields import body, media_type, query
from engine.http.forms import Form
from engine.http.kinds import OneOf, Slug, Switch
from engine.http.views import shown
from engine.plugin import Response

TOML = "application/toml"


DEFINITIONS = Raw(content={TOML: {"type": "string"}})


class Importing(Form, frozen=True, kw_only=True):
    """How definitions are taken in."""

    dry_run: Annotated[bool, Switch(), "Only say what it would change"] = False
    replace: Annotated[bool, Switch(), "Remove what the text does not define"] = False


@described({200: JSON})
async def get_config(call: Call) -> Response:
    """Answer with where the configuration comes from, how the last reload went, and what only a restart changes."""
    query(call.request).finish()
    return Response(body=call.operations.definitions.view())


class OfSettings(Form, frozen=True, kw_only=True):
    """Which settings are meant; default: all that are no jobs, triggers or other things with names."""

    table: Annotated[str | None, OneOf((*PLAIN, *NAMED)), "Such as `engine` or `jobs`"] = None
    name: Annotated[str | None, Slug(), "Which one, of a table of things with names"] = None

    def mistakes(self) -> Iterable[tuple[str, str]]:
        if self.table in NAMED and self.name is None:
            yield "name", f"{self.table} are many: name one"
        if self.name is not None and self.table not in NAMED:
            yield "name", f"only {', '.join(NAMED)} have names"


@described({200: JSON})
async def list_settings(call: Call, query: OfSettings) -> Response:
    """Answer with each setting as it holds, and where it comes from: a line of a file, the environment, …

    What a program defines and what is built in has none, as they stand in no file.
    """
    items: list[dict[str, Any]] = []
    for table in PLAIN if query.table is None else (query.table,):
        items += (one.view() for one in settings_of(call, table, query.name))
    return Response(body={"items": items})


def settings_of(call: Call, table: str, name: str | None = None) -> Sequence[Setting]:
    """Return the settings of a table, or of what it has by that name, with every secret masked."""
    return call.operations.definitions.settings(table, name, config=call.operations.config, show=shown)


@described({200: JSON})
async def post_reload(call: Call) -> Response:
    """Read the configuration anew, and take it up. Answers when that is done, with what it changed."""
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    change = await call.operations.definitions.reload(performer(call))
    return Response(body={**call.operations.definitions.view(), "change": change.view()})


@described({200: Media(kind="application/toml", what="The definitions")})
async def get_export(call: Call) -> Response:
    """Answer with all jobs and triggers that the API defines, as TOML."""
    query(call.request).finish()
    text = call.operations.definitions.export()
    return Response(body=text.encode(), headers={"Content-Type": f"{TOML}; charset=utf-8"})


@described({200: JSON}, takes=DEFINITIONS, query=Importing)
async def post_import(call: Call) -> Response:
    """Define all jobs and triggers of a TOML text, or none; with `dry_run` only say what that would change."""
    media_type(call.request.headers, (TOML,))
    asked = query(call.request, "dry_run", "replace")
    dry_run, replace = asked.flag("dry_run"), asked.flag("replace")
    asked.finish()
    definitions = call.operations.definitions
    before = call.operations.config
    found, after = await definitions.import_text(call.request.body, who=creator(call), replace=replace, dry_run=dry_run)
    plan = await call.operations.foresight.compare(before, after)
    return Response(body={"dry_run": dry_run, **found, "plan": plan})
