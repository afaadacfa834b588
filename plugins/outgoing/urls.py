"""URLs with data in them: `https://example.com/orders/{{ data.id }}?by={{ data.name }}`.

Data fills values, never the target: scheme, host and port are written out, a value is percent-encoded and stays
within its segment of the path or its parameter of the query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote

from yarl import URL

from engine.plugin import BadSetting, Expression, ExpressionError, Scope, Secret, Template, render
from plugins.outgoing.networks import Reach, host_refusal

LONGEST_URL = 8192

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#{}\\\s]*)(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LITERAL = "/?&=:@!$'()*+,;%-._~[]"
_SEPARATORS = re.compile(r"[/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EXAMPLE = 'such as "https://example.com/orders/{{ data.id }}?by={{ data.name }}"'


class UnsafeUrl(Exception):
    """A value would make the URL name another resource than its author meant."""


class _Piece(NamedTuple):
    """A part of the path or query: text that its author wrote, or an expression whose value stands there."""

    text: str
    expression: Expression | None = None


class UrlTemplate:
    """An absolute http(s) URL whose path and query may hold `{{ CEL }}`.

    Raises BadSetting for `url`, where it is none, or data could choose the target. `origin` is its scheme, host
    and port.
    """

    def __init__(self, text: str, reach: Reach, names: Collection[str]) -> None:
        origin, rest = _split(text, reach)
        self.origin = str(origin).rstrip("/")
        try:
            template = Template(rest, names)
        except ExpressionError as error:
            raise BadSetting("url", str(error)) from None
        path: list[_Piece] = []
        query: list[_Piece] | None = None
        for part in template.parts:
            if isinstance(part, Expression):
                _check_place(path, query)
                (path if query is None else query).append(_Piece("", part))
                continue
            if "#" in part:
                raise BadSetting("url", "has a fragment, which is never sent", "leave out `#` and what follows it")
            before, mark, after = part.partition("?") if query is None else ("", "", part)
            if before:
                path.append(_Piece(before))
            if mark:
                query = []
            if after and query is not None:
                query.append(_Piece(after))
        self._path = tuple(path)
        self._query = None if query is None else tuple(query)
        self.constant = template.constant

    def render(self, scope: Scope) -> URL:
        """Return the URL with the values of its expressions, percent-encoded.

        Raises ExpressionError where one has none, UnsafeUrl where it would lead elsewhere: an empty segment of
        the path, `.` and `..` (also encoded, or behind slashes), control characters in the path.
        """
        path = "/".join(_segments(self._path, scope)) or "/"
        text = f"{self.origin}{path}"
        if self._query is not None:
            text = f"{text}?{''.join(_encoded(piece, scope) for piece in self._query)}"
        if len(text) > LONGEST_URL:
            raise UnsafeUrl(f"the URL is longer than {LONGEST_URL} characters")
        return URL(text, encoded=True)


def read_url(text: str, reach: Reach) -> URL:
    """Return a URL without expressions, as it is sent; raise BadSetting for `url` where it is none."""
    if "{{" in text:
        raise BadSetting("url", "holds a template, but there is no event yet whose data could fill it")
    return UrlTemplate(text, reach, ()).render(Scope({}))


def read_target(url: Secret | str, reach: Reach) -> URL:
    """Return a URL as `read_url` does, also where it is a secret: what is wrong is told without any part of it then."""
    if not isinstance(url, Secret):
        return read_url(url, reach)
    try:
        return read_url(url.reveal(), reach)
    except BadSetting as error:
        raise BadSetting("url", "is no URL that may be a target", error.hint) from None


def _split(text: str, reach: Reach) -> tuple[URL, str]:
    match = _URL.fullmatch(text)
    if match is None:
        if text.lstrip().startswith("{{"):
            raise BadSetting("url", "begins with a template: data can't choose the target", _EXAMPLE)
        raise BadSetting("url", "is no http or https URL", _EXAMPLE)
    authority, rest = match["authority"], match["rest"]
    if rest[:1] not in ("", "/", "?", "#"):
        if rest.startswith("{{"):
            message = "has a template in its host or port: data can't choose the target; the path begins after a `/`"
            raise BadSetting("url", message, _EXAMPLE)
        raise BadSetting("url", f"has {rest[0]!r} in its host", _EXAMPLE)
    if "@" in authority:
        raise BadSetting("url", "holds a user or password, which URLs do not keep secret", "use `bearer` or `headers`")
    try:
        origin = URL(f"{match['scheme'].lower()}://{authority}/")
        host = origin.raw_host
    except ValueError as error:
        raise BadSetting("url", f"is no URL: {error}", _EXAMPLE) from None
    if not host:
        raise BadSetting("url", "names no host", _EXAMPLE)
    if (why := host_refusal(host, reach)) is not None:
        raise BadSetting("url", f"can't be a target: {why}", "set `allow_private` where it is meant")
    return origin, rest


def _check_place(path: list[_Piece], query: list[_Piece] | None) -> None:
    """Refuse an expression where it is no value: in the name of a parameter."""
    if query is None:
        return
    written = "".join("\0" if piece.expression is not None else piece.text for piece in query)
    if "=" not in written.rpartition("&")[2]:
        message = "has a template in the query that is no parameter's value: data can't choose the parameter"
        raise BadSetting("url", message, 'write its name: "?name={{ data.name }}"')


def _segments(pieces: tuple[_Piece, ...], scope: Scope) -> Iterator[str]:
    """Yield the segments of the path, encoded; the first is the empty one before its first slash."""
    encoded, plain, holds_data = "", "", False
    for piece in pieces:
        if piece.expression is not None:
            text = render(piece.expression.evaluate(scope))
            encoded += _quoted(text)
            plain += text
            holds_data = True
            continue
        first, *others = piece.text.split("/")
        encoded, plain = encoded + _written(first), plain + unquote(first)
        for segment in others:
            _check_segment(plain, holds_data)
            yield encoded
            encoded, plain, holds_data = _written(segment), unquote(segment), False
    _check_segment(plain, holds_data)
    yield encoded


def _check_segment(plain: str, holds_data: bool) -> None:
    if not holds_data:
        return
    if not plain:
        raise UnsafeUrl("a value in the path of the URL is empty, which would name another resource")
    if _CONTROL.search(plain):
        raise UnsafeUrl("a value in the path of the URL holds control characters")
    for text in (plain, unquote(plain)):
        for part in _SEPARATORS.split(text):
            if part.partition(";")[0] in (".", ".."):
                raise UnsafeUrl(f"a value in the path of the URL, {plain[:40]!r}, would lead to another directory")


def _encoded(piece: _Piece, scope: Scope) -> str:
    return _written(piece.text) if piece.expression is None else _quoted(render(piece.expression.evaluate(scope)))


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _written(text: str) -> str:
    """Return what the author wrote as URLs hold it: escapes stay, what can't stand there is escaped."""
    return quote(_STRAY_PERCENT.sub("%25", text), safe=_LITERAL)
