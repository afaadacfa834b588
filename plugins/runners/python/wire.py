"""What the engine, the helper and the workers tell each other: msgspec structs over Unix sockets."""

from __future__ import annotations

import socket
import struct
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.plugin import Event, Outcome

LARGEST_ANSWER_BYTES = 4 * 1024 * 1024
"""More than the outputs of a run may be; what says it is longer is no answer."""

LARGEST_MESSAGE_BYTES = 32 * 1024
"""Of the socket between engine and helper, which keeps messages apart."""

HEAD = struct.Struct("!I")
"""The length of a task or an answer, before it."""

LOST = 113
"""The exit status of a worker whose way to tell its answer was gone."""


class Task(Struct, frozen=True, kw_only=True, array_like=True):
    """One call of a function, with all that its context needs."""

    target: str
    is_async: bool
    takes_run: bool
    arguments: dict[str, Any]
    memory_bytes: int | None
    marks: dict[str, str]
    run_id: str
    job: str
    trigger: str
    attempt: int
    scheduled_for: datetime | None
    traceparent: str
    event: Event
    events: tuple[Event, ...]
    """All events where there are several; empty where `event` is the only one."""


class Answer(Struct, frozen=True, kw_only=True, array_like=True):
    """How a call ended, and whether its worker is as it was before and can be used again."""

    outcome: Outcome
    is_clean: bool


class Load(Struct, frozen=True, tag="load", array_like=True):
    """Engine to helper: import a module for the workers to come."""

    module: str


class Fork(Struct, frozen=True, tag="fork", array_like=True):
    """Engine to helper, with one end of a socket: make a worker that takes its tasks from there."""

    number: int


class Kill(Struct, frozen=True, tag="kill", array_like=True):
    """Engine to helper: signal the group of a worker, where it has not ended."""

    number: int
    signal: int


class Forked(Struct, frozen=True, tag="forked", array_like=True):
    """Helper to engine: there is a worker, the leader of its session."""

    number: int
    pid: int


class Ended(Struct, frozen=True, tag="ended", array_like=True):
    """Helper to engine: a worker ended, and its group with it; `status` is that of wait(2)."""

    number: int
    status: int


class Noted(Struct, frozen=True, tag="noted", array_like=True):
    """Helper to engine: something for the log."""

    text: str


Order = Load | Fork | Kill
Report = Forked | Ended | Noted

_ENCODER = msgspec.msgpack.Encoder()
_TASKS = msgspec.msgpack.Decoder(Task)
_ANSWERS = msgspec.msgpack.Decoder(Answer)
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_REPORTS: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def framed(message: Task | Answer) -> bytes:
    """Write a task or answer, with its length before it."""
    body = _ENCODER.encode(message)
    return HEAD.pack(len(body)) + body


def read_answer(body: bytes) -> Answer:
    """Read an answer; raises msgspec.MsgspecError for what is none."""
    return _ANSWERS.decode(body)


def encode(message: Order | Report) -> bytes:
    """Write a message between engine and helper."""
    return _ENCODER.encode(message)


def read_order(body: bytes) -> Order:
    """Read what the engine tells the helper."""
    return _ORDERS.decode(body)


def read_report(body: bytes) -> Report:
    """Read what the helper tells the engine; raises msgspec.MsgspecError for what is none."""
    return _REPORTS.decode(body)


def receive_task(connection: socket.socket) -> tuple[Task, int] | None:
    """Wait for a task, and the descriptor of its log that comes with it; None at the end."""
    head, descriptors, _, _ = socket.recv_fds(connection, HEAD.size, 1)
    if not head:
        return None
    head += _receive(connection, HEAD.size - len(head))
    body = _receive(connection, HEAD.unpack(head)[0])
    return _TASKS.decode(body), descriptors[0]


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise EOFError("the engine is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
