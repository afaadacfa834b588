"""Routes about the configuration as a whole: how it stands, reading it anew, and all definitions at once."""

from __future__ import annotations

from typing import Annotated

from engine.http.calls import Call, creator, performer
from engine.http.described import JSON, Media, Raw, described
from engine.http.fields import body, media_type, query
from engine.http.forms import Form
from engine.http.kinds import Switch
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
