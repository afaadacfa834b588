"""What requests that were refused are often nearly like: other keys, other bodies, signatures written in other ways."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from engine.plugin import Request
from plugins.sources.webhook.schemes import MOST_SIGNATURES
from plugins.sources.webhook.texts import to_bytes
from plugins.sources.webhook.verify import STANDARD_PREFIX

LONGEST_SIGNATURE = 512
MOST_INFLATED_BYTES = 1024 * 1024


class Offer(NamedTuple):
    """A signature as bytes, and how it was written."""

    digest: bytes
    encoding: str


def keys_like(texts: tuple[str, ...]) -> Iterator[tuple[bytes, str]]:
    """Give the keys that people make of a secret by mistake."""
    for text in texts:
        bare = text.strip().removeprefix(STANDARD_PREFIX)
        yield to_bytes(text.strip()), "without the white space around it, or as plain text"
        yield to_bytes(f"{text}\n"), "with a line feed at its end"
        yield to_bytes(bare), "without whsec_, as plain text"
        for key in decoded(to_bytes(bare), "base64"):
            yield key, "decoded from base64"
        for key in decoded(to_bytes(bare), "hex"):
            yield key, "decoded from hex"
        yield base64.b64encode(to_bytes(text)), "in base64 once more"
        yield to_bytes(text.lower()), "in small letters"
        yield to_bytes(text.upper()), "in capital letters"
    yield b"", "left empty"


def bodies_like(request: Request) -> Iterator[tuple[bytes, str]]:
    """Give the bodies that the one received is often made of."""
    body = request.body
    yield body.rstrip(b"\r\n"), "without the line feed at its end"
    yield body + b"\n", "with a line feed at its end"
    yield body.replace(b"\r\n", b"\n"), "with line feeds for its carriage returns"
    yield body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), "with carriage returns at its line feeds"
    yield b"", "when it was empty"
    yield gzip.compress(body, mtime=0), "when it was compressed"
    if (inflated := _inflated(body)) is not None:
        yield inflated, "before it was compressed"
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return
    for separators, said in (((",", ":"), "written without spaces"), ((", ", ": "), "written with spaces")):
        for ascii_only, more in ((False, ""), (True, ", with its letters escaped")):
            for in_order, order in ((False, ""), (True, ", with its members sorted")):
                text = json.dumps(value, separators=separators, ensure_ascii=ascii_only, sort_keys=in_order)
                yield to_bytes(text), f"as JSON {said}{more}{order}"
    for indent in (2, 4):
        yield to_bytes(json.dumps(value, indent=indent, ensure_ascii=False)), f"as JSON indented by {indent}"


def _inflated(body: bytes) -> bytes | None:
    for window in (31, 15):
        try:
            inflate = zlib.decompressobj(window)
            found = inflate.decompress(body, MOST_INFLATED_BYTES)
        except zlib.error:
            continue
        if inflate.eof:
            return found
    return None


def digests_in(request: Request) -> Iterator[tuple[str, str, str]]:
    """Give digests of the body that a sender told (RFC 9530, RFC 3230, RFC 1864): header, algorithm, base64."""
    names = {"sha-256": "sha256", "sha-512": "sha512", "sha": "sha1", "md5": "md5"}
    for header in ("Content-Digest", "Digest"):
        for part in request.headers.get(header, "").split(","):
            name, _, value = part.strip().partition("=")
            if (algorithm := names.get(name.lower())) is not None:
                yield header, algorithm, value.strip().strip(":")
    if (md5 := request.headers.get("Content-MD5")) is not None:
        yield "Content-MD5", "md5", md5.strip()


def offers_in(value: str) -> list[Offer]:
    """Return all that could be a signature in a header, however it is written."""
    found: list[Offer] = []
    parts = value.replace(",", " ").split()
    for part in parts[: 2 * MOST_SIGNATURES]:
        for text in {part, part.partition("=")[2], part.partition("=")[0], part.partition(":")[2]}:
            bare = to_bytes(text.strip("\"'"))[:LONGEST_SIGNATURE]
            for encoding in ("hex", "base64"):
                found += [Offer(digest, encoding) for digest in decoded(bare, encoding)]
    return found


def decoded(text: bytes, encoding: str) -> Iterator[bytes]:
    """Give what a text stands for: nothing, where it is not of that encoding; in base64 of either alphabet."""
    try:
        if encoding == "hex":
            yield binascii.unhexlify(text)
        else:
            padded = text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4)
            yield base64.b64decode(padded.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except (binascii.Error, ValueError):
        return


def from_base64(text: str) -> str:
    return next((found.decode("utf-8", "replace") for found in decoded(to_bytes(text.strip()), "base64")), "")


def from_percent(text: str) -> str:
    return unquote(text.strip())
