"""What every command knows: where the configuration is, how to print, and how to reach the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from msgspec import Struct

from engine.cli.failures import USAGE, CommandFailed

if TYPE_CHECKING:
    from engine.cli.client import Client
    from engine.config import Config, Reach

ConfigFiles = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="FILE", help="Configuration file; repeatable, later ones win."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The engine's address (or ENGINE_URL).")]
Token = Annotated[str | None, typer.Option("--token", metavar="TOKEN", help="A token of the API (or ENGINE_TOKEN).")]

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - never bound here


class Session(Struct, frozen=True, kw_only=True):
    """The options that stand on every command."""

    config: tuple[str, ...] = ()
    json: bool = False
    url: str | None = None
    token: str | None = None

    @classmethod
    def of(
        cls, ctx: typer.Context, config: list[str] | None, json: bool, url: str | None, token: str | None
    ) -> Session:
        """Return the options of a command; those before the command's name hold where it gives none."""
        outer = ctx.obj if isinstance(ctx.obj, Session) else Session()
        return cls(
            config=tuple(config or ()) or outer.config,
            json=json or outer.json,
            url=url or outer.url,
            token=token or outer.token,
        )

    def load(self, *, examine: bool = False) -> Config:
        """Read the configuration; raise ConfigError with all that is wrong. For `examine` see `engine.config.load`."""
        from engine.config import find_files, load

        return load(find_files(self.config, os.environ), environment=os.environ, examine=examine)

    def reach(self) -> Reach:
        """Return where the engine and its data are, whatever else is wrong with the configuration.

        Raises ConfigError, with all that is wrong, where just this can't be told.
        """
        from engine.config import Reach, find_files, reach

        found = reach(find_files(self.config, os.environ), os.environ)
        if found is not None:
            return found
        config = self.load()
        engine, http = config.engine, config.http
        return Reach(host=http.host, port=http.port, data=engine.data, plugins=engine.plugins)

    def client(self) -> Client:
        """Return a client of the engine that the options, the environment or the configuration name.

        The admin token of the data directory goes to this machine and the configured address alone.
        """
        from engine.cli.client import Client
        from engine.http.access import is_loopback
        from engine.http.tokens import read_admin_token

        url = self.url or os.environ.get("ENGINE_URL")
        token, origin = self._token()
        if url and token:
            return Client(url, token, origin)
        found = self.reach()
        own = url_of(found)
        if not token:
            host = urlsplit(url).hostname if url else None
            if url and host and not is_loopback(host) and url.rstrip("/") != own:
                raise CommandFailed(f"give a token for {url}: --token, or ENGINE_TOKEN", USAGE)
            token, origin, _ = read_admin_token(found.data, os.environ)
        if not url and own is None:
            raise CommandFailed("[http] listen takes any free port: say which with --url", USAGE)
        return Client(url or str(own), token, origin)

    def _token(self) -> tuple[str | None, str]:
        if self.token:
            return self.token, "--token"
        return os.environ.get("ENGINE_TOKEN"), "the environment variable ENGINE_TOKEN"


def url_of(found: Reach) -> str | None:
    """Return the address at which the configured engine is reached, or None where only it knows its port."""
    host = _ANY_ADDRESS.get(found.host, found.host)
    if found.port == 0:
        return None
    return f"http://[{host}]:{found.port}" if ":" in host else f"http://{host}:{found.port}"
