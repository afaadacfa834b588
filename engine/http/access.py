"""Who may ask for what: roles, tokens, and the browsers of others."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from engine.config.people import TrustedHeader
from engine.http.keyring import Holder, Keyring
from engine.http.problems import Problem
from engine.http.quotas import Guesses
from engine.http.sessions import Sessions, check_own_page, cookie_in
from engine.networks import address_of
from engine.plugin import Headers
from engine.tokens import Role as Role  # for those who ask for one
from engine.tokens import Who, digest_of

LONGEST_USER = 128
NOT_GUESSED = 32
"""Characters of a token that nobody guesses, as all have that the engine makes: a right one is never turned away."""

REALM = 'Bearer realm="trigger-engine"'


class Gate:
    """Lets requests to the API in, or refuses them.

    `host` is what the engine listens on. On a loopback address a Host that names another machine is refused:
    it is how DNS rebinding makes a browser speak to local services. `hosts` are names by which it is reached too,
    through a proxy; where there are some, other names are refused on all addresses.
    """

    def __init__(
        self, keyring: Keyring, host: str, guesses: Guesses, sessions: Sessions, *,
        trusted: TrustedHeader | None = None, hosts: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.sessions = sessions
        self._keyring = keyring
        self._guesses = guesses
        self._trusted = trusted
        self._hosts = frozenset(name.lower() for name in hosts)
        self._host = host.lower()
        self._on_loopback = is_loopback(host)

    def check_site(self, headers: Headers, *, http_1_0: bool = False) -> None:
        """Refuse requests that a web page of another site made, or that came by another site's name."""
        host = headers.get("Host")
        if host is None:
            if http_1_0 and "Origin" not in headers:
                return
            raise Problem(400, "the request has no Host header", code="malformed_request")
        name = _host_name(host)
        if name is None:
            raise Problem(400, "the Host header is not valid", code="malformed_request")
        if self._hosts and not (name in self._hosts or name == self._host or is_address(name) or is_loopback(name)):
            raise Problem(
                403, "the engine does not answer to this Host; [http] hosts has the names by which it is reached",
                code="wrong_host",
            )  # fmt: skip
        if self._on_loopback and not (is_loopback(name) or name == self._host or name in self._hosts):
            raise Problem(
                403,
                "the engine listens on this machine alone and does not answer to this Host; use 127.0.0.1 or localhost",
                code="wrong_host",
            )
        origin = headers.get("Origin")
        if origin == "null" and headers.get("Sec-Fetch-Site") == "same-origin":
            return  # a form of a page of ours, which tells nobody where it is (Referrer-Policy: no-referrer)
        if origin is not None and not _same_site(origin, host):
            raise Problem(403, "web pages of other sites may not use the API", code="wrong_origin")

    def check_page(self, headers: Headers) -> None:
        """Refuse requests to hooks that a web page of another site made; programs send none of these headers.

        A hook without a proof would else be open to every page that a browser on this machine, or behind the same
        firewall, shows. The `Host` alone proves nothing against a program: tunnels and proxies change it.
        """
        if "Origin" in headers:
            self.check_site(headers)
        elif headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            raise Problem(403, "web pages of other sites may not use hooks", code="wrong_origin")

    def who(self, headers: Headers, method: str, address: str, peer: str = "") -> Who:
        """Return who asks: the token in `Authorization: Bearer` or `X-API-Key`, else what a browser adds itself.

        Raises Problem 401, 403 where another site has a browser ask, or 429 where so many wrong tokens came from the
        address that another wrong one, or one that is so short that it can be guessed, is not answered.
        """
        token = offered(headers)
        if token:
            holder, _ = self._holder(token, address)
            return _who(holder, address, "token")
        who = self.guest(headers, method, address, peer)
        if who is None:
            raise Problem(
                401, "give a token: Authorization: Bearer …, or X-API-Key: …", headers={"WWW-Authenticate": REALM}
            )
        return who

    def guest(self, headers: Headers, method: str, address: str, peer: str = "") -> Who | None:
        """Return who asks by what a browser adds itself: the session of the cookie, or the user of a trusted proxy.

        None where that is nobody. `peer` is who is connected. Raises Problem 403.
        """
        return self._session(headers, method, address) or self._signed_in(headers, method, address, peer)

    def _session(self, headers: Headers, method: str, address: str) -> Who | None:
        cookie = cookie_in(headers)
        secret = None if cookie is None else self.sessions.find(cookie)
        holder = None if secret is None else self._keyring.find(secret, address)
        if holder is None or holder.expired:
            return None
        check_own_page(headers, method)
        return _who(holder, address, "session")

    def _signed_in(self, headers: Headers, method: str, address: str, peer: str) -> Who | None:
        trusted = self._trusted
        if trusted is None or peer not in trusted.networks:
            return None
        users = values_of(headers, trusted.name)
        if not users or not users[0]:
            return None
        user = users[0]
        if len(users) > 1 or len(user) > LONGEST_USER or not user.isprintable():
            raise Problem(403, f"{trusted.name} is no single name: the proxy has to say who asks", code="unknown_user")
        role = trusted.role_of(user)
        if role is None:
            raise Problem(403, "you have signed in, but have no role here: ask an admin for one", code="no_role")
        # The proxy signs a browser in for whatever it is made to ask, as a cookie does.
        check_own_page(headers, method)
        return Who(name=user, role=role, address=address, means="proxy")

    def enter(self, token: str, address: str) -> tuple[Who, bytes]:
        """Return whose a token is, and the digest of its secret; raise as `who` does."""
        holder, digest = self._holder(token, address)
        return _who(holder, address, "session"), digest

    def is_encrypted(self, headers: Headers) -> bool:
        """Tell whether the browser speaks TLS, with a proxy before this engine; its page's own address says so."""
        return headers.get("Origin", "").startswith("https://")

    def _holder(self, token: str, address: str) -> tuple[Holder, bytes]:
        digest = digest_of(token.encode("utf-8", "surrogateescape"))
        if len(token) < NOT_GUESSED:
            self._guesses.check(address, token)
        holder = self._keyring.find(digest, address)
        if holder is None:
            self._guesses.check(address, token)
            self._guesses.failed(address, token)
            raise Problem(
                401, "the token is not valid", headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
            )
        if holder.expired:
            raise Problem(
                401, "the token has expired: an admin can make another one", code="token_expired",
                headers={"WWW-Authenticate": f'{REALM}, error="invalid_token", error_description="expired"'},
            )  # fmt: skip
        self._guesses.passed(address, token)
        return holder, digest


def _who(holder: Holder, address: str, means: str) -> Who:
    return Who(
        name=holder.name, role=holder.role, tags=holder.tags, prefix=holder.prefix, address=address, means=means
    )  # fmt: skip


def values_of(headers: Headers, name: str) -> list[str]:
    """Return all values of a header, of which one alone may be there."""
    every = getattr(headers, "getall", None)
    if every is not None:
        return list(every(name, ()))
    value = headers.get(name)
    return [] if value is None else [value]


def offered(headers: Headers) -> str | None:
    """Return the token that a request offers, whatever it is worth."""
    scheme, _, credential = headers.get("Authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address stands for this machine alone."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Tell whether a host is an address, and no name that somebody's DNS says anything of."""
    return address_of(host.strip("[]")) is not None


def _host_name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.hostname is None or parts.netloc != host or "@" in host:
        return None
    return parts.hostname


def _same_site(origin: str, host: str) -> bool:
    try:
        site, own = urlsplit(origin), urlsplit(f"//{host}")
        default = {"http": 80, "https": 443}.get(site.scheme)
        if default is None or site.hostname is None:
            return False
        return (site.hostname, site.port or default) == (own.hostname, own.port or default)
    except ValueError:
        return False
