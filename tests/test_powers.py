"""Data never becomes power: whatever keys an event brings, its run is that of the configuration (fault row S9)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, fields

from engine.config.model import EngineSettings, JobTable, TriggerTable
from engine.errors import InvalidEvent
from engine.events import Event
from engine.http.problems import Problem
from engine.http.received import read_events
from engine.jobs import Job, RetryPolicy
from engine.payload import encode_json
from engine.plugin import Request
from engine.runs import Run
from engine.triggers import Debounce, Rate, Trigger
from plugins.sources.trigger_dir.content import InvalidTrigger, read_trigger
from tests.organs import Heard, bench, event, job, trigger

NAMES = sorted(
    {field.name for cls in (Run, Job, Trigger, RetryPolicy, Event) for field in fields(cls)}
    | {field.encode_name for cls in (JobTable, TriggerTable, EngineSettings) for field in fields(cls)}
    | set("uid gid user env cwd command argv shell cmd timeout nice bypass job trigger run_id token role admin "
          "ENGINE_RUN_ID LD_PRELOAD PATH PYTHONPATH BASH_ENV __class__ __proto__ constructor".split())
)  # fmt: skip
HOSTILE = st.sampled_from(
    [9, 0, -1, True, None, "root", "sweep", "critical", "/bin/sh", "1970-01-01T00:00:00Z", "{{ 7 * 7 }}", [],
     ["sh", "-c"], {"exec": ["sh"]}, {"attempts": 99}, "running", "cancelled", "engine.timer"]
)  # fmt: skip
POWERS = st.dictionaries(st.sampled_from(NAMES), HOSTILE | st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=3))
_OWN = frozenset({"id", "key", "event", "trace", "reason", "created_at", "rank", "event_bytes", "started_at", "due_at",
                  "finished_at", "closes_at", "window"})  # fmt: skip
"""What differs between two runs of the same trigger."""

TRIGGERS = [
    trigger("plain"),
    trigger(
        "shaped", source="shaped", debounce=Debounce(wait_s=5, key="data.k"), throttle=Rate(limit=1, per_s=1, burst=9)
    ),
    trigger("heard", source="event:x", on=Heard(type="powers")),
]


def kept(run: Run) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name not in _OWN}


async def compare(folder: Path, data: dict[str, Any]) -> None:
    async with bench(
        folder / "s.db", jobs=[job(), job("sweep")], triggers=TRIGGERS, hearing=[("event:x", Heard(type="powers"))],
        dispatching=False, concurrency=1000,
    ) as desk:  # fmt: skip

        async def runs(given: dict[str, Any]) -> list[dict[str, Any]]:
            answers = [
                await desk.emit_one(event(data=given)),
                await desk.emit_one(event(data={**given, "k": str(given)}), source="shaped"),
                *await desk.intake.hear([Event(type="powers", data=given)]),
                await desk.intake.fire("plain", data=given),
            ]
            return [kept(await desk.run_of(run)) for answer in answers for run in answer.runs]

        plain = await runs({"harmless": 1})
        assert len(plain) == 4
        assert await runs(data) == plain


@settings(max_examples=60, deadline=None)
@given(POWERS)
def test_no_key_of_an_events_data_changes_anything_of_its_run(data: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(compare, Path(folder), data)


def request(value: Any, kind: str) -> Request:
    return Request(
        method="POST", path="/api/v1/events", query={}, headers={"Content-Type": kind}, remote="",
        body=encode_json(value),
    )  # fmt: skip


_PLAIN = frozenset({"type", "subject", "data", "id", "key", "time", "source", "priority"})


@pytest.mark.parametrize("name", NAMES)
def test_an_event_with_a_key_that_is_none_of_its_own_is_refused_or_the_key_is_lost(name: str) -> None:
    if name not in _PLAIN:
        with pytest.raises(Problem):
            read_events(request({"type": "a", name: "x"}, "application/json"))
    cloud = {"specversion": "1.0", "id": "1", "source": "s", "type": "a"}
    if name not in cloud and name not in ("priority", "subject", "time", "data", "datacontenttype", "dataschema"):
        try:
            (found,), _ = read_events(request({**cloud, name: "x"}, "application/cloudevents+json"))
        except (Problem, InvalidEvent):
            return
        assert found == Event(type="a", source="s", key="1")


@pytest.mark.parametrize("name", NAMES)
def test_a_trigger_file_with_a_key_that_is_none_of_its_own_is_refused(name: str) -> None:
    if name in ("trigger_type", "source", "priority", "parameters", "created_at"):
        return
    with pytest.raises(InvalidTrigger):
        read_trigger(encode_json({name: "x"}), subject="a.json", key="1")
