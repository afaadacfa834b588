"""Texts that stand elsewhere: `{ env = "NAME" }`, `{ file = "path", generate = true }`. They are secrets."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping, Set
from functools import partial
from pathlib import Path

from engine.config.document import KeyPath, Node, Problems, show_value
from engine.errors import EngineError

LARGEST_FILE_BYTES = 64 * 1024
_GENERATED_BYTES = 32

MASK = "***"
"""Stands for a secret where text is shown."""

_PLAIN = re.compile(r"[a-z]{1,12}|[0-9]{1,12}")
_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|(?<!\w)'(?:\\.|[^'\\])*')"""
_NO_WORD_BEFORE = r"(?<!^)(?<![\w (-])"
_NO_WORD_AFTER = r"(?!$)(?![\w ,.;:)-])(?!'t\b)"


class References:
    """Resolves references, remembers every secret value, and makes the files that are to be generated.

    Nothing is written while reading: a missing file of `generate = true` gets a random value in memory, the
    same for all that refer to it, and `write_generated` makes the files once all the rest is right. Without
    `read_files`, such a value stands for every file, there or not, and none is looked at.
    """

    def __init__(self, environment: Mapping[str, str], problems: Problems, *, read_files: bool = True) -> None:
        self.values: set[str] = set()
        self.origins: dict[KeyPath, str] = {}
        self.resolved: dict[KeyPath, str] = {}
        self._environment = environment
        self._problems = problems
        self._read_files = read_files
        self._files: dict[Path, str | None] = {}
        self._generated: dict[Path, tuple[str, Node, KeyPath]] = {}

    def resolve(self, node: Node, path: KeyPath) -> tuple[str, str] | None:
        """Return a reference's text and where it comes from, in words; None after telling of a problem."""
        given = node.value
        for key, expected, kind in (("env", "the name of a variable", str), ("file", "a path", str),
                                    ("generate", "true or false", bool)):  # fmt: skip
            if key in given and not isinstance(given[key].value, kind):
                found = show_value(given[key].value)
                self._problems.at(given[key], (*path, key), f"found {found}, expected {expected}")
                return None
        if ("env" in given) == ("file" in given):
            message = "found both env and file" if "env" in given else "found neither env nor file"
            self._problems.at(node, path, f"{message}, expected one of them")
            return None
        if "generate" in given and "env" in given:
            self._problems.at(given["generate"], (*path, "generate"), "only a file can be generated, no variable")
            return None
        if "env" in given:
            text, origin = self._variable(node, path), f"env {given['env'].value}"
        else:
            text, origin = self._file(node, path), f"file {given['file'].value}"
        if text is None:
            return None
        self.values.add(text)
        self.origins[path] = origin
        self.resolved[path] = text
        return text, origin

    def masked(self, text: str) -> str:
        """Return `text` with every secret in it replaced, also as it is written with escapes."""
        return _without(self.values, text)

    def masked_in(self, sentence: str) -> str:
        """Return a sentence of ours as `masked` does, but for words of its own that happen to be somebody's secret.

        Such sentences quote what was found. So a secret that is a plain word is replaced in quotes, and beside what
        stands beside no word of a sentence, as in `user:word@host`.
        """
        words = {value for value in self.values if _PLAIN.fullmatch(value)}
        sentence = _without(self.values - words, sentence)
        for value in sorted(words, key=len, reverse=True):
            found = re.compile(f"{_QUOTED}|{_NO_WORD_BEFORE}{value}|{value}{_NO_WORD_AFTER}")
            sentence = found.sub(partial(_masked_part, value), sentence)
        return sentence

    def write_generated(self) -> None:
        """Make the files of `generate = true` that are missing: mode 0600, durable, never half-written."""
        for file, (text, node, path) in self._generated.items():
            try:
                _write_new(file, text)
            except FileExistsError:
                self._problems.at(
                    node,
                    path,
                    f"the file {show_value(str(file))} was made by somebody else just now",
                    "start again",
                )
            except OSError as error:
                self._problems.at(node, path, f"the file {show_value(str(file))} can't be made: {error.strerror}")

    def _variable(self, node: Node, path: KeyPath) -> str | None:
        name = node.value["env"].value
        text = self._environment.get(name)
        if text is None:
            self._problems.at(
                node,
                path,
                f"the environment variable {show_value(name)} is not set",
                f"set {name} or name another",
            )
            return None
        return self._sound(node, path, text, f"the environment variable {show_value(name)}")

    def _file(self, node: Node, path: KeyPath) -> str | None:
        written = node.value["file"].value
        generate = "generate" in node.value and node.value["generate"].value
        if not written or "\0" in written:
            self._problems.at(node, path, f"found {show_value(written)}, which is no path")
            return None
        file = Path(os.path.abspath(node.value["file"].place.base / written))
        if file in self._generated:
            return self._generated[file][0]
        if not self._read_files:
            return self._stand_in(file, node, path)
        if file not in self._files:
            try:
                self._files[file] = _read(file)
            except FileNotFoundError:
                if generate:
                    return self._stand_in(file, node, path)
                self._problems.at(
                    node,
                    path,
                    f"there is no file {show_value(str(file))}",
                    "make it, or add generate = true to have it made with a random secret",
                )
                return None
            except (OSError, EngineError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else reason
                self._problems.at(node, path, f"the file {show_value(str(file))} can't be read: {reason}")
                return None
        return self._sound(node, path, self._files[file] or "", f"the file {show_value(str(file))}")

    def _stand_in(self, file: Path, node: Node, path: KeyPath) -> str:
        text = secrets.token_urlsafe(_GENERATED_BYTES)
        self._generated[file] = (text, node, path)
        return text

    def _sound(self, node: Node, path: KeyPath, text: str, what: str) -> str | None:
        if not text.strip():
            self._problems.at(node, path, f"{what} is empty, and an empty secret protects nothing")
            return None
        if "\0" in text or not _encodable(text):
            self._problems.at(node, path, f"{what} holds what is no text (NUL, or bytes that are not UTF-8)")
            return None
        return text


def _without(values: Set[str], text: str) -> str:
    for value in sorted(values, key=len, reverse=True):
        for form in {value, repr(value)[1:-1], show_value(value)[1:-1]}:
            if form:
                text = text.replace(form, MASK)
    return text


def _masked_part(value: str, part: re.Match[str]) -> str:
    return part[0].replace(value, MASK)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(file: Path) -> str:
    # O_NONBLOCK: a FIFO with nobody at its other end must not hold the start.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise EngineError("it is no regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST_FILE_BYTES:
        raise EngineError(f"it is larger than {LARGEST_FILE_BYTES} bytes")
    text = content.decode()
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _write_new(file: Path, text: str) -> None:
    """Write a file that must not be there yet, under another name first: it is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name[:200]}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, file)
    finally:
        draft.unlink()
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
