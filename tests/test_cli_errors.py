"""What a command says where the engine is not there, says no, or is something else; each with the way out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.cli.client import LONGEST_WAIT_S, Client
from engine.cli.failures import CommandFailed, NoEngine
from tests.test_cli import call, here
from tests.test_http_runner import self_signed

__all__ = ["here"]

Answering = Callable[[socket.socket], object]


class Peer:
    """Something that listens and answers each connection with what it is given, in turn; the last one again."""

    def __init__(self, *answers: Answering | bytes, tls: ssl.SSLContext | None = None) -> None:
        self._answers, self._tls = list(answers), tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self.requests: list[bytes] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue

    def _answer(self, connection: socket.socket) -> None:
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            self.requests.append(connection.recv(65536))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


def says(status: int, body: Any, headers: Mapping[str, str] | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem(status: int, detail: str, code: str, **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return says(status, {"detail": detail, "code": code, "status": status}, named)


RUNS = says(200, {"items": [], "next": None})


def asked(peer: Peer, *arguments: str) -> tuple[int, str]:
    result = call("runs", "--url", f"http://{peer.address}", "--token", "a-secret", *arguments)
    assert "a-secret" not in result.output
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(401, "the token is not valid", "unauthorized"), "refused the token from --token"),
        (problem(403, "this takes the role operator", "role_needed"), "takes the role operator; who has"),
        (problem(404, "there is nothing here", "not_found"), "Or it is older than this command, 0."),
        (problem(405, "PATCH is not allowed here", "method_not_allowed"), "Or it is older than this command, 0."),
        (problem(429, "too many wrong tokens", "too_many_wrong_tokens", Retry_After="9"), "try again in 9 s"),
        (problem(503, "the store is away", "store_unavailable", Retry_After="2"), "away; try again in 2 s"),
        (problem(500, "it broke\nRun one succeeded\x1b[2J", "internal"), "it broke\\nRun one succeeded\\x1b[2J\n"),
        (says(308, b"", {"Location": "https://b.example/"}), "sends on to https://b.example/: name the engine itself"),
        (says(502, b"<html>bad gateway</html>"), "is no engine: it said 502"),
        (says(200, b"<html>hello</html>"), "is no engine: it does not speak JSON"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no engine: it does not speak HTTP; does it want https://?"),
        (says(200, {"items": [{"id": "one"}]}), "does not tell 'trigger': it may be older than this command"),
        (lambda connection: None, "broke off"),
        (RUNS[:-5], "broke off"),
    ],
)  # fmt: skip
def test_what_an_engine_refuses_or_another_answers_is_told_with_the_way_out(
    here: Path, answer: Answering | bytes, said: str
) -> None:
    with Peer(answer) as peer:
        code, output = asked(peer)
    assert (code, said in output) == (1, True), output


def test_who_is_asked_too_often_is_asked_again_when_it_says(here: Path) -> None:
    refused = problem(429, "slow down", "rate_limited", Retry_After="0")
    with Peer(refused, refused, RUNS) as peer:
        code, output = asked(peer)
        assert (code, len(peer.requests)) == (0, 3)
    assert output.count("is asked too often; on in 0 s") == 2


def test_a_command_does_not_wait_for_ever(here: Path) -> None:
    waited: list[float] = []
    with Peer(problem(429, "slow down", "rate_limited", Retry_After="25")) as peer:
        client = Client(f"http://{peer.address}", "x", "--token", sleep=waited.append)
        with pytest.raises(CommandFailed, match="slow down; try again in 25 s"):
            client.get("runs")
        assert waited == [25.0, 25.0]
        assert sum(waited) <= LONGEST_WAIT_S
        with pytest.raises(CommandFailed):
            client.briefly(1.0).get("runs")
        assert len(waited) == 2


def test_an_answer_that_does_not_come_is_given_up(here: Path) -> None:
    stop = threading.Event()
    with Peer(lambda connection: stop.wait(20)) as peer:
        client = Client(f"http://{peer.address}", "x", "--token").briefly(0.2)
        with pytest.raises(CommandFailed, match="did not answer within 0 s") as caught:
            client.get("runs")
        assert "may still be done" not in str(caught.value)
        stop.set()
    stop.clear()
    with Peer(lambda connection: stop.wait(20)) as peer:
        client = Client(f"http://{peer.address}", "x", "--token").briefly(0.2)
        with pytest.raises(CommandFailed, match="what it was asked for may still be done"):
            client.post("events", body={})
        stop.set()


def test_a_list_is_asked_for_page_by_page(here: Path) -> None:
    pages = [says(200, {"items": [{"id": name}], "next": following}) for name, following in (("a", "1"), ("b", None))]
    with Peer(*pages) as peer:
        found = Client(f"http://{peer.address}", "x", "--token").whole("triggers", tag="t")
    assert (found["items"], found["next"]) == ([{"id": "a"}, {"id": "b"}], None)
    assert [request.split()[1] for request in peer.requests] == [
        b"/api/v1/triggers?limit=1000&tag=t", b"/api/v1/triggers?limit=1000&cursor=1&tag=t",
    ]  # fmt: skip


def test_a_log_is_followed_through_a_proxy_that_closes(here: Path) -> None:
    with Peer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\none\ntwo\n") as peer:
        result = call("logs", "RUN", "-f", "--url", f"http://{peer.address}", "--token", "x")
    assert (result.exit_code, result.output) == (0, "one\ntwo\n")


@pytest.mark.parametrize(("url", "way"), [("http://127.0.0.1:1", "python -m engine"), ("http://[::1]:1", "engine")])
def test_where_nothing_listens_that_is_said(here: Path, url: str, way: str) -> None:
    with pytest.raises(NoEngine, match=way):
        Client(url, "x", "--token").get("runs")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_is_spoken_with_whom_the_authority_vouches_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = self_signed(here)
    with Peer(RUNS, tls=context) as peer:
        url = f"https://{peer.address}"
        result = call("runs", "--url", url, "--token", "x")
        assert (result.exit_code, "is not trusted (self-signed certificate)" in result.output) == (1, True)
        assert "ca_file in a profile" in result.output
        assert peer.requests == []
        file = here / "trigger-engine" / "profiles.toml"
        file.parent.mkdir()
        file.write_text(f'[a]\nurl = "{url}"\ntoken = "x"\nca_file = "../cert.pem"\n')
        file.chmod(0o600)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(here))
        assert call("runs", "--profile", "a").exit_code == 0
        _, output = asked(peer)
        assert "broke off" in output or "does it want https://?" in output
    with Peer(RUNS) as peer:
        result = call("runs", "--url", f"https://{peer.address}", "--token", "x")
        assert (result.exit_code, "does it speak plain http:// there?" in result.output) == (1, True), result.output


def test_ctrl_c_ends_a_command_without_a_word(here: Path) -> None:
    stop = threading.Event()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENGINE")}
    root = str(Path(__file__).parent.parent)
    with Peer(lambda connection: stop.wait(50)) as peer:
        command = subprocess.Popen(
            [sys.executable, "-m", "engine", "runs", "--url", f"http://{peer.address}", "--token", "x"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=here, env={**environment, "PYTHONPATH": root},
        )  # fmt: skip
        try:
            while not peer.requests and command.poll() is None:
                stop.wait(0.02)
            command.send_signal(signal.SIGINT)
            out, err = command.communicate(timeout=30)
        finally:
            stop.set()
            command.kill()
    assert (command.returncode, out, err) == (130, b"", b"")
