"""Who may ask for what: roles, tokens, and the browsers of others."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from urllib.parse import urlsplit

from engine.http.problems import Problem
from engine.http.quotas import Guesses
from engine.http.tokens import AdminToken
from engine.plugin import Headers


class Role(IntEnum):
    """What a token may do; each role may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3


class Gate:
    """Lets requests to the API in, or refuses them.

    `host` is what the engine listens on. On a loopback address a Host that names another machine is refused:
    it is how DNS rebinding makes a browser speak to local services.
    """

    def __init__(self, admin: AdminToken, host: str, guesses: Guesses) -> None:
        self._admin = admin
        self._guesses = guesses
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
        if self._on_loopback and not (is_loopback(name) or name == self._host):
            raise Problem(
                403,
                "the engine listens on this machine alone and does not answer to this Host; use 127.0.0.1 or localhost",
                code="wrong_host",
            )
        origin = headers.get("Origin")
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

    def role_of(self, headers: Headers, address: str) -> Role:
        """Return the role of the token in `Authorization: Bearer` or `X-API-Key`.

        Raises Problem 401, or 429 where so many wrong ones came from the address that it is not looked at.
        """
        token = offered(headers)
        if not token:
            raise Problem(
                401,
                "give a token: Authorization: Bearer …, or X-API-Key: …",
                headers={"WWW-Authenticate": 'Bearer realm="trigger-engine"'},
            )
        self._guesses.check(address, token)
        if not self._admin.matches(token.encode("utf-8", "surrogateescape")):
            self._guesses.failed(address, token)
            raise Problem(
                401,
                "the token is not valid",
                headers={"WWW-Authenticate": 'Bearer realm="trigger-engine", error="invalid_token"'},
            )
        self._guesses.passed(address, token)
        return Role.ADMIN


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
