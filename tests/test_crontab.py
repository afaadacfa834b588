"""Crontabs as configuration: what the text says is what cron would do, and what it can't say stands in comments."""

from __future__ import annotations

import json
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.cli.app import app
from engine.cli.crontab import Entry, Result, is_system, read, write
from engine.cli.crontab.fields import BadField, read_fields
from engine.cli.crontab.naming import name_of
from engine.config import Config, load
from engine.config.writing import toml, toml_comment, toml_key
from engine.decide.schedule import schedule_of
from engine.expressions import Scope, Template
from engine.triggers import Trigger
from plugins.timers.cron import Cron

MINUTE = timedelta(minutes=1)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def refused(expression: str) -> str | None:
    try:
        Cron(expression=expression)
    except ValueError as error:
        return str(error)
    return None


def imported(text: str, *, system: bool | None = None, timezone: str = "UTC", user: str = "ada") -> Result:
    has_users = is_system(text) if system is None else system
    return write(
        read(text, system=has_users), title="a test", timezone=timezone, user=user, home="/home/ada", refused=refused
    )


def loaded(folder: Path, result: Result) -> Config:
    (folder / "config.toml").write_text(result.text, "utf-8")
    config = load([folder / "config.toml"], environment={}, examine=True)
    assert (len(config.triggers), len(config.jobs)) == (result.triggers, result.jobs)
    return config


def only(folder: Path, line: str, **more: Any) -> tuple[Trigger, list[str]]:
    """Return the trigger of a line, and the command of its job."""
    result = imported(line, **more)
    assert result.problems == ()
    config = loaded(folder, result)
    (made,) = config.triggers.values()
    return made, list(config.jobs[made.job].runner.command)


def messages(text: str, **more: Any) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in imported(text, **more).problems]


# The same instants


def minutes_by_the_book(fields: str, start: datetime, end: datetime) -> set[datetime]:
    """Return the minutes that five fields mean: crontab(5), read slowly."""
    texts = fields.lower().split()
    sets = [values(place, text) for place, text in enumerate(texts)]
    found, at = set(), start
    while at < end:
        here = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)
        met = [value in allowed for value, allowed in zip(here, sets, strict=True)]
        days = met[2] and met[4] if "*" in (texts[2][0], texts[4][0]) else met[2] or met[4]
        if met[0] and met[1] and met[3] and days:
            found.add(at)
        at += MINUTE
    return found


def values(place: int, text: str) -> set[int]:
    lowest, highest = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))[place]
    names = {
        3: "jan feb mar apr may jun jul aug sep oct nov dec".split(),
        4: "sun mon tue wed thu fri sat".split(),
    }.get(place, [])
    found: set[int] = set()
    for element in text.split(","):
        span, _, step = element.partition("/")
        ends = [str(lowest), str(highest)] if span == "*" else span.split("-")
        low, high = (names.index(end) + lowest if end in names else int(end) for end in (ends[0], ends[-1]))
        found |= set(range(low, high + 1, int(step or 1)))
    return {0 if place == 4 and value == 7 else value for value in found}


def field(place: int) -> st.SearchStrategy[str]:
    lowest, highest = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))[place]
    number = st.integers(lowest, highest)
    names = {3: "jan FEB mar".split(), 4: "sun Mon tue wed thu fri SAT".split()}.get(place)
    span = st.tuples(number, number).map(sorted)
    element = st.one_of(
        st.just("*"),
        st.integers(1, highest).map(lambda step: f"*/{step}"),
        number.map(str),
        number.map("{:02}".format),
        span.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(span, st.integers(1, highest)).map(lambda both: f"{both[0][0]}-{both[0][1]}/{both[1]}"),
        *([st.sampled_from(names)] if names else []),
    )
    return st.one_of(st.just("*"), st.lists(element, min_size=1, max_size=3).map(",".join))


@settings(max_examples=150, deadline=None)
@given(st.tuples(*(field(place) for place in range(5))).map(" ".join), st.integers(0, 1500))
def test_a_line_means_the_minutes_that_cron_means(fields: str, day: int) -> None:
    result = imported(f"{fields} true")
    if result.problems:
        assert "never comes" in result.problems[0].message
        return
    timer = Cron(**tomllib.loads(result.text)["triggers"]["true"]["on"]["cron"])
    start = MONDAY + timedelta(days=day)
    end = start + timedelta(days=2)
    found = set()
    due = timer.next(start - MINUTE)
    while due is not None and due < end:
        found.add(due)
        due = timer.next(due)
    assert found == minutes_by_the_book(fields, start, end)


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("@hourly x", "0 * * * *"), ("@DAILY x", "0 0 * * *"), ("@midnight x", "0 0 * * *"), ("@weekly x", "0 0 * * 0"),
        ("@monthly x", "0 0 1 * *"), ("@yearly x", "0 0 1 1 *"), ("@annually x", "0 0 1 1 *"),
        ("\t 5\t4 * *  sun   x", "5 4 * * sun"), ("*/7 * * * * x", "*/7 * * * *"),
        ("0 4 8-14 * Mon-Fri x", "0 4 8-14 * mon-fri"), ("05 04 * * 7 x", "05 04 * * 7"),
    ],
)  # fmt: skip
def test_the_times_of_a_line(tmp_path: Path, line: str, expression: str) -> None:
    made, command = only(tmp_path, line, timezone="Europe/Berlin")
    assert (made.on.expression, made.on.timezone) == (expression, "Europe/Berlin")
    assert command == ["sh", "-c", "x"]
    schedule = schedule_of(made)
    assert schedule is not None
    assert schedule.next(MONDAY) == Cron(expression=expression, timezone="Europe/Berlin").next(MONDAY)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("5-1 * * * * x", "runs backwards"),
        ("99 * * * * x", "not between 0 and 59"),
        ("0 24 * * * x", "not between 0 and 23"),
        ("0 0 0 * * x", "not between 1 and 31"),
        ("0 0 1 13 * x", "not between 1 and 12"),
        ("0 0 * * 8 x", "not between 0 and 7"),
        ("*/0 * * * * x", "a step is a number from 1"),
        ("5/10 * * * * x", "write 5-59/10"),
        ("0 0 * foo * x", "which is no month"),
        ("0 0 * * moonday x", "which is no day of week"),
        ("mon 0 * * * x", "which is no minute"),
        ("1,,2 * * * * x", "does not know"),
        ("1- * * * * x", "without an end"),
        ("0 0 L * * x", "which is no day of month"),
        ("0 0 * * mon#2 x", "does not know"),
        ("9~3 * * * * x", "no random range"),
        ("٣ * * * * x", "which is no minute"),
        (f"{'1' * 5000} * * * * x", "which is no minute"),
        ("0 0 30 2 * x", "never comes"),
        ("* * * * *", "expected five fields and a command"),
        ("* * * *", "expected five fields and a command"),
        ("hello", "expected five fields and a command"),
        ("@daily", "expected a command after the name"),
        ("@fortnightly x", "which cron does not know"),
        ("* * * * * %input", "its command is empty"),
        ("* * * * * a\0b", "NUL"),
    ],
)
def test_a_line_that_cron_would_not_run_is_a_comment_that_says_why(tmp_path: Path, line: str, said: str) -> None:
    result = imported(f"# before\n{line}\n0 1 * * * fine\n")
    [problem] = result.problems
    assert (problem.line, problem.bad) == (2, True)
    assert said in problem.message
    assert "line 2 is NOT carried over" in result.text
    assert set(loaded(tmp_path, result).triggers) == {"fine"}


def test_a_random_value_is_drawn_once_for_all(tmp_path: Path) -> None:
    made, _ = only(tmp_path, "10~20 ~ * * * x")
    minute, hour, *rest = made.on.expression.split()
    assert (10 <= int(minute) <= 20, 0 <= int(hour) <= 23, rest) == (True, True, ["*"] * 3)
    assert only(tmp_path, "10~20 ~ * * * x")[0].on == made.on
    assert "minute 10~20 became" in imported("10~20 ~ * * * x").text
    drawn = {read_fields(["0~59", *"****"], str(seed))[0] for seed in range(100)}
    assert len(drawn) > 30
    with pytest.raises(BadField):
        read_fields(["~61", *"****"], "")


# Variables


def test_a_variable_holds_for_the_lines_below_it(tmp_path: Path) -> None:
    text = """
A = before
0 1 * * * one
 PATH = "/opt/bin:$PATH"
A='  kept  '
"B"=x=y
SHELL=/bin/bash
HOME=/srv/app
CRON_TZ=America/New_York
TZ=Asia/Tokyo
RANDOM_DELAY=15
0 2 * * * two
CRON_TZ=Europe/Nowhere
RANDOM_DELAY=soon
"""
    config = loaded(tmp_path, imported(text, timezone="Europe/Berlin"))
    one, two = config.jobs["one"].runner, config.jobs["two"].runner
    assert (one.command, one.env, one.cwd) == (("sh", "-c", "one"), {"A": "before"}, Path("/home/ada"))
    assert (two.command, two.cwd) == (("/bin/bash", "-c", "two"), Path("/srv/app"))
    assert two.env == {
        "A": "  kept  ", "B": "x=y", "PATH": "/opt/bin:$PATH", "SHELL": "/bin/bash", "HOME": "/srv/app",
        "TZ": "Asia/Tokyo",
    }  # fmt: skip
    assert (config.triggers["one"].on.timezone, config.triggers["one"].on.jitter) == ("Europe/Berlin", None)
    assert (config.triggers["two"].on.timezone, config.triggers["two"].on.jitter) == ("America/New_York", 900.0)
    result = imported(text)
    assert 'line 13: there is no time zone "Europe/Nowhere"' in result.text
    assert "line 14: it is no number of minutes" in result.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("MAILTO=ops@example.com", "nothing is mailed"),
        ("ENGINE_RUN_ID=1", "the engine sets it itself"),
        ('"a b"=1', "other characters"),
        ("FORMAT={{.Names}}", "begins a template"),
    ],
)
def test_a_variable_that_can_not_be_carried_over_is_said_at_its_line(tmp_path: Path, line: str, said: str) -> None:
    result = imported(f"{line}\n0 1 * * * x\n")
    assert loaded(tmp_path, result).jobs["x"].runner.env == {}
    after = result.text.split(line, 1)[1]
    assert "line 1: not carried over" in after.splitlines()[1]
    assert said in after.splitlines()[1]
    assert result.problems == ()


def test_no_mail_needs_no_word() -> None:
    assert "not carried over" not in imported('MAILTO=""\n').text


# Commands


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("echo a", "a\n"),
        (r"date +\%Y | sed 's/.*/y/'", "y\n"),
        ("cat%one%two", "one\ntwo\n"),
        (r"cat%50\% off%", "50% off\n\n"),
        ("echo 'it''s' \"two  blanks\" \\\\ # a comment%ignored", "its two  blanks \\\n"),
        ("printf '{{.Names}} }} {{{'", "{{.Names}} }} {{{"),
        ("cat; echo {{x}}%in {{put}}", "in {{put}}\n{{x}}\n"),
        ('echo täglich ☃ \\"', 'täglich ☃ "\n'),
        ("echo a;echo b && echo c || echo d", "a\nb\nc\n"),
    ],
)
def test_a_command_does_what_cron_would_have_it_do(tmp_path: Path, written: str, expected: str) -> None:
    _, command = only(tmp_path, f"0 1 * * * {written}")
    arguments = [Template(text).render(Scope({})) for text in command]
    done = subprocess.run(arguments, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.decode() == expected


def test_what_another_shell_can_not_be_given_is_said() -> None:
    assert "can't be given in /bin/csh" in messages("SHELL=/bin/csh\n0 1 * * * cat%x\n")[0][1]
    assert "put it into a script" in messages("SHELL=/usr/bin/fish\n0 1 * * * echo {{x}}\n")[0][1]
    assert "is no program" in messages("SHELL=\n0 1 * * * x\n")[0][1]


def test_reboot_is_not_carried_over_and_no_mistake() -> None:
    [problem] = imported("@reboot /opt/start\n").problems
    assert not problem.bad
    assert "systemd" in problem.message


def test_equal_commands_are_one_job_unless_something_else_is_otherwise(tmp_path: Path) -> None:
    text = (
        "0 1 * * * /opt/backup.sh\n0 2 * * * /opt/backup.sh\n0 2 * * * /opt/backup.sh\nA=1\n0 3 * * * /opt/backup.sh\n"
    )
    config = loaded(tmp_path, imported(text))
    assert len(config.jobs) == 2
    assert [made.on.expression for made in config.triggers.values()] == [
        "0 1 * * *",
        "0 2 * * *",
        "0 2 * * *",
        "0 3 * * *",
    ]
    assert len({made.job for made in list(config.triggers.values())[:3]}) == 1
    assert imported(text).text == imported(text).text


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh --full", "backup"),
        ("cd /app && php artisan schedule:run >> /dev/null 2>&1", "artisan-schedule-run"),
        ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "run-parts"),
        ("[ -f /x ] && FOO=1 nice -n 10 python3 /srv/jobs/clean_up.py", "clean-up"),
        ("./täglich", "t-glich"),
        ("$CMD", "command"),
        ('echo "$GREETING"; cat', "echo"),
        ("☃", "command"),
        ("true", "true"),
        ("a" * 500, "a" * 40),
    ],
)
def test_a_job_is_called_what_it_does(command: str, name: str) -> None:
    assert name_of(command) == name


def test_comments_stay_and_those_right_above_become_the_description(tmp_path: Path) -> None:
    text = "# The crontab of Ada\n\n# Nightly,\n#   at one\n0 1 * * * backup\n0 2 * * * other\n\n# The end\n"
    result = imported(text)
    for line in ("# The crontab of Ada", "# Nightly,", "# The end", "# line 5: 0 1 * * * backup"):
        assert line in result.text.splitlines()
    config = loaded(tmp_path, result)
    assert (config.triggers["backup"].description, config.triggers["other"].description) == ("Nightly, at one", "")


# System crontabs

SYSTEM = """SHELL=/bin/sh
17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly
25 6\t* * *\tada\t/usr/bin/updates
@daily www-data /srv/tidy
"""


def test_a_system_crontab_has_users_and_those_of_others_are_disabled(tmp_path: Path) -> None:
    assert is_system(SYSTEM)
    result = imported(SYSTEM)
    config = loaded(tmp_path, result)
    assert {name: made.enabled for name, made in config.triggers.items()} == {
        "run-parts": False, "updates": True, "tidy": False,
    }  # fmt: skip
    assert config.jobs["tidy"].runner.command == ("sh", "-c", "/srv/tidy")
    assert "cron runs it as www-data" in result.text


@pytest.mark.parametrize(
    ("text", "file", "system"),
    [
        ("0 1 * * * x y", "/etc/crontab", True),
        ("0 1 * * * x y", "/etc/cron.d/x", True),
        ("0 1 * * * x y", "/var/spool/cron/crontabs/ada", False),
        ("0 1 * * * mail -s x y", "", False),
        ("0 1 * * * root x\n0 2 * * * ada y", "", True),
        ("0 1 * * * root x\n0 2 * * * /opt/y z", "", False),
        ("# m h dom mon dow user\tcommand\n0 1 * * * ada x", "", True),
        ("# m h  dom mon dow   command\n0 1 * * * ada x", "", False),
        ("", "", False),
    ],
)
def test_a_column_of_users_is_found_out(text: str, file: str, system: bool) -> None:
    assert is_system(text, file) is system


def test_a_line_without_a_user_is_told_in_a_system_crontab() -> None:
    assert "expected a user and a command" in messages("0 1 * * * x\n", system=True)[0][1]


# Anything at all

HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789*/-,~@%\\\"'{}=#[] \t\r\x0b\x7f\u2028abcL", max_size=60),
    st.text(max_size=40).map(lambda text: f"*/5 * * * * {text}"),
    st.text(max_size=40).map(lambda text: f"NAME={text}"),
    st.sampled_from(['0 1 * * * """', "0 1 * * * '''\\", "0 1 * * * a\x1b[31m", "[triggers.x]", "# \x1b]0;x"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(HOSTILE, max_size=6), st.booleans())
def test_whatever_stands_in_a_crontab_the_text_is_toml_and_holds_no_control_codes(
    lines: list[str], system: bool
) -> None:
    result = imported("\n".join(lines), system=system)
    tables = tomllib.loads(result.text)
    assert len(tables.get("triggers", {})) == result.triggers
    assert all(character.isprintable() or character in "\n\t" for character in result.text)


@pytest.mark.parametrize(
    "line",
    [
        f"0 1 * * * {'x' * 100_000}",
        f"{','.join(['1'] * 2000)} * * * * x",
        '0 1 * * * echo "\\"" \'"""\' \\\\ \t # x',
        "0 1 * * * echo \u202e\u2028\x85\x7f\x1b[0m",
        "0 1 * * * echo '''[triggers.x]'''",
        "\r",
        "0 1 * * * x\r",
        "=",
        "a=\nb=",
        "* * * * * " * 50,
        f"A={' ' * 100_000}x",
        f"A{' ' * 100_000}",
        f"0 1 * * * x{' ' * 100_000}y",
        f"{' ' * 100_000}0 1 * * * x",
        "\n" * 20_000,
    ],
)
def test_hostile_lines_pass_check(tmp_path: Path, line: str) -> None:
    loaded(tmp_path, imported(f"{line}\n"))


def test_the_writer_writes_what_the_reader_reads() -> None:
    value = {"a b": ["\\", '"', "\n\x7f\u2028ä", True, 1, 1.5], "": {}, "é": {"x": ["'"]}}
    assert tomllib.loads(f"{toml_key('x', 'y z')} = {toml(value)}") == {"x": {"y z": value}}
    assert tomllib.loads(toml_comment("a\n\x00\x1b\r\x7f\tb")) == {}
    with pytest.raises(ValueError, match="not Unicode"):
        toml("\ud800")
    with pytest.raises(ValueError, match="NoneType"):
        toml(None)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_written_as_it_is(text: str) -> None:
    assert tomllib.loads(f"x = {toml(text)}") == {"x": text}
    assert tomllib.loads(toml_comment(text)) == {}


def test_entries_know_their_lines() -> None:
    items = read("\n\n0 1 * * * x\n", system=False).items
    assert [item.line for item in items if isinstance(item, Entry)] == [3]


# The command


def run(*arguments: str, **more: Any) -> Any:
    return CliRunner().invoke(app, ["import", "crontab", *arguments], **more)


def test_the_command_prints_the_text_and_says_the_rest_on_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "cron"
    file.write_text("0 1 * * * good\n99 * * * * bad\n@reboot start\n", "utf-8")
    done = run(str(file), "--timezone", "Europe/Berlin")
    assert done.exit_code == 0
    assert tomllib.loads(done.stdout)["triggers"]["good"]["on"]["cron"]["timezone"] == "Europe/Berlin"
    assert f"{file}:2: not carried over" in done.stderr
    assert "triggers: 1, jobs: 1, not carried over: 2" in done.stderr
    assert run(str(file), "--strict").exit_code == 1
    file.write_text("0 1 * * * good\n@reboot start\n", "utf-8")
    assert run(str(file), "--strict").exit_code == 0


def test_the_command_reads_standard_input_and_speaks_json() -> None:
    done = run("-", "--json", input=b"0 1 * * * x\nbad\n")
    found = json.loads(done.stdout)
    assert (found["jobs"], found["triggers"], found["problems"][0]["line"]) == (1, 1, 2)
    assert "on.cron" in found["config"]
    said = run("-", input=b"0 1 * * * x\nbad\n").stderr.splitlines()
    assert said[0].startswith("standard input:2: not carried over: ")
    assert said[1] == "standard input: triggers: 1, jobs: 1, not carried over: 1"
    assert "standard input:1: is not UTF-8" in run("-", input=b"\xff").stderr


def test_a_file_that_is_there_is_not_written_over_unasked(tmp_path: Path) -> None:
    file, output = tmp_path / "cron", tmp_path / "config.toml"
    file.write_text("0 1 * * * x\n", "utf-8")
    assert run(str(file), "-o", str(output)).exit_code == 0
    before = output.read_text("utf-8")
    assert tomllib.loads(before)["jobs"]
    assert output.stat().st_mode & 0o777 == 0o600
    file.write_text("0 2 * * * y\n", "utf-8")
    done = run(str(file), "-o", str(output))
    assert (done.exit_code, output.read_text("utf-8")) == (1, before)
    assert "--force" in done.stderr
    assert run(str(file), "-o", str(output), "--force").exit_code == 0
    assert "y" in tomllib.loads(output.read_text("utf-8"))["jobs"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing"], 1, "can't be read"),
        (["latin"], 1, "latin:2: is not UTF-8"),
        (["fine", "--timezone", "Mars/Olympus"], 2, "there is no time zone"),
        (["fine", "-o", "no/such/folder"], 1, "can't be written"),
        (["."], 1, "can't be read"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"# ok\n# \xe4\n")
    (tmp_path / "fine").write_text("0 1 * * * x\n", "utf-8")
    done = run(*arguments)
    assert done.exit_code == code
    assert said in done.stderr


def test_users_and_system_crontabs_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "cron"
    file.write_text("0 1 * * * www-data x\n", "utf-8")
    tables = tomllib.loads(run(str(file), "--system", "--user", "www-data").stdout)
    assert "enabled" not in tables["triggers"]["x"]
    assert tomllib.loads(run(str(file), "--system", "--user", "nobody").stdout)["triggers"]["x"]["enabled"] is False
    assert tomllib.loads(run(str(file), "--no-system").stdout)["jobs"]["www-data-x"]
