"""Metrics: what a scrape says is what the ledger says, whoever may read it, however it is asked for."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from engine import runtime as runtime_module
from engine.config import Config
from engine.config.difference import for_running
from engine.config.metrics import MetricsTable
from engine.errors import StoreUnavailable
from engine.events import Event, EventOutcome, Outcome
from engine.metrics import ALIASES, FAMILIES, Counts, Histogram, Kind, Names
from engine.metrics.catalogue import PREFIX
from engine.metrics.counts import MOST_CODES, OTHERS, SENDERS
from engine.metrics.exposition import expose
from engine.metrics.figures import LONG_S
from engine.runs import Origin, RunState
from engine.runtime import Runtime
from engine.testing import VirtualClock
from engine.triggers import PauseScope
from tests.fake_operations import FakeOperations
from tests.fakes import until
from tests.http_client import Client
from tests.organs import InlineStore
from tests.test_runtime import Gate, _fresh, configured, fire  # noqa: F401 - a fixture
from tests.test_runtime import operations as of
from tests.test_runtime import running as running_engine

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

LOAD = """
[engine]
shutdown_grace = "0s"
[metrics]
aliases = true
[pools]
ware = 2
[jobs.work]
run.gate = "open"
pools = ["ware"]
[jobs.bad]
run.exec = ["false"]
[jobs.flaky]
run.exec = ["false"]
retry = { attempts = 3, delay = "1s", jitter = 0 }
[jobs.stuck]
run.gate = "shut"
concurrency = 1
[triggers.tick]
on.interval = "10s"
job = "work"
[triggers.quiet]
on.interval = "10s"
job = "work"
filter = "data.size() > 100"
[triggers.go]
on.manual = true
job = "bad"
[triggers.again]
on.manual = true
job = "flaky"
[triggers.wait]
on.manual = true
job = "stuck"
[triggers.off]
on.manual = true
job = "work"
enabled = false
[triggers.heard]
on.event = "order.*"
job = "work"
filter = "data.paid"
"""


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that stands still does not wait for threads."""
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)


@asynccontextmanager
async def running(config: Config, clock: VirtualClock) -> AsyncIterator[Runtime]:
    """Run an engine under a clock that the test turns, and let what it runs end."""
    async with running_engine(config, clock=clock) as engine:
        yield engine
        Gate.open.add("shut")
        while engine.running:
            await clock.advance(1)


def samples(text: str) -> Samples:
    return {(one.name, frozenset(one.labels.items())): one.value for family in parse(text) for one in family.samples}


async def scraped(engine: Runtime) -> Samples:
    return samples((await of(engine).metrics.scrape()).body.decode())


def figure(found: Samples, name: str, **labels: str) -> float:
    return found[(name if name.startswith("schedule") else PREFIX + name), frozenset(labels.items())]


def summed(found: Samples, name: str) -> float:
    return sum(value for (each, _), value in found.items() if each == PREFIX + name)


async def under_load(engine: Runtime, clock: VirtualClock) -> None:
    """Have timers tick, people fire and senders send; wait until all has ended that can."""
    for _ in range(6):
        await clock.advance(10)
    for _ in range(3):
        await fire(engine, "go")
    sent = [Event(type="order.new", source=f"shop {number}", data={"paid": number < 3}) for number in range(5)]
    await of(engine).hear(sent)
    await of(engine).hear([Event(type="nobody.hears", source="shop", data={})])
    repeated = Event(type="order.new", source="shop", key="same", data={"paid": True})
    for _ in range(2):
        await of(engine).hear([repeated])
    store = of(engine).store
    await until(lambda: sum(of(engine).metrics._counts.runs.values()) >= 6 + 3 + 3 + 1)
    while (await store.counts()).get(RunState.RUNNING, 0):
        await clock.advance(0.01)


async def test_the_figures_are_those_of_the_ledger_after_a_load(tmp_path: Path) -> None:
    config, clock = configured(tmp_path, LOAD), VirtualClock()
    async with running(config, clock) as engine:
        await under_load(engine, clock)
        for _ in range(3):
            await fire(engine, "wait")
        await until(lambda: len(Gate.begun) > 0 and any(one.job == "stuck" for one in Gate.begun))
        found, ledger = await scraped(engine), await of(engine).store.ledger()
        stats = await of(engine).store.stats(list(config.triggers))
        assert ledger.missing == ()
        assert summed(found, "events_total") == ledger.accepted
        ends = Counter[str]()
        for one in stats.values():
            ends.update({state.value: count for state, count in one.by_state.items()})
        for state in ("succeeded", "failed"):
            told = sum(
                value for (name, labels), value in found.items()
                if name == f"{PREFIX}runs_total" and ("state", state) in labels
            )  # fmt: skip
            assert told == ends[state] > 0
        assert figure(found, "events_total", source="timer", outcome="run") == 6
        assert figure(found, "events_total", source="timer", outcome="filtered") == 6
        assert figure(found, "events_total", source=SENDERS, outcome="unmatched") == 1
        assert figure(found, "events_total", source=SENDERS, outcome="filtered") == 2
        assert figure(found, "events_duplicate_total") == 1
        assert figure(found, "run_duration_seconds_count", job="bad") == 3
        assert figure(found, "run_lateness_seconds_count", trigger="tick") == 6
        assert figure(found, "queue_runs", lane="manual") == 2
        assert figure(found, "runs", state="running") == 1
        assert figure(found, "triggers", state="disabled") == 1
        assert figure(found, "triggers", state="active") == 6
        assert figure(found, "trigger_failures_in_a_row", trigger="go") == 3
        assert figure(found, "trigger_failures_in_a_row", trigger="tick") == 0
        assert figure(found, "pool_limit", pool="ware") == 2
        due = figure(found, "trigger_next_due_timestamp_seconds", trigger="tick")
        assert 0 < due - clock.now().timestamp() <= 10
        assert figure(found, "store_commit_seconds_count") == figure(found, "store_commit_changes_count")
        assert figure(found, "store_writable") == 1
        assert figure(found, "schedules_total", type="interval", status="active") == 2
        assert figure(found, "schedule_executions_total", status="succeeded") == 6
        assert figure(found, "schedule_misfires_total") == 0


async def test_attempts_and_retries_are_those_of_the_runs(tmp_path: Path) -> None:
    config, clock = configured(tmp_path, LOAD), VirtualClock()
    async with running(config, clock) as engine:
        await fire(engine, "go")
        run_id = await fire(engine, "again")
        for number in range(3):
            await until(lambda: of(engine).metrics._counts.attempts()["flaky"] == number + 1)  # noqa: B023
            await clock.advance(2.5)
        run, found = await of(engine).store.run(run_id), await scraped(engine)
        assert run is not None
        assert (run.state, len(run.attempts)) == (RunState.FAILED, 3)
        assert figure(found, "run_attempts_total", job="flaky") == 3
        assert figure(found, "run_attempts_total", job="bad") == 1
        assert figure(found, "run_retries_total", job="flaky", state="failed") == 2
        assert summed(found, "run_retries_total") == 2
        assert figure(found, "runs_total", job="flaky", state="failed") == 1


async def test_open_alerts_are_told_of_by_name_and_severity(tmp_path: Path) -> None:
    more = "\n[alerts.failed]\nwhen = { failures = 1 }\n[alerts.none]\nwhen = { queue_depth = 9 }\nenabled = false\n"
    config, clock = configured(tmp_path, LOAD + more), VirtualClock()
    async with running(config, clock) as engine:
        assert figure(await scraped(engine), "alerts_open", alert="failed", severity="warning") == 0
        await fire(engine, "go")
        await until(lambda: of(engine).metrics._counts.attempts()["bad"] == 1)
        await clock.advance(11)
        found = await scraped(engine)
        assert figure(found, "alerts_open", alert="failed", severity="warning") == 1
        assert figure(found, "alerts_open", alert="disk", severity="critical") == 0
        assert summed(found, "alerts_open") == 1
        assert not [labels for name, labels in found if ("alert", "none") in labels]


async def test_what_was_missed_is_counted_by_its_code_and_held_queues_have_an_age(tmp_path: Path) -> None:
    text = LOAD + '[triggers.late]\non.interval = "10s"\njob = "work"\n'
    text += 'misfire.catch_up = "none"\n'
    config, clock = configured(tmp_path, text), VirtualClock()
    async with running(config, clock) as engine:
        await of(engine).pause(PauseScope.TRIGGER, "late", reason="for a test")
        await clock.advance(60)
        await of(engine).resume(PauseScope.TRIGGER, "late")
        for _ in range(2):
            await fire(engine, "wait")
        counts = of(engine).metrics._counts
        await clock.advance(20)
        await until(lambda: counts.scheduled["missed"] >= 5)
        found = await scraped(engine)
        missed = [
            (dict(labels)["code"], value) for (name, labels), value in found.items()
            if name == f"{PREFIX}runs_not_done_total" and ("state", "missed") in labels
        ]  # fmt: skip
        assert sum(value for _, value in missed) == figure(found, "schedule_misfires_total") >= 5
        assert figure(found, "queue_oldest_age_seconds", lane="live") == 0
        assert figure(found, "queue_runs", lane="manual") == 1


async def test_counters_begin_anew_with_the_process_and_what_is_stored_does_not(tmp_path: Path) -> None:
    config = configured(tmp_path, LOAD)
    async with running(config, VirtualClock()) as engine:
        for _ in range(2):
            await fire(engine, "go")
        await until(lambda: of(engine).metrics._counts.runs["bad", "failed"] == 2)
    async with running(config, VirtualClock()) as engine:
        found = await scraped(engine)
        assert summed(found, "runs_total") == 0
        assert figure(found, "trigger_failures_in_a_row", trigger="go") == 2
        assert (await of(engine).store.ledger()).accepted >= 2
        await fire(engine, "go")
        await until(lambda: of(engine).metrics._counts.runs["bad", "failed"] == 1)
        await of(engine).counting.flush()
        assert figure(await scraped(engine), "trigger_failures_in_a_row", trigger="go") == 3


async def test_another_configuration_holds_from_the_next_scrape_on(tmp_path: Path) -> None:
    config = configured(tmp_path, LOAD)
    async with running(config, VirtualClock()) as engine:
        assert any(name == "schedules_total" for name, _ in await scraped(engine))
        wanted = replace(config, metrics=MetricsTable(most_names=3))
        kept, restart = for_running(config, wanted)
        assert restart == ("metrics.most_names",)
        assert kept.metrics == MetricsTable(most_names=config.metrics.most_names)
        of(engine).take_config(kept)
        assert not any(name == "schedules_total" for name, _ in await scraped(engine))


async def test_a_store_that_can_not_be_read_costs_its_own_figures_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    async with running(configured(tmp_path, LOAD), VirtualClock()) as engine:

        async def away() -> Any:
            raise StoreUnavailable("away")

        monkeypatch.setattr(of(engine).store, "counts", away)
        found = await scraped(engine)
        assert figure(found, "ready") == 1
        assert (PREFIX + "runs", frozenset({("state", "running")})) not in found


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_no_fault_with_a_scrape(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with running(configured(tmp_path, LOAD), clock) as engine:
        await under_load(engine, clock)
        exposed = await of(engine).metrics.scrape()
        told = await anyio.run_process(["promtool", "check", "metrics"], input=exposed.body, check=False)
        assert (told.returncode, told.stdout, told.stderr) == (0, b"", b"")


async def test_every_figure_has_the_labels_that_the_catalogue_names(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with running(configured(tmp_path, LOAD), clock) as engine:
        await under_load(engine, clock)
        found = await of(engine).metrics.read()
    known = {family.name: family for family in (*FAMILIES, *ALIASES)}
    assert set(found) <= set(known)
    for name, figures in found.items():
        for labels, value in figures.items():
            assert len(labels) == len(known[name].labels), name
            assert isinstance(value, Histogram) == (known[name].kind is Kind.HISTOGRAM), name


def test_names_of_counters_and_units_follow_the_customs() -> None:
    names = [family.name for family in (*FAMILIES, *ALIASES)]
    assert len(names) == len(set(names))
    for family in FAMILIES:
        assert family.name.startswith(PREFIX)
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb)(_|$)", family.name)


# Labels


def test_what_a_sender_calls_itself_never_becomes_a_label() -> None:
    counts = Counts(most_names=10, kinds=frozenset({"timer", "webhook"}))
    outcome = Outcome(trigger="t", outcome=EventOutcome.RUN, code="matched", reason="")
    for source in ('evil"} 1\n', "webhook://evil", "x" * 500, "timers:x", *(f"shop {number}" for number in range(50))):
        counts.met(source, (outcome,))
    counts.met("webhook:github", (outcome,))
    assert counts.events == {(SENDERS, "run"): 54, ("webhook", "run"): 1}


def test_names_beyond_the_bound_are_added_up_and_no_counter_goes_down() -> None:
    counts = Counts(most_names=2, kinds=frozenset())
    for _ in range(2):
        for job in ("a", "b", "c", "d"):
            counts.ended(job, RunState.SUCCEEDED, "succeeded", Origin.EVENT, 1.0)
            counts.began(job, 1.0)
    assert counts.runs == {("a", "succeeded"): 2, ("b", "succeeded"): 2, (OTHERS, "succeeded"): 4}
    assert {name: one.count for name, one in counts.durations.items()} == {"a": 2, "b": 2, OTHERS: 4}
    assert set(counts.lateness) == {"a", "b", OTHERS}
    for job in ("a", "c", "d"):
        counts.tried_again(job, RunState.TIMED_OUT)
    assert counts.retried == {("a", "timed_out"): 1, (OTHERS, "timed_out"): 2}
    assert counts.attempts() == {"a": 3, "b": 2, OTHERS: 6}
    assert Names(0).label("a") == OTHERS


def test_codes_that_a_plugin_makes_up_are_bounded() -> None:
    counts = Counts(most_names=2, kinds=frozenset())
    for number in range(MOST_CODES + 50):
        counts.ended("a", RunState.SKIPPED, f"code_{number}", Origin.EVENT, None)
    assert len(counts.codes) == MOST_CODES + 1
    assert counts.codes["skipped", OTHERS] == 50


def test_a_histogram_counts_by_the_first_bound_that_is_not_exceeded() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, -3.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total, histogram.count) == ([3, 2, 1], 7.5, 6)
    assert histogram.percentile(0.5) == 1.0
    assert histogram.percentile(0.99) == float("inf")
    assert Histogram(LONG_S).percentile(0.5) is None
    copied = histogram.copy()
    histogram.add(1.0)
    assert copied.count == 6
    copied.take(histogram)
    assert copied.count == 13


# Over HTTP


def _configure(operations: FakeOperations, **metrics: Any) -> None:
    operations.config = replace(operations.config, metrics=MetricsTable(**metrics))


async def test_metrics_take_a_token_unless_they_are_public(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    got = await client.ask("GET", "/metrics", token=None)
    assert (got.status, got.json["code"]) == (401, "unauthorized")
    assert (await client.ask("GET", "/metrics", token="wrong")).status == 401
    assert (await client.ask("GET", "/metrics")).status == 200
    assert (await client.ask("GET", "/metrics?x=1")).status == 422
    assert (await client.ask("POST", "/metrics")).status == 405
    assert (await client.ask("GET", "/metrics", headers={"Host": "evil.example"})).status == 403
    _configure(operations, public=True)
    assert (await client.ask("GET", "/metrics", token=None)).status == 200
    assert (await client.ask("GET", "/api/v1/status", token=None)).status == 401


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.1", "application/openmetrics"),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8", "application/openmetrics"),
        ("application/openmetrics-text;version=none-at-all", "application/openmetrics"),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4"),
        ("text/plain;version=99.x.y,,;;", "text/plain; version=0.0.4"),
    ],
)
async def test_the_form_is_what_is_asked_for(client: Client, accept: str, kind: str) -> None:
    got = await client.ask("GET", "/metrics", headers={"Accept": accept} if accept else {})
    assert got.status == 200
    assert got.headers["Content-Type"].startswith(kind)
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    read: Any = parse_open_metrics if "openmetrics" in kind else parse
    assert f"{PREFIX}jobs" in {family.name for family in read(got.body.decode())}


def test_what_is_large_is_compressed_for_who_takes_it() -> None:
    figures: Mapping[str, Any] = {f"{PREFIX}runs": {(f"state {number}",): 1.0 for number in range(500)}}
    plain = expose(FAMILIES, figures)
    packed = expose(FAMILIES, figures, accept_encoding="gzip, br")
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
    assert gzip.decompress(packed.body).count(b"\n") == plain.body.count(b"\n")


# What is handed out with them

EXAMPLES = Path(__file__).parent.parent / "examples" / "monitoring"
_NAME = re.compile(r"\b(?:trigger_engine|process|schedule|schedules|distributed_locks)_[a-z0-9_]+\b")


def _known_names() -> set[str]:
    known = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
             "process_start_time_seconds", "process_virtual_memory_bytes"}  # fmt: skip
    for family in (*FAMILIES, *ALIASES):
        known.add(family.name)
        if family.kind is Kind.HISTOGRAM:
            known |= {family.name + end for end in ("_bucket", "_sum", "_count")}
    return known


def test_the_dashboard_and_the_rules_ask_for_metrics_that_there_are() -> None:
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 15
    rules = (EXAMPLES / "alerts.yml").read_text("utf-8")
    names = set(_NAME.findall("\n".join(asked) + rules))
    assert len(names) > 20
    assert names - _known_names() == set()
    panels = [panel["id"] for panel in dashboard["panels"]]
    assert len(panels) == len(set(panels))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("what", "file"), [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_finds_no_fault_with_the_examples(what: str, file: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "monitoring")
    (tmp_path / "monitoring" / "token").write_text("t")
    told = subprocess.run(
        ["promtool", "check", what, str(tmp_path / "monitoring" / file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    told = subprocess.run(
        ["promtool", "test", "rules", str(EXAMPLES / "alerts_test.yml")], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    plain = [expr.replace("$__rate_interval", "5m").replace("$instance", ".*") for expr in asked]
    rules = [{"record": f"dashboard:panel{number}", "expr": expr} for number, expr in enumerate(plain)]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    told = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
