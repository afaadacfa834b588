"""Triggers on several sources, as the configuration has them: `on.all`, `on.any`, and `join`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct, field

from engine.config.document import KeyPath
from engine.plugin.settings import BadSetting, Duration, ExpressionText, Plugin
from engine.registry import SEVERAL_KEYS
from engine.triggers import Input, Join, Reset, Use

_Slug = Annotated[str, Meta(extra={"kind": "slug"})]

InlineInput = Annotated[Any, Meta(extra={"kind": "plugin", "of": "input", "inline": True})]
"""The name of one source or timer and its settings, or `source` and the name of a shared one, among other keys."""

Tell = Callable[[KeyPath, str, str | None], None]


class InputTable(Struct, frozen=True, kw_only=True):
    """One of the sources of a trigger that is on several."""

    on: Annotated[InlineInput, Meta(description="Exactly one source or timer, with its settings.")]
    filter: Annotated[
        ExpressionText | None, Meta(description="Events for which this is not true do not come by this input.")
    ] = None
    use: Annotated[
        Use | None,
        Meta(description="Which of its events a join uses: the `last`, the `first` or `all`. Default: as `join` says."),
    ] = None


class Several(Plugin, frozen=True, kw_only=True):
    """Several sources, by names that the trigger gives them.

    - `inputs`: each of them.
    """

    inputs: dict[_Slug, InputTable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.inputs) < 2:
            found = f"names one input, {next(iter(self.inputs))}" if self.inputs else "names no input"
            hint = 'such as sales = { files = "sales" }, stock = { event = "stock.counted" }; or put it on one source'
            raise BadSetting("", f"{found}, expected two or more", hint)


class AllOf(Several, frozen=True, kw_only=True):
    """All of several sources: it is run when each has had an event, once for all of those."""

    name: ClassVar[str] = SEVERAL_KEYS[0]


class AnyOf(Several, frozen=True, kw_only=True):
    """Any of several sources: it is run for each of their events."""

    name: ClassVar[str] = SEVERAL_KEYS[1]


SEVERAL: Mapping[str, type[Several]] = {AllOf.name: AllOf, AnyOf.name: AnyOf}


class JoinTable(Struct, frozen=True, kw_only=True):
    """One run for the events of all inputs of `on.all`."""

    window: Annotated[
        Duration, Meta(gt=0, description="So long after its first event a join that is incomplete is given up.")
    ]
    reset: Annotated[
        Reset,
        Meta(description="What ends a join: that it is `complete`, or that its `window` is over. Then another begins."),
    ] = Reset.COMPLETE
    use: Annotated[
        Use,
        Meta(
            description="Which events of an input are used, where several come: the last (those before it are recorded "
            "as superseded), the first, or all. Inputs may say otherwise."
        ),
    ] = Use.LAST
    key: Annotated[ExpressionText | None, Meta(description="Events with different values are joined apart.")] = None
    max_open: Annotated[
        int, Meta(ge=1, le=100_000, description="So many joins of the trigger wait at most, each with another key.")
    ] = 1_000
    max_events: Annotated[
        int, Meta(ge=2, le=100_000, description="So many events one join has at most, of inputs that use all.")
    ] = 1_000

    def rule(self) -> Join:
        """Return it as the triggers know it."""
        return Join(
            window_s=self.window, reset=self.reset, key=self.key, max_open=self.max_open, max_events=self.max_events
        )


def as_join(table: JoinTable | float) -> Join:
    """Return what a trigger says of its join as the engine knows it: seconds are its window."""
    return table.rule() if isinstance(table, JoinTable) else Join(window_s=table)


def check_joins(table: Any, path: KeyPath, tell: Tell) -> bool:
    """Tell what does not go together in the table of a trigger; return whether all does."""
    said: list[tuple[str, str, str]] = []
    several = isinstance(table.on, Several)
    if isinstance(table.on, AllOf):
        if table.join is None:
            said.append(("join", "is missing beside on.all", 'say how long it waits: join = "1h"'))
        for name in ("debounce", "batch"):
            if getattr(table, name) is not None:
                hint = "leave it out; a join that takes several events of an input has use"
                said.append((name, "stands beside on.all, and an event can be gathered by one of them", hint))
    elif table.join is not None:
        said.append(("join", f"has no effect on {table.on.name}", "leave it out; it is for on.all"))
    if isinstance(table.on, AnyOf):
        for name, one in table.on.inputs.items():
            if one.use is not None:
                message = "has no effect in on.any, where each event is one run"
                said.append((f"on.any.{name}.use", message, "leave it out"))
    if several and table.adaptive is not None:
        said.append(("adaptive", f"is for triggers on one source, and this is on {table.on.name}", "leave it out"))
    for key, message, hint in said:
        tell((*path, *key.split(".")), message, hint)
    return not said


def check_inputs(inputs: tuple[Input, ...], path: KeyPath, tell: Tell) -> bool:
    """Tell of inputs that never have an event, as an earlier one has them all; return whether there is none."""
    sound = True
    for place, one in enumerate(inputs):
        for before in inputs[:place]:
            if before.source == one.source and before.filter in (None, one.filter):
                message = f"is the same as input {before.name}, by which all of its events come"
                tell((*path, one.name), message, "leave it out, or give each a filter of its own")
                sound = False
                break
    return sound
