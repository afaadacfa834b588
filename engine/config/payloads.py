"""What the configuration says of events' data: what it has to look like, and what of it is never kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from engine.config.document import KeyPath, Node, show_value
from engine.config.source_ids import Tell
from engine.errors import SchemaError
from engine.payload import encode_json
from engine.plugin.settings import Secret
from engine.redaction import Redaction, place_of
from engine.schemas import LARGEST_BYTES, compiled
from engine.triggers import PayloadSchema
from engine.units import format_size

SHORTEST_KEY = 16
"""Characters of a hash's key: of a shorter one the values could be found by trying."""


class SchemaFile(Struct, frozen=True, kw_only=True):
    """A JSON Schema in a file of its own."""

    file: Annotated[Path, Meta(description="The file, JSON, of at most 256 KiB.")]


SchemaTable = Annotated[dict[str, Any], Meta(extra={"kind": "data"})] | SchemaFile
"""A JSON Schema as a table, or the file that holds one."""


class RedactTable(Struct, frozen=True, kw_only=True):
    """What of events is replaced before anything is stored, matched or shown."""

    paths: Annotated[tuple[str, ...], Meta(min_length=1, description="Where, such as `data.items[*].secret`.")]
    hash: Annotated[
        Secret | None,
        Meta(description="The key of a hash that takes the place of values, so that equal ones stay equal."),
    ] = None


class SecurityTable(Struct, frozen=True, kw_only=True):
    """What keeps secrets and powers where they belong."""

    redact: Annotated[
        tuple[str, ...] | RedactTable | None,
        Meta(description="Paths of values that are replaced in every event, whatever source it is from."),
    ] = None
    api_runners: Annotated[
        tuple[str, ...],
        Meta(description="Runners that jobs of the API may have, such as `http`; `*` stands for anything."),
    ] = ()
    api_commands: Annotated[
        tuple[str, ...],
        Meta(
            description="What such runners may start on this machine: programs as they are written in `command`, and "
            "functions, such as `reports:*`."
        ),
    ] = ()
    api_sources: Annotated[
        tuple[str, ...],
        Meta(
            description="Sources and timers that triggers of the API may be on, such as `cron`; `sources.NAME` is one "
            "of `[sources]`."
        ),
    ] = ()


class Payloads:
    """Makes schemas and redactions ready, and tells what is wrong with them.

    `schemas` are the files that were read; `readable` those that may be, None for any.
    """

    def __init__(self, root: Node, tell: Tell) -> None:
        self._root = root
        self._tell = tell
        self.schemas: set[Path] = set()

    def schema(self, path: KeyPath, given: dict[str, Any] | SchemaFile | None, readable: Collection[Path] | None) -> (
        PayloadSchema | None
    ):  # fmt: skip
        """Return a schema that stands at a key path; None where there is none, or it is wrong."""
        if given is None:
            return None
        name, at = "", path
        if isinstance(given, SchemaFile):
            name, at = given.file.name, (*path, "file")
            text = self._read(at, given.file, readable)
            if text is None:
                return None
        else:
            text = encode_json(given).decode()
        try:
            compiled(text)
        except SchemaError as error:
            if name:
                where = f" at {error.pointer}" if error.pointer else ""
                self._tell(at, f"the schema in {show_value(name)}{where} {error}", error.hint)
            else:
                self._tell((*path, *_keys(error.pointer)), str(error), error.hint)
            return None
        return PayloadSchema(text=text, name=name)

    def _read(self, path: KeyPath, file: Path, readable: Collection[Path] | None) -> str | None:
        shown = show_value(str(file))
        if readable is not None and file not in readable:
            message = f"the file {shown} is not one that the engine reads already"
            self._tell(path, message, "no other file is read for a configuration that was sent")
            return None
        try:
            content = _content(file)
        except OSError as error:
            self._tell(path, f"the file {shown} can't be read: {error.strerror}", None)
            return None
        self.schemas.add(file)
        if content is None:
            self._tell(path, f"{shown} is no regular file", None)
        elif len(content) > LARGEST_BYTES:
            self._tell(path, f"the file {shown} is larger than {format_size(LARGEST_BYTES)}", None)
        else:
            try:
                return content.decode()
            except UnicodeDecodeError:
                self._tell(path, f"the file {shown} is not UTF-8", None)
        return None

    def redaction(self, path: KeyPath, given: tuple[str, ...] | RedactTable | None) -> Redaction | None:
        """Return what is replaced, of what stands at a key path; None where that is nothing."""
        if given is None or given == ():
            return None
        key = None
        if isinstance(given, RedactTable):
            path, texts = (*path, "paths"), given.paths
            key = None if given.hash is None else given.hash.reveal().encode("utf-8", "surrogatepass")
            if key is not None and len(key) < SHORTEST_KEY:
                self._tell(
                    (*path[:-1], "hash"), f"has fewer than {SHORTEST_KEY} characters",
                    'have one made: hash = { file = "redact.key", generate = true }',
                )  # fmt: skip
        else:
            texts = given
        places = []
        for index, text in enumerate(texts):
            try:
                places.append(place_of(text))
            except ValueError as error:
                self._tell((*path, index), f"found {show_value(text)}, {error}", None)
        return Redaction(places=tuple(places), key=key)


def _keys(pointer: str) -> list[str]:
    """Return the parts of a JSON pointer."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _content(file: Path) -> bytes | None:
    """Return what a file holds, and no more than a byte too much; None where it is no regular file."""
    # O_NONBLOCK: a FIFO with nobody at its other end must not hold the start.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(LARGEST_BYTES + 1)
    finally:
        os.close(descriptor)
