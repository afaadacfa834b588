"""The admin token: where it comes from, and how it is kept. It is never logged."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from engine.errors import EngineError

VARIABLE = "ENGINE_ADMIN_TOKEN"
FILE_NAME = "admin.token"
SHORTEST = 16
"""Characters; a shorter token from the environment can be guessed, and is warned of."""

_PRIVATE = 0o600
_OTHERS = 0o077
_LONGEST_BYTES = 4096

log = logging.getLogger("engine.http")


class AdminToken:
    """The token that has all roles; kept as a digest.

    One that comes from a file follows the file: after a rotation the old one is refused at once.
    `origin` says in words where it comes from.
    """

    def __init__(
        self,
        digest: bytes,
        origin: str,
        path: Path | None = None,
        stamp: tuple[int, int, int] | None = None,
    ) -> None:
        self._digest = digest
        self._path = path
        self._stamp = stamp
        self.origin = origin
        self.on_change: Callable[[], None] = lambda: None
        """What hears that another token is in the file."""

    @classmethod
    def from_text(cls, token: str, origin: str = "text") -> AdminToken:
        """Return a token that is given, and stays."""
        return cls(_digest(token.encode()), origin)

    @classmethod
    def open(cls, data: Path, environment: Mapping[str, str], *, create: bool = True) -> AdminToken:
        """Return the token from `ENGINE_ADMIN_TOKEN`, else from the file `admin.token` in `data`.

        With `create` a missing file is made, with 256 random bits and mode 0600, durable when this returns.
        Raises EngineError where the token is empty, or the file can't be read or made.
        """
        token, origin, path = read_admin_token(data, environment, create=create)
        # No stamp yet: the first use reads the file once more, so no change between the two goes unseen.
        return cls(_digest(token.encode()), origin, path)

    def matches(self, candidate: bytes) -> bool:
        """Compare with what somebody offered, in a time that tells nothing about the token."""
        return self.holds(_digest(candidate))

    def holds(self, digest: bytes) -> bool:
        """Compare with the digest of what somebody offered."""
        self._follow()
        return hmac.compare_digest(self._digest, digest)

    def _follow(self) -> None:
        # A stat of one local file, and only for requests to the API: cheaper than a thread.
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp or stamp is None:
            return
        try:
            digest = _digest(_read(self._path).encode())
        except EngineError as error:
            log.warning("The admin token was not read again: %s", error, extra={"action": "token_unreadable"})
            return
        self._stamp = stamp
        if digest != self._digest:
            self._digest = digest
            log.info("The admin token was changed", extra={"action": "token_changed", "path": str(self._path)})
            self.on_change()


def token_path(data: Path) -> Path:
    """Return where the admin token is kept in the engine's data directory."""
    return data / FILE_NAME


def read_admin_token(
    data: Path, environment: Mapping[str, str], *, create: bool = False
) -> tuple[str, str, Path | None]:
    """Return the admin token, where it comes from in words, and its file where it is kept in one.

    Raises EngineError where there is none (and `create` is false), or it is empty or unreadable.
    """
    given = environment.get(VARIABLE)
    if given is not None:
        if not given.strip():
            raise EngineError(f"{VARIABLE} is set but empty: give it a token, or unset it")
        if len(given) < SHORTEST:
            log.warning("%s is shorter than %d characters", VARIABLE, SHORTEST, extra={"action": "token_weak"})
        return given, f"the environment variable {VARIABLE}", None
    path = token_path(data)
    if create and not os.path.lexists(path):
        _make(path)
    return _read(path), f"the file {path}", path


def rotate_admin_token(data: Path) -> Path:
    """Replace the admin token by a new one, at once and durably; return its file."""
    path = token_path(data)
    fresh = path.with_name(f".{FILE_NAME}.{secrets.token_hex(4)}")
    try:
        _write(fresh)
        os.replace(fresh, path)
        _sync_directory(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise EngineError(f"{path} can't be written: {error.strerror}") from None
    return path


def _make(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{FILE_NAME}.{secrets.token_hex(4)}")
        try:
            _write(fresh)
            os.link(fresh, path)  # fails where somebody else made it meanwhile; theirs stands
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise EngineError(
            f"the admin token can't be kept in {path}: {error.strerror}; "
            f"make the directory writable, or give the token in {VARIABLE}"
        ) from None


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if mode & _OTHERS:
                os.fchmod(descriptor, _PRIVATE)
                log.warning(
                    "%s could be read by others; its mode is 0600 now, and a new token is advisable",
                    path,
                    extra={"action": "token_tightened"},
                )
            token = file.read(_LONGEST_BYTES).decode().strip()
    except FileNotFoundError:
        raise EngineError(f"there is no admin token in {path}: the engine makes one when it starts") from None
    except UnicodeDecodeError:
        raise EngineError(f"{path} holds no token: remove it, and the engine makes a new one") from None
    except OSError as error:
        raise EngineError(f"the admin token in {path} can't be read: {error.strerror}") from None
    if not token:
        raise EngineError(f"{path} is empty: remove it, and the engine makes a new one")
    return token


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()
