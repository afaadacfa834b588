"""Schemathesis (https://schemathesis.readthedocs.io) over the whole description of the API, with every role and none.

    SCHEMATHESIS=path/to/st python -m tests.fuzzing [--examples 5]

Schemathesis stands in an environment of its own: it needs another version of a library than the engine. It sends what
the description allows, and what it does not, to a whole engine; no answer may be a 500, or one that is not described.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.bench.processes import TOKEN, Server, start_engine

ROLES = ("viewer", "operator", "admin")
LONGEST_S = 900.0
NOT_ASKED = (
    "get_stream",
    "post_backup",
    "post_housekeeping",
    "delete_token",
    "rotate_token",
    "delete_session",
    "post_import",
)
"""What never ends, what fills the disk, what would take away the tokens that are asked with,
and what takes TOML, which Schemathesis does not write."""

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip

CONFIG = """
[http]
listen = "127.0.0.1:{port}"

[jobs.import]
run.exec = ["true"]

[triggers.nightly]
on.cron = "0 2 * * *"
job = "import"
tags = ["warehouse"]

[triggers.heard]
on.event = { type = "order.*" }
job = "import"
"""


def main() -> int:
    """Ask with each role; return 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5, help="requests of each kind to each route")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = start_engine(Path(folder) / "engine", CONFIG)
        try:
            tokens = {role: _token(server, role) for role in ROLES}
            found = [role for role, token in {**tokens, "nobody": None}.items() if not _ask(server, role, token, asked)]
        finally:
            server.stop()
    sys.stdout.write(f"found something as {', '.join(found)}\n" if found else "nothing was found\n")
    return 1 if found else 0


def _token(server: Server, role: str) -> str:
    """Make a token of a role, and return its secret."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/tokens",
        data=json.dumps({"name": f"as-{role}", "role": role}).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["token"])


def _ask(server: Server, role: str, token: str | None, asked: argparse.Namespace) -> bool:
    """Have Schemathesis ask everything with a token; return whether nothing was found."""
    url = f"http://127.0.0.1:{server.port}"
    command = [os.environ["SCHEMATHESIS"], "run", f"{url}/openapi.json", "--url", url, "--no-color",
               "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples",
               str(asked.examples), "--seed", str(asked.seed), "--request-timeout", "20", "--continue-on-failure",
               "--suppress-health-check", "all", "--generation-database", "none"]  # fmt: skip
    for name in NOT_ASKED:
        command += ["--exclude-operation-id", name]
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    sys.stdout.write(f"== as {role}\n")
    sys.stdout.flush()
    return subprocess.run(command, check=False, timeout=LONGEST_S, cwd=server.log.parent).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
