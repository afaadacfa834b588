"""What faces ask of conditions: how they are, who waits for them, and to let something else hold for a while."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from engine.clock import Clock
from engine.conditions.kept import Override
from engine.conditions.organ import Conditions
from engine.conditions.view import condition_view
from engine.config.scalars import Mismatch, convert, expected, fits, near
from engine.config.shapes import Field, fields_of
from engine.decide.conditions import Named
from engine.decide.rules import Rule
from engine.errors import InvalidRequest, NotFound
from engine.plugin import BadSetting, Plugin
from engine.store.base import Store

LARGEST_OVERRIDE = 64
"""So many thresholds may be asked for at once."""


class ConditionDesk:
    """Answers questions about conditions; `show` writes a plugin's settings as the configuration has them."""

    def __init__(
        self, conditions: Conditions, *, store: Store, clock: Clock, base: Path, show: Callable[[Plugin], Any]
    ) -> None:
        self._conditions = conditions
        self._store = store
        self._clock = clock
        self._base = base
        self._show = show

    async def views(self) -> list[dict[str, Any]]:
        """Return all conditions, by name. Raises StoreUnavailable."""
        held = await self._store.held_counts()
        return [self._view(name, held) for name in sorted(self._conditions.all)]

    async def view(self, name: str) -> dict[str, Any]:
        """Return a condition. Raises NotFound and StoreUnavailable."""
        self._named(name)
        return self._view(name, await self._store.held_counts())

    def of_trigger(self, rule: Rule) -> list[dict[str, Any]]:
        """Return what the conditions of a trigger say now, as far as that is known."""
        found = []
        for name in self._conditions.names_of(rule):
            one, reading = self._conditions.all[name], self._conditions.reading(name)
            found.append({
                "name": name,
                "state": "disabled" if not one.enabled else "unknown" if reading is None else reading.answer.value,
                "reason": None if reading is None else reading.said(),
                "shadow": one.shadow,
            })  # fmt: skip
        return found

    def summary(self) -> dict[str, Any]:
        """Return how many there are, and which of them do not let pass, as far as that is known."""
        holding = {}
        for name, one in self._conditions.all.items():
            reading = self._conditions.reading(name)
            if one.enabled and reading is not None and not reading.passes:
                holding[name] = reading.said()
        return {"total": len(self._conditions.all), "holding": holding}

    async def override(
        self, name: str, *, reason: str, who: str, enabled: bool | None = None, shadow: bool | None = None,
        thresholds: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Let something hold in the place of a condition's configuration, durably; what was overridden before stays so.

        A threshold is written as in the configuration; None is that of the configuration again. Raises NotFound,
        InvalidRequest for what can't be, and StoreUnavailable.
        """
        one = self._named(name)
        before = self._conditions.override_of(name)
        limits = dict(before.thresholds) if before is not None else {}
        for key, written in (thresholds or {}).items():
            limits[key] = self._threshold(one, key, written)
        made = Override(
            since=self._clock.now(), reason=reason, who=who,
            enabled=enabled if enabled is not None or before is None else before.enabled,
            shadow=shadow if shadow is not None or before is None else before.shadow,
            thresholds={key: value for key, value in limits.items() if value is not None},
        )  # fmt: skip
        try:
            await self._conditions.override(name, None if made.is_empty else made)
        except BadSetting as error:
            raise InvalidRequest(f"condition {name}: {error.field} {error}") from None
        return await self.view(name)

    async def reset(self, name: str) -> dict[str, Any]:
        """Let the configuration of a condition hold again. Raises NotFound and StoreUnavailable."""
        self._named(name)
        if self._conditions.override_of(name) is not None:
            await self._conditions.override(name, None)
        return await self.view(name)

    def _named(self, name: str) -> Named:
        one = self._conditions.all.get(name)
        if one is None:
            hint = near(name, self._conditions.all)
            raise NotFound(f"there is no condition {name}" + (f"; {hint}" if hint else ""))
        return one

    def _threshold(self, one: Named, key: str, written: Any) -> Any:
        """Return a threshold as the check has it; raise InvalidRequest where it is none."""
        known: Collection[str] = () if one.check is None else type(one.check).thresholds
        if one.check is None or key not in known:
            hint = near(key, known) if known else "it has none"
            raise InvalidRequest(f"{key!r:.80} is no threshold of condition {one.name}; {hint}")
        if written is None:
            return None
        field: Field = next(field for field in fields_of(type(one.check)) if field.name == key)
        for shape in field.shape.alternatives():
            if fits(shape, written) and not isinstance(written, bool):
                try:
                    return convert(shape, written, self._base)
                except Mismatch as error:
                    raise InvalidRequest(f"{key}: {error}") from None
        raise InvalidRequest(f"{key}: expected {expected(field.shape)}")

    def _view(self, name: str, held: Mapping[str, int]) -> dict[str, Any]:
        check = self._conditions.all[name].check
        return condition_view(
            self._conditions, name, held, None if check is None else {check.name: self._show(check)}
        )  # fmt: skip
