"""The engine's own log, in the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from engine.loglevels import mistake_in
from engine.plugin.settings import BadSetting

Level = Literal["debug", "info", "warning", "error", "critical"]


class LogsTable(Struct, frozen=True, kw_only=True):
    """What the engine itself writes to standard error; what runs print is kept elsewhere. See docs/logs.md."""

    format: Annotated[
        Literal["auto", "text", "json"],
        Meta(description="Readable lines, or a JSON object a line; `auto` is text on a terminal, and JSON elsewhere."),
    ] = "text"
    level: Annotated[Level, Meta(description="The least that is told.")] = "info"
    levels: Annotated[
        dict[str, Level], Meta(description='Those of single parts, such as `{ "engine.http" = "debug" }`.')
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in self.levels:
            if (wrong := mistake_in(part)) is not None:
                raise BadSetting(f"levels.{part}", wrong)
