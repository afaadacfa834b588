"""What programs find around them: variables, and the event on standard input."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache

from engine.plugin import BadSetting, Event, RunContext, encode_json
from plugins.runners.command import CannotStart, check_variable

LARGEST_ENV_FILE_BYTES = 1024 * 1024

_INHERITED = re.compile(r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|USER|LOGNAME|SHELL")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ESCAPED = re.compile(r'\\([\\"$`nrt])')
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@cache
def inherited() -> dict[bytes, bytes]:
    """Return what every program gets of the engine's own environment, as it was at the first run."""
    base = {b"PATH": _DEFAULT_PATH.encode()}
    for name, value in os.environ.items():
        if _INHERITED.fullmatch(name):
            base[name.encode()] = os.fsencode(value)
    return base


def run_variables(context: RunContext) -> dict[bytes, bytes]:
    """Return what tells a program which run it is."""
    event, due_at = context.event, context.scheduled_for
    result = {
        b"ENGINE_RUN_ID": context.run_id.encode(),
        b"ENGINE_JOB": context.job.encode(),
        b"ENGINE_TRIGGER": context.trigger.encode(),
        b"ENGINE_ATTEMPT": b"%d" % context.attempt,
        b"ENGINE_SCHEDULED_FOR": b"" if due_at is None else _instant(due_at),
        b"ENGINE_EVENT_ID": event.id.encode(),
        b"ENGINE_EVENT_TYPE": event.type.encode(),
        b"TRACEPARENT": context.traceparent.encode(),
    }
    if event.input is not None:
        result[b"ENGINE_INPUT"] = event.input.encode()
    for name, value in context.marks.items():
        result[name.encode()] = value.encode()
    return result


def _instant(at: datetime) -> bytes:
    return encode_json(_in_utc(at)).strip(b'"')


def read_env_file(path: str) -> dict[bytes, bytes]:
    """Return the variables of a file of `NAME=value` lines; raise CannotStart, in words, where it is none.

    Blank lines and those that begin with `#` say nothing, and `export ` may stand before a name. Within '…' all is
    as it stands; within "…" `\\n`, `\\r`, `\\t` and an escaped quote, backslash, `$` or backtick are what they stand
    for. Nothing is expanded.
    """
    try:
        # It may be a FIFO, which must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            body = file.read(LARGEST_ENV_FILE_BYTES + 1)
        text = body.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise CannotStart("start_failed", f"the env_file {path} can't be read: {why}") from None
    if len(body) > LARGEST_ENV_FILE_BYTES:
        raise CannotStart("start_failed", f"the env_file {path} is larger than {LARGEST_ENV_FILE_BYTES} bytes")
    found: dict[bytes, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ").lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        try:
            if not equals:
                raise BadSetting("env_file", "is no NAME=value")
            check_variable(name.rstrip(), "")
            found[name.rstrip().encode()] = _value(value.strip()).encode()
        except BadSetting as error:
            # The line itself is not told: it may hold a secret.
            raise CannotStart("start_failed", f"line {number} of the env_file {path}: it {error}") from None
    return found


def _value(text: str) -> str:
    if "\0" in text:
        raise BadSetting("env_file", "holds a NUL character, which no variable can")
    quote = text[:1]
    if quote not in ("'", '"') or not quote:
        return text.partition(" #")[0].rstrip()
    if len(text) < 2 or text[-1] != quote:
        raise BadSetting("env_file", f"begins with {quote} and does not end with it")
    inner = text[1:-1]
    return inner if quote == "'" else _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), inner)


def open_input(context: RunContext) -> int:
    """Return a descriptor to read the event from."""
    last, events = _event_json(context.event), context.events
    every = [last if event is context.event else _event_json(event) for event in events]
    return open_bytes(b'{"event":%s,"events":[%s]}\n' % (last, b",".join(every)))


def open_bytes(body: bytes) -> int:
    """Return a descriptor to read these bytes from: in memory, as a pipe would have to be fed."""
    try:
        descriptor = os.memfd_create("event")
    except (AttributeError, OSError):
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    try:
        written = 0
        while written < len(body):
            written += os.pwrite(descriptor, body[written:] if written else body, written)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _event_json(event: Event) -> bytes:
    return encode_json(
        {
            "id": event.id,
            "source": event.source,
            "type": event.type,
            "subject": event.subject,
            "time": event.time and _in_utc(event.time),
            "received_at": event.received_at and _in_utc(event.received_at),
            "key": event.key,
            "data": event.data,
            "priority": event.priority,
            **({} if event.input is None else {"input": event.input}),
        }
    )


def _in_utc(at: datetime) -> datetime:
    return at if at.tzinfo is UTC else at.astimezone(UTC)


@lru_cache(maxsize=64)
def shell_arguments(shell: str, script: str) -> Sequence[str]:
    """Return what runs a script in a shell."""
    return (shell, "-c", script, os.path.basename(shell))
