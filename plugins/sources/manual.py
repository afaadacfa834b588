"""Triggers that run only when somebody fires them."""

from __future__ import annotations

from typing import ClassVar, Literal

import anyio

from engine.plugin import Source, SourceContext, Whereabouts


class Manual(Source, frozen=True, kw_only=True):
    """Emit nothing: the trigger runs when it is fired through the API or the command line.

    Written `on.manual = true`. Every other trigger can be fired, too.
    """

    name: ClassVar[str] = "manual"
    main: ClassVar[str | None] = "allowed"
    emits: ClassVar[bool] = False

    allowed: Literal[True] = True

    def try_it(self, here: Whereabouts) -> str:
        return f"{here.command} fire {here.trigger} --wait"

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()
