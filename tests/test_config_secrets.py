"""Secrets: texts that stand elsewhere, and files that are made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.config import load
from engine.config.document import Problems
from engine.config.references import References
from engine.errors import ConfigError
from engine.plugin import Secret
from tests.test_config_plugins import JOB, Table, load_text, on_table, problems_of


def text_of(password: str) -> str:
    return f"{JOB}[triggers.t]\njob = 'j'\n[triggers.t.on.table]\npassword = {password}\n"


def test_a_secret_may_be_text_a_variable_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from file\n\n")
    assert on_table(tmp_path, "password = 'text'").password == Secret("text")
    assert on_table(tmp_path, "password = { env = 'PW' }", PW="from env").password == Secret("from env")
    password = on_table(tmp_path, "password = { file = 'pw' }").password
    assert password == Secret("from file\n")
    assert password is not None
    assert password.origin == "file pw"


def test_all_secret_values_are_remembered_for_masking(tmp_path: Path) -> None:
    text = text_of("'first'") + "url = { env = 'URL' }\nlabels = { k = { env = 'K' } }\n"
    config = load_text(tmp_path, text, environment={"URL": "second", "K": "third", "OTHER": "not"})
    assert config.secrets == {"first", "second", "third"}
    on = config.triggers["t"].on
    assert isinstance(on, Table)
    assert (on.url, on.labels) == ("second", {"k": "third"})
    assert "first" not in repr(config)
    assert "first" not in repr(on)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{ env = 'NOPE' }", 'the environment variable "NOPE" is not set'),
        ("{ env = 'EMPTY' }", 'the environment variable "EMPTY" is empty'),
        ("{ env = 'BYTES' }", "holds what is no text"),
        ("{ file = 'nope' }", "there is no file"),
        ("{ file = 'empty' }", "is empty, and an empty secret protects nothing"),
        ("{ file = '.' }", "it is no regular file"),
        ("{ file = '/dev/zero' }", "it is no regular file"),
        ("{ file = 'pipe' }", "it is no regular file"),
        ("{ file = 'binary' }", "it is not UTF-8"),
        ("{ file = 'large' }", "it is larger than"),
        ("{ file = '' }", "which is no path"),
        ("{ env = 'A', file = 'b' }", "found both env and file"),
        ("{ generate = true }", "found neither env nor file"),
        ("{ env = 'A', generate = true }", "only a file can be generated"),
        ("{ env = 3 }", "found 3, expected the name of a variable"),
        ("{ file = 'x', generate = 'yes' }", 'found "yes", expected true or false'),
        ("''", "is empty"),
        ("' '", "is empty"),
        ("{ evn = 'A' }", "expected text, { env"),
    ],
)
def test_a_secret_that_is_not_there_is_an_error(tmp_path: Path, reference: str, message: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    os.mkfifo(tmp_path / "pipe")
    environment = {"EMPTY": "", "A": "a", "BYTES": "\udcff"}
    (problem,) = problems_of(tmp_path, text_of(reference), environment=environment)
    assert problem.line == 6
    assert problem.path.startswith("triggers.t.on.table.password")
    assert message in problem.message


def test_a_file_is_generated_once_and_only_when_asked(tmp_path: Path) -> None:
    text = text_of("{ file = 'keys/pw', generate = true }")
    first = load_text(tmp_path, text)
    assert not (tmp_path / "keys").exists()
    (value,) = first.secrets
    assert len(value) >= 43
    made = load_text(tmp_path, text, create_secrets=True)
    file = tmp_path / "keys" / "pw"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.secrets == {file.read_text().rstrip("\n")}
    assert load_text(tmp_path, text, create_secrets=True).secrets == made.secrets
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["pw"]


def test_all_who_name_one_generated_file_get_one_secret(tmp_path: Path) -> None:
    one = "on.table = { password = { file = 'pw', generate = true } }"
    text = f"{JOB}[triggers.a]\njob = 'j'\n{one}\n[triggers.b]\njob = 'j'\n{one}\n"
    triggers = load_text(tmp_path, text).triggers
    assert triggers["a"].on == triggers["b"].on


def test_nothing_is_generated_where_something_else_is_wrong(tmp_path: Path) -> None:
    text = text_of("{ file = 'pw', generate = true }") + "limit = 0\n"
    with pytest.raises(ConfigError):
        load_text(tmp_path, text, create_secrets=True)
    assert not (tmp_path / "pw").exists()


def test_a_file_that_can_not_be_made_is_an_error_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file, no directory")
    with pytest.raises(ConfigError, match=r":6: triggers\.t\.on\.table\.password: the file .* can't be"):
        load_text(tmp_path, text_of("{ file = 'plain/pw', generate = true }"), create_secrets=True)


def test_data_holds_no_references(tmp_path: Path) -> None:
    text = f"{JOB}[triggers.t]\njob = 'j'\non.tick = 'x'\ndata = {{ a = {{ env = 'PW' }} }}\n"
    config = load_text(tmp_path, text, environment={"PW": "s3cret"})
    assert config.triggers["t"].data == {"a": {"env": "PW"}}
    assert config.secrets == frozenset()


def test_numbers_take_no_references(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[engine]\nconcurrency = { env = 'N' }\n", environment={"N": "3"})
    assert problem.message == "found a table, expected a whole number of at least 1"


@pytest.mark.parametrize(
    "text",
    [
        f"{JOB}[triggers.t]\njob = 'j'\non.hook = {{ path = {{ env = 'PW' }}, verify = 'none' }}\n",
        f"{JOB}[triggers.t]\njob = 'j'\non.table = {{ when = {{ env = 'PW' }} }}\n",
        f"{JOB}[triggers.t]\njob = {{ env = 'PW' }}\non.tick = 'x'\n",
        f"{JOB}[triggers.t]\njob = 'j'\non.tick = {{ expression = 'x', timezone = {{ env = 'PW' }} }}\n",
        "[http]\nlisten = { env = 'PW' }\n",
        "[store]\nurl = { env = 'PW' }\n",
        "[jobs.j.run.shell]\ncommand = [{ env = 'PW' }]\n",
    ],
)
def test_no_error_shows_what_stands_behind_a_reference(tmp_path: Path, text: str) -> None:
    canary = "canary {{ ../'x\t\x1b"
    found = problems_of(tmp_path, text, environment={"PW": canary})
    assert found
    assert not any("canary" in str(problem) for problem in found)


def test_a_reference_of_a_later_file_replaces_that_of_an_earlier(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        text_of("{ env = 'PW' }"),
        "[triggers.t.on.table]\npassword = { file = 'pw', generate = true }\n",
    )
    assert len(config.secrets) == 1


def test_a_main_field_may_be_a_reference(tmp_path: Path) -> None:
    text = f"{JOB}[triggers.t]\njob = 'j'\non.tick = {{ env = 'WHEN' }}\n"
    assert load_text(tmp_path, text, environment={"WHEN": "x"}).triggers["t"].on.expression == "x"


@pytest.mark.parametrize("secret", ["short", "than", "24", "bytes", "can", "is", "guessed", "h"])
def test_a_secret_that_is_a_word_of_the_sentence_leaves_the_sentence_alone(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[jobs.j]\nrun.exec.command = ["true"]\ncallback = {{ url = "https://example.org/", secret = "{secret}" }}\n'
    )
    with pytest.raises(ConfigError) as caught:
        load([file], environment={})
    [problem] = caught.value.problems
    assert problem.message == "is shorter than 24 bytes, which can be guessed"
    assert "***" not in (problem.hint or "")


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ('found "short", expected shorter', 'found "***", expected shorter'),
        ('found "a short one", which is short', 'found "a *** one", which is short'),
        ("is 'short', and can't be short: 'short'", "is '***', and can't be short: '***'"),
        ("no URL: https://u:short@host/", "no URL: https://u:***@host/"),
        ("no URL: password=short&x=1", "no URL: password=***&x=1"),
        ("holds `short`", "holds `***`"),
        ("short is shorter (short)", "short is shorter (short)"),
        ("found S3cret-1 and S3cret-1x", "found *** and ***x"),
    ],
)
def test_of_a_sentence_what_is_quoted_is_masked_and_what_is_no_plain_word(sentence: str, told: str) -> None:
    references = References({}, Problems())
    references.values |= {"short", "S3cret-1"}
    assert references.masked_in(sentence) == told
    assert references.masked("is shorter, S3cret-1") == "is ***er, ***", "of a sentence of others nothing is spared"
