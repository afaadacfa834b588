"""Members of one object that somebody sent: all mistakes at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from engine.triggers import HIGHEST_PRIORITY, LOWEST_PRIORITY, PRIORITIES

_INSTANT = Annotated[datetime, msgspec.Meta(tz=True)]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Members:
    """Members of one object, or parameters of one query.

    The reading methods note what is wrong in `errors` and go on. `place` is the pointer of the object itself (RFC
    6901); None means that it is a query.
    """

    def __init__(self, values: Mapping[str, Any], known: Collection[str], place: str | None = "") -> None:
        self._values = values
        self._place = place
        self.errors: list[dict[str, Any]] = []
        noun = "query parameter" if place is None else "member"
        for name in values:
            if name not in known:
                self.fault(name, f"unknown {noun} {name!r}{near(name, known)}")

    @property
    def there(self) -> Collection[str]:
        """The names that were given."""
        return self._values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def fault(self, name: str, detail: str) -> None:
        """Note that a member is wrong."""
        if self._place is None:
            self.errors.append({"parameter": name, "detail": detail})
        else:
            self.fault_at(name.replace("~", "~0").replace("/", "~1"), detail)

    def fault_at(self, within: str, detail: str) -> None:
        """Note that something within the object is wrong: `within` is the rest of its pointer."""
        self.errors.append({"pointer": f"#{self._place}/{within}", "detail": detail})

    def value(self, name: str) -> Any:
        """Return a member of any type, or None."""
        return self._values.get(name)

    def text(self, name: str, *, longest: int = 1024, required: bool = False) -> str | None:
        """Return a member that is text of one line, not empty."""
        value = self._values.get(name)
        if value is None:
            if required:
                self.fault(name, f"{name} is required")
            return None
        if not isinstance(value, str) or not value or len(value) > longest or _CONTROL.search(value):
            self.fault(name, f"{name} must be text of 1 to {longest} characters without control characters")
            return None
        return value

    def priority(self, name: str = "priority") -> int | None:
        """Return a priority: 0 to 9, or one of the names."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, str) and value in PRIORITIES:
            return PRIORITIES[value]
        if type(value) is int and LOWEST_PRIORITY <= value <= HIGHEST_PRIORITY:
            return value
        self.fault(name, f"{name} must be 0 to 9, or one of {', '.join(PRIORITIES)}")
        return None

    def instant(self, name: str) -> datetime | None:
        """Return an instant, written in RFC 3339 with its offset."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            if isinstance(value, str):
                return msgspec.convert(value, _INSTANT)
        except msgspec.ValidationError:
            pass
        self.fault(name, f"{name} must be a time in RFC 3339 with its offset, such as 2026-11-21T09:30:00Z")
        return None


def near(name: str, known: Collection[str]) -> str:
    """Return a clause with the known name that is meant, or all of them where it is none."""
    if close := difflib.get_close_matches(name, sorted(known), n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else "; there are none here"
