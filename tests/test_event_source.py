from __future__ import annotations

from pathlib import Path

import pytest

from engine.http.views import title_of
from engine.plugin import BadSetting, Event, Plugin, Source
from engine.sources import SourceState
from plugins.sources.event import Heard
from plugins.sources.files import Files
from plugins.sources.manual import Manual
from plugins.sources.run import RunEnds
from tests.fakes import FakeSourceContext


def heard(**patterns: str) -> Heard:
    return Heard(**patterns)


@pytest.mark.parametrize(
    ("pattern", "kind", "accepted"),
    [
        ("*", "anything.at.all", True),
        ("order.created", "order.created", True),
        ("order.created", "order.created.twice", False),
        ("order.created", "order_created", False),
        ("order.*", "order.created", True),
        ("order.*", "order.item.added", True),
        ("order.*", "order", False),
        ("order.*", "preorder.created", False),
        ("*.created", "order.created", True),
        ("order.?", "order.x", True),
        ("order.?", "order.xy", False),
        ("order.[ab]", "order.a", True),
        ("order.[!ab]", "order.a", False),
        ("Order.*", "order.created", False),
        ("order.*", "order.\n", True),
    ],
)
def test_a_type_is_a_pattern_for_the_whole_type(pattern: str, kind: str, accepted: bool) -> None:
    assert heard(type=pattern).accepts(Event(type=kind)) is accepted


def test_all_given_patterns_must_match() -> None:
    source = heard(type="order.*", source="shop-*", subject="17")
    assert source.accepts(Event(type="order.created", source="shop-1", subject="17"))
    assert not source.accepts(Event(type="order.created", source="shop-1", subject="18"))
    assert not source.accepts(Event(type="order.created", source="web", subject="17"))
    assert not source.accepts(Event(type="user.created", source="shop-1", subject="17"))


def test_an_event_without_a_subject_matches_only_the_pattern_for_everything() -> None:
    assert heard().accepts(Event(type="a"))
    assert heard(subject="*").accepts(Event(type="a"))
    assert not heard(subject="?*").accepts(Event(type="a"))


@pytest.mark.parametrize("field", ["type", "source", "subject"])
@pytest.mark.parametrize("pattern", ["", "x" * 256])
def test_a_pattern_that_is_empty_or_endless_is_refused(field: str, pattern: str) -> None:
    with pytest.raises(BadSetting) as caught:
        heard(**{field: pattern})
    assert caught.value.field == field


def test_a_hostile_pattern_is_answered_at_once() -> None:
    assert not heard(type="*a" * 127).accepts(Event(type="a" * 126 + "b" * 100))


def test_only_the_event_source_hears_the_api() -> None:
    assert Heard.hears
    assert not Manual.hears
    assert not Manual().accepts(Event(type="manual"))


@pytest.mark.parametrize("source", [Heard(), Manual()])
async def test_it_is_ready_and_emits_nothing_of_its_own(source: Heard | Manual) -> None:
    context = FakeSourceContext()
    async with context.running(source):
        context.beat()
    assert context.batches == []
    assert context.routes == {}


@pytest.mark.parametrize(
    ("source", "counted"), [(heard(), False), (RunEnds(), False), (Manual(), False), (Files(path=Path("inbox")), True)]
)
def test_events_are_counted_where_a_source_emits_them_itself(source: Source, counted: bool) -> None:
    view = SourceState(id="one", source=source).view()
    assert (view["events"], view["duplicates"]) == ((0, 0) if counted else (None, None))


@pytest.mark.parametrize(
    ("source", "title"),
    [
        (heard(type="order.created"), "event order.created"),
        (heard(type="of-sesame-open"), "event of-***"),
        (RunEnds(job=("bake", "sell")), "run bake, sell"),
        (RunEnds(), "run"),
        (Manual(), "manual"),
        (Files(path=Path("/shop/in/box")), "files in/box"),
        (Files(path=Path("/elsewhere")), "files /elsewhere"),
    ],
)
def test_a_source_is_called_by_its_plugin_and_its_main_setting(source: Plugin, title: str) -> None:
    assert title_of(source, Path("/shop"), {"sesame-open"}) == title
