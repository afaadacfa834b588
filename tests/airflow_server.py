"""An Airflow for tests: what its REST API answers about DAG runs, in version 1 and 2, and what goes wrong with it.

The shapes are those of the public references: `dagRuns` of the stable REST API of Airflow 2.10 and 3.0, problem
documents of version 1, `{"detail": …}` of version 2, tokens of `/auth/token`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.evil_server import Received, json_answer

USER, PASSWORD, TOKEN = "engine", "a password of its own", "a-token-of-its-own"
AT = "2026-03-01T02:00:00Z"


@dataclass
class Airflow:
    """Its DAG runs by id, and the faults that it still has to show.

    - `steps`: the states that a DAG run comes to, one at each look; the last one stays.
    - `drop_after`, `error_after`: so many creations are made, and then not answered, or answered with 500.
    - `errors`: so many requests are answered with 503 first; `expire`: after so many requests the token is not valid.
    """

    version: str = "v2"
    dags: tuple[str, ...] = ("daily report",)
    steps: tuple[str, ...] = ("queued", "running", "success")
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    drop_after: int = 0
    error_after: int = 0
    errors: int = 0
    expire: int | None = None
    refuse_dates: bool = False
    password: str = PASSWORD
    tokens: int = 0
    patched: list[str] = field(default_factory=list)
    creations: int = 0

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """Answer a request, or don't."""
        answered = self._answer(request)
        if answered is None:
            writer.close()
            return
        status, body = answered
        kind = "application/problem+json" if self.version == "v1" and status[0] in "45" else "application/json"
        writer.write(json_answer(json.dumps(body), status=status).replace(b"application/json", kind.encode(), 1))

    def _answer(self, request: Received) -> tuple[str, Any] | None:
        if self.errors:
            self.errors -= 1
            return "503 Service Unavailable", {"detail": "starting"}
        path = [unquote(part) for part in request.target.split("/")[1:]]
        body = json.loads(request.body) if request.body else None
        if path == ["auth", "token"]:
            return self._token(body)
        if path[:2] != ["api", self.version]:
            return self._problem("404 Not Found", "Not Found")
        if not self._is_proved(request):
            return self._problem("401 Unauthorized", "Unauthorized")
        if path[2] != "dags" or path[3] not in self.dags or path[4] != "dagRuns":
            return self._problem("404 Not Found", f"The Dag with ID: `{path[3]}` was not found")
        if request.method == "POST":
            return self._create(path[3], body)
        return self._one(request.method, path[3], path[5], body)

    def _token(self, body: Any) -> tuple[str, Any]:
        if self.version != "v2" or body != {"username": USER, "password": self.password}:
            return self._problem("401 Unauthorized", "Invalid credentials")
        self.tokens += 1
        return "201 Created", {"access_token": f"{TOKEN}-{self.tokens}"}

    def _is_proved(self, request: Received) -> bool:
        given = request.headers.get("authorization", "")
        if self.version == "v1":
            pair = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
            return given in (f"Basic {pair}", f"Bearer {TOKEN}")
        if self.expire is not None:
            self.expire -= 1
            if self.expire < 0:
                self.expire = None
                return False
        return given in (f"Bearer {TOKEN}-{self.tokens}", f"Bearer {TOKEN}")

    def _create(self, dag: str, body: Any) -> tuple[str, Any] | None:
        if self.version == "v2" and "logical_date" not in body:
            return "422 Unprocessable Entity", {"detail": [{"loc": ["body", "logical_date"], "msg": "Field required"}]}
        if not isinstance(body.get("conf"), dict):
            return self._problem("422 Unprocessable Entity", "conf is no object")
        run_id = body["dag_run_id"]
        if run_id in self.runs or self.refuse_dates:
            return self._problem(
                "409 Conflict", f"DAGRun with DAG ID: '{dag}' and DAGRun ID: '{run_id}' already exists"
            )
        self.creations += 1
        self.runs[run_id] = {
            "dag_run_id": run_id, "dag_id": dag, "logical_date": body.get("logical_date"), "start_date": None,
            "end_date": None, "run_type": "manual", "state": "queued", "conf": body["conf"], "note": None, "looks": 0,
        }  # fmt: skip
        if self.drop_after:
            self.drop_after -= 1
            return None
        if self.error_after:
            self.error_after -= 1
            return self._problem("500 Internal Server Error", "the database is away")
        return "200 OK", self._shown(run_id)

    def _one(self, method: str, dag: str, run_id: str, body: Any) -> tuple[str, Any]:
        if run_id not in self.runs:
            return self._problem(
                "404 Not Found", f"The DagRun with dag_id: `{dag}` and run_id: `{run_id}` was not found"
            )
        run = self.runs[run_id]
        if method == "PATCH":
            self.patched.append(run_id)
            run["state"] = body["state"]
        elif run["state"] in ("queued", "running"):
            run["state"] = self.steps[min(run["looks"], len(self.steps) - 1)]
            run["looks"] += 1
            run["start_date"] = AT
            run["end_date"] = AT if run["state"] in ("success", "failed") else None
        return "200 OK", self._shown(run_id)

    def _shown(self, run_id: str) -> dict[str, Any]:
        return {name: value for name, value in self.runs[run_id].items() if name != "looks"}

    def _problem(self, status: str, detail: str) -> tuple[str, Any]:
        if self.version == "v2":
            return status, {"detail": detail}
        number, _, title = status.partition(" ")
        return status, {"detail": detail, "status": int(number), "title": title, "type": "about:blank"}
