"""Events that come in through the API."""

from __future__ import annotations

import shlex
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import ClassVar

import anyio

from engine.plugin import RESERVED_PREFIX, BadSetting, Event, Source, SourceContext, Whereabouts

LONGEST_PATTERN = 255


class Heard(Source, frozen=True, kw_only=True):
    """Hear events that somebody sends to `POST /api/v1/events`, or with `emit` on the command line.

    Each setting is a pattern that the whole attribute must match, in its own case: `*` stands for any text
    (dots included), `?` for one character, `[abc]` for one of them. All given patterns must match.

    - `type`: the event's type, such as `order.created` or `order.*`; every type by default. The engine's own events,
      such as `engine.quarantined`, are heard only by a pattern that begins with `engine.`.
    - `source`: the source that the event names. An event without one matches only `*`.
    - `subject`: the event's subject. An event without one matches only `*`.
    """

    name: ClassVar[str] = "event"
    main: ClassVar[str | None] = "type"
    hears: ClassVar[bool] = True
    emits: ClassVar[bool] = False

    type: str = "*"
    source: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        for field in ("type", "source", "subject"):
            pattern = getattr(self, field)
            if pattern is None:
                continue
            if not pattern:
                raise BadSetting(field, "is an empty pattern, which nothing matches", '"*" matches everything')
            if len(pattern) > LONGEST_PATTERN:
                raise BadSetting(field, f"is longer than {LONGEST_PATTERN} characters")

    def accepts(self, event: Event) -> bool:
        if event.type.startswith(RESERVED_PREFIX) and not self.type.startswith(RESERVED_PREFIX):
            return False
        return (
            _matches(event.type, self.type)
            and (self.source is None or _matches(event.source, self.source))
            and (self.subject is None or _matches(event.subject or "", self.subject))
        )

    def try_it(self, here: Whereabouts) -> str:
        name = self.type.translate({ord("*"): "created", ord("?"): "x"})
        options = "".join(
            f" --{field} {shlex.quote(value)}"
            for field, value in (("source", self.source), ("subject", self.subject))
            if value is not None
        )
        return f"{here.command} emit {shlex.quote(name if name != 'created' else 'order.created')}{options}"

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


def _matches(text: str, pattern: str) -> bool:
    return text == pattern if _is_literal(pattern) else fnmatchcase(text, pattern)


@lru_cache(maxsize=1024)
def _is_literal(pattern: str) -> bool:
    return not any(sign in pattern for sign in "*?[")
