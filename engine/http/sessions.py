"""Sessions: a browser holds a cookie in place of a token.

A session is kept in memory, by the digest of its cookie, and names the digest of the token's secret that began it: it
ends with the token, with the secret where that is rotated, with its time, and with the engine.

**Against requests that other sites have a browser make** (CSRF): the cookie is SameSite=Strict, and it counts only
where the browser itself says that this site's own page asks, in `Sec-Fetch-Site` or `Origin`. What changes nothing may
come without either, as of browsers that send none for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from msgspec import Struct

from engine.http.problems import Problem
from engine.plugin import Headers
from engine.tokens import digest_of

COOKIE = "engine_session"

LONGEST_S = 12 * 3600.0
LONGEST_IDLE_S = 2 * 3600.0

MOST = 1000
"""Sessions at once; beyond, the one that was used longest ago ends."""

_SAFE = frozenset({"GET", "HEAD"})


class Session(Struct, kw_only=True):
    """One session; `secret` is the digest of the token's."""

    secret: bytes
    began_s: float
    used_s: float


class Sessions:
    """All sessions, those used longest ago first."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._all: dict[bytes, Session] = {}

    def begin(self, secret: bytes) -> str:
        """Begin a session of a token, by its digest; return what the cookie holds."""
        cookie = secrets.token_urlsafe(32)
        now_s = self._now_s()
        self._all[digest_of(cookie.encode())] = Session(secret=secret, began_s=now_s, used_s=now_s)
        while len(self._all) > MOST:
            del self._all[next(iter(self._all))]
        return cookie

    def find(self, cookie: str) -> bytes | None:
        """Return the digest of the token's secret of a session that goes on, and note that it was used."""
        key, now_s = digest_of(cookie.encode("utf-8", "surrogateescape")), self._now_s()
        session = self._all.pop(key, None)
        if session is None or now_s - session.began_s > LONGEST_S or now_s - session.used_s > LONGEST_IDLE_S:
            return None
        session.used_s = now_s
        self._all[key] = session
        return session.secret

    def end(self, cookie: str) -> None:
        """End a session, if it is one."""
        self._all.pop(digest_of(cookie.encode("utf-8", "surrogateescape")), None)


def cookie_in(headers: Headers) -> str | None:
    """Return what the session's cookie holds, or None where there is none."""
    # By hand: ours holds nothing that is quoted, and the standard library's parser was slow on what was made for it.
    for pair in headers.get("Cookie", "").split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == COOKIE:
            return value.strip() or None
    return None


def check_own_page(headers: Headers, method: str) -> None:
    """Refuse what comes with rights that a browser adds by itself, unless a page of this site asks.

    That `Origin`, where it is there, is this site's, was seen to before; see `Gate.check_site`.
    """
    site = headers.get("Sec-Fetch-Site")
    if site in ("same-origin", "none"):  # none: an address that somebody typed
        return
    if site is None and (method in _SAFE or "Origin" in headers):
        return
    raise Problem(403, "web pages of other sites may not use a session", code="wrong_origin")
