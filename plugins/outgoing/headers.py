"""Headers of requests: which may be set, and what data may be in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from engine.plugin import BadSetting, ExpressionError, Scope, Secret, Template
from plugins.outgoing.client import CONFIDENTIAL

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset(
    "host content-length transfer-encoding connection keep-alive upgrade te trailer expect proxy-connection "
    "proxy-authorization accept-encoding".split()
)
"""Headers that say how a message is carried: the client sets them."""

_STEERING = re.compile(r"x-(?:http-)?method(?:-override)?|x-forwarded-.*|forwarded|x-original-.*|x-rewrite-.*|x-host")
"""Headers by which servers are told another method, host or path: data must not be in them."""


class Header(NamedTuple):
    """A header: its name, its value, and whether the value is a secret."""

    name: str
    value: Template
    confidential: bool


class Headers(NamedTuple):
    """The headers of a request, their templates compiled."""

    fields: tuple[Header, ...]

    @property
    def confidential(self) -> frozenset[str]:
        """Return the names, in lower case, of those that another origin must not get."""
        return frozenset(field.name.lower() for field in self.fields if field.confidential)

    def secrets(self) -> list[str]:
        """Return the values that must not be shown."""
        return [field.value.text for field in self.fields if field.confidential]

    def render(self, scope: Scope) -> dict[str, str]:
        """Return the headers; raise ExpressionError where a value is missing or can't be in a header."""
        result: dict[str, str] = {}
        for name, template, _ in self.fields:
            try:
                text = template.render(scope)
            except ExpressionError as error:
                raise ExpressionError(f"header {name}: {error}") from None
            if _UNSENDABLE.search(text):
                raise ExpressionError(f"header {name} holds line breaks or other control characters")
            # Obsolete bytes are all that HTTP has beyond ASCII: Unicode travels as UTF-8 in them.
            result[name] = text.encode("utf-8", "replace").decode()
        return result


def read_headers(settings: Mapping[str, Secret | str], bearer: Secret | None, names: Collection[str]) -> Headers:
    """Read settings `headers` and `bearer`; raise BadSetting for what can't be one.

    Secrets are taken as they are, other values are templates that may use `names`.
    """
    fields: list[Header] = []
    seen: set[str] = set()
    given: dict[str, Secret | str] = dict(settings)
    if bearer is not None:
        if any(name.lower() == "authorization" for name in settings):
            raise BadSetting("bearer", "is given beside a header Authorization", "keep one of them")
        given["Authorization"] = Secret(f"Bearer {bearer.reveal()}")
    for name, value in given.items():
        field = "bearer" if bearer is not None and name == "Authorization" else f"headers.{name}"
        _check_name(field, name)
        if name.lower() in seen:
            raise BadSetting(field, "is there twice, in other letters", "keep one of them")
        seen.add(name.lower())
        fields.append(_read(field, name, value, names))
    return Headers(tuple(fields))


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadSetting(field, "is no name of a header", 'such as "X-Order"')
    if name.lower() in _OURS:
        raise BadSetting(field, "is set by the client itself", "leave it out")


def _read(field: str, name: str, value: Secret | str, names: Collection[str]) -> Header:
    lower = name.lower()
    if isinstance(value, Secret):
        if _UNSENDABLE.search(value.reveal()):
            raise BadSetting(field, "holds line breaks or other control characters, which no header can")
        return Header(name, literal(value.reveal()), True)
    if "{{" in value and _STEERING.fullmatch(lower):
        raise BadSetting(field, f"holds a template, but {name} tells servers another target: data must not reach it")
    if _UNSENDABLE.search(value):
        raise BadSetting(field, "holds line breaks or other control characters, which no header can")
    try:
        template = Template(value, names)
    except ExpressionError as error:
        raise BadSetting(field, str(error)) from None
    return Header(name, template, lower in CONFIDENTIAL and template.constant)


def literal(text: str) -> Template:
    """Return a template of text in which nothing is an expression: a secret may hold any characters, `{{` too."""
    template = Template("", ())
    template.text, template.parts = text, [text]
    return template
