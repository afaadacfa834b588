"""Webhooks that are verified, against the same ones that are not: what a signature costs of `intake`.

Both get the same requests, by turns: each with an id, a time and a signature of Standard Webhooks of its own.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from pathlib import Path

from tests.bench import load
from tests.bench.processes import Server
from tests.bench.report import Figure, Options

KEY = b"the key of a bench, of 32 bytes!"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
SIGNED, PLAIN = "/hooks/signed", "/hooks/bench"

REQUESTS, QUICK_REQUESTS = 40_000, 15_000
"""Requests that are signed for one second: more than are answered in it."""

CONFIG = f"""\
[triggers.signed]
on.webhook = {{ path = "signed", verify = {{ standard = "{SECRET}" }} }}
job = "sleeper"
"""


def compare(server: Server, body: Path, options: Options, *, connections: int, slices: int) -> tuple[list[Figure], int]:
    """Load a hook with `standard` verification and one without, by turns.

    Return how they compare, by their rates and by the processor time of a request, and how many 202s there were.
    """
    rates: dict[str, list[float]] = {SIGNED: [], PLAIN: []}
    times_us: dict[str, list[float]] = {SIGNED: [], PLAIN: []}
    accepted = 0
    for _ in range(options.rounds * slices):
        for path in (PLAIN, SIGNED):
            signatures = _sign(body, QUICK_REQUESTS if options.quick else REQUESTS)
            server.wait_quiet()
            before = server.threads()
            found = load.post(server.port, path, body, connections=connections, seconds=1.0, signatures=signatures)
            accepted += found.accepted
            rates[path].append(found.rate)
            times_us[path].append(server.cpu_since(before).total_s * 1e6 / found.requests)
    rate = Figure(
        title="verified, against none", unit="requests/s", values=rates[SIGNED], baselines=rates[PLAIN],
        target="ratio 0.85 or more",
    )  # fmt: skip
    time_us = Figure(title="- processor time", unit="µs/request", values=times_us[SIGNED], baselines=times_us[PLAIN])
    return [rate, time_us], accepted


def _sign(body: Path, count: int) -> Path:
    content, sent_s, series = body.read_bytes(), int(time.time()), secrets.token_hex(8)
    lines = []
    for number in range(count):
        delivery = f"msg_{series}{number}"
        mac = hmac.digest(KEY, f"{delivery}.{sent_s}.".encode() + content, "sha256")
        lines.append(f"{delivery} {sent_s} v1,{base64.b64encode(mac).decode()}")
    signatures = body.with_suffix(".signatures")
    signatures.write_text("\n".join(lines) + "\n")
    return signatures
