"""CEL expressions and templates: what is found at `check`, what fails on data, and what can't hold the engine."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ExpressionError
from engine.expressions import (
    JOB_NAMES,
    LONGEST_EXPRESSION,
    MOST_STEPS,
    TRIGGER_NAMES,
    Expression,
    Scope,
    Template,
    render,
)

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def scope(data: Any = None, **names: Any) -> Scope:
    known: dict[str, Any] = {
        "event": {"type": "grain.ground", "subject": "sack/7", "time": NOON, "key": None},
        "data": data,
        "http": {"method": "POST", "headers": {"x-mill": "7"}, "query": {}, "remote": "127.0.0.1"},
        "job": {"name": "oven", "tags": []},
        "trigger": {"name": "bake", "tags": ["bread"]},
        "now": NOON,
    }
    return Scope({**known, **names})


def value(text: str, data: Any = None) -> Any:
    return Expression(text).evaluate(scope(data))


def lasts_s(text: str, data: Any) -> float:
    """Return how long an expression takes or is refused."""
    began = time.process_time()
    try:
        value(text, data)
    except ExpressionError:
        pass
    return time.process_time() - began


# What an expression is


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("data.size > 0 && event.type == 'grain.ground'", {"size": 3}, True),
        ("data.sacks.exists(s, s.weight > 50.0)", {"sacks": [{"weight": 12.5}, {"weight": 51}]}, True),
        ("data.sacks.map(s, s.weight)", {"sacks": [{"weight": 1}, {"weight": 2}]}, [1, 2]),
        ("data.sacks.all(s, s.seeds.all(t, t.size() < 9))", {"sacks": [{"seeds": ["a", "b"]}]}, True),
        ("has(data.a) ? data.a : 'none'", {}, "none"),
        ("data.name.matches('^[a-z]+[(]$')", {"name": "mill("}, True),
        ("data.name.startsWith('m') && data.name.contains('ill')", {"name": "mill"}, True),
        ("http.headers['x-mill']", None, "7"),
        ("now - event.time < duration('1s')", None, True),
        ("event.key == null", None, True),
        ("size(data)", {"a": 1, "b": 2}, 2),
        ("'bread' in trigger.tags", None, True),
        ("data.n == 18446744073709551615u", {"n": 2**64 - 1}, True),
        (r"data == r'\d('", "\\d(", True),
        ('"""it\'s "so" (all)"""', None, 'it\'s "so" (all)'),
    ],
)
def test_an_expression_has_the_value_that_cel_gives_it(text: str, data: Any, expected: Any) -> None:
    assert value(text, data) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evnt.type == 'a'", "unknown name `evnt`; did you mean `event`?"),
        ("zzz > 1", "unknown name `zzz`; known are data, event, http, job, now, trigger"),
        ("event.data.total > 1", "unknown name `event.data`; did you mean `data`?"),
        ("has(event . typ)", "unknown name `event.typ`; did you mean `type`?"),
        ("trigger.job == 'a'", "unknown name `trigger.job`; did you mean `job`?"),
        ("job.zzz", "unknown name `job.zzz`; known are name, tags"),
        ("data.items.all(i, itm > 1)", "unknown name `itm`"),
        ("sizee(data) > 1", "unknown function `sizee`; did you mean `size`?"),
        ("data.name.startwith('a')", "unknown function `startwith`; did you mean `startsWith`?"),
        ("open('/etc/passwd')", "unknown function `open`"),
        ("data.x >", "is no CEL expression"),
        ("data.x = 1", "is no CEL expression"),
        ("", "is no CEL expression"),
        ("data.x == 'open", "is no CEL expression"),
        ("import os", "is no CEL expression"),
        ("__import__('os')", "unknown function `__import__`"),
    ],
)
def test_a_wrong_expression_is_found_before_there_is_data(text: str, says: str) -> None:
    with pytest.raises(ExpressionError) as wrong:
        Expression(text)
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_the_names_of_macros_are_known_within_them() -> None:
    Expression("data.events.all(event, event.price > 1) && event.type.startsWith('order.') && data.event.x == 'job.x'")
    Expression("data.a.all(x, data.b.exists(y, x == y)) && data . c . map ( z , z ) == []")


def test_jobs_do_not_see_requests() -> None:
    Expression("http.method == 'POST'", TRIGGER_NAMES)
    with pytest.raises(ExpressionError, match="unknown name `http`"):
        Expression("http.method == 'POST'", JOB_NAMES)


def test_a_very_long_expression_is_refused_unread() -> None:
    with pytest.raises(ExpressionError, match=f"longer than {LONGEST_EXPRESSION} characters"):
        Expression("1 +" * LONGEST_EXPRESSION)


@pytest.mark.parametrize(
    ("text", "data", "says"),
    [
        ("data.sizes > 0", {"size": 1}, "sizes"),
        ("data.a.b.c", {"a": {}}, "there is no"),
        ("data.size > 0", {"size": "big"}, "data.size is text"),
        ("data.size > 0", None, "data.size"),
        ("1 / data.n", {"n": 0}, "division"),
        ("data.n + 1", {"n": 2**63 - 1}, "overflow"),
        ("int(data.n)", {"n": "x"}, "data.n"),
        ("timestamp(data.at)", {"at": "yesterday"}, "timestamp"),
        ("data.list[7]", {"list": [1]}, "data.list"),
    ],
)
def test_what_the_data_makes_impossible_is_an_error_in_words(text: str, data: Any, says: str) -> None:
    with pytest.raises(ExpressionError) as failed:
        value(text, data)
    assert text in str(failed.value)
    assert says.lower() in str(failed.value).lower()
    assert "\n" not in str(failed.value)
    assert "Traceback" not in str(failed.value)


@pytest.mark.parametrize("text", ["1", "'true'", "null", "[]", "data", "0.0"])
def test_a_filter_is_true_or_false_and_nothing_else(text: str) -> None:
    with pytest.raises(ExpressionError, match="neither true nor false"):
        Expression(text).holds(scope({}))
    assert Expression("true").holds(scope())
    assert not Expression("false").holds(scope())


def test_a_derived_scope_has_other_values_and_leaves_the_first_as_it_was() -> None:
    first = scope({"n": 1})
    other = first.derive(data={"n": 2})
    expression = Expression("data.n")
    assert (expression.evaluate(first), expression.evaluate(other), expression.evaluate(first)) == (1, 2, 1)


# What an expression may cost


WIDE = {"a": list(range(300))}
ZEROS = "[" + ", ".join(["0"] * 100) + "]"


@pytest.mark.parametrize(
    "text",
    [
        "data.a.all(x, data.a.all(y, data.a.all(z, x + y + z >= 0)))",
        "data.a.map(x, data.a.map(y, data.a.map(z, z)))",
        "data.a.exists(x, data.a.filter(y, data.a.exists_one(z, z < 0)) == [1])",
        "data . a . all ( x , data.a.\n all(y, data.a.all(z, true)))",
        "(data.a.all(x, (data.a.all(y, ((data.a.all(z, true)))))))",
        "true ? data.a.all(x, data.a.all(y, data.a.all(z, true))) : false",
        # What stands in texts and comments hides nothing.
        "data.a.all(x, ')' != '(' && data.a.all(y, \")))\" != '' && data.a.all(z, true)))",
        "data.a.all(x, // '\n data.a.all(y, data.a.all(z, true))) // '",
        r"data.s == r'\' || data.a.all(x, data.a.all(y, data.a.all(z, 'y' != '')))",
        "data.s == '''it's''' || data.a.all(x, data.a.all(y, data.a.all(z, 'y' != '')))",
        r"data.s == '\'' || data.a.all(x, data.a.all(y, data.a.all(z, '\'' != '')))",
        # Lists need not come from the data.
        f"{ZEROS}.all(x, {ZEROS}.all(y, {ZEROS}.all(z, true)))",
        f"data.a.all(x, {ZEROS}.all(y, {ZEROS}.all(z, true)))",
        # Texts and lists that grow or are searched at each step.
        "data.a.all(x, data.a.all(y, (data.s + data.s).size() > 0))",
        "data.a.all(x, data.a.all(y, data.s.matches('b+$')))",
        "data.a.all(x, data.a.all(y, !data.t.contains('b')))",
    ],
)
def test_macros_that_could_hold_the_engine_fail_at_once(text: str) -> None:
    data = {**WIDE, "s": "a" * 100_000, "t": "a" * 500_000}
    began = time.perf_counter()
    expression = Expression(text)
    with pytest.raises(ExpressionError, match=f"more than the {MOST_STEPS:,} allowed"):
        expression.evaluate(scope(data))
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("data.a.all(x, data.a.all(y, x + y >= 0))", {"a": list(range(200))}),
        ("data.a.all(x, x >= 0) && data.a.all(y, y >= 0) && data.a.all(z, z >= 0)", WIDE),
        ("data.a.all(x, x >= 0)", {"a": list(range(100_000))}),
        ("data.s == '(all(exists(map(' && data.a.all(x, x >= 0)", {"s": "(all(exists(map(", **WIDE}),
        ("data.all == 1 && data.map(x, x) != []", {"all": 1}),
        (
            "data.a.exists(x, x.name.contains('99') && x.name.matches('^mill'))",
            {"a": [{"name": f"mill{n}"} for n in range(300)]},
        ),
    ],
)
def test_ordinary_macros_on_ordinary_data_are_evaluated(text: str, data: Any) -> None:
    assert value(text, data) is True


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){20}", "([a-z]+)*=", "^(a*)*b"])
def test_matching_is_linear_in_the_text(pattern: str) -> None:
    hostile = {"s": "a" * 1_000_000 + "!"}
    assert value(f"data.s.matches('{pattern}')", hostile) in (True, False)
    assert lasts_s(f"data.s.matches('{pattern}')", hostile) < 0.1


@pytest.mark.parametrize("pattern", ["(.{1,60}a){1,8}q", "((a{1,100}){1,100}){1,10}", "x|^.{1,500}$", "^.{1,500}b*$"])
def test_a_pattern_that_repeats_so_much_that_it_could_take_long_is_refused(pattern: str) -> None:
    for written in (f"'{pattern}'", f"r'{pattern}'", f'"""{pattern}"""'):
        with pytest.raises(ExpressionError, match="could take long"):
            Expression(f"data.s.matches({written})")


@pytest.mark.parametrize(
    "pattern", ["^.{1,500}$", "^[a-z0-9._-]{1,255}$", "^\\\\d{4}-\\\\d{2}$", "(?i)ab{2}", "\\\\Aab{2}\\\\z"]
)
def test_ordinary_repetitions_are_taken(pattern: str) -> None:
    Expression(f"data.s.matches('{pattern}')")


@pytest.mark.parametrize(
    "text",
    [
        "data.s.matches(data.p)",
        "data.s.matches('^' + data.p)",
        "data.s.matches('' + data.p + '')",
        "data.s . matches ( data.p )",
        "['a'].all(p, data.s.matches(p))",
        "data.s.matches(has(data.p) ? data.p : 'a')",
        "matches(data.s, 'a')",
    ],
)
def test_a_pattern_can_not_come_from_data(text: str) -> None:
    with pytest.raises(ExpressionError, match="must be written out"):
        Expression(text)


@pytest.mark.parametrize("text", ["data.matches == 1", "data.x == 'a.matches(b)'", "data.s.matches ( r'\\d' )"])
def test_what_only_looks_like_a_computed_pattern_is_let_be(text: str) -> None:
    Expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000 + "1" + ")" * 2000,
        "[" * 2000 + "]" * 2000,
        "!" * 4000 + "true",
        "-" * 4000 + "1",
        "data" + ".a" * 2000,
        "data.all(" * 450,
        "{{" * 2000,
        "'" * 4095,
        "a." * 2000,
        "data.a.map(x, " * 250 + "x" + ")" * 250,
    ],
)
def test_hostile_expressions_are_read_or_refused_quickly(text: str) -> None:
    assert lasts_s(text, {}) < 1.0


@pytest.mark.parametrize("deep", [65, 1000, 20_000])
def test_data_too_deep_for_macros_is_refused(deep: int) -> None:
    data: Any = 1
    for _ in range(deep):
        data = [data]
    with pytest.raises(ExpressionError, match="nested deeper"):
        value("data.all(x, true)", data)


# Templates


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("plain", None, "plain"),
        ("", None, ""),
        ("{{ data.path }}", {"path": "in/a b.csv"}, "in/a b.csv"),
        ("a{{data.n}}b{{ data.n + 1 }}c", {"n": 1}, "a1b2c"),
        ("{{ data.n }}{{ data.n }}", {"n": 7}, "77"),
        ("{{ '}}' + data.s }}", {"s": "x"}, "}}x"),
        ('{{ "{{" }}', None, "{{"),
        ("{{ r'\\' }}|{{ data.s }}", {"s": "x"}, "\\|x"),
        ("it's {{ data.s }}, isn't it", {"s": "x"}, "it's x, isn't it"),
        ("{ {x} } }}", None, "{ {x} } }}"),
        ("{{ {'a': 1}['a'] }}", None, "1"),
        ("{{\n data.s\n }}", {"s": "x"}, "x"),
    ],
)
def test_a_template_is_text_with_values_in_it(text: str, data: Any, expected: str) -> None:
    assert Template(text).render(scope(data)) == expected


@pytest.mark.parametrize(
    "text", ["{{ data", "x {{", "{{ data }} {{ x", "{{ it's }} {{ data }}", "{{ '}}", "{{ data }", "{{ { }"]
)
def test_a_template_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="never closed"):
        Template(text)


@pytest.mark.parametrize("text", ["{{}}", "{{ }}", "{{ dta }}", "{{{ data }}}", "{{ {'a': {'b': 1}} }}", "{{ a b }}"])
def test_a_template_with_a_wrong_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Template(text)


HOSTILE = ["{{ 7*7 }}", "{{ data.secret }}", "$(touch x)", "`id`", "; rm -rf /", "\n", "%s", "{0}", "${HOME}", "-rf"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_value_is_never_a_template_itself(hostile: str) -> None:
    template = Template("[{{ data.s }}|{{ data.m }}]")
    data = {"s": hostile, "m": {"k": [hostile]}, "secret": "canary"}
    text = template.render(scope(data))
    assert text.startswith(f"[{hostile}|")
    assert "canary" not in text
    assert "49" not in text
    assert Template("{{ data.s }}").value(scope(data)) == hostile


@given(st.text(), st.text(alphabet="{}'\"rb\\/ \nx", max_size=40))
def test_any_value_stands_in_the_text_as_it_is(given_value: str, around: str) -> None:
    try:
        template = Template(around + "{{ data }}")
    except ExpressionError:
        return
    assert template.render(scope(given_value)).endswith(given_value)


@given(st.text(alphabet="{}'\"rb\\/ \n", max_size=400))
def test_no_template_takes_long_to_read(text: str) -> None:
    began = time.perf_counter()
    with contextlib.suppress(ExpressionError):
        Template(text)
    assert time.perf_counter() - began < 1.0


def test_a_long_unclosed_template_is_refused_quickly() -> None:
    began = time.perf_counter()
    for text in ("{{" + "r'a'" * 5000, "{{ " * 5000, "{{ '" * 5000, "{{ r'" + "\\'" * 5000):
        with pytest.raises(ExpressionError):
            Template(text)
    assert time.perf_counter() - began < 5.0


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (2**64 - 1, "18446744073709551615"),
        (0.5, "0.5"),
        (1e300, "1e+300"),
        ("ü", "ü"),
        (b"ab\xff", "ab\N{REPLACEMENT CHARACTER}"),
        ([1, "a", None], '[1,"a",null]'),
        ({"a": {"b": True}}, '{"a":{"b":true}}'),
        (NOON, "2026-01-05T12:00:00Z"),
        (NOON.astimezone(timezone(timedelta(hours=1))), "2026-01-05T12:00:00Z"),
        (timedelta(seconds=90), "90s"),
    ],
)
def test_values_are_written_the_way_json_and_rfc_3339_do(given_value: Any, text: str) -> None:
    assert render(given_value) == text


def test_a_lone_expression_keeps_its_type_and_a_constant_is_known_as_such() -> None:
    assert Template("{{ data.n }}").value(scope({"n": [1, 2]})) == [1, 2]
    assert Template("{{ data.n }}").value(scope({"n": None})) is None
    assert Template("n={{ data.n }}").value(scope({"n": 1})) == "n=1"
    assert Template("constant }}").constant
    assert not Template("{{ 1 }}").constant


def test_a_template_that_fails_on_its_data_says_where() -> None:
    with pytest.raises(ExpressionError, match=r"`data\.pth`: there is no"):
        Template("cp {{ data.pth }} out").render(scope({"path": "x"}))


@pytest.mark.parametrize(
    ("text", "told"),
    [("data.ref = 'x'", True), ("data.ref == 'a=b' &&", False), ("data.n >= ", False), ("data.n != ", False)],
)
def test_a_single_equals_sign_is_told_with_the_double_one(text: str, told: bool) -> None:
    with pytest.raises(ExpressionError) as wrong:
        Expression(text)
    assert ("two values are compared with `==`" in str(wrong.value)) is told


@pytest.mark.parametrize(
    ("text", "data", "says"),
    [
        ("data.total >= 100", {"total": "5"}, "compared or combined: data.total is text"),
        ("data.a + data.b", {"a": 1, "b": 1.5}, "data.a is a whole number, data.b is a decimal number"),
        (
            "data.name.startsWith('a') && data.n > event.time",
            {"name": "ab", "n": None},
            "data.n is null, event.time is",
        ),
        ("data.a.b > 1", {"a": {}}, "there is no 'b' in data.a; has(…) asks"),
        ("1 + 'a'", {}, "(such as a text with a number)"),
    ],
)
def test_what_does_not_go_together_is_told_with_its_kinds(text: str, data: Any, says: str) -> None:
    with pytest.raises(ExpressionError) as wrong:
        value(text, data)
    assert says in str(wrong.value)


# What is converted for an expression is what it can reach, and its value is that of the whole


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
TEXTS = (
    "data.a", "data.a.b", " data.a ", "data.a == data.b", "has(data.a) && has(data.b.c)", "data", "data.size() > 1",
    "'a' in data", "data['a']", "[1, 2].all(data, data > 0) ? 1 : 0", "event.subject + string(size(data.a))",
    "data . a", "data.exists(k, k == 'a')", "data.a.data", "data.data.a", "!has(data.a) || data.a == null",
    "{'data': data.a}.data", "event.subject", "event.key", "now > event.time", "data.a // data\n", "'data' + data.b",
)  # fmt: skip


@given(data=st.dictionaries(st.sampled_from(["a", "b", "data"]), VALUES, max_size=3), text=st.sampled_from(TEXTS))
def test_an_expression_sees_of_its_values_all_that_it_can_reach(data: dict[str, Any], text: str) -> None:
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    names = {"event": {"subject": "s", "key": None, "time": at, "id": "1"}, "data": data, "now": at}

    def value(whole: bool) -> tuple[str, Any]:
        one = Expression(text)
        if whole:
            one._path, one._members = None, {"data": None}
        try:
            found = one.evaluate(Scope(names))
        except ExpressionError as error:
            return "error", str(error)
        return type(found).__name__, found

    assert value(whole=False) == value(whole=True)


@pytest.mark.parametrize("text", ["event.type in ['a', 'b']", "event.type in data.known", "event . type in\n ['a']"])
def test_a_member_before_a_word_is_not_taken_for_one_name_with_it(text: str) -> None:
    scope = Scope({"event": {"type": "a"}, "data": {"known": ["a"]}})
    assert Expression(text).holds(scope)
    assert "event.type" in Expression(text).seen(scope)
