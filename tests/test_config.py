"""The configuration: defaults, merging, and every mistake told at once, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import find_files, load
from engine.config.model import concurrency_of_machine
from engine.errors import ConfigError
from engine.jobs import OnCrash, RetryPolicy
from engine.registry import Registry
from engine.triggers import Debounce
from tests.test_config_plugins import JOB, Shell, Tick, load_text, problems_of, registry


def places(folder: Path, *texts: str, **environment: str) -> list[tuple[str, int, str]]:
    found = problems_of(folder, *texts, environment=environment)
    return [(Path(problem.file).name, problem.line, problem.path) for problem in found]


def test_an_empty_file_has_every_default(tmp_path: Path) -> None:
    config = load_text(tmp_path, "")
    assert config.engine.data == tmp_path / "data"
    assert config.engine.timezone == "UTC"
    assert config.engine.concurrency == concurrency_of_machine()
    assert (config.engine.shutdown_grace_s, config.engine.ageing_s) == (30.0, 60.0)
    assert config.engine.plugins == ()
    assert config.store.path == tmp_path / "data" / "engine.db"
    assert config.store.url == f"sqlite:///{tmp_path}/data/engine.db"
    assert (config.http.host, config.http.port, config.http.insecure) == ("127.0.0.1", 8080, False)
    assert config.http.max_body_bytes == 1024 * 1024
    assert (config.jobs, config.triggers, config.secrets) == ({}, {}, frozenset())
    assert (config.base, config.files) == (tmp_path, (tmp_path / "config.toml",))


@pytest.mark.parametrize(("text", "line"), [('[engine]\ndata = "f"\n', 2), ("", 1)])
def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "data").touch()
    [problem] = problems_of(tmp_path, text)
    assert (problem.line, problem.path) == (line, "engine.data")
    assert "is a file" in problem.message
    assert "name a directory" in str(problem.hint)


def test_everything_that_may_stand_there_is_read(tmp_path: Path) -> None:
    text = """
    [engine]
    data = "state"
    concurrency = 3
    shutdown_grace = "PT10S"
    ageing = "30s"
    [store]
    url = "sqlite:///db/e.db"
    [http]
    listen = "[::1]:90"
    max_body = "64KiB"
    [jobs.import-csv]
    description = "Import"
    tags = ["import", "night"]
    enabled = false
    timeout = "10m"
    retry = { attempts = 3, delay = "1s", factor = 1, max_delay = "1m", jitter = 0 }
    concurrency = 1
    on_crash = "fail"
    run.shell = { command = ["import", "{{ data.path }}"], env = { A = "b" }, cwd = "work" }
    [triggers.nightly]
    description = "Night"
    tags = ["night"]
    enabled = false
    on.tick = "0 2 * * *"
    job = "import-csv"
    filter = "data.size > 0"
    debounce = { wait = "2s", max_wait = "30s", key = "event.subject" }
    priority = "low"
    priority_max = 9
    data = { full = true, at = 2030-01-01T00:00:00Z }
    defaults = { day = "{{ event.time }}", deep = { list = ["{{ data.x }}", 1] } }
    """
    config = load_text(tmp_path, text)
    assert config.engine.data == tmp_path / "state"
    assert (config.engine.concurrency, config.engine.shutdown_grace_s) == (3, 10.0)
    assert config.store.path == tmp_path / "db" / "e.db"
    assert (config.http.host, config.http.port, config.http.max_body_bytes) == ("::1", 90, 65536)
    job = config.jobs["import-csv"]
    assert job.runner == Shell(command=["import", "{{ data.path }}"], env={"A": "b"}, cwd=tmp_path / "work")
    assert job.retry == RetryPolicy(attempts=3, delay_s=1.0, factor=1.0, max_delay_s=60.0, jitter=0.0)
    assert (job.timeout_s, job.concurrency, job.on_crash) == (600.0, 1, OnCrash.FAIL)
    assert (job.description, job.tags, job.enabled) == ("Import", ("import", "night"), False)
    assert job.defined_in == f"{tmp_path}/config.toml:12"
    trigger = config.triggers["nightly"]
    assert trigger.on == Tick(expression="0 2 * * *", timezone="UTC")
    assert (trigger.job, trigger.source, trigger.filter) == ("import-csv", "timer:nightly", "data.size > 0")
    assert trigger.debounce == Debounce(wait_s=2.0, max_wait_s=30.0, key="event.subject")
    assert (trigger.priority, trigger.priority_max) == (2, 9)
    assert trigger.data == {"full": True, "at": "2030-01-01T00:00:00Z"}
    assert trigger.defaults == {"day": "{{ event.time }}", "deep": {"list": ["{{ data.x }}", 1]}}
    assert (trigger.description, trigger.tags, trigger.enabled) == ("Night", ("night",), False)
    assert trigger.defined_in == f"{tmp_path}/config.toml:21"


def test_a_job_takes_from_defaults_what_it_does_not_say(tmp_path: Path) -> None:
    text = """
    [defaults]
    timeout = "5m"
    retry = { attempts = 4, delay = "2s" }
    [jobs.a]
    run.shell = ["a"]
    [jobs.b]
    run.shell = ["b"]
    timeout = "1m"
    retry = { attempts = 9 }
    """
    jobs = load_text(tmp_path, text).jobs
    assert jobs["a"].timeout_s == 300.0
    assert jobs["a"].retry == RetryPolicy(attempts=4, delay_s=2.0)
    assert jobs["b"].timeout_s == 60.0
    assert jobs["b"].retry == RetryPolicy(attempts=9, delay_s=2.0)


def test_a_job_without_defaults_has_those_of_its_class(tmp_path: Path) -> None:
    job = load_text(tmp_path, JOB).jobs["j"]
    assert (job.timeout_s, job.retry, job.on_crash) == (3600.0, RetryPolicy(), OnCrash.RETRY)
    assert (job.concurrency, job.enabled, job.tags) == (None, True, ())


def test_debounce_may_be_a_duration(tmp_path: Path) -> None:
    config = load_text(tmp_path, f"{JOB}[triggers.t]\njob='j'\non.tick='x'\ndebounce='2s'")
    assert config.triggers["t"].debounce == Debounce(wait_s=2.0)


def test_later_files_go_over_earlier_ones_key_by_key(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        "[engine]\nconcurrency = 1\ntimezone = 'Asia/Tokyo'\n"
        "[jobs.a]\nrun.shell = ['a']\ntags = ['x', 'y']\n[triggers.t]\non.tick = 'x'\njob = 'a'\n",
        "[engine]\nconcurrency = 2\n[jobs.a]\ntags = ['z']\n[jobs.b]\nrun.shell = ['b']\n",
        "[triggers.t.on.tick]\nexpression = 'y'\n",
    )
    assert (config.engine.concurrency, config.engine.timezone) == (2, "Asia/Tokyo")
    assert config.jobs.keys() == {"a", "b"}
    assert config.jobs["a"].tags == ("z",)
    assert config.triggers["t"].on.expression == "y"
    assert [file.name for file in config.files] == ["config.toml", "config2.toml", "config3.toml"]


def test_paths_are_relative_to_the_file_in_which_they_stand(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = tmp_path / "a.toml", other / "b.toml"
    first.write_text("[jobs.a.run.shell]\ncommand = ['a']\ncwd = 'x'\n")
    second.write_text("[jobs.b.run.shell]\ncommand = ['b']\ncwd = 'x'\n[store]\nurl = 'sqlite:///e.db'\n")
    config = load([first, second], environment={}, registry=registry())
    assert config.jobs["a"].runner.cwd == tmp_path / "x"
    assert config.jobs["b"].runner.cwd == other / "x"
    assert config.store.path == other / "e.db"
    assert (config.base, config.engine.data) == (tmp_path, tmp_path / "data")


def test_each_mistake_is_told_in_the_file_where_it_stands(tmp_path: Path) -> None:
    found = places(
        tmp_path,
        "[engine]\nconcurrency = 0\ntimezone = 'UTC'\n[http]\nlisten = 'x'\n",
        "[engine]\n\ntimezone = 'Nowhere'\n",
    )
    assert found == [
        ("config.toml", 2, "engine.concurrency"),
        ("config.toml", 5, "http.listen"),
        ("config2.toml", 3, "engine.timezone"),
    ]


def test_seven_mistakes_in_one_file_give_seven_problems_with_their_lines(tmp_path: Path) -> None:
    text = """[engine]
concurency = 3

[jobs.import]
timeout = "10 minutes"
run.shell = ["true"]
retry = { attempts = 3, factor = 0.5 }

[triggers.a]
on.tik = "0 2 * * *"
job = "imprt"
filter = "dta.size > 0"

[triggers."../b"]
job = "import"
on.tick = "x"
"""
    found = problems_of(tmp_path, text)
    assert [(problem.line, problem.path) for problem in found] == [
        (2, "engine.concurency"),
        (5, "jobs.import.timeout"),
        (7, "jobs.import.retry.factor"),
        (10, "triggers.a.on.tik"),
        (11, "triggers.a.job"),
        (12, "triggers.a.filter"),
        (14, 'triggers."../b"'),
    ]
    assert [problem.hint for problem in found][:1] == ['did you mean "concurrency"?']
    assert str(found[1]) == (
        f'{tmp_path}/config.toml:5: jobs.import.timeout: found "10 minutes", which is no duration such as '
        '"500ms", "5s", "30m", "1h30m" or "1d"'
    )
    assert found[3].hint == 'did you mean "tick"?'
    assert found[4].hint == 'did you mean "import"?'
    assert found[5].message.endswith("unknown name `dta`; did you mean `data`?")


T = JOB + "[triggers.t]\njob = 'j'\non.tick = 'x'\n"

BROKEN = [
    ("a = ", 1, "", "is no TOML: Invalid value"),
    ("[engine]\ndata = 'a'\ndata = 'b'", 3, "", "is no TOML: Cannot overwrite a value"),
    ("[engine]\n[engine]", 2, "", "is no TOML: Cannot declare [engine] twice"),
    ("[jobs.c]\n[jobs.c]", 2, "", "is no TOML: Cannot declare [jobs.c] twice"),
    ('[jobs."it\'s \\\\ a.b"]\n[jobs."it\'s \\\\ a.b"]', 2, "", 'Cannot declare [jobs."it\'s \\\\ a.b"] twice'),
    ("[a.b]\n[a]\nb.c=1", 3, "", "Cannot redefine namespace [a.b], at the end of the file"),
    ("[engine\n", 1, "", "is no TOML"),
    ("[engine]\ndata = 'a", 2, "", "is no TOML"),
    ("x = '''\n\n", 1, "", "at the end of the file"),
    ("x = " + "[" * 2000, 1, "", "is nested deeper"),
    ("a" + ".a" * 200 + " = 1", 1, "", "is nested deeper"),
    ("\n[engine]\nconcurrency = " + "9" * 5000, 3, "", "too many digits"),
    ("engine = 3", 1, "engine", "found 3, expected a table"),
    ("jobs = []", 1, "jobs", "found a list, expected a table"),
    ("jobs.j = 'x'", 1, "jobs.j", 'found "x", expected a table'),
    ("[[jobs]]\nx = 1", 1, "jobs", "found a list, expected a table"),
    ("[job.x]\nrun.shell = ['a']", 1, "job", "unknown key"),
    ("[engine]\ndata = 3", 2, "engine.data", "found 3, expected a path, as text"),
    ("[engine]\nconcurrency = 0", 2, "engine.concurrency", "found 0, expected a whole number of at least 1"),
    ("[engine]\nconcurrency = '4'", 2, "engine.concurrency", 'found "4", expected a whole number'),
    ("[engine]\nshutdown_grace = 30", 2, "engine.shutdown_grace", "found 30, expected a duration"),
    ("[engine]\nageing = '0s'", 2, "engine.ageing", 'found "0s", expected a duration greater than 0s'),
    ("[engine]\ntimezone = 'Europe'", 2, "engine.timezone", "which is no IANA time zone"),
    ("[engine]\nplugins = ['nowhere']", 2, "engine.plugins[0]", "there is no folder"),
    ("[engine]\nconditiosn = []", 2, "engine.conditiosn", "unknown key"),
    ("[defaults]\ntimeout = '0s'", 2, "defaults.timeout", "expected a duration greater than 0s"),
    ("[defaults]\nretry = 3", 2, "defaults.retry", "found 3, expected a table"),
    ("[defaults.retry]\njitter = 1.5", 2, "defaults.retry.jitter", "expected a number from 0 to 1"),
    ("[defaults.retry]\nfactor = inf", 2, "defaults.retry.factor", "found inf, expected a finite number"),
    ("[defaults.retry]\ndelay = '1h'", 1, "defaults.retry.max_delay", "delay is 1h, longer than max_delay"),
    ("[store]\nurl = 'postgresql://db/x'", 2, "store.url", "only SQLite is built"),
    ("[store]\nurl = 'sqlite://data/x.db'", 2, "store.url", "only SQLite is built"),
    ("[store]\nurl = 'sqlite:///:memory:'", 2, "store.url", "names no file"),
    ("[store]\nurl = 'sqlite:///.'", 2, "store.url", "is a directory"),
    ("[store]\nreplicas = 2", 2, "store.replicas", "unknown key"),
    ("[http]\nlisten = '8080'", 2, "http.listen", 'expected "host:port"'),
    ("[http]\nlisten = '127.0.0.1:99999'", 2, "http.listen", 'expected "host:port"'),
    ("[http]\nlisten = '[::1:80'", 2, "http.listen", 'expected "host:port"'),
    ("[http]\nlisten = '0.0.0.0:80'", 2, "http.listen", "which others can reach"),
    ("[http]\nlisten = '[::]:80'", 2, "http.listen", "which others can reach"),
    ("[http]\nlisten = 'example.org:80'\ninsecure = false", 2, "http.listen", "which others can reach"),
    ("[http]\nmax_body = '0'", 2, "http.max_body", 'found "0", expected a size of at least 1B'),
    ("[jobs.j]\ntimeout = '1s'", 1, "jobs.j.run", "missing; expected a table with one runner"),
    (JOB + "concurrency = 0", 3, "jobs.j.concurrency", "at least 1"),
    (JOB + "on_crash = 'stay'", 3, "jobs.j.on_crash", 'expected "retry" or "fail" or "adopt"'),
    (JOB + "on_crash = 'adopt'", 3, "jobs.j.on_crash", "attempts of the runner shell end with the engine"),
    (JOB + "log = { max = '1KiB' }", 3, "jobs.j.log.max", "at least 64KiB"),
    (JOB + "tags = 'x'", 3, "jobs.j.tags", 'found "x", expected a list of texts'),
    (JOB + "[jobs.'']\nrun.shell = ['a']", 3, 'jobs.""', "which is no name"),
    (JOB + "[jobs.'a b']\nrun.shell = ['a']", 3, 'jobs."a b"', "which is no name"),
    (JOB + "[jobs.\"\\u001b[31m\"]\nrun.shell = ['a']", 3, 'jobs."\\u001b[31m"', "which is no name"),
    (JOB + f"[jobs.{'x' * 129}]\nrun.shell = ['a']", 3, f"jobs.{'x' * 129}", "which is no name"),
    (JOB + "[triggers.t]\non.tick = 'x'", 3, "triggers.t.job", "missing"),
    (
        JOB + "[triggers.t]\njob = 'j'",
        3,
        "triggers.t.on",
        "missing; expected a table with one source or timer",
    ),
    (JOB + "[triggers.t]\njob = 'j'\non = {}", 5, "triggers.t.on", "expected exactly one source or timer"),
    (
        JOB + "[triggers.t]\njob = 'j'\non.source = 'x'",
        5,
        "triggers.t.on.source",
        "but there is no such source",
    ),
    (T + "filter = 'data.x >'", 6, "triggers.t.filter", "is no CEL expression"),
    (T + "filter = true", 6, "triggers.t.filter", "found true, expected a CEL expression"),
    (T + "debounce = 5", 6, "triggers.t.debounce", "found 5, expected a duration"),
    (T + "debounce = {}", 6, "triggers.t.debounce.wait", "missing"),
    (T + "debounce = { wait = '1s', key = 'dta' }", 6, "triggers.t.debounce.key", "unknown name `dta`"),
    (
        T + "debounce = { wait = '5s', max_wait = '1s' }",
        6,
        "triggers.t.debounce.max_wait",
        "shorter than wait",
    ),
    (T + "priority = 10", 6, "triggers.t.priority", "found 10, expected a whole number from 0 to 9"),
    (T + "priority = 'urgent'", 6, "triggers.t.priority", 'from 0 to 9 or "low" or "normal"'),
    (T + "priority = 'hihg'", 6, "triggers.t.priority", 'found "hihg", expected a whole number from 0 to 9'),
    (T + "priority = '{{ dta.level }}'", 6, "triggers.t.priority", "unknown name `dta`"),
    (T + "max_waiting = 0", 6, "triggers.t.max_waiting", "found 0, expected a whole number"),
    ("[engine]\nconcurrency = 2\nreserve = { live = 1, manual = 1 }", 3, "engine.reserve", "keeps all 2 slots"),
    ("[engine]\nqueue = { high = 5, low = 5 }", 2, "engine.queue.low", "is 5, not below high, which is 5"),
    (T + "priority = true", 6, "triggers.t.priority", "found true"),
    (T + "data = { a = inf }", 6, "triggers.t.data.a", "JSON can't hold"),
    (T + "data = { a = 99999999999999999999 }", 6, "triggers.t.data", "beyond 64 bits"),
    (T + "[triggers.t.data]\nx = " + "[" * 70 + "]" * 70, 6, "triggers.t.data", "nested deeper than 64"),
    (T + "defaults = { a = [\n'{{ http.x }}'] }", 7, "triggers.t.defaults.a[0]", "unknown name `http`"),
    (T + "defaults = { a = '{{ data.x' }", 6, "triggers.t.defaults.a", "never closed"),
    (T + "misfire = { catch_up = 'any' }", 6, "triggers.t.misfire.catch_up", 'found "any", expected "latest"'),
    (T + "misfire = { max = 5 }", 6, "triggers.t.misfire.max", 'has no effect where catch_up is "latest"'),
    (T + "misfire = { catch_up = 'all', rate = '9' }", 6, "triggers.t.misfire.rate", 'is no rate such as "10/s"'),
    (T + "misfire = { catch_up = 'all', rate = '0/s' }", 6, "triggers.t.misfire.rate", 'is no rate such as "10/s"'),
    (T + "misfire = { catch_up = 'all', max = 20000 }", 6, "triggers.t.misfire.max", "from 1 to 10000"),
    (T + "misfire = { grace = '0s' }", 6, "triggers.t.misfire.grace", "greater than 0s"),
]


@pytest.mark.parametrize(("text", "line", "path", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_refused_with_line_and_reason(
    tmp_path: Path, text: str, line: int, path: str, message: str
) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert (problem.line, problem.path) == (line, path)
    assert message in problem.message
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"[engine]\ndata = '\xff'", 2, "is not UTF-8"),
        (b"\xef\xbb\xbf[engine]", 1, "byte order mark"),
        (b"[engine]\ndata = 'a\x00b'", 2, "is no TOML"),
    ],
)
def test_bytes_that_are_no_toml_are_refused(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load([file], environment={}, registry=registry())
    (problem,) = caught.value.problems
    assert problem.line == line
    assert message in problem.message


def test_a_syntax_error_is_told_with_the_mistakes_of_the_other_files(tmp_path: Path) -> None:
    found = places(
        tmp_path,
        "[triggers.t]\non.tick = 'x'\njob = 'there'\npriority = 99\n",
        "[jobs.there]\nrun.shell = [\n\n x",
    )
    # That the job is missing is not told: it may stand in the file that can't be read.
    assert found == [("config.toml", 4, "triggers.t.priority"), ("config2.toml", 4, "")]


def test_lines_are_right_in_every_form_of_toml(tmp_path: Path) -> None:
    text = '''# a comment with = and [brackets]
[jobs]
a.run.shell = """
x"""
"b".run = { shell = 7 }   # seven

[jobs.c.run.shell]
command = [
  "x",  # one

  8,
]
'env' = { "A\\u0042" = 9 }

[triggers . "t"]
'''
    assert [(line, path) for _, line, path in places(tmp_path, text)] == [
        (3, "jobs.a.run.shell"),
        (5, "jobs.b.run.shell"),
        (11, "jobs.c.run.shell.command[1]"),
        (13, "jobs.c.run.shell.env.AB"),
        (15, "triggers.t.on"),
        (15, "triggers.t.job"),
    ]


def test_listening_for_others_has_to_be_said(tmp_path: Path) -> None:
    config = load_text(tmp_path, "[http]\nlisten = '0.0.0.0:80'\ninsecure = true\n")
    assert (config.http.host, config.http.port, config.http.insecure) == ("0.0.0.0", 80, True)
    for listen in ("localhost:0", "127.1.2.3:1", "[::1]:1"):
        load_text(tmp_path, f"[http]\nlisten = '{listen}'\n")


def test_all_is_told_of_a_table_that_has_several_mistakes(tmp_path: Path) -> None:
    text = "[http]\nlisten = '0.0.0.0:80'\nmax_body = 1\nx = 1\n[engine]\nplugins = ['gone']\ndata = 1\n"
    assert [line for _, line, _ in places(tmp_path, text)] == [2, 3, 4, 6, 7]


def test_a_plugin_that_can_not_be_imported_is_an_error_only_where_it_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "tock.py").write_text("1/0")
    file = tmp_path / "config.toml"
    file.write_text("[engine]\nplugins = ['plugins']\n")
    load([file], environment={})
    file.write_text("[engine]\nplugins = ['plugins']\n[triggers.t]\njob = 'j'\non.tock = 'x'\n")
    with pytest.raises(ConfigError, match=r"tock\.py\) can't be used: can't be imported: ZeroDivisionError"):
        load([file], environment={})


def test_plugins_of_a_named_folder_can_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "tock.py").write_text(
        "from __future__ import annotations\nfrom typing import ClassVar\nfrom engine.plugin import Runner\n"
        "class Tock(Runner, frozen=True, kw_only=True):\n"
        "    name: ClassVar[str] = 'tock'\n    main: ClassVar[str] = 'n'\n    n: int = 1\n"
        "    async def run(self, context): ...\n"
    )
    file = tmp_path / "config.toml"
    file.write_text("[engine]\nplugins = ['own']\n[jobs.a]\nrun.tock = 5\n")
    assert load([file], environment={}).jobs["a"].runner.n == 5


def test_without_files_everything_is_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load([], environment={"ENGINE__ENGINE__CONCURRENCY": "2"}, registry=Registry())
    assert (config.base, config.files, config.engine.concurrency) == (tmp_path, (), 2)


def test_files_are_those_named_or_of_the_environment_or_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config.toml", "a.toml", "b.toml"):
        (tmp_path / name).touch()
    assert find_files(["a.toml"], {"ENGINE_CONFIG": "b.toml"}) == [Path("a.toml")]
    assert find_files([], {"ENGINE_CONFIG": "b.toml:a.toml"}) == [Path("b.toml"), Path("a.toml")]
    assert find_files([], {}) == [Path("config.toml")]


def test_files_that_are_not_there_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.toml: there is no such file.*--config or ENGINE_CONFIG"):
        find_files([], {})
    with pytest.raises(ConfigError) as caught:
        find_files(["x.toml", str(tmp_path)], {})
    assert [problem.file for problem in caught.value.problems] == ["x.toml", str(tmp_path)]
    with pytest.raises(ConfigError, match="can't be read"):
        load([Path("gone.toml")], environment={}, registry=registry())


def test_an_error_can_be_written_as_json(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[engine]\nconcurrency = 0\n")
    assert json.loads(json.dumps([problem.file, problem.line, problem.path, problem.message, problem.hint]))


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("[jobs.j]\nrun.shell = 'echo \"a b\"'\n", "jobs.j.run.shell", 'write ["echo", "a b"]'),
        (JOB + "tags = 'night'\n", "jobs.j.tags", 'write ["night"]'),
        (JOB + "retry = 3\n", "jobs.j.retry", "write { attempts = 3 }"),
        (JOB + "timeout = 3\n", "jobs.j.timeout", 'durations have a unit: "3s"'),
    ],
)
def test_a_value_of_another_form_is_told_with_the_form_that_is_meant(
    tmp_path: Path, text: str, path: str, hint: str
) -> None:
    [problem] = problems_of(tmp_path, text)
    assert (problem.path, problem.hint) == (path, hint)


def test_a_required_key_that_is_misspelt_is_told_once(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path, JOB + "[triggers.t]\non.tick = '1s'\njobb = 'j'\n")
    assert (problem.path, problem.hint) == ("triggers.t.jobb", 'did you mean "job"?')
    found = problems_of(tmp_path, JOB + "[triggers.t]\non.tick = '1s'\ncolour = 'j'\n")
    assert sorted(problem.path for problem in found) == ["triggers.t.colour", "triggers.t.job"]
