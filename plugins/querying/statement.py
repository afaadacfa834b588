"""The query: read as far as has to be known of it, checked, and put in the forms in which it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.plugin import BadSetting

PARAMETER = "cursor"

_TOKEN = re.compile(
    r"""
      (?P<space>\s+ | --[^\n]* | /\*.*?\*/)
    | (?P<text>'(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*" | `[^`]*`)
    | (?P<parameter>(?<![:\w]):(?!:)\w+)
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign>::|<=|>=|<>|!=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADS = frozenset({"select", "with", "values"})
_WRITES = frozenset({"into", "delete", "update", "merge"})
"""Words by which a statement writes or locks; as names of columns they have to be quoted."""

_AFTER_COMPARISON = frozenset("and or order group having limit offset fetch union intersect except window".split())
_CUTS = frozenset({"limit", "fetch", "top", "rownum"})
_WAY_OUT = "write it as `COLUMN > :cursor`"


class Token(NamedTuple):
    """A piece of the query. `depth` is the number of parentheses around it."""

    kind: str
    text: str
    depth: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.lower() in words


class Statement:
    """A query that reads, of one statement, with no parameter but `:cursor`.

    - `limit`: the number of rows that it ends with, where that stands there as a number.
    - `may_be_cut`: whether another limit could cut its rows off.
    - `asks_cursor`: whether `:cursor` stands in it; `is_plain`: whether nowhere but in `… > :cursor` or `… >= :cursor`,
      so that it can be asked in other forms.
    - `is_ordered`: whether it ends with an `order by` that begins with an ascending term.

    The forms have their colons escaped as SQLAlchemy's `text` wants it, and hold no comments.
    """

    def __init__(self, query: str) -> None:
        self._tokens = list(_tokens(query))
        self._checked()
        solid = [index for index, token in enumerate(self._tokens) if token.kind != "space"]
        self._solid = solid
        places = [at for at, index in enumerate(solid) if self._tokens[index].kind == "parameter"]
        self.asks_cursor = bool(places)
        self._comparisons = [found for at in places if (found := self._comparison(at)) is not None]
        self.is_plain = self.asks_cursor and len(self._comparisons) == len(places)
        self.limit, self._limit_at = self._outer_limit()
        self.may_be_cut = any(
            token.is_word(*_CUTS) for index, token in enumerate(self._tokens) if index != self._limit_at
        )
        self._order_at = self._find_order()
        self.is_ordered = self._order_at is not None and not self._descends(self._order_at)
        self.has_offset = any(token.depth == 0 and token.is_word("offset") for token in self._tokens) or (
            self._limit_at is not None and self._sign_after_limit() == ","
        )

    def written(self) -> str:
        """Return the query as it was written."""
        return self._text({})

    def inclusive(self) -> str:
        """Return the query with `>=` in the place of `>`."""
        return self._text({operator: ">=" for operator, _, _ in self._comparisons})

    def whole(self) -> str:
        """Return the query without a bound: rows that have a cursor at all."""
        return self._text(self._without_bounds())

    def unordered(self) -> str:
        """Return the query without a bound, an order or a limit: what the greatest cursor is looked for in."""
        return self._text(self._without_bounds(), self._order_at)

    def fingerprint(self) -> list[str]:
        """Return what makes it another query: not its layout and comments, its limit, or the form of its bound."""
        operators = {operator for operator, _, _ in self._comparisons}
        end = len(self._tokens) if self._limit_at is None else self._limit_at
        return [
            ">" if index in operators else token.text.lower() if token.kind == "word" else token.text
            for index, token in enumerate(self._tokens)
            if token.kind != "space" and index < end and token.text != ";"
        ]

    def _checked(self) -> None:
        solid = [token for token in self._tokens if token.kind != "space"]
        while solid and solid[-1].text == ";":
            solid.pop()
        if not solid:
            raise BadSetting(
                "query", "is empty", 'such as "select id, name from orders where id > :cursor order by id"'
            )
        joined = "".join(token.text for token in self._tokens if token.kind != "text")
        if "{{" in joined:
            message = "holds a template, but values come into a query as parameters alone"
            raise BadSetting("query", message, "the only one is :cursor")
        head = next((token for token in solid if token.text != "("), solid[0])
        if not head.is_word(*_HEADS):
            raise BadSetting("query", f"begins with {head.text!r:.40}, but it has to read", "write a SELECT")
        self._refuse_signs(solid)
        for before, token in zip([None, *solid], solid, strict=False):
            if token.kind == "word" and token.text.lower() in _WRITES and (before is None or before.text != "."):
                message = f"holds {token.text!r}, by which a statement writes or locks"
                raise BadSetting("query", message, "where it is a name, put it in double quotes")
            if token.kind == "parameter" and token.text != f":{PARAMETER}":
                raise BadSetting("query", f"has the parameter {token.text}", "the only one there is is :cursor")

    def _refuse_signs(self, solid: Sequence[Token]) -> None:
        signs = [token.text for token in solid if token.kind == "sign"]
        if ";" in signs:
            raise BadSetting("query", "holds more than one statement", "give one SELECT, without `;` in it")
        if any(token.kind == "text" and "\\'" in token.text for token in solid):
            message = "has a backslash before a quote, which is read differently by different databases"
            raise BadSetting("query", message, "write '' for a quote in a text")
        if "'" in signs or '"' in signs or "`" in signs:
            raise BadSetting("query", "has a quote that is not closed")
        if any(token.depth < 0 for token in solid) or solid[-1].depth != 0 or solid[-1].text == "(":
            raise BadSetting("query", "has parentheses that do not match")

    def _at(self, position: int) -> Token | None:
        """Return the token at a position among those that are no space."""
        return self._tokens[self._solid[position]] if 0 <= position < len(self._solid) else None

    def _comparison(self, at: int) -> tuple[int, int, int] | None:
        """Return where a parameter's comparison begins, and where its right side does and ends; or None.

        `… > :cursor` and `… > cast(:cursor as type)` are known, where nothing goes on with the right side.
        """
        first = last = at
        before, opened = self._at(at - 2), self._at(at - 1)
        if before is not None and before.is_word("cast") and opened is not None and opened.text == "(":
            first = at - 2
            depth = opened.depth
            while (token := self._at(last)) is not None and not (token.text == ")" and token.depth == depth):
                last += 1
        operator, after = self._at(first - 1), self._at(last + 1)
        if operator is None or operator.text not in (">", ">="):
            return None
        if after is not None and after.text not in (")", ";") and not after.is_word(*_AFTER_COMPARISON):
            return None
        return self._solid[first - 1], self._solid[first], self._solid[last]

    def _outer_limit(self) -> tuple[int | None, int | None]:
        """Return the rows that the query is limited to at its end, and where that begins."""
        for at in range(len(self._solid) - 1, -1, -1):
            token = self._tokens[self._solid[at]]
            number = self._at(at + 1)
            if token.depth == 0 and token.is_word("limit") and number is not None and number.text.isdecimal():
                return int(number.text), self._solid[at]
            if token.depth == 0 and token.is_word("fetch"):
                number = self._at(at + 2)
                if number is not None and number.text.isdecimal():
                    return int(number.text), self._solid[at]
        return None, None

    def _sign_after_limit(self) -> str | None:
        at = next(at for at, index in enumerate(self._solid) if index == self._limit_at)
        after = self._at(at + 2)
        return None if after is None else after.text

    def _find_order(self) -> int | None:
        """Return where the query's own `order by` begins."""
        found = None
        for at, index in enumerate(self._solid):
            after = self._at(at + 1)
            if self._tokens[index].depth == 0 and self._tokens[index].is_word("order"):
                found = index if after is not None and after.is_word("by") else found
        return found

    def _descends(self, start: int) -> bool:
        for token in self._tokens[start:]:
            if token.depth == 0 and token.text == ",":
                return False
            if token.depth == 0 and token.is_word("desc"):
                return True
        return False

    def _without_bounds(self) -> dict[int, str]:
        replaced = {}
        for operator, first, last in self._comparisons:
            replaced[operator] = "is not null"
            replaced.update(dict.fromkeys(range(first, last + 1), ""))
        return replaced

    def _text(self, replaced: dict[int, str], end: int | None = None) -> str:
        pieces = []
        for index, token in enumerate(self._tokens[:end]):
            if index in replaced:
                pieces.append(f" {replaced[index]} ")
            elif token.kind == "parameter":
                pieces.append(token.text)
            elif token.text != ";":
                pieces.append(token.text.replace(":", "\\:"))
        return "".join(pieces).strip()


def check_following(statement: Statement, *, start: object, tracked: bool) -> None:
    """Refuse a query that a cursor can't follow; `tracked` is one whose last rows are read again."""
    if not statement.asks_cursor:
        raise BadSetting("query", "has no `:cursor`, so every poll would read all rows", "add `where COLUMN > :cursor`")
    if not statement.is_ordered:
        message = "does not end with an ascending `order by`, so that a page could leave rows behind"
        raise BadSetting("query", message, "order by the cursor's column, and by the key's")
    if statement.has_offset:
        raise BadSetting("query", "has an offset, which would leave rows out", "leave it out: pages follow the cursor")
    if statement.limit is not None and statement.limit < (2 if tracked else 1):
        message = f"is limited to {statement.limit} rows: a page of them could never go on"
        raise BadSetting("query", message, "such as `limit 500`")
    if statement.is_plain:
        return
    if start in ("beginning", "now"):
        message = f"holds `:cursor` in another way than `COLUMN > :cursor`, so that {start!r} can't be asked for"
        raise BadSetting("query", message, f"{_WAY_OUT}, or give `start` a value")
    if tracked:
        message = "holds `:cursor` in another way than `COLUMN > :cursor`, so that its last rows can't be read again"
        raise BadSetting("query", message, f"{_WAY_OUT}, or leave `key` and `look_back` out")


def _tokens(query: str) -> Iterator[Token]:
    depth = 0
    for match in _TOKEN.finditer(query):
        kind, text = match.lastgroup or "", match.group()
        if kind == "tag":
            kind = "text"
        if kind == "space":
            text = " " if text[0] in "-/" else text
        if text == ")" and kind == "sign":
            depth -= 1
        yield Token(kind, text, depth)
        if text == "(" and kind == "sign":
            depth += 1
