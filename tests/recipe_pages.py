"""The pages of docs/recipes, run as they stand: their configuration by a real engine, their commands one by one.

A page has `toml` blocks, which together are its configuration, and `console` blocks: a line that begins with `$ ` is
a command, and what follows is what it prints. In what it prints, `…` stands for anything; a line of `…` alone for any
lines. `RUN` and `EVENT` stand for the ids that an answer named last. `trigger-engine` and `curl` are known.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from msgspec import Struct
from typer.testing import CliRunner

from engine.cli.app import app

PAGES = Path(__file__).parent.parent / "docs" / "recipes"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_RUN = re.compile(rf'"runs": ?\[\s*"({ID})"|runs: ({ID})')
_EVENT = re.compile(rf'"event": ?"({ID})"|Event ({ID})')
ELSEWHERE = "https://example.com/"
"""Who is told of ends of runs; in the test that is a server of its own."""


class Step(Struct, frozen=True, kw_only=True):
    """A command of a page, and what it prints."""

    command: str
    prints: str
    line: int


def blocks(page: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the language, the text and the first line's number of each block."""
    text = page.read_text("utf-8")
    for match in BLOCK.finditer(text):
        yield match[1], match[2], text.count("\n", 0, match.start(2)) + 1


def configuration(page: Path) -> str:
    """Return the configuration of a page."""
    return "\n".join(text for language, text, _ in blocks(page) if language == "toml")


def steps(page: Path) -> list[Step]:
    """Return the commands of a page in their order."""
    found: list[Step] = []
    for language, text, first in blocks(page):
        if language != "console":
            continue
        command, begun = "", 0
        printed: list[str] = []
        for number, line in enumerate([*text.splitlines(), "$ "], first):
            if line.startswith("$ "):
                if command:
                    found.append(Step(command=command, prints="\n".join(printed), line=begun))
                command, printed, begun = line[2:], [], number
            elif command.endswith("\\"):
                command = command[:-1] + line.strip()
            else:
                printed.append(line)
    return found


def matches(expected: str, output: str) -> bool:
    """Tell whether a command printed what the page says."""
    parts = []
    for line in expected.splitlines():
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(piece) for piece in re.split("…", line.rstrip())) + r"\n")
    return re.fullmatch("".join(parts), _even(output)) is not None


def _even(output: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines())


class Reader:
    """Who reads a page, and types its commands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = {"RUN": "", "EVENT": ""}

    def type(self, command: str) -> str:
        """Run one command, and return what it prints."""
        command = Template(self._named(command)).safe_substitute(os.environ)
        program, *arguments = shlex.split(command)
        output = _curl(arguments) if program == "curl" else self._trigger_engine(program, arguments)
        for name, pattern in (("RUN", _RUN), ("EVENT", _EVENT)):
            if found := pattern.findall(output):
                self._known[name] = "".join(found[-1])
        return output

    def _trigger_engine(self, program: str, arguments: list[str]) -> str:
        assert program == "trigger-engine", f"no page is to need {program}"
        target = None
        if ">" in arguments:
            at = arguments.index(">")
            target, arguments = self._folder / arguments[at + 1], arguments[:at]
        result = CliRunner().invoke(app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        if target is not None:
            target.write_text(result.stdout, "utf-8")
            return result.stderr
        return result.output

    def shown(self, prints: str) -> str:
        """Return what a page says is printed, with the ids that it speaks of; headings stay as they are."""
        return "\n".join(line if line.isupper() else self._named(line) for line in prints.split("\n"))

    def _named(self, text: str) -> str:
        for name, value in self._known.items():
            text = re.sub(rf"\b{name}\b", value or name, text)
        return text


def looks(command: str) -> bool:
    """Tell whether a command changes nothing, so that it may be typed again until what it tells of has come."""
    words = shlex.split(command)
    if words[0] == "curl":
        return not {"-X", "-d"} & set(words)
    return words[1] in {"runs", "run", "triggers", "queue", "stats", "deliveries", "events", "sources", "conditions",
                        "why", "next", "logs", "doctor", "audit"}  # fmt: skip


def _curl(arguments: list[str]) -> str:
    """Do what curl does with -s -i -X -H -d and a URL."""
    method, url, body, headers, head = "", "", None, {}, False
    words = iter(arguments)
    for word in words:
        if word in ("-X", "-H", "-d"):
            value = next(words)
            if word == "-X":
                method = value
            elif word == "-H":
                name, _, text = value.partition(":")
                headers[name.strip()] = text.strip()
            else:
                body = value.encode()
        elif word == "-i":
            head = True
        elif word != "-s":
            assert not word.startswith("-"), f"the test's curl does not know {word}"
            url = word
    if body is not None:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        content = answer.read().decode()
        told = "".join(f"{name}: {value}\n" for name, value in answer.getheaders())
        first = f"HTTP/1.1 {answer.status} {answer.reason}\n{told}\n" if head else ""
        return f"{first}{_spaced(content)}\n" if head or content else ""
    finally:
        connection.close()


def _spaced(content: str) -> str:
    """Return JSON on one line with spaces, as a page shows it."""
    try:
        return json.dumps(json.loads(content), ensure_ascii=False)
    except ValueError:
        return content


class Told:
    """A server that takes what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], bytes]] = []

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Listen, and give the URL."""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.messages.append((dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()


def prepare(page: Path, folder: Path, port: int, told: str) -> None:
    """Write the configuration of a page, and a program in the place of each script that it names."""
    text = configuration(page).replace(ELSEWHERE, told)
    text = re.sub(r"(callback = \{ )", r'\1allow_private = ["127.0.0.0/8"], ', text)
    for script in set(re.findall(r'"\./([a-z-]+\.sh)"', text)):
        file = folder / script
        waits = "exec sleep 50\n" if script.startswith("slow") else ""
        file.write_text(f'#!/bin/sh\necho "$0 $*"\ncat >/dev/null\n{waits}', "utf-8")
        file.chmod(0o755)
    (folder / "config.toml").write_text(f'[http]\nlisten = "127.0.0.1:{port}"\n{text}', "utf-8")
