"""DAG runs of Airflow as runs: started, followed to their ends, and ended with the run that they belong to."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import anyio
from msgspec import Meta

from engine.plugin import (
    BadSetting,
    Duration,
    ExpressionError,
    Outcome,
    RunContext,
    Runner,
    Secret,
    Template,
    TemplateText,
)
from plugins.outgoing.bodies import compiled, rendered
from plugins.outgoing.client import open_client, origin_of
from plugins.outgoing.masking import Masker, parts_of_url
from plugins.outgoing.networks import Reach, read_reach
from plugins.outgoing.urls import read_url
from plugins.runners.airflow.api import BUSY, Api, DagRun, Login, Refused, Unsure, Version
from plugins.runners.writing import write_log

FIRST_PAUSE_S = 1.0
CANCEL_WITHIN_S = 8.0
"""So long may it take to tell Airflow of a cancel: a stopping engine waits no longer for its runners."""

MOST_LOOKED_AT = 5
"""So many of the attempts before this one are looked at for a DAG run that is still there."""


_API_PATH = re.compile(r"/api(?:/v\d+)?/?\Z")


class Airflow(Runner, frozen=True, kw_only=True):
    """Start a run of an Airflow DAG, and follow it to its end.

    - `dag`: the id of the DAG.
    - `url`: where Airflow is, http or https, without `/api/…`. One that stands elsewhere is a secret.
    - `api`: the version of its REST API: `v2` is that of Airflow 3, `v1` that of Airflow 2.
    - `username`, `password`: a user of Airflow: with `v2` they are changed for a token at `/auth/token`, with `v1` sent
      as HTTP Basic.
    - `token`: a token, in the place of a user.
    - `conf`: what the DAG run gets as its `conf`, a table, in whose texts `{{ CEL }}` may stand. By default the run's
      data; data that is no object stands in it as `data`.
    - `logical_date`: the DAG run's logical date; by default none (`v1`: now).
    - `every`: how often the state is asked for.
    - `timeout`: bound of one request.
    - `patience`: an Airflow that gives no answer, or 5xx, is asked again for so long. The whole run is bounded by the
      job's `timeout`.
    - `allow_private`: `true` opens loopback and private networks, a list opens the networks in it.
    """

    name: ClassVar[str] = "airflow"
    main: ClassVar[str | None] = "dag"

    dag: str
    url: Secret | str
    api: Version = "v2"
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    conf: Any = None
    logical_date: TemplateText | None = None
    every: Annotated[Duration, Meta(ge=0.1)] = 10.0
    timeout: Annotated[Duration, Meta(gt=0)] = 30.0
    patience: Annotated[Duration, Meta(ge=0)] = 600.0
    allow_private: bool | tuple[str, ...] = False

    def __post_init__(self) -> None:
        read_reach(self.allow_private)
        if not self.dag or not self.dag.isprintable() or self.dag in (".", ".."):
            raise BadSetting("dag", "is no id of a DAG", 'such as "daily_report"')
        if "{{" in self.dag:
            raise BadSetting("dag", "holds a template: data can't choose the target")
        if self.token is not None:
            if self.username is not None or self.password is not None:
                raise BadSetting("token", "is given beside a user", "keep one of them")
            if not self.token.reveal().isprintable() or not self.token.reveal().isascii():
                raise BadSetting("token", "holds characters that no header can carry")
        elif self.username is None or self.password is None:
            raise BadSetting("username", "and password are missing, and so is a token", "give one or the other")
        if self.conf is not None and not isinstance(self.conf, Mapping) and not isinstance(self.conf, str):
            raise BadSetting("conf", "is no table", 'such as { day = "{{ event.time }}" }')
        if isinstance(self.conf, str) and not self.conf.lstrip().startswith("{{"):
            raise BadSetting("conf", "is a text and no expression", 'such as "{{ data.conf }}"')

    def check(self, names: Collection[str]) -> None:
        _Plan.read(self, frozenset(names))

    async def run(self, context: RunContext) -> Outcome:
        plan = _Plan.read(self, frozenset(context.scope.names))
        try:
            conf, logical_date = plan.conf_of(context), plan.date_of(context)
        except ExpressionError as error:
            return Outcome.failed("template_error", plan.masker.text(str(error)))
        async with open_client(plan.reach, context.clock, keep_alive=False) as client:
            api = Api(
                client, context.clock, base=plan.base, version=self.api, dag=self.dag, login=plan.login,
                timeout_s=self.timeout,
            )  # fmt: skip
            attempt = _Attempt(self, context, api, plan.masker)
            try:
                return await attempt.make(conf, logical_date)
            except Refused as error:
                return Outcome.failed(error.code, plan.masker.text(str(error)), outputs=attempt.outputs())
            except Unsure as error:
                reason = plan.masker.text(f"{error}; given up after {self.patience:g}s{attempt.doubt()}")
                return Outcome.failed("airflow_unreachable", reason, outputs=attempt.outputs())
            except anyio.get_cancelled_exc_class():
                if not context.interrupted:
                    await attempt.cancel()
                raise


class _Plan(NamedTuple):
    """The settings of a job, compiled."""

    reach: Reach
    base: Any
    login: Login
    conf: Any
    logical_date: Template | None
    masker: Masker

    @classmethod
    def read(cls, settings: Airflow, names: frozenset[str]) -> _Plan:
        """Compile the settings; raise BadSetting, naming the field, for what is wrong."""
        reach, url = read_reach(settings.allow_private), settings.url
        text = url.reveal() if isinstance(url, Secret) else url
        try:
            base = read_url(text, reach)
            if base.query_string:
                raise BadSetting("url", "has a query", 'such as "https://airflow.example.com"')
            if _API_PATH.search(base.path):
                raise BadSetting("url", "goes on to the API, which is found from there", "leave `/api/…` out")
        except BadSetting as error:
            if isinstance(url, Secret):
                raise BadSetting("url", "is no URL that may be a target, or has mistakes", error.hint) from None
            raise
        secrets = [one.reveal() for one in (settings.password, settings.token) if one is not None]
        if isinstance(url, Secret):
            secrets += parts_of_url(text, origin_of(base))
        login = Login(
            token=None if settings.token is None else settings.token.reveal(), username=settings.username,
            password="" if settings.password is None else settings.password.reveal(),
        )  # fmt: skip
        date = settings.logical_date
        try:
            logical_date = None if date is None else Template(date, names)
        except ExpressionError as error:
            raise BadSetting("logical_date", str(error)) from None
        return cls(reach, base, login, compiled("conf", settings.conf, names), logical_date, Masker(secrets))

    def conf_of(self, context: RunContext) -> dict[str, Any]:
        """Return the `conf` of an attempt; raise ExpressionError where it can't be told."""
        value = context.event.data if self.conf is None else rendered(self.conf, context.scope)
        if isinstance(value, dict):
            return value
        if self.conf is not None:
            raise ExpressionError(f"conf is a {type(value).__name__}, and no object")
        return {} if value is None else {"data": value}

    def date_of(self, context: RunContext) -> str | None:
        """Return the logical date of an attempt, or None; raise ExpressionError where it can't be told."""
        return None if self.logical_date is None else self.logical_date.render(context.scope) or None


class _Attempt:
    """One attempt: its DAG run, from its start or where it stands to its end."""

    def __init__(self, settings: Airflow, context: RunContext, api: Api, masker: Masker) -> None:
        self._settings = settings
        self._context = context
        self._clock = context.clock
        self._api = api
        self._masker = masker
        self._id = dag_run_id(context.run_id, context.attempt)
        self._asked = False
        self._seen: DagRun | None = None
        self._pause_s = FIRST_PAUSE_S
        self._since_s = self._clock.monotonic()
        """Since when Airflow gives no answer."""

    async def make(self, conf: Mapping[str, Any], logical_date: str | None) -> Outcome:
        """Start the DAG run, or find the one that is there, and follow it; raise Refused and Unsure."""
        seen = await self._earlier()
        if seen is None:
            seen = await self._start(conf, logical_date)
        said = ""
        while True:
            self._seen = seen
            if seen.state != said:
                said = seen.state
                await self._tell(f"DAG run {self._id} is {said}")
            if seen.state not in BUSY:
                return self._end_of(seen)
            await self._clock.sleep(self._settings.every)
            found = await self._ask(self._id)
            if found is None:
                raise Refused(f"DAG run {self._id} is gone from {self._api.name}", code="dag_run_gone")
            seen = found

    async def _earlier(self) -> DagRun | None:
        """Return the DAG run of an attempt before this one that has not failed: no second one runs beside it."""
        number = self._context.attempt
        for earlier in range(number - 1, max(number - 1 - MOST_LOOKED_AT, 0), -1):
            run_id = dag_run_id(self._context.run_id, earlier)
            found = await self._ask(run_id)
            if found is not None and found.state != "failed":
                self._id, self._asked = run_id, True
                await self._tell(f"goes on with DAG run {run_id}, of attempt {earlier}")
                return found
        return None

    async def _start(self, conf: Mapping[str, Any], logical_date: str | None) -> DagRun:
        """Start the DAG run. Where no answer tells whether it was, look for it before it is asked for again."""
        while True:
            self._asked = True
            try:
                made = await self._api.create(self._id, conf, logical_date)
            except Unsure as error:
                await self._wait(error)
                made = await self._ask(self._id)
                if made is None:
                    continue
            else:
                self._answered()
                if made is None:  # our own, from before a crash or a lost answer
                    made = await self._ask(self._id)
                    if made is None:
                        reason = f"{self._api.name} has another run of DAG {self._settings.dag} for that logical date"
                        raise Refused(reason, code="dag_run_conflict")
            return made

    async def _ask(self, run_id: str) -> DagRun | None:
        """Ask for a DAG run until there is an answer, within `patience`."""
        while True:
            try:
                found = await self._api.get(run_id)
            except Unsure as error:
                await self._wait(error)
            else:
                self._answered()
                return found

    def _answered(self) -> None:
        self._since_s, self._pause_s = self._clock.monotonic(), FIRST_PAUSE_S

    async def _wait(self, error: Unsure) -> None:
        """Wait before Airflow is asked again; raise the error where that has taken too long."""
        if self._pause_s == FIRST_PAUSE_S:
            await self._tell(f"! {error}")
        left_s = self._settings.patience - (self._clock.monotonic() - self._since_s)
        if left_s <= 0:
            raise error
        pause_s = max(self._pause_s, error.pause_s or 0.0)
        self._pause_s = min(self._pause_s * 2, max(self._settings.every, FIRST_PAUSE_S * 2))
        await self._clock.sleep(min(pause_s, left_s))

    def _end_of(self, seen: DagRun) -> Outcome:
        line = f"DAG run {self._id} {'succeeded' if seen.state == 'success' else f'is {seen.state}'}"
        if seen.state == "success":
            return Outcome.succeeded(line, outputs=self.outputs())
        return Outcome.failed(
            "dag_failed", f"{line}: {self._masker.text(self._api.page(self._id))}", outputs=self.outputs()
        )

    async def cancel(self) -> None:
        """Have the DAG run fail, as its run was cancelled or timed out; for a bounded time."""
        if not self._asked or (self._seen is not None and self._seen.state not in BUSY):
            return
        said = "it was not told of the cancel in time"
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CANCEL_WITHIN_S):
                try:
                    found = await self._api.fail(self._id)
                    if not found and self._seen is None:  # the request that starts it may be under way still
                        await self._clock.sleep(FIRST_PAUSE_S)
                        found = await self._api.fail(self._id)
                    said = "" if found else "there is no such DAG run"
                except (Refused, Unsure) as error:
                    said = str(error)
            text = f"cancelled: DAG run {self._id} {'is to fail' if not said else f'may go on: {said}'}"
            await self._tell(text)
        if said and self._seen is not None:
            self._context.log.warning(
                "DAG run %s may go on: %s", self._id, self._masker.text(said), extra={"action": "dag_run_left"}
            )

    def doubt(self) -> str:
        """Say that a DAG run may be there, where that can't be told."""
        if self._asked and self._seen is None:
            return f"; DAG run {self._id} may have been started, and is looked for by the next attempt"
        return ""

    def outputs(self) -> dict[str, Any] | None:
        """Return what is known of the DAG run as the run's outputs."""
        if self._seen is None:
            return None
        return {
            "dag": self._settings.dag, "dag_run_id": self._id, "state": self._seen.state,
            "start_date": self._seen.start_date, "end_date": self._seen.end_date,
            "url": self._masker.text(self._api.page(self._id)),
        }  # fmt: skip

    async def _tell(self, line: str) -> None:
        await write_log(self._context, f"{self._masker.text(line)}\n".encode())


def dag_run_id(run_id: str, attempt: int) -> str:
    """Return the id of the DAG run of an attempt: the run's own for the first, so that it is made at most once."""
    return run_id if attempt <= 1 else f"{run_id}_{attempt}"
