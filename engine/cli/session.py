"""What every command knows: where the configuration is, how to print, and how to reach the engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from engine.cli.failures import USAGE, CommandFailed

if TYPE_CHECKING:
    from engine.cli.client import Client
    from engine.cli.profiles import Profile
    from engine.config import Config, Reach

ConfigFiles = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="FILE", help="Configuration file; repeatable, later ones win."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The engine's address (or ENGINE_URL).")]
Token = Annotated[str | None, typer.Option("--token", metavar="TOKEN", help="A token of the API (or ENGINE_TOKEN).")]

ELSEWHERE = (
    "it has only begun to start or to end, or its address has been another one since its start: "
    "name that with --url, or start the engine anew"
)
"""Why an engine that runs does not answer where its configuration says, and the way out."""

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - never bound here


class Session(Struct, frozen=True, kw_only=True):
    """The options that stand on every command."""

    config: tuple[str, ...] = ()
    json: bool = False
    url: str | None = None
    token: str | None = None
    profile: str | None = None

    @classmethod
    def of(
        cls,
        ctx: typer.Context,
        config: list[str] | None = None,
        as_json: bool = False,
        url: str | None = None,
        token: str | None = None,
        profile: str | None = None,
    ) -> Session:
        """Return the options of a command; those before the command's name hold where it gives none."""
        outer = ctx.obj if isinstance(ctx.obj, Session) else Session()
        return cls(
            config=tuple(config or ()) or outer.config,
            json=as_json or outer.json,
            url=url or outer.url,
            token=token or outer.token,
            profile=profile or outer.profile,
        )

    @property
    def named(self) -> bool:
        """Whether an engine is named: where it does not answer, nothing else is to be looked at."""
        return bool(self.url or self.profile or os.environ.get("ENGINE_PROFILE"))

    @property
    def elsewhere(self) -> bool:
        """Whether an engine is to be asked rather than the configuration that is here."""
        return self.named or bool(os.environ.get("ENGINE_URL"))

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

    def holder(self) -> int | None:
        """Return the process of the engine that works on the configured data directory, whether it answers or not."""
        from engine.store.opening import holder_of

        return holder_of(self.reach().data / "engine.lock")

    def client(self) -> Client:
        """Return a client of the engine that the options, a profile, the environment or the configuration name.

        The token of a profile goes to its own address alone, and the admin token of the data directory to this
        machine and the configured address alone.
        """
        from engine.cli.client import Client, parts_of
        from engine.errors import ConfigError
        from engine.http.access import is_loopback
        from engine.http.tokens import read_admin_token

        url, profile = self._address()
        token, origin = self._token(profile)
        ca_file = None if profile is None else profile.ca_file
        if url and token:
            return Client(url, token, origin, ca_file=ca_file)
        foreign = url is not None and not is_loopback(parts_of(url).hostname or "")
        wanting = CommandFailed(f"give a token for {url}: --token, ENGINE_TOKEN, or one in a profile", USAGE)
        try:
            found = self.reach()
        except ConfigError:
            if foreign:
                raise wanting from None
            raise
        own = url_of(found)
        if url and foreign and url.rstrip("/") != own and not token:
            raise wanting
        if not url and own is None:
            raise CommandFailed("[http] listen takes any free port: say which with --url", USAGE)
        if not token:
            token, origin, _ = read_admin_token(found.data, os.environ)
        if url:
            return Client(url, token, origin, ca_file=ca_file)
        return Client(str(own), token, origin, ca_file=ca_file, silent=lambda: self._silent(found))

    def _silent(self, found: Reach) -> str | None:
        """Say which engine works on the configured directory, though nothing answers at the configured address."""
        pid = self.holder()
        return None if pid is None else f"process {pid} holds {found.data}, so an engine runs; {ELSEWHERE}"

    def _address(self) -> tuple[str | None, Profile | None]:
        """Return the address that is named, and the profile where that names it: the options go first."""
        if self.url and self.profile:
            raise CommandFailed("--url and --profile both name an engine: give one of them", USAGE)
        given = self.url or (None if self.profile else os.environ.get("ENGINE_URL"))
        name = self.profile or os.environ.get("ENGINE_PROFILE")
        if given or not name:
            return given or None, None
        from engine.cli.profiles import find_profile

        profile = find_profile(name)
        return profile.url, profile

    def _token(self, profile: Profile | None) -> tuple[str | None, str]:
        if self.token:
            return self.token, "--token"
        if profile is not None and (found := profile.read_token()) is not None:
            return found, f"profile {profile.name}"
        return os.environ.get("ENGINE_TOKEN"), "the environment variable ENGINE_TOKEN"


def url_of(found: Reach) -> str | None:
    """Return the address at which the configured engine is reached, or None where only it knows its port."""
    host = _ANY_ADDRESS.get(found.host, found.host)
    if found.port == 0:
        return None
    return f"http://[{host}]:{found.port}" if ":" in host else f"http://{host}:{found.port}"
