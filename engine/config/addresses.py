"""Where the engine listens, and where its store is: the texts of `[http] listen` and `[store] url`."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

_LISTEN = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>\d{1,5})\Z", re.ASCII
)
_SQLITE = "sqlite:///"


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[ipv6]:port`; raise ValueError, in words."""
    match = _LISTEN.match(text)
    host = (match["v6"] or match["host"]) if match else ""
    if match is None or int(match["port"]) > 65535 or (match["v6"] and not _is_address(host)):
        raise ValueError('expected "host:port" or "[ipv6]:port", such as "127.0.0.1:8080"')
    return host, int(match["port"])


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host: `localhost`, 127.0.0.0/8 or ::1."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def parse_store_url(text: str, base: Path) -> Path:
    """Return the file of a `sqlite:///path` URL, relative to `base`; raise ValueError, in words."""
    if not text.startswith(_SQLITE):
        raise ValueError('but only SQLite is built: expected sqlite:/// and a path, "sqlite:///data/engine.db"')
    written = text.removeprefix(_SQLITE)
    if not written or written.startswith(":memory:") or set(written) & set("?#\0"):
        raise ValueError("which names no file; the store is a file, given by its path alone")
    file = Path(os.path.abspath(base / written))
    if written.endswith("/") or file.is_dir():
        raise ValueError("which is a directory; name a file in it")
    return file


def store_url(file: Path) -> str:
    """Return the URL of a store's file."""
    return f"{_SQLITE}{file}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
