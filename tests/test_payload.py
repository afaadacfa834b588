from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import InvalidEvent
from engine.payload import MAX_DEPTH, encode_json, parse_json, survey

VALID: list[tuple[bytes, Any]] = [
    (b"null", None), (b"true", True), (b"false", False), (b"0", 0), (b"-0", 0), (b"-1", -1), (b"1.5", 1.5),
    (b"1e3", 1000.0), (b"1E+2", 100.0), (b"1e-2", 0.01), (b"-0.0", -0.0), (b"1e-400", 0.0), (b'""', ""),
    (b'"a"', "a"), (b"[]", []), (b"{}", {}), (b" \t\r\n{} \t\r\n", {}), (b'"\\u0000"', "\x00"),
    (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'), (b'"\\ud83d\\ude00"', "😀"), ('"😀"'.encode(), "😀"),
    (b'"\x7f"', "\x7f"), (b'"\\u00e9"', "é"), (b'{"":1}', {"": 1}), (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
    ('{"é":1,"e\u0301":2}'.encode(), {"é": 1, "e\u0301": 2}), (b"18446744073709551615", 2**64 - 1),
    (b"-9223372036854775808", -(2**63)), (b'{"a":":"}', {"a": ":"}),
    (b'{"a:":{"b::":":"}}', {"a:": {"b::": ":"}}),
    (b'{"a" : 1, "b"\n:\t2}', {"a": 1, "b": 2}), (b'{"a":"\\":\\":"}', {"a": '":":'}),
    (b'{"\\\\":":"}', {"\\": ":"}),
    (b'{"u":"http://x:80/ :y"}', {"u": "http://x:80/ :y"}), (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
    (b'{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}), (b'{"a":"\\\\\\":","b":":"}', {"a": '\\":', "b": ":"}),
    (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None), (b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH, None),
    (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, None),
]  # fmt: skip

NO_JSON = [
    b"", b" ", b"\n", b"nul", b"NULL", b"True", b"None", b"undefined", b"tru", b"falsey", b"nulll", b"'a'",
    b"a",
    b"{", b"}", b"[", b"]", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1;2]", b"{]", b"[}", b'{"a"}',
    b'{"a":}',
    b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b'{"a"=1}', b'{"a"::1}', b"{a:1}",
    b"{'a':1}",
    b"{1:2}", b"{null:1}", b'{"a":1 "b":2}', b'{"a":1;"b":2}', b"1 2", b"{}{}", b"[][]", b'""""', b"{}x",
    b"{},",
    b"// no\n1", b"/* no */1", b"1 // no", b"# no\n1", b"\x0c1", b"\x0b1", b"\xc2\xa01", b"\xe2\x80\xa81",
]  # fmt: skip

NO_NUMBERS = [
    b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"1e400", b"-1e400", b"1e999999999", b"01", b"-01",
    b"00",
    b"+1", b".5", b"-.5", b"1.", b"1.e2", b"1e", b"1e+", b"1e-", b"--1", b"-", b"0x10", b"1_000", b"1,5",
    b"1..2",
    b"1e2.5", b"0b1", b"1f", b"18446744073709551616", b"-9223372036854775809", b"9" * 4000, b"9" * 5000,
    b"-" + b"9" * 5000, b"1" + b"0" * 100_000, "١".encode(), b"1e" + b"9" * 5000,
]  # fmt: skip

NO_TEXT = [
    b'"', b'"a', b'"\\"', b"\"a'", b'"\\', b'"\\x41"', b'"\\u"', b'"\\u12"', b'"\\u123"', b'"\\u123g"',
    b'"\\U00000041"',
    b'"\\a"', b'"\\0"', b"\"\\'\"", b'"\t"', b'"\n"', b'"\r"', b'"\x00"', b'"\x1f"', b'"\\ud800"',
    b'"\\udfff"',
    b'"\\udc00\\ud800"', b'"\\ud83d\\u0041"', b'"\\ud83d\\ud83d"', b'"\\ud83dabcdefgh"', b'{"\\ud800":1}',
    b'"\xff"', b'"\xfe"', b'"\x80"', b'"\xc0\x80"', b'"\xc1\xbf"', b'"\xe2\x82"', b'"\xed\xa0\x80"',
    b'"\xed\xbf\xbf"',
    b'"\xf4\x90\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xf0\x80\x80\x80"', b'{"\xff":1}', b"\xff",
    b"\xc3\xa9",
    b'\xef\xbb\xbf{"a":1}', b"\xfe\xff\x00{\x00}", b"\xff\xfe{\x00}\x00", '{"a":1}'.encode("utf-16-le"),
    '{"a":1}'.encode("utf-16-be"), '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"),
    '"é"'.encode("latin-1"),
    b"\x00", b"{}\x00", b"\x00{}", b"{\x00}", b'{"a\x00":1}', b'{"a":"\x00"}',
]  # fmt: skip

DUPLICATES = [
    b'{"role":"a","role":"b"}', b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'{"x":{"a":1,"a":2}}',
    b'[{"a":1,"a":2}]',
    b'{"a":1,"\\u0061":2}', b'{"a":{"b":1},"a":2}', b'{"a":[{"b":1}],"a":[]}', b'{"":1,"":2}',
    b'{"a" :1,"a"\n:2}',
    b'{"a":":","a":":"}', b'{"a":"b:c","a":1}', '{"é":1,"\\u00e9":2}'.encode(), b'{"\\/":1,"/":2}',
    b'{"a":1,"a":{"a":{"a":2}}}', b'{"a":"\\":","a":"\\":"}', b'{"a\\\\":1,"a\\\\":":"}',
]  # fmt: skip

TOO_DEEP = [
    b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b'[{"a":' * 33 + b"1" + b"}]" * 33,
    b"[" * 900 + b"]" * 900, b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'[{"":' * 100_000,
]  # fmt: skip

ACCEPTABLE = (
    b'{"a": [1, 2.5, -3, true, false, null, "x:y \\u00e9 \xc3\xa9 \\" \\\\"],'
    b' "b" : {"c": {}, "d": []}, "e":"http://f:1/"}'
)


@pytest.mark.parametrize(("body", "value"), VALID)
def test_what_the_rfc_allows_is_read(body: bytes, value: Any) -> None:
    read = parse_json(body)
    assert read == json.loads(body)
    if value is not None:
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(
    "body", NO_JSON + NO_NUMBERS + NO_TEXT + DUPLICATES + TOO_DEEP, ids=lambda body: repr(body[:24])
)
@pytest.mark.parametrize(
    "around", [b"%s", b"[%s]", b'{"m":%s}', b'[0,%s,{"n":"x:y"}]'], ids=["alone", "list", "object", "both"]
)
def test_what_the_rfc_does_not_allow_is_refused_with_400(body: bytes, around: bytes) -> None:
    if around != b"%s" and body.strip(b" \n") in (b"", b"1,5"):
        body = b"?"
    with pytest.raises(InvalidEvent) as caught:
        parse_json(around.replace(b"%s", body))
    assert caught.value.status == 400
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("end", range(len(ACCEPTABLE)))
def test_a_body_that_ends_early_is_refused(end: int) -> None:
    parse_json(ACCEPTABLE)
    with pytest.raises(InvalidEvent):
        parse_json(ACCEPTABLE[:end])


@settings(deadline=None)
@given(place=st.integers(0, len(ACCEPTABLE) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_read_as_python_reads_it(place: int, byte: int) -> None:
    body = ACCEPTABLE[:place] + bytes([byte]) + ACCEPTABLE[place + 1 :]
    try:
        value = parse_json(body)
    except InvalidEvent:
        return
    assert value == json.loads(body)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)


@settings(deadline=None)
@given(value=VALUES, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 2), tight=st.booleans())
def test_whatever_json_can_say_is_read_as_it_was_meant(
    value: Any, ascii_only: bool, indent: int | None, tight: bool
) -> None:
    separators = (",", ":") if tight else (" , ", " : ")
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators)
    read = parse_json(text.encode())
    assert read == value
    assert parse_json(encode_json(read)) == value


@settings(deadline=None)
@given(value=st.dictionaries(TEXT, VALUES, min_size=1), others=VALUES, outer=TEXT, data=st.data())
def test_a_name_that_stands_twice_is_found_wherever_it_is(
    value: dict[str, Any], others: Any, outer: str, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    member = f"{json.dumps(name)}:{json.dumps(others)}"
    body = f"[{{{json.dumps(outer)}:{{{json.dumps(value)[1:-1]},{member}}}}}]"
    with pytest.raises(InvalidEvent, match="twice"):
        parse_json(body.encode())


@settings(deadline=None)
@given(body=st.binary())
def test_no_bytes_are_a_fault(body: bytes) -> None:
    with suppress(InvalidEvent):
        parse_json(body)


@settings(deadline=None)
@given(text=st.text(st.sampled_from('{}[]:,"\\u0dfe18 \tntrlsa.-+')))
def test_no_near_json_is_a_fault_or_read_differently(text: str) -> None:
    try:
        value = parse_json(text.encode())
    except InvalidEvent:
        return
    assert value == json.loads(text)


@settings(deadline=None)
@given(value=VALUES)
def test_what_was_read_passes_the_door_for_plugins_too(value: Any) -> None:
    shape = survey(parse_json(json.dumps(value).encode()))
    assert shape == survey(value)


@settings(deadline=None)
@given(depth=st.integers(0, 2 * MAX_DEPTH), leaf=st.none() | st.just([]) | st.just({}), as_list=st.booleans())
def test_both_doors_count_levels_alike(depth: int, leaf: Any, as_list: bool) -> None:
    value = leaf
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    levels = depth + (leaf is not None)
    if levels <= MAX_DEPTH:
        assert survey(value).depth == levels
        assert parse_json(encode_json(value)) == value
        return
    for door in (survey, lambda data: parse_json(json.dumps(data).encode())):
        with pytest.raises(InvalidEvent, match="deeper than 64"):
            door(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": float("nan")}, "'a' holds NaN"), ([float("inf")], "NaN or an infinite"),
        (-float("inf"), "infinite"),
        ({"a": 2**64}, "'a' holds an integer"), ([-(2**63) - 1], "integer"), (2**64, "integer"),
        ({"a": "\ud800"}, "'a' holds text"), (["\udfff"], "text"), ("\ud800", "text"),
        ({"\ud800": 1}, "text"),
        ({1: 2}, "key 1"), ({None: 1}, "key None"), ({"a": {b"k": 1}}, "key b'k'"),
        ({"a": b"bytes"}, "'a' holds a bytes"), ({"a": {1, 2}}, "a set"), ([object()], "a object"),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, "'at' holds a datetime"), (1j, "complex"),
        ({"x" * 1000: b""}, "xxx"),
    ],
)  # fmt: skip
def test_a_plugins_junk_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        survey(value)
    assert said in str(caught.value)
    assert caught.value.status == 422
    assert len(str(caught.value)) < 200


def test_a_subclass_is_no_plain_value() -> None:
    class Text(str):
        __slots__ = ()

    class Table(dict[str, int]):
        pass

    for value in (Text("a"), {"a": Text("a")}, Table(a=1)):
        with pytest.raises(InvalidEvent):
            survey(value)


def test_data_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises(InvalidEvent, match="holds itself"):
        survey(circle)


@settings(deadline=None)
@given(value=VALUES)
def test_the_shape_tells_depth_width_and_members(value: Any) -> None:
    def depth(data: Any) -> int:
        items = data.values() if isinstance(data, dict) else data if isinstance(data, list) else None
        return 0 if items is None else 1 + max(map(depth, items), default=0)

    assume(depth(value) <= MAX_DEPTH)
    shape = survey(value)
    assert shape.depth == depth(value)
    assert shape.members == sum(1 for _ in _members(value))


def _members(data: Any) -> Any:
    for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        if isinstance(data, dict):
            yield item
        yield from _members(item)
