"""Conditions as the configuration has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from engine.decide.conditions import Joins, Named, OnError, circle_through
from engine.plugin.settings import BadSetting, ConditionName, Duration
from engine.units import format_duration

CheckTable = Annotated[Any, Meta(extra={"kind": "plugin", "of": "condition"})]
"""A table with the name of one condition plugin and its settings."""

EVERY_S, TIMEOUT_S = 30.0, 10.0

_OF_CHECKS = ("every", "timeout", "on_error")


class ConditionTable(Struct, frozen=True, kw_only=True):
    """A named check, which triggers obey: a `check`, or `all`, `any` or `not` of others."""

    check: Annotated[CheckTable | None, Meta(description="Exactly one condition plugin, with its settings.")] = None
    all_: Annotated[
        tuple[ConditionName, ...] | None, Meta(min_length=1, description="Passes where all of these do.")
    ] = field(default=None, name="all")
    any_: Annotated[
        tuple[ConditionName, ...] | None, Meta(min_length=1, description="Passes where one of these does.")
    ] = field(default=None, name="any")
    not_: Annotated[ConditionName | None, Meta(description="Passes where this one does not.")] = field(
        default=None, name="not"
    )
    every: Annotated[
        Duration | None,
        Meta(ge=0.1, description=f'An answer is used this long. Default: `"{format_duration(EVERY_S)}"`.'),
    ] = None
    timeout: Annotated[
        Duration | None, Meta(gt=0, description=f'Bound of one check. Default: `"{format_duration(TIMEOUT_S)}"`.')
    ] = None
    on_error: Annotated[
        OnError | None,
        Meta(description="A check that can't answer: `closed`, runs wait, or `open`, they pass. Default: `closed`."),
    ] = None
    shadow: Annotated[
        bool, Meta(description="It lets everything pass, and the trace says what it would have done.")
    ] = False
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Whether it counts; one that does not lets everything pass.")] = True

    def __post_init__(self) -> None:
        given = [name for name in ("check", "all", "any", "not") if self._said(name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of check, all, any and not"
            raise BadSetting(given[1] if given else "check", f"found {found}, expected one of them")
        if self.check is None:
            for name in _OF_CHECKS:
                if getattr(self, name) is not None:
                    message = f"has no effect beside {given[0]}, which asks no check of its own"
                    raise BadSetting(name, message, "say it in the conditions that it names")

    def _said(self, name: str) -> Any:
        return self.check if name == "check" else getattr(self, f"{name}_")

    def condition(self, name: str, defined_in: str) -> Named:
        """Return it as the organ knows it."""
        joins = next((joins for joins in Joins if self._said(joins.value) is not None), None)
        of = () if joins is None else self._said(joins.value)
        return Named(
            name=name, check=self.check, joins=joins, of=(of,) if isinstance(of, str) else tuple(dict.fromkeys(of)),
            every_s=EVERY_S if self.every is None else self.every,
            timeout_s=TIMEOUT_S if self.timeout is None else self.timeout, on_error=self.on_error or OnError.CLOSED,
            shadow=self.shadow, description=self.description, tags=self.tags, enabled=self.enabled,
            defined_in=defined_in,
        )  # fmt: skip


def tell_circles(conditions: Mapping[str, Named], tell: Callable[[str, str], None]) -> bool:
    """Tell of conditions that come to name themselves, once for each circle; return whether there are any."""
    names = {name: one.of for name, one in conditions.items()}
    told: set[str] = set()
    for name in names:
        circle = None if name in told else circle_through(name, names)
        if circle is not None:
            told.update(circle)
            tell(name, f"names itself: {' → '.join(circle)}")
    return bool(told)
