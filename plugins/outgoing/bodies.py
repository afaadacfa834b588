"""Bodies of requests with data in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from engine.plugin import BadSetting, ExpressionError, Scope, Template, plain


def compiled(field: str, value: Any, names: Collection[str]) -> Any:
    """Return a JSON value in which texts with expressions are compiled templates."""
    if isinstance(value, str):
        return template(field, value, names) if "{{" in value else value
    if isinstance(value, (list, tuple)):
        return [compiled(f"{field}[{index}]", item, names) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if "{{" in name:
                raise BadSetting(field, f"has the member {name!r}, whose name is a template: data can't choose names")
        return {name: compiled(f"{field}.{name}", item, names) for name, item in value.items()}
    return value


def rendered(value: Any, scope: Scope) -> Any:
    """Return what `compiled` returned with the values of its templates; raise ExpressionError."""
    if isinstance(value, Template):
        try:
            return plain(value.value(scope))
        except ExpressionError as error:
            raise ExpressionError(f"the JSON body: {error}") from None
    if isinstance(value, list):
        return [rendered(item, scope) for item in value]
    if isinstance(value, dict):
        return {name: rendered(item, scope) for name, item in value.items()}
    return value


def template(field: str, text: str, names: Collection[str]) -> Template:
    """Return a text as a template; raise BadSetting for `field` where it is none."""
    try:
        return Template(text, names)
    except ExpressionError as error:
        raise BadSetting(field, str(error)) from None
