"""Profiles: engines by a name, with their addresses and tokens, in a file of the user's own.

[production]
url = "https://engine.example.com"
token_file = "production.token"
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.cli.failures import USAGE, CommandFailed
from engine.cli.output import say

PLACE = ("trigger-engine", "profiles.toml")


class Profile(Struct, frozen=True, kw_only=True):
    """An engine by its name: where it is, and the token for it.

    `file` is where it stands, by which its relative paths go.
    """

    name: str
    file: Path
    url: str
    token: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None

    def read_token(self) -> str | None:
        """Return its token, or None where it has none; a file that others may read is warned of."""
        if self.token is not None:
            _warn_of_readers(self.file)
            return self.token
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise CommandFailed(f"profile {self.name}: {self.token_file} can't be read: {why}", USAGE) from None
        if not token:
            raise CommandFailed(f"profile {self.name}: {self.token_file} is empty: write a token into it", USAGE)
        _warn_of_readers(self.token_file)
        return token


class _Written(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile as it is written."""

    url: str
    token: str | None = None
    token_file: str | None = None
    ca_file: str | None = None


def profiles_file(environment: Mapping[str, str]) -> Path:
    """Return where the profiles are, by the XDG Base Directory Specification; a relative XDG_CONFIG_HOME is ignored."""
    given = environment.get("XDG_CONFIG_HOME", "")
    base = Path(given) if given.startswith("/") else Path(os.path.expanduser("~/.config"))
    return base.joinpath(*PLACE)


def find_profile(name: str) -> Profile:
    """Return a profile; raise CommandFailed where there is none of that name, or the file is wrong."""
    file = profiles_file(os.environ)
    known = read_profiles(file)
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}" if known else "there are none"
        raise CommandFailed(f"there is no profile {name!r} in {file}: {hint}", USAGE)
    return known[name]


def read_profiles(file: Path) -> dict[str, Profile]:
    """Return all profiles of a file; none where it is not there."""
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
        written = msgspec.convert(tables, dict[str, _Written])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CommandFailed(f"{file} can't be read: {error.strerror}", USAGE) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandFailed(f"{file}: {error}", USAGE) from None
    except msgspec.ValidationError as error:
        example = '[production] with url = "https://…", and token or token_file'
        raise CommandFailed(f"{file}: {error}; a profile is a table such as {example}", USAGE) from None
    for name, one in written.items():
        if one.token is not None and one.token_file is not None:
            raise CommandFailed(f"{file}: profile {name} has both token and token_file: leave one out", USAGE)
    return {
        name: Profile(
            name=name, file=file, url=one.url, token=one.token,
            token_file=_beside(file, one.token_file), ca_file=_beside(file, one.ca_file),
        )
        for name, one in written.items()
    }  # fmt: skip


def _beside(file: Path, path: str | None) -> Path | None:
    return None if path is None else file.parent / Path(path).expanduser()


def _warn_of_readers(file: Path) -> None:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return
    if mode & 0o077:
        say(f"{file} holds a token and others may read it: chmod 600 {file}", error=True)
