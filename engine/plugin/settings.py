"""What plugins declare their settings with; the configuration reads, checks, documents and masks by these types."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

Duration = Annotated[float, Meta(extra={"kind": "duration"})]
"""Seconds; written in the configuration as `"500ms" "5s" "1h30m"` or in ISO 8601."""

Size = Annotated[int, Meta(extra={"kind": "size"})]
"""Bytes; written in the configuration as `"64KiB"`."""

TimeZone = Annotated[str, Meta(extra={"kind": "timezone"})]
"""The name of an IANA time zone, such as `Europe/Berlin`; unknown ones are refused."""

JobName = Annotated[str, Meta(extra={"kind": "job"})]
"""The name of a job; unknown ones are refused."""

TriggerName = Annotated[str, Meta(extra={"kind": "trigger"})]
"""The name of a trigger; unknown ones are refused."""

CalendarName = Annotated[str, Meta(extra={"kind": "calendar"})]
"""The name of a calendar; unknown ones are refused."""

ConditionName = Annotated[str, Meta(extra={"kind": "condition"})]
"""The name of a condition; unknown ones are refused."""

Moment = Annotated[datetime, Meta(extra={"kind": "moment"})]
"""An instant (aware, UTC), or a local time (naive) that the plugin puts into a zone: see `instant_of`.

Written as text (`"2026-12-24T18:00:00+01:00"`, `"2026-12-24 18:00"`) or as TOML's own dates with a time.
"""

ExpressionText = Annotated[str, Meta(extra={"kind": "expression"})]
"""A CEL expression; syntax and names are checked when the configuration is read."""

TemplateText = Annotated[str, Meta(extra={"kind": "template"})]
"""Text with `{{ CEL }}` in it; checked when the configuration is read."""


class BadSetting(ValueError):
    """Raise in a plugin's `__post_init__` to refuse a setting: `field` names it, `hint` says what would be right."""

    def __init__(self, field: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class Secret:
    """A setting that is never shown: not in logs, errors, the API or an export.

    In the configuration it is text, `{ env = "NAME" }` or `{ file = "path" }` (with `generate = true` the
    file is made, mode 0600, with 256 random bits where it is missing).
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str = "text") -> None:
        self._value = value
        self.origin = origin

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def matches(self, candidate: bytes) -> bool:
        """Compare with what somebody offered, in a time that tells nothing about the secret."""
        return hmac.compare_digest(self._value.encode(), candidate)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"


class Plugin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all plugins: a struct of settings.

    - `name`: how the configuration calls it, such as `cron` in `on.cron`.
    - `main`: the field that a value which is no table stands for, such as `expression` in `on.cron = "0 2 * *
    *"`.

    Fields are settings: their annotations are their types, their defaults the defaults, and the class
    docstring is the documentation. Refuse what the types can't by raising `BadSetting` in `__post_init__`.
    """

    name: ClassVar[str]
    main: ClassVar[str | None] = None
