"""A client that costs next to nothing: one kept-alive connection, requests as ready-made bytes."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
TIMEOUT_S = 30.0


def request(method: str, path: str, body: bytes = b"", token: str | None = None) -> bytes:
    """Return a whole HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def split_answer(received: bytes) -> tuple[int, bytes, bytes] | None:
    """Return status, body and what comes after them; None while the answer is not whole."""
    head, separator, rest = received.partition(b"\r\n\r\n")
    if not separator:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if len(rest) < length:
        return None
    return int(head.split(b" ", 2)[1]), rest[:length], rest[length:]


class Wire:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> tuple[int, bytes]:
        """Send a whole request; return the answer's status and body. Raises OSError."""
        self._socket.sendall(data)
        received = b""
        while (answer := split_answer(received)) is None:
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionResetError("the server closed the connection")
            received += chunk
        return answer[0], answer[1]

    def ask(self, method: str, path: str, body: bytes = b"", token: str | None = None) -> tuple[int, bytes]:
        """Make a request and send it."""
        return self.send(request(method, path, body, token))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
