"""A CEL expression over the time and the machine."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar

from engine.plugin import BadSetting, Condition, ConditionContext, Expression, ExpressionError, Scope, Verdict
from plugins.conditions.resources import busy_part, load_each, memory_part

NAMES = frozenset({"now", "cpu", "memory", "load"})
_NAMED = re.compile(r"\b(cpu|memory|load)\b")


class Evaluated(Condition, frozen=True, kw_only=True):
    """Pass while a CEL expression is true.

    - `expression`: over `now` (the instant of the check), `cpu` and `memory` (the parts in use, 0 to 1), and `load` (of
      one minute, for each CPU). What an event holds is for a trigger's `filter`.
    """

    name: ClassVar[str] = "expression"
    main: ClassVar[str | None] = "expression"

    expression: str

    def __post_init__(self) -> None:
        try:
            _compiled(self.expression)
        except ExpressionError as error:
            raise BadSetting("expression", str(error)) from None

    async def check(self, context: ConditionContext) -> Verdict:
        used = set(_NAMED.findall(self.expression))
        values: dict[str, Any] = {"cpu": 0.0, "memory": 0.0, "load": 0.0, "now": context.clock.now()}
        if "cpu" in used:
            values["cpu"] = await busy_part(context)
        if "memory" in used:
            values["memory"] = memory_part()
        if "load" in used:
            values["load"] = load_each()
        good = _compiled(self.expression).holds(Scope(values))
        said = f"{self.expression} is {'true' if good else 'false'}"
        seen = {name: values[name] for name in sorted(used)} or None
        return Verdict.passes(said, seen) if good else Verdict.holds(said, seen)


@lru_cache(maxsize=256)
def _compiled(text: str) -> Expression:
    return Expression(text, NAMES)
