"""Sources with a name: `[sources.NAME]`, for several triggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.config import Config
from engine.errors import PluginError
from engine.plugin import Secret, Source, SourceContext
from engine.registry import Registry
from engine.triggers import SharedSource
from tests.test_config_plugins import JOB, Hook, Table, Tick, load_text, problems_of

ORDERS = '[sources.orders.table]\nurl = "sqlite:///orders"\n'


def on_it(name: str = "t", source: str = '"orders"', more: str = "") -> str:
    return f'[triggers.{name}]\njob = "j"\non.source = {source}\n{more}\n'


def the(config: Config, name: str = "orders") -> SharedSource:
    return config.sources[name]


# What it is


def test_triggers_that_name_a_source_share_it_under_its_name(tmp_path: Path) -> None:
    config = load_text(tmp_path, JOB + ORDERS + on_it("one") + on_it("two"))
    one, two = config.triggers["one"], config.triggers["two"]
    assert one.on is two.on
    assert one.on == Table(url="sqlite:///orders", folder=tmp_path / "rows")
    assert one.source == two.source == "table:orders"
    assert one.shared == two.shared == the(config)
    assert the(config).defined_in == f"{tmp_path}/config.toml:3"


@pytest.mark.parametrize("settings", ['url = "another"', 'password = "secret"\nevery = "5s"'])
def test_its_id_does_not_change_with_its_settings(tmp_path: Path, settings: str) -> None:
    config = load_text(tmp_path, f"{JOB}[sources.orders.table]\n{settings}\n{on_it()}")
    assert config.triggers["t"].source == "table:orders"


def test_its_id_is_its_own_name_also_where_the_plugin_has_an_identity(tmp_path: Path) -> None:
    config = load_text(tmp_path, f"{JOB}[sources.orders]\nhook = {{ path = 'p', verify = 'none' }}\n{on_it()}")
    assert config.triggers["t"].source == "hook:orders"
    assert config.triggers["t"].on == Hook(path="p", verify="none")


def test_a_timer_with_a_name_is_a_template_and_each_trigger_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    text = f"engine.timezone = 'Asia/Tokyo'\n{JOB}[sources]\nnight.tick = '0 2'\n"
    config = load_text(tmp_path, text + on_it("one", '"night"') + on_it("two", '"night"'))
    assert [config.triggers[name].source for name in ("one", "two")] == ["timer:one", "timer:two"]
    assert config.triggers["one"].on == Tick(expression="0 2", timezone="Asia/Tokyo")
    assert the(config, "night").id is None


def test_all_that_has_a_name_has_description_tags_and_a_switch(tmp_path: Path) -> None:
    more = '[sources.orders]\ndescription = "All orders"\ntags = ["shop"]\nenabled = false\n'
    config = load_text(tmp_path, JOB + ORDERS + more + on_it())
    source, trigger = the(config), config.triggers["t"]
    assert (source.description, source.tags, source.enabled) == ("All orders", ("shop",), False)
    assert (trigger.enabled, trigger.works) == (True, False)
    assert trigger.why_disabled() == "is disabled, as its source orders is"


def test_one_that_nobody_uses_is_fine(tmp_path: Path) -> None:
    assert the(load_text(tmp_path, JOB + ORDERS)).id == "table:orders"


def test_triggers_and_sources_may_stand_in_other_files_and_in_any_order(tmp_path: Path) -> None:
    config = load_text(tmp_path, on_it(), JOB, ORDERS)
    assert config.triggers["t"].source == "table:orders"


def test_the_table_form_and_references_name_it_too(tmp_path: Path) -> None:
    for source in ('{ named = "orders" }', '{ env = "WHICH" }'):
        config = load_text(tmp_path, JOB + ORDERS + on_it(source=source), environment={"WHICH": "orders"})
        assert config.triggers["t"].source == "table:orders"


def test_its_secrets_are_secrets(tmp_path: Path) -> None:
    config = load_text(
        tmp_path, f"{JOB}[sources.orders.table]\npassword = {{ env = 'P' }}\n{on_it()}", environment={"P": "sesame"}
    )
    assert config.triggers["t"].on.password == Secret("sesame")
    assert "sesame" in config.secrets


def test_expressions_see_the_request_where_the_source_has_one(tmp_path: Path) -> None:
    hook = "[sources.orders]\nhook = { path = 'p', verify = 'none' }\n"
    reads = "filter = \"http.method == 'POST'\""
    for source in ('"orders"', '{ named = "orders" }'):
        load_text(tmp_path, JOB + hook + on_it(more=reads, source=source))
    (problem,) = problems_of(tmp_path, JOB + ORDERS + on_it(more=reads))
    assert problem.path == "triggers.t.filter"


def test_what_could_stand_in_a_file_that_can_not_be_read_is_not_missed(tmp_path: Path) -> None:
    text = f"{JOB}[sources.orders]\ntags = ['shop']\n" + on_it(source='"others"')
    found = problems_of(tmp_path, text, "broken =")
    assert [problem.file for problem in found] == [f"{tmp_path}/config2.toml"]


# From the environment


def test_its_settings_can_be_overridden(tmp_path: Path) -> None:
    text = (
        f"{JOB}[sources.new-orders]\ntable = {{ url = 'a' }}\ndescription = 'x'\n"
        "[sources.night]\ntick = '0 2'\n" + on_it(source='"new-orders"')
    )
    config = load_text(
        tmp_path,
        text,
        environment={
            "ENGINE__SOURCES__NEW_ORDERS__TABLE__URL": "b",
            "ENGINE__SOURCES__NEW_ORDERS__TABLE__EVERY": "5s",
            "ENGINE__SOURCES__NEW_ORDERS__ENABLED": "false",
            "ENGINE__SOURCES__NEW_ORDERS__DESCRIPTION": "y",
            "ENGINE__SOURCES__NIGHT__TICK": "0 3",
        },
    )
    source = the(config, "new-orders")
    assert (source.on.url, source.on.every, source.enabled, source.description) == ("b", 5.0, False, "y")
    assert the(config, "night").on.expression == "0 3"


def test_which_source_a_trigger_is_on_can_be_overridden(tmp_path: Path) -> None:
    text = JOB + ORDERS + "[sources.others.table]\n" + on_it()
    config = load_text(tmp_path, text, environment={"ENGINE__TRIGGERS__T__ON__SOURCE": "others"})
    assert config.triggers["t"].source == "table:others"


def test_an_override_of_what_is_not_there_is_told(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, JOB + ORDERS, environment={"ENGINE__SOURCES__ORDERS__TABLE__URI": "b"})
    assert "ENGINE__SOURCES__ORDERS__TABLE__URL" in str(problem)


# Mistakes


@pytest.mark.parametrize(
    ("text", "line", "path", "said"),
    [
        (ORDERS + on_it(source='"ordres"'), 7, "triggers.t.on.source", 'no such source (did you mean "orders"?)'),
        (on_it(), 5, "triggers.t.on.source", "there are no sources: a source is a table [sources.NAME]"),
        (ORDERS + on_it(source="7"), 7, "triggers.t.on.source", "found 7, expected the name of a source"),
        ("[sources.orders]\n", 3, "sources.orders", "found none, expected exactly one source or timer"),
        ("[sources.orders]\ntags = []\n", 3, "sources.orders", "found none, expected exactly one source or timer"),
        ("[sources.orders.tabel]\n", 3, "sources.orders.tabel", 'no source or timer "tabel" (did you mean "table"?)'),
        ("[sources.orders]\ntable = {}\ntick = 'x'\n", 3, "sources.orders", 'found "table" and "tick", expected'),
        ("[sources.orders]\ntable = {}\ntag = []\n", 5, "sources.orders.tag", 'unknown key (did you mean "tags"?)'),
        ("[sources.orders.table]\nlimit = 0\n", 4, "sources.orders.table.limit", "found 0"),
        ("[sources.orders]\ntable = {}\ntags = 'x'\n", 5, "sources.orders.tags", "a list of texts"),
        ("[sources.'a b'.table]\n", 3, 'sources."a b"', "which is no name"),
        ("[sources.a]\nsource = 'b'\n", 4, "sources.a.source", "there is no source or timer"),
        ("[sources]\norders = 'x'\n", 4, "sources.orders", "expected a table"),
        ("sources = 'x'\n", 3, "sources", "expected a table"),
    ],
)
def test_a_mistake_is_told_once_with_its_place(tmp_path: Path, text: str, line: int, path: str, said: str) -> None:
    if text.startswith("sources ="):
        found, line = problems_of(tmp_path, text + JOB), 1
    else:
        found = problems_of(tmp_path, JOB + text)
    (problem,) = found
    assert (problem.line, problem.path) == (line, path)
    assert said in str(problem)


def test_a_mistake_in_a_source_is_not_told_again_at_its_triggers(tmp_path: Path) -> None:
    found = problems_of(tmp_path, f"{JOB}[sources.orders.table]\nlimit = 0\n{on_it('one')}{on_it('two')}")
    assert [problem.path for problem in found] == ["sources.orders.table.limit"]


def test_two_sources_can_not_be_the_same_thing(tmp_path: Path) -> None:
    hook = "hook = { path = 'p', verify = 'none' }\n"
    (problem,) = problems_of(tmp_path, f"{JOB}[sources.one]\n{hook}[sources.two]\n{hook}")
    assert problem.path == "sources.two.hook"
    assert problem.message == "hook path p is already that of source one"


def test_a_trigger_can_not_have_for_itself_what_a_source_with_a_name_has(tmp_path: Path) -> None:
    hook = "hook = { path = 'p', verify = 'none' }\n"
    (problem,) = problems_of(tmp_path, f"{JOB}[sources.one]\n{hook}[triggers.t]\njob = 'j'\non.{hook}")
    assert problem.path == "triggers.t.on.hook"
    assert problem.message == "hook path p is already that of source one"
    assert problem.hint == 'write on.source = "one" there'


def test_a_name_can_not_be_the_identity_of_another_source(tmp_path: Path) -> None:
    named = "[sources.q]\nhook = { path = 'p', verify = 'none' }\n"
    text = f"{JOB}{named}[triggers.t]\njob = 'j'\non.hook = {{ path = 'q', verify = 'none' }}\n"
    (problem,) = problems_of(tmp_path, text)
    assert problem.message == "its id would be hook:q, which is that of source q"


def test_no_plugin_can_take_the_word_that_names_a_source() -> None:
    class Clash(Source, frozen=True, kw_only=True):
        """A source with a bad name."""

        name: ClassVar[str] = "source"

        async def run(self, context: SourceContext) -> Any: ...

    with pytest.raises(PluginError, match="call it otherwise"):
        Registry().add(Clash)
