"""Redaction: what is named is replaced before anything is stored, matched or shown, wherever it comes in."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from engine.errors import InvalidEvent
from engine.events import Event
from engine.payload import encode_json
from engine.plugin import Outcome, Source
from engine.redaction import HASHED, REDACTED, Redaction, place_of
from engine.triggers import Debounce, Dedupe, Input, PayloadSchema, SharedSource
from plugins.sources.run import RunEnds
from tests.organs import Bench, Heard, Listed, bench, event, job, trigger

CANARY = "4111-1111-1111-1111"
KEY = b"0123456789abcdef"


def redaction(*texts: str, key: bytes | None = None) -> Redaction:
    return Redaction(places=tuple(map(place_of, texts)), key=key)


def of_data(data: Any, *texts: str) -> Any:
    return redaction(*texts).applied(event(data=data)).data


@pytest.mark.parametrize(
    ("path", "data", "found"),
    [
        ("data.a", {"a": 1, "b": 2}, {"a": REDACTED, "b": 2}),
        ("data.a.b", {"a": {"b": 1, "c": 2}}, {"a": {"b": REDACTED, "c": 2}}),
        ("data.a", {"a": {"b": [1]}}, {"a": REDACTED}),
        ("data.a", {"a": None}, {"a": REDACTED}),
        ("data.a[*].s", {"a": [{"s": 1}, {"t": 2}, 3]}, {"a": [{"s": REDACTED}, {"t": 2}, 3]}),
        ("data.a[*]", {"a": [1, 2]}, {"a": [REDACTED, REDACTED]}),
        ("data.a[1]", {"a": [1, 2]}, {"a": [1, REDACTED]}),
        ("data.a[*]", {"a": {"x": 1, "y": 2}}, {"a": {"x": REDACTED, "y": REDACTED}}),
        ("data.*.s", {"a": {"s": 1}, "b": {"s": 2}}, {"a": {"s": REDACTED}, "b": {"s": REDACTED}}),
        ('data["a.b"]', {"a.b": 1, "a": {"b": 2}}, {"a.b": REDACTED, "a": {"b": 2}}),
        ('data["q\\"x"].s', {'q"x': {"s": 1}}, {'q"x': {"s": REDACTED}}),
        ("data.über", {"über": 1}, {"über": REDACTED}),
        ("data[0].s", [{"s": 1}, {"s": 2}], [{"s": REDACTED}, {"s": 2}]),
        ("data", {"a": 1}, REDACTED),
        ("data.*[0]", {"a": [1, 2], "b": {}}, {"a": [REDACTED, 2], "b": REDACTED}),
    ],
)
def test_the_values_at_a_path_are_replaced_and_nothing_else(path: str, data: Any, found: Any) -> None:
    assert of_data(data, path) == found


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("data.a.s", {"a": [{"s": CANARY}]}),
        ("data.a.s", [[{"a": {"s": CANARY}}]]),
        ("data.a[*].s", {"a": {"s": CANARY}}),
        ("data.a[*].s", {"a": [[{"s": CANARY}]]}),
        ("data.a[*]", {"a": CANARY}),
        ("data.a[0].s", {"a": {"s": CANARY}}),
        ("data.a[0]", {"a": CANARY}),
        ("data.a[*]", {"a": {"b": {"c": CANARY}}}),
    ],
)
def test_a_sender_can_not_hide_a_value_by_wrapping_it_or_leaving_a_list_out(path: str, data: Any) -> None:
    assert CANARY not in repr(of_data(data, path))


def test_headers_are_found_in_any_case_and_what_a_request_brought_is_replaced() -> None:
    http = {"method": "POST", "headers": {"authorization": "a", "x-k": "b"}, "query": {"t": "c"}, "remote": "10.0.0.1"}
    sent = Event(type="a", subject="who@example", http=http)
    found = redaction("http.headers.Authorization", "http.query.t", "http.remote", "event.subject").applied(sent)
    assert found.subject == REDACTED
    assert found.http == {
        "method": "POST", "headers": {"authorization": REDACTED, "x-k": "b"}, "query": {"t": REDACTED},
        "remote": REDACTED,
    }  # fmt: skip
    assert http["remote"] == "10.0.0.1"
    bare = redaction("http.headers", "http.remote").applied(event())
    assert bare.http is None


def test_equal_values_have_equal_hashes_and_the_key_makes_them() -> None:
    one = redaction("data.a", key=KEY)
    first, same, other = (one.applied(event(data={"a": value})).data["a"] for value in (CANARY, CANARY, "x"))
    assert first == same != other
    assert first == HASHED + hmac.new(KEY, encode_json(CANARY), sha256).hexdigest()
    assert redaction("data.a", key=KEY[::-1]).applied(event(data={"a": CANARY})).data["a"] != first
    assert (
        one.applied(event(data={"a": {"x": 1, "y": 2}})).data == one.applied(event(data={"a": {"y": 2, "x": 1}})).data
    )


def test_what_looks_like_a_hash_is_hashed_unless_it_was_stored_before() -> None:
    one = redaction("data.a", key=KEY)
    once = one.applied(event(data={"a": CANARY}))
    assert one.applied(once).data != once.data
    assert one.applied(once, again=True) is once


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("card.number", "begins with"),
        ("database.x", "begins with"),
        ("event.key", "begins with"),
        ("http", "begins with"),
        ("http.body", "begins with"),
        ("data.", "can't be read"),
        ("data..a", "can't be read"),
        ("data.a[", "can't be read"),
        ("data.a[x]", "can't be read"),
        ("data.a[-1]", "can't be read"),
        ('data["a', "can't be read"),
        ("event.subject.x", "goes on"),
        ("", "begins with"),
    ],
)
def test_what_is_no_path_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        place_of(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
STEPS = st.lists(st.sampled_from([".a", ".b", ".*", "[*]", "[0]", "[1]", '["c"]']), max_size=4)


def at_exactly(data: Any, steps: list[str]) -> list[Any]:
    """Return the values at a path, read as strictly as one can."""
    found = [data]
    for step in steps:
        name = step.strip('.[]"')
        below: list[Any] = []
        for value in found:
            if name == "*" and isinstance(value, (list, dict)):
                below += value.values() if isinstance(value, dict) else value
            elif isinstance(value, dict) and name in value:
                below.append(value[name])
            elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                below.append(value[int(name)])
        found = below
    return found


@given(JSON, STEPS)
def test_nothing_is_left_at_a_path_and_the_event_itself_is_not_changed(data: Any, steps: list[str]) -> None:
    before = encode_json(data)
    left = of_data(data, "data" + "".join(steps))
    assert all(value == REDACTED for value in at_exactly(left, steps))
    assert encode_json(data) == before
    if left == data:
        assert all(value == REDACTED for value in at_exactly(data, steps))


# At the door


def shared(one: Source, *texts: str, key: bytes | None = None, name: str = "mill") -> SharedSource:
    return SharedSource(name=name, id=name, on=one, redaction=redaction(*texts, key=key))


async def stored_data(desk: Bench, event_id: str) -> Any:
    found = await desk.store.event(event_id)
    assert found is not None
    return found.event.data


def files_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.rglob("*")) if file.is_file())


GENERAL = redaction("data.card.number", "data.outputs.token", "event.subject")


async def test_a_value_is_nowhere_after_it_came_in_by_any_door(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(run: Any, job: Any) -> Outcome:
        return Outcome.succeeded("done", outputs={"token": "outputs-are-not-events"})

    hears = trigger("heard", source="event:x", on=Heard())
    taps = trigger("tap", filter="data.card.number == 'x' || true", debounce=Debounce(wait_s=1, key="data.card.number"))
    async with bench(
        tmp_path / "s.db", triggers=[taps, trigger("plain", dedupe=Dedupe(key="event.subject", window_s=60)), hears],
        hearing=[("event:x", Heard())], redaction=GENERAL, act=act,
    ) as desk:  # fmt: skip
        data = {"card": {"number": CANARY, "name": "Ada"}}
        one = event(data=data, subject=CANARY)
        answers = [
            *await desk.emit(one, event(data=Raw(encode_json(data)), subject=CANARY)),
            *await desk.intake.hear([Event(type="order.created", data=data, subject=CANARY)]),
            *await desk.intake.hear([Event(type="nobody.hears", data=data, subject=CANARY)]),
            await desk.intake.fire("plain", data=data),
            await desk.intake.reject("mill", one, "it is not right"),
        ]
        tried = desk.intake.rehearsal.test("tap", one)
        assert CANARY not in repr(tried)
        await desk.advance(5)
        for answer in answers:
            assert (await stored_data(desk, answer.event))["card"] == {"number": REDACTED, "name": "Ada"}
        assert CANARY not in repr(desk.script.events)
        assert data["card"]["number"] == CANARY
    assert CANARY.encode() not in files_of(tmp_path / "s.db")
    assert CANARY not in caplog.text


async def test_a_source_redacts_what_reaches_its_triggers_in_other_ways_too(tmp_path: Path) -> None:
    mine = shared(Listed(), "data.pin")
    ear = shared(Heard(), "data.pin", name="ear")
    async with bench(
        tmp_path / "s.db",
        triggers=[trigger("a", shared=mine), trigger("b", source="other"), trigger("c", source="ear", shared=ear)],
        hearing=[("ear", Heard())],
    ) as desk:
        data = {"pin": CANARY}
        for answer in (
            await desk.emit_one(event(data=data)), await desk.intake.fire("a", data=data),
            *await desk.intake.hear([Event(type="order.created", data=data)]),
        ):  # fmt: skip
            assert await stored_data(desk, answer.event) == {"pin": REDACTED}
        untouched = await desk.emit_one(event(data=data), source="other")
        assert await stored_data(desk, untouched.event) == data


async def test_data_that_grows_too_large_by_its_hashes_is_refused(tmp_path: Path) -> None:
    general = redaction("data[*]", key=KEY)
    async with bench(tmp_path / "s.db", redaction=general, max_data_bytes=1000) as desk:
        await desk.emit_one(event(data=[1] * 10))
        with pytest.raises(InvalidEvent, match="also when redacted"):
            await desk.emit_one(event(data=[1] * 100))


async def test_keyed_hashes_keep_equal_values_together_at_the_gates(tmp_path: Path) -> None:
    for number, (key, runs) in enumerate([(KEY, 2), (None, 1)]):
        one = trigger("a", dedupe=Dedupe(key="data.pin", window_s=60))
        general = redaction("data.pin", key=key)
        async with bench(tmp_path / f"{number}.db", triggers=[one], redaction=general) as desk:
            answers = [await desk.emit_one(event(data={"pin": pin})) for pin in ("1", "2", "1")]
            assert len({run for answer in answers for run in answer.runs}) == runs


async def test_what_is_run_again_keeps_its_hash(tmp_path: Path) -> None:
    mine = shared(Listed(), "data.pin", key=KEY)
    general = redaction("data.other", key=KEY[::-1])
    async with bench(
        tmp_path / "s.db", triggers=[trigger("a", shared=mine), trigger("b", shared=mine)], redaction=general
    ) as desk:
        first = await desk.emit_one(event(data={"pin": CANARY, "other": 1}))
        await desk.settle()
        before = await stored_data(desk, first.event)
        assert before["pin"] == HASHED + hmac.new(KEY, encode_json(CANARY), sha256).hexdigest()
        stored = await desk.store.event(first.event)
        assert stored is not None
        again = await desk.intake.rehearsal.replay(stored, trigger=None, reason="")
        assert await stored_data(desk, again.event) == before
        run = await desk.run_of(first.runs[0])
        once_more = await desk.intake.again(run, [stored.event], reason="")
        assert await stored_data(desk, once_more.event) == before


async def test_the_ends_of_runs_are_events_whose_outputs_can_be_redacted(tmp_path: Path) -> None:
    async def act(run: Any, job: Any) -> Outcome:
        return Outcome.succeeded("done", outputs={"token": CANARY, "rows": 3})

    after = RunEnds(job=("bake",))
    follower = trigger("after", job="sweep", source="run:x", on=after)
    async with bench(
        tmp_path / "s.db", jobs=[job(), job("sweep")], triggers=[trigger("a"), follower],
        following=[("run:x", after)], redaction=GENERAL, act=act,
    ) as desk:  # fmt: skip
        await desk.emit_one(event())
        await desk.settle()
        (given,) = [events[0] for events in desk.script.events.values() if events[0].type.startswith("engine.run")]
        assert given.data["outputs"] == {"token": REDACTED, "rows": 3}


async def test_a_trigger_on_several_sources_redacts_and_judges_by_the_source_of_each_event(tmp_path: Path) -> None:
    strict = PayloadSchema(text='{"required": ["total"]}', name="sales.json")
    sales = SharedSource(
        name="sales", id="sales", on=Listed(), redaction=redaction("data.pin", key=KEY), schema=strict
    )  # fmt: skip
    stock = SharedSource(name="stock", id="stock", on=Listed(path="there"))
    inputs = tuple(Input(name=one.name, source=one.id or "", on=one.on, shared=one) for one in (sales, stock))
    several = trigger("several", source="any:several", inputs=inputs)
    async with bench(tmp_path / "s.db", triggers=[several]) as desk:
        refused = await desk.emit_one(event(data={"pin": CANARY}), source="sales")
        assert [one.code for one in refused.outcomes] == ["schema"]
        assert (await stored_data(desk, refused.event))["pin"].startswith(HASHED)
        other = await desk.emit_one(event(data={"pin": CANARY}), source="stock")
        assert [one.outcome.value for one in other.outcomes] == ["run"]
        assert await stored_data(desk, other.event) == {"pin": CANARY}
        by_hand = await desk.intake.fire("several", data={"pin": CANARY})
        assert (await stored_data(desk, by_hand.event))["pin"].startswith(HASHED)
