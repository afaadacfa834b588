"""Which engine a command asks, and as whom: options, profiles, the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.cli.profiles import profiles_file
from tests.fake_operations import TOKEN
from tests.test_cli import Running, call, here, running

__all__ = ["here", "running"]


@pytest.fixture(autouse=True)
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "xdg"))
    monkeypatch.delenv("ENGINE_PROFILE", raising=False)
    file = here / "xdg" / "trigger-engine" / "profiles.toml"
    file.parent.mkdir(parents=True)
    return file


def write(home: Path, text: str, mode: int = 0o600) -> None:
    home.write_text(text)
    home.chmod(mode)


def test_a_profile_names_an_engine_and_its_token(running: Running, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, f'[here]\nurl = "{running.url}"\ntoken = "{TOKEN}"\n')
    for arguments in (("runs", "--profile", "here"), ("--profile", "here", "runs")):
        result = call(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert call("runs").exit_code == 2
    monkeypatch.setenv("ENGINE_PROFILE", "here")
    assert call("runs").exit_code == 0


def test_a_token_may_stand_in_a_file_beside_the_profiles_and_who_may_read_it_is_warned_of(
    running: Running, home: Path
) -> None:
    write(home, f'[here]\nurl = "{running.url}"\ntoken_file = "here.token"\n', mode=0o644)
    token = home.parent / "here.token"
    result = call("runs", "--profile", "here")
    assert (result.exit_code, "here.token can't be read: No such file" in result.stderr) == (2, True)
    token.write_text("\n")
    assert "is empty" in call("runs", "--profile", "here").stderr
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    assert call("runs", "--profile", "here").stderr == ""
    token.chmod(0o640)
    result = call("runs", "--profile", "here")
    assert (result.exit_code, result.stderr) == (
        0,
        f"{token} holds a token and others may read it: chmod 600 {token}\n",
    )
    write(home, f'[here]\nurl = "{running.url}"\ntoken = "{TOKEN}"\n', mode=0o604)
    assert f"chmod 600 {home}" in call("runs", "--profile", "here").stderr


def test_options_go_before_the_environment_and_a_profile_before_its_variables(
    running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, f'[here]\nurl = "{running.url}"\ntoken = "{TOKEN}"\n[dead]\nurl = "http://127.0.0.1:1"\ntoken = "x"\n')
    monkeypatch.setenv("ENGINE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("ENGINE_TOKEN", "a-wrong-secret")
    assert call("runs", "--profile", "here").exit_code == 0
    monkeypatch.setenv("ENGINE_PROFILE", "here")
    assert "no engine answers at http://127.0.0.1:1" in call("runs").output
    monkeypatch.setenv("ENGINE_URL", running.url)
    monkeypatch.setenv("ENGINE_PROFILE", "dead")
    assert "refused the token from the environment variable ENGINE_TOKEN" in call("runs").output
    assert call("runs", "--token", TOKEN).exit_code == 0
    assert "refused the token from --token" in call("runs", "--profile", "here", "--token", "other").output
    result = call("runs", "--profile", "here", "--url", running.url)
    assert (result.exit_code, "give one of them" in result.output) == (2, True)


def test_the_token_of_a_profile_goes_to_its_own_address_alone(
    running: Running, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, f'[elsewhere]\nurl = "http://127.0.0.1:1"\ntoken = "{TOKEN}"\n')
    monkeypatch.setenv("ENGINE_PROFILE", "elsewhere")
    assert call("runs", "--url", running.url).exit_code != 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[here]\n", "Object missing required field `url`"),
        ('[here]\nurl = "http://a"\ntokn = "x"\n', "unknown field `tokn`"),
        ("[here\n", "Expected ']'" if sys.version_info < (3, 14) else "Expected"),
        ('[here]\nurl = "http://a"\ntoken = "x"\ntoken_file = "y"\n', "has both token and token_file"),
        ('[her]\nurl = "http://a"\n', "did you mean 'her'?"),
        ('[here]\nurl = "https://127.0.0.1:1"\ntoken = "x"\nca_file = "none.pem"\n', "none.pem holds no certificates"),
        ('[here]\nurl = "https://me:pw@127.0.0.1:1"\ntoken = "x"\n', "holds a user"),
        ('[here]\nurl = "http://[::1"\ntoken = "x"\n', "is no URL"),
        ('[here]\nurl = "http://192.0.2.1"\n', "give a token for http://192.0.2.1"),
    ],
)
def test_what_is_wrong_in_profiles_is_said(home: Path, text: str, said: str) -> None:
    write(home, text)
    result = call("runs", "--profile", "here")
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert "pw" not in result.output


def test_without_profiles_there_are_none_and_their_place_is_said(home: Path) -> None:
    result = call("runs", "--profile", "here")
    assert (result.exit_code, result.output) == (2, f"there is no profile 'here' in {home}: there are none\n")


def test_profiles_are_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    standard = Path("/home/ada/.config/trigger-engine/profiles.toml")
    assert profiles_file({}) == profiles_file({"XDG_CONFIG_HOME": ""}) == standard
    assert profiles_file({"XDG_CONFIG_HOME": "relative"}) == standard
    assert profiles_file({"XDG_CONFIG_HOME": "/etc/xdg"}) == Path("/etc/xdg/trigger-engine/profiles.toml")
