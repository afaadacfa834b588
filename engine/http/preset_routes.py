"""Routes about presets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from typing import TYPE_CHECKING

from engine.http import shapes
from engine.http.asked import PagingByName
from engine.http.calls import Call
from engine.http.described import described
from engine.http.views import list_view, shown
from engine.plugin import Response

if TYPE_CHECKING:
    from engine.config import Preset


@described({200: shapes.Page[shapes.PresetOf]})
async def list_presets(call: Call, query: PagingByName) -> Response:
    """Answer with all presets, by name: what each does, in words and as settings; secrets are masked."""
    config = call.operations.config
    names = sorted(config.presets)
    start = 0 if query.cursor is None else bisect_right(names, query.cursor)
    page = names[start : start + query.limit]
    items = [preset_view(config.presets[name], config.secrets) for name in page]
    return Response(body=list_view(items, page[-1] if start + query.limit < len(names) else None))


def preset_view(preset: Preset, secrets: Collection[str] = ()) -> shapes.PresetOf:
    """Return a preset: its words, what triggers have from it, what they have to give, and where it is from."""
    return {
        "name": preset.name,
        "description": preset.description,
        "settings": shown(preset.settings.plain(), secrets),
        "parameters": dict(preset.parameters),
        "defined_in": preset.defined_in or "built in",
        "changed": list(preset.changed),
    }
