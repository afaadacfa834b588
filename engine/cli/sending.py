"""Firing triggers and sending events, and waiting for what comes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from engine.cli.client import Client
from engine.cli.failures import USAGE, CommandFailed
from engine.errors import InvalidEvent
from engine.payload import parse_json
from engine.runs import ENDED


def fire_trigger(
    client: Client,
    name: str,
    *,
    data: str | None,
    reason: str | None,
    priority: str | None,
    bypass: list[str],
) -> dict[str, Any]:
    """Fire a trigger and return the engine's answer."""
    body: dict[str, Any] = {"data": read_data(data), "bypass": bypass}
    if reason:
        body["reason"] = reason
    if priority is not None:
        body["priority"] = priority_of(priority)
    answer: dict[str, Any] = client.post("triggers", name, "fire", body=body)
    return answer


def emit_event(
    client: Client, kind: str, *, data: str | None, subject: str | None, key: str | None, source: str | None
) -> dict[str, Any]:
    """Send an event and return the engine's answer."""
    given = {"subject": subject, "key": key, "source": source}
    body = {"type": kind, "data": read_data(data), **{k: v for k, v in given.items() if v is not None}}
    answer: dict[str, Any] = client.post("events", body=body)
    return answer


def wait_for_runs(client: Client, run_ids: list[str]) -> list[dict[str, Any]]:
    """Return the runs once all of them have ended; a followed log ends when its run does."""
    ended = []
    for run_id in run_ids:
        for _ in client.stream("runs", run_id, "log", follow=1, tail=0):
            pass
        run = client.get("runs", run_id)
        if run["state"] not in ENDED:
            raise CommandFailed(f"run {run_id} is {run['state']}, and the engine stopped telling of it")
        ended.append(run)
    return ended


def priority_of(text: str) -> int | str:
    """Return a priority as the API takes it: a number, or one of the names."""
    return int(text) if text.isascii() and text.isdigit() else text


def read_data(text: str | None) -> Any:
    """Return the JSON value that an option gives: itself, a file (`@FILE`), or standard input (`@-`)."""
    if text is None:
        return None
    try:
        if text == "@-":
            content = sys.stdin.buffer.read()
        else:
            content = Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()
        return parse_json(content)
    except OSError as error:
        raise CommandFailed(f"--data: {text[1:]} can't be read: {error.strerror}", USAGE) from None
    except (InvalidEvent, UnicodeEncodeError) as error:
        raise CommandFailed(f"--data: {str(error).replace('the body', 'the text', 1)}", USAGE) from None
