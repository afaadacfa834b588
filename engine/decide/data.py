"""What an event's data becomes for one trigger: its defaults filled in, its fixed values on top."""

from __future__ import annotations

from typing import Any


def merge(data: Any, defaults: dict[str, Any] | None, fixed: dict[str, Any] | None) -> Any:
    """Return the data that a trigger's expressions and its job see.

    Fixed values win over the event's, the event's over the defaults; the first level only. Data that is no
    object stays as it is where there is nothing to merge, and becomes the member `value` where there is.
    """
    if not defaults and not fixed:
        return data
    if data is None:
        data = {}
    elif not isinstance(data, dict):
        data = {"value": data}
    return {**(defaults or {}), **data, **(fixed or {})}
