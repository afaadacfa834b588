"""Style, scripts and images of the page, from inside the package.

They are in a folder named after all that they hold: so browsers keep them for ever, and modules find each other by
their plain names.
"""

from __future__ import annotations

import gzip
from hashlib import sha256
from importlib.resources import files
from typing import Final

from msgspec import Struct

from engine.http.calls import Call
from engine.http.problems import Problem
from engine.plugin import Headers, Response

PREFIX: Final = "/assets/"
_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class Asset(Struct, frozen=True, kw_only=True):
    """One file, as it is and packed."""

    kind: str
    plain: bytes
    packed: bytes


class Assets:
    """All files of the page by their names. `folder` changes with what any of them holds."""

    def __init__(self) -> None:
        self._files: dict[str, Asset] = {}
        digest = sha256()
        for file in sorted(files("engine.http.page").joinpath("assets").iterdir(), key=lambda one: one.name):
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is None:
                continue  # a licence, or what an editor left
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)} ".encode() + content)
            self._files[file.name] = Asset(kind=kind, plain=content, packed=gzip.compress(content, 9, mtime=0))
        self.folder = digest.hexdigest()[:12]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def url(self, name: str) -> str:
        """Return where a file is; raise KeyError where there is none."""
        if name not in self._files:
            raise KeyError(name)
        return f"{PREFIX}{self.folder}/{name}"

    async def get(self, call: Call) -> Response:
        """Answer with a file; those of another version are gone, as their modules would not fit together."""
        folder, _, name = call.parameters["name"].partition("/")
        asset = self._files.get(name)
        if asset is None or folder != self.folder:
            raise Problem(404, "there is no such file")
        headers = {
            "Content-Type": asset.kind,
            "Cache-Control": "public, max-age=31536000, immutable",
            "ETag": f'"{self.folder}"',
            "Vary": "Accept-Encoding",
        }
        if call.request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status=304, headers=headers)
        if takes_gzip(call.request.headers):
            return Response(body=asset.packed, headers={**headers, "Content-Encoding": "gzip"})
        return Response(body=asset.plain, headers=headers)


def takes_gzip(headers: Headers) -> bool:
    """Tell whether who asks takes gzip (RFC 9110, 12.5.3)."""
    for part in headers.get("Accept-Encoding", "").lower().split(","):
        coding, _, weight = part.strip().partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "").rstrip("0.") not in ("q=",)
    return False


ASSETS: Final = Assets()
