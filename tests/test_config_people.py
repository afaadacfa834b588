"""`[http] trusted_header` and `hosts`: who a proxy may say is asking, and by which names the engine is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Config, load
from engine.errors import ConfigError
from engine.networks import Networks
from engine.tokens import Role


def read(path: Path, text: str) -> Config:
    file = path / "config.toml"
    file.write_text(text)
    return load([file], environment={})


def test_a_trusted_header_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        [http]
        hosts = ["engine.example.org"]
        [http.trusted_header]
        name = "X-Remote-User"
        networks = ["10.0.0.0/8"]
        roles = { ada = "admin", "*" = "viewer" }
        """,
    ).http
    assert found.hosts == ("engine.example.org",)
    trusted = found.trusted_header
    assert trusted is not None
    assert (trusted.name, trusted.networks) == ("X-Remote-User", Networks(["10.0.0.0/8"]))
    assert [trusted.role_of(user) for user in ("ada", "bob", "")] == [Role.ADMIN, Role.VIEWER, Role.VIEWER]


def test_without_an_anybody_strangers_have_no_role(tmp_path: Path) -> None:
    table = '{ name = "X-User", networks = ["::1"], roles = { ada = "operator" } }'
    trusted = read(tmp_path, f"http.trusted_header = {table}").http.trusted_header
    assert trusted is not None
    assert [trusted.role_of(user) for user in ("ada", "Ada", "*")] == [Role.OPERATOR, None, None]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "Cookie", networks = ["::1"], roles = { a = "admin" }', 'is "Cookie", which can\'t be'),
        ('name = "x-forwarded-for", networks = ["::1"], roles = { a = "admin" }', "which can't be"),
        ('name = "a b", networks = ["::1"], roles = { a = "admin" }', "which can't be"),
        ('name = "X-User", networks = ["nowhere"], roles = { a = "admin" }', "is no network"),
        ('name = "X-User", networks = [], roles = { a = "admin" }', "networks"),
        ('name = "X-User", networks = ["::1"], roles = {}', "roles"),
        ('name = "X-User", networks = ["::1"], roles = { a = "root" }', "roles.a"),
        ('name = "X-User", roles = { a = "admin" }', "networks"),
        ('name = "X-User", networks = ["::1"], roles = { a = "admin" }, header = "x"', "header"),
    ],
)
def test_a_trusted_header_that_can_not_be_is_refused(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"http.trusted_header = {{ {table} }}")
    assert said in str(raised.value)


@pytest.mark.parametrize("host", ["", "https://engine.example", "a b", "engine.example:80"])
def test_a_host_that_is_no_name_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="hosts"):
        read(tmp_path, f'http.hosts = ["{host}"]')
