"""All tokens that open the API, by the digests of their secrets.

What is durable is known in memory, so that a request costs no look at the store. A secret is told once, to who has it
made; nobody can read it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.audits import Audit
from engine.clock import Clock, rfc3339
from engine.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from engine.http.tokens import AdminToken
from engine.ids import is_slug, new_id
from engine.members import near
from engine.store.base import Store
from engine.store.changes import Accept
from engine.tokens import ADMIN, PREFIX, Former, Role, Token, TokenUse, digest_of, new_secret

MOST_TOKENS = 1000
USED_EVERY_S = 60.0
"""Uses of a token within so long are noted as one."""

OVERLAP_S = 3600.0
"""For so long the secret before a rotation is valid, unless it is said otherwise."""

LONGEST_OVERLAP_S = 30 * 86_400.0

Submit = Callable[[Accept, Audit | None], Awaitable[Any]]


class Holder(Struct, frozen=True, kw_only=True):
    """Who has a secret, and what it opens; nothing where it has `expired`."""

    name: str
    role: Role
    tags: tuple[str, ...] = ()
    prefix: str = ""
    expired: bool = False


_ADMIN = Holder(name=ADMIN, role=Role.ADMIN)


class Keyring:
    """The tokens: the admin's own, and those that the store keeps.

    `submit` makes a change durable; without one there is the admin's token alone.
    """

    def __init__(self, admin: AdminToken | None, clock: Clock | None = None, submit: Submit | None = None) -> None:
        self._admin = admin
        self._clock = clock
        self._submit = submit
        self._by_name: dict[str, Token] = {}
        self._by_digest: dict[bytes, str] = {}
        self._used: dict[str, TokenUse] = {}
        self._was_used = anyio.Event()
        self._one_at_a_time = anyio.Lock()

    async def load(self, store: Store) -> None:
        """Read the tokens that are kept."""
        for token in await store.tokens():
            self._by_name[token.name] = token
        self._sort_out()

    def find(self, digest: bytes, address: str) -> Holder | None:
        """Return whose secret has a digest, or None; it was used from `address`.

        Digests are looked up as they are: what somebody offers gives no hand on its digest, so time tells nothing.
        """
        if self._admin is not None and self._admin.holds(digest):
            return _ADMIN
        name = self._by_digest.get(digest)
        if name is None:
            return None
        token, now = self._by_name[name], self._now()
        former = token.former
        if former is not None and former.digest == digest:
            if former.until <= now:
                return None
            prefix = former.prefix
        else:
            prefix = token.prefix
        expired = token.is_over(now)
        if not expired and (token.used_at is None or (now - token.used_at).total_seconds() >= USED_EVERY_S):
            self._by_name[name] = replace(token, used_at=now, used_from=address)
            self._used[token.id] = TokenUse(token=token.id, at=now, address=address)
            self._was_used.set()
        return Holder(name=name, role=token.role, tags=token.tags, prefix=prefix, expired=expired)

    # What is asked of it

    def views(self) -> list[dict[str, Any]]:
        """Return all tokens as they are shown, by name, the admin's own first."""
        own = [] if self._admin is None else [admin_view(self._admin.origin)]
        return [*own, *(token_view(self._by_name[name], self._now()) for name in sorted(self._by_name))]

    def view(self, name: str) -> dict[str, Any]:
        """Return one as it is shown; raise NotFound."""
        if name == ADMIN and self._admin is not None:
            return admin_view(self._admin.origin)
        return token_view(self._token(name), self._now())

    async def create(
        self, name: str, role: Role, *, tags: tuple[str, ...] = (), expires_at: datetime | None = None,
        description: str = "", who: str = "", audit: Audit | None = None,
    ) -> str:  # fmt: skip
        """Make a token, durably; return its secret, which is told this once.

        Raises InvalidRequest, Conflict where there is one of that name, or too many, and StoreUnavailable.
        """
        if not is_slug(name) or name == ADMIN:
            raise InvalidRequest(f"{name!r} can't be the name of a token")
        now = self._now()
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest(f"{rfc3339(expires_at)} is past")
        async with self._one_at_a_time:
            if name in self._by_name:
                raise Conflict(f"there is a token {name} already: rotate or revoke it")
            if len(self._by_name) >= MOST_TOKENS:
                raise Conflict(f"there are {MOST_TOKENS} tokens: revoke some")
            secret = new_secret()
            token = Token(
                id=new_id(), name=name, role=role, tags=tags, digest=digest_of(secret.encode()),
                prefix=secret[:PREFIX], description=description, created_at=now, created_by=who, expires_at=expires_at,
            )  # fmt: skip
            await self._keep(token, audit)
        return secret

    async def rotate(self, name: str, *, overlap_s: float = OVERLAP_S, audit: Audit | None = None) -> str:
        """Give a token another secret, durably, and return it, which is told this once.

        The one it had stays valid for `overlap_s` seconds; one before that ends now. Raises NotFound, Conflict where it
        has expired, InvalidRequest and StoreUnavailable.
        """
        if not 0 <= overlap_s <= LONGEST_OVERLAP_S:
            raise InvalidRequest("the overlap is at most 30 days")
        async with self._one_at_a_time:
            token, now = self._token(name), self._now()
            if token.is_over(now):
                raise Conflict(f"token {name} has expired: revoke it, and make another one")
            secret = new_secret()
            former = Former(digest=token.digest, prefix=token.prefix, until=now + timedelta(seconds=overlap_s))
            fresh = replace(
                token, digest=digest_of(secret.encode()), prefix=secret[:PREFIX], rotated_at=now,
                former=former if overlap_s else None,
            )  # fmt: skip
            await self._keep(fresh, audit)
        return secret

    async def revoke(self, name: str, *, audit: Audit | None = None) -> None:
        """Remove a token, durably: it opens nothing from now on. Raises NotFound and StoreUnavailable."""
        async with self._one_at_a_time:
            token = self._token(name)
            await self._change(Accept(entries=(), drop_tokens=(token.id,)), audit)
            del self._by_name[name]
            self._used.pop(token.id, None)
            self._sort_out()

    # When they were used

    async def run(self) -> None:
        """Note when tokens were used, now and then."""
        assert self._clock is not None  # noqa: S101 - it was given with what makes changes durable
        while True:
            await self._was_used.wait()
            await self._clock.sleep(USED_EVERY_S)
            self._was_used = anyio.Event()
            await self.note_uses()

    async def note_uses(self) -> None:
        """Note when tokens were used, where any were; what can't be stored now is noted later."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self._change(Accept(entries=(), token_uses=tuple(used.values())), None)
        except StoreUnavailable:
            self._used = {**used, **self._used}
            self._was_used.set()

    def _now(self) -> datetime:
        assert self._clock is not None  # noqa: S101 - it was given with what makes changes durable
        return self._clock.now()

    def _token(self, name: str) -> Token:
        token = self._by_name.get(name)
        if token is None:
            if name == ADMIN and self._admin is not None:
                raise Conflict("the admin token is kept in its file, or in ENGINE_ADMIN_TOKEN: change it there")
            raise NotFound(f"there is no token {name}{near(name, self._by_name)}")
        return token

    async def _keep(self, token: Token, audit: Audit | None) -> None:
        await self._change(Accept(entries=(), keep_tokens=(token,)), audit)
        self._by_name[token.name] = token
        self._sort_out()

    async def _change(self, change: Accept, audit: Audit | None) -> None:
        if self._submit is None:
            raise Conflict("this engine keeps no tokens")
        await self._submit(change, audit)

    def _sort_out(self) -> None:
        self._by_digest = {}
        for name, token in self._by_name.items():
            if token.former is not None:
                self._by_digest[token.former.digest] = name
            self._by_digest[token.digest] = name


def admin_view(origin: str) -> dict[str, Any]:
    """Return the admin's own token as it is shown."""
    absent = dict.fromkeys(
        ("prefix", "created_at", "created_by", "rotated_at", "expires_at", "former", "used_at", "used_from")
    )
    return {
        "name": ADMIN, "role": Role.ADMIN.word, "tags": [], "description": f"the admin token, from {origin}",
        "expired": False, **absent,
    }  # fmt: skip


def token_view(token: Token, now: datetime) -> dict[str, Any]:
    """Return a token as it is shown: nothing of it opens anything."""
    former = token.former if token.former is not None and token.former.until > now else None
    return {
        "name": token.name,
        "role": token.role.word,
        "tags": list(token.tags),
        "description": token.description,
        "prefix": token.prefix,
        "created_at": rfc3339(token.created_at),
        "created_by": token.created_by,
        "rotated_at": _at(token.rotated_at),
        "former": None if former is None else {"prefix": former.prefix, "until": rfc3339(former.until)},
        "expires_at": _at(token.expires_at),
        "expired": token.is_over(now),
        "used_at": _at(token.used_at),
        "used_from": token.used_from or None,
    }


def _at(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
