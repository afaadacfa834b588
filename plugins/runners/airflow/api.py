"""Airflow's REST API, as far as one DAG run needs it: version 2 (Airflow 3) and version 1 (Airflow 2).

Sources: the reference of both APIs, `airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html` and, for
tokens, `airflow.apache.org/docs/apache-airflow/stable/security/api.html`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from yarl import URL

from engine.plugin import Clock, encode_json
from plugins.outgoing.answers import read_body, retry_after_s
from plugins.outgoing.client import Answer, Call, CallFailed, Client

Version = Literal["v1", "v2"]

MOST_ANSWER_BYTES = 1024 * 1024
LONGEST_DETAIL = 300
CONFIDENTIAL = frozenset({"authorization"})

BUSY = frozenset({"queued", "running"})
"""The states of a DAG run that has not ended."""

_FATAL = frozenset({"address_refused"})
_REFUSED = {
    400: "it does not accept the request",
    403: "the user may not do that",
    404: "there is no such DAG",
    422: "it does not accept the request",
}


class Unsure(Exception):
    """There is no answer that tells what has become of a request; `pause_s` is what Airflow asks to wait, or None."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Refused(Exception):
    """Airflow refuses; asking again changes nothing. `code` is a stable word."""

    def __init__(self, reason: str, *, code: str) -> None:
        super().__init__(reason)
        self.code = code


class Login(NamedTuple):
    """How requests are proved: a token, or a user with a password."""

    token: str | None = None
    username: str | None = None
    password: str = ""


class DagRun(NamedTuple):
    """A DAG run as Airflow tells of it."""

    id: str
    state: str
    start_date: str | None
    end_date: str | None


class Api:
    """One Airflow, asked about the runs of one DAG.

    `base` is its URL, without `/api`; every call raises Unsure and Refused.
    """

    def __init__(
        self, client: Client, clock: Clock, *, base: URL, version: Version, dag: str, login: Login, timeout_s: float
    ) -> None:
        self._client = client
        self._clock = clock
        self._base = str(base).rstrip("/")
        self._version = version
        self._dag = dag
        self._login = login
        self._timeout_s = timeout_s
        self._authorization: str | None = None
        self.name = f"Airflow at {base.origin()}"

    async def create(self, run_id: str, conf: Mapping[str, Any], logical_date: str | None) -> DagRun | None:
        """Start a DAG run of this id; return None where there is one of it, or of its logical date, already."""
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": conf}
        if self._version == "v2" or logical_date is not None:
            body["logical_date"] = logical_date  # version 2 wants it said that there is none
        answer = await self._send("POST", self._runs(), body)
        if answer.status == 409:
            return None
        return self._dag_run(answer)

    async def get(self, run_id: str) -> DagRun | None:
        """Return a DAG run, or None where there is none of that id."""
        answer = await self._send("GET", self._runs(run_id), None)
        return None if answer.status == 404 else self._dag_run(answer)

    async def fail(self, run_id: str) -> bool:
        """Have a DAG run fail, which ends its tasks; return whether there is one."""
        answer = await self._send("PATCH", self._runs(run_id), {"state": "failed"})
        if answer.status == 404:
            return False
        self._dag_run(answer)
        return True

    def page(self, run_id: str) -> str:
        """Return the URL at which people see a DAG run."""
        dag, run = quote(self._dag, safe=""), quote(run_id, safe="")
        if self._version == "v2":
            return f"{self._base}/dags/{dag}/runs/{run}"
        return f"{self._base}/dags/{dag}/grid?dag_run_id={run}"

    def _runs(self, run_id: str | None = None) -> URL:
        text = f"{self._base}/api/{self._version}/dags/{quote(self._dag, safe='')}/dagRuns"
        return URL(text if run_id is None else f"{text}/{quote(run_id, safe='')}", encoded=True)

    async def _send(self, method: str, url: URL, body: Any) -> Answer:
        """Send a request with what proves it; a token that is not valid any more is got anew, once."""
        for attempt in (1, 2):
            fresh = self._authorization is None
            if self._authorization is None:
                self._authorization = await self._authorize()
            headers = {"Authorization": self._authorization, "Accept": "application/json"}
            answer = await self._exchange(method, url, headers, body)
            if answer.status != 401:
                return answer
            self._authorization = None
            if fresh or attempt == 2:
                break
        raise Refused(f"{self.name} does not take the user or token: {_detail(answer)}", code="airflow_unauthorized")

    async def _authorize(self) -> str:
        login = self._login
        if login.token is not None:
            return f"Bearer {login.token}"
        if self._version == "v1":
            pair = f"{login.username}:{login.password}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        answer = await self._exchange(
            "POST", URL(f"{self._base}/auth/token", encoded=True), {"Accept": "application/json"},
            {"username": login.username, "password": login.password},
        )  # fmt: skip
        found = read_body(answer)
        token = found.get("access_token") if isinstance(found, dict) else None
        if answer.status not in (200, 201) or not isinstance(token, str) or not token.isprintable():
            reason = f"{self.name} gives no token for the user: {_detail(answer)}"
            raise Refused(reason, code="airflow_unauthorized")
        return f"Bearer {token}"

    async def _exchange(self, method: str, url: URL, headers: dict[str, str], body: Any) -> Answer:
        content = None
        if body is not None:
            content = encode_json(body)
            headers["Content-Type"] = "application/json"
        call = Call(method, url, headers, content, CONFIDENTIAL)
        try:
            answer = await self._client.send(call, timeout_s=self._timeout_s, max_body_bytes=MOST_ANSWER_BYTES)
        except CallFailed as failure:
            if failure.code in _FATAL:
                raise Refused(str(failure), code=failure.code) from None
            raise Unsure(str(failure)) from None
        if answer.status >= 500 or answer.status in (408, 425, 429):
            pause_s = retry_after_s(answer.headers, self._clock.now())
            raise Unsure(f"{self.name} answered {_detail(answer)}", pause_s)
        return answer

    def _dag_run(self, answer: Answer) -> DagRun:
        """Return the DAG run that an answer tells of; raise Refused where it tells of something else."""
        if not 200 <= answer.status <= 299:
            why = _REFUSED.get(answer.status, "that is no answer of its API")
            raise Refused(f"{self.name} answered {_detail(answer)}: {why}", code="airflow_refused")
        body = read_body(answer)
        if not isinstance(body, dict) or not isinstance(body.get("state"), str):
            reason = f"{self.name} answered {answer.line}, but not as version {self._version[1]} of its API does"
            raise Refused(reason, code="airflow_unknown_answer")
        return DagRun(
            id=str(body.get("dag_run_id")), state=body["state"], start_date=_text(body.get("start_date")),
            end_date=_text(body.get("end_date")),
        )  # fmt: skip


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _detail(answer: Answer) -> str:
    """Return the status, and what the answer says of it, in one bounded line."""
    body = read_body(answer)
    said = body.get("detail") or body.get("title") if isinstance(body, dict) else None
    if said is None:
        return answer.line
    text = said if isinstance(said, str) else encode_json(said).decode()
    return f"{answer.line} ({' '.join(text.split())[:LONGEST_DETAIL]})"
