"""Tokens in the SQLite store: one row each, with digests of secrets and no secret."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.clock import from_microseconds, to_microseconds
from engine.tokens import Token, TokenUse

STATEMENTS: dict[str, tuple[str, int]] = {
    # Keep tokens, or how they are now; a second one of a name breaks tokens_name.
    "keep_token": (
        "insert into tokens (id, name, detail) values {rows} "
        "on conflict (id) do update set name = excluded.name, detail = excluded.detail",
        3,
    ),
    # Remove tokens.
    "drop_token": ("delete from tokens where id in (select column1 from (values {rows}))", 1),
    # Note when and from where tokens were used.
    "use_token": (
        "update tokens set used_at = v.column2, used_from = v.column3 from (values {rows}) as v "
        "where tokens.id = v.column1",
        3,
    ),
}

QUERIES = {
    # All tokens, by name.
    "tokens": "select detail, used_at, used_from from tokens order by name",
}

_decoder = msgspec.json.Decoder(Token)


def token_row(token: Token) -> tuple[Any, ...]:
    """Return the row of a token; its uses stand beside it."""
    bare = replace(token, used_at=None, used_from="")
    return token.id, token.name, msgspec.json.encode(bare).decode()


def use_row(use: TokenUse) -> tuple[Any, ...]:
    """Return the row of a token's last use."""
    return use.token, to_microseconds(use.at), use.address


def tokens(raw: sqlite3.Connection) -> list[Token]:
    """Return all tokens, by name."""
    return [
        replace(
            _decoder.decode(detail),
            used_at=None if used_at is None else from_microseconds(used_at),
            used_from=used_from or "",
        )
        for detail, used_at, used_from in raw.execute(QUERIES["tokens"])
    ]
