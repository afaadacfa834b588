"""Schemathesis (https://schemathesis.readthedocs.io) over the whole description of the API, with every role and none.

    SCHEMATHESIS=path/to/st python -m tests.fuzzing [--examples 5]

Schemathesis stands in an environment of its own: it needs another version of a library than the engine. It sends what
the description allows, and what it does not, to a whole engine; no answer may be a 500, or one that is not described.
What it makes up names nothing that is there. So each path with a name in it is asked a second time, with names and ids
of what is.
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
from typing import Any

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

[triggers.easy]
on.interval = "1h"
adaptive = { min = "30m", max = "2h", success_rate_min = 0.9 }
job = "import"

[conditions.up]
check.exec.command = ["true"]

[pools]
warehouse = 2
"""

NAMES = {
    "triggers": "nightly", "jobs": "import", "alerts": "failing", "conditions": "up", "pools": "warehouse",
    "maintenance": "move", "tokens": "spare",
}  # fmt: skip
"""What is there, by the part of the path before its name."""


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
            named = _write_names(server)
            found = [
                role if names is None else f"{role}, of what is there"
                for role, token in {**tokens, "nobody": None}.items()
                for names in (None, named)
                if not _ask(server, role, token, asked, names)
            ]
        finally:
            server.stop()
    sys.stdout.write(f"found something as {', '.join(found)}\n" if found else "nothing was found\n")
    return 1 if found else 0


def _token(server: Server, role: str) -> str:
    """Make a token of a role, and return its secret."""
    return str(_post(server, "tokens", {"name": f"as-{role}", "role": role})["token"])


def _post(server: Server, path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/api/v1/{path}", data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _write_names(server: Server) -> Path:
    """Make what has a name or an id, write down how it is called, for Schemathesis; return the file."""
    _post(server, "tokens", {"name": NAMES["tokens"], "role": "viewer"})
    _post(server, "maintenance", {"name": NAMES["maintenance"], "duration": "1s"})
    fired = _post(server, "triggers/nightly/fire", {})
    past = {"trigger": "nightly", "from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z"}
    ids = {"events": fired["event"], "runs": fired["runs"][0], "backfills": _post(server, "backfills", past)["id"]}
    values = [(part, "name", name) for part, name in NAMES.items()] + [(part, "id", one) for part, one in ids.items()]
    file = server.log.parent / "names.toml"
    file.write_text("".join(
        f'[[operations]]\ninclude-path-regex = "^/api/v1/{part}/[{{]{kind}[}}]"\n'
        f'parameters = {{ "path.{kind}" = "{value}" }}\n'
        for part, kind, value in values
    ))  # fmt: skip
    return file


def _ask(server: Server, role: str, token: str | None, asked: argparse.Namespace, names: Path | None) -> bool:
    """Have Schemathesis ask everything with a token; return whether nothing was found."""
    url = f"http://127.0.0.1:{server.port}"
    command = [os.environ["SCHEMATHESIS"]]
    if names is not None:
        command += ["--config-file", str(names)]
    phases = "examples,coverage,fuzzing" if names is None else "examples,fuzzing"
    command += ["run", f"{url}/openapi.json", "--url", url, "--no-color", "--checks", ",".join(CHECKS),
                "--phases", phases, "--max-examples", str(asked.examples), "--seed", str(asked.seed),
                "--request-timeout", "20", "--continue-on-failure", "--suppress-health-check", "all",
                "--generation-database", "none"]  # fmt: skip
    for name in NOT_ASKED:
        command += ["--exclude-operation-id", name]
    if names is not None:
        command += ["--include-path-regex", "^/api/v1/.*[{]"]
    if token is not None:
        command += ["--header", f"Authorization: Bearer {token}"]
    sys.stdout.write(f"== as {role}{'' if names is None else ', of what is there'}\n")
    sys.stdout.flush()
    return subprocess.run(command, check=False, timeout=LONGEST_S, cwd=server.log.parent).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
