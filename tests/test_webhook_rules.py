"""docs/webhooks.md, against the code: the line for each sender, and the rules of adnanh/webhook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, load
from engine.errors import ConfigError, ExpressionError
from engine.expressions import Expression, Scope
from plugins.sources.webhook import Verify, Webhook
from tests.docs_tables import DOCS
from tests.test_docs import blocks
from tests.test_webhook_vendors import KEY_A, KEY_B

PAGE = DOCS / "webhooks.md"

ENVIRONMENT = {
    "GITHUB_SECRET": "a secret of some length", "GITLAB_SIGNING": KEY_A, "GITLAB_TOKEN": "a-token-of-some-length",
    "STRIPE_SECRET": KEY_A, "SLACK_SECRET": "8f742231b10e8888abcd99yyyzzz85a5", "SHOPIFY_SECRET": "hush-hush",
    "STANDARD_SECRET": KEY_B, "TELEGRAM_TOKEN": "a_token-2", "ALERTS_PASSWORD": "a password",
    "ZOOM_SECRET": "z00m s3cr3t", "SECRET": "a secret of some length",
}  # fmt: skip


def read(path: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    (path / "config.toml").write_text(text, "utf-8")
    return load([path / "config.toml"], environment=ENVIRONMENT if environment is None else environment)


def hook_of(config: Config, name: str) -> Webhook:
    on = config.triggers[name].on
    assert isinstance(on, Webhook)
    return on


def test_the_lines_for_each_sender_are_right_and_ask_for_what_they_say(tmp_path: Path) -> None:
    text = blocks(PAGE, "toml")[0]
    config = read(tmp_path, text)
    ways = {
        name: hook_of(config, name).verify.way  # type: ignore[union-attr]
        for name in config.triggers
        if isinstance(hook_of(config, name).verify, Verify)
    }
    assert ways == {
        "github": "github", "gitlab": "gitlab", "stripe": "stripe", "slack": "slack", "shopify": "shopify",
        "svix": "standard", "telegram": "token", "alertmanager": "basic", "zoom": "hmac",
    }  # fmt: skip
    assert hook_of(config, "inside").allow == ("10.0.0.0/8", "fd00::/8")
    shown = repr([hook_of(config, name) for name in config.triggers])
    assert not [secret for secret in ENVIRONMENT.values() if secret in shown]


@pytest.mark.parametrize("name", [name for name in ENVIRONMENT if name != "SECRET"])
@pytest.mark.parametrize("value", [None, "", " ", "whsec_", "changeme"])
def test_a_secret_that_is_unset_empty_or_known_to_all_is_told_by_check(
    tmp_path: Path, name: str, value: str | None
) -> None:
    text = blocks(PAGE, "toml")[0]
    environment = {key: known for key, known in ENVIRONMENT.items() if key != name}
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text, environment if value is None else {**environment, name: value})
    (problem,) = error.value.problems
    assert ".verify." in problem.path
    assert problem.line > 0


def rows(title: str) -> list[tuple[str, str]]:
    text = PAGE.read_text("utf-8").partition(title)[2].partition("\n\n`")[0]
    found = re.findall(r"^\| (.+?) \| `(.+)` \|$", text, re.MULTILINE)
    return [(kind, line.replace(r"\|", "|")) for kind, line in found]


PUSH = {
    "ref": "refs/heads/main", "commits": [{"id": 1}], "action": "closed", "sender": {"login": "ada"},
}  # fmt: skip
REQUEST = {"method": "POST", "headers": {"x-event": "push"}, "query": {"env": "prod"}, "remote": "10.1.2.3"}
ELSEWHERE = {"method": "POST", "headers": {"x-event": "ping"}, "query": {"env": "test"}, "remote": "203.0.113.1"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "`match` with `value`, of the payload": (PUSH, {**PUSH, "ref": "refs/heads/other"}),
    "… of a header": (PUSH, PUSH),
    "… of a header that may lack": (PUSH, PUSH),
    "… of the query": (PUSH, PUSH),
    "`match` with `regex`": ({**PUSH, "ref": "refs/heads/release-12"}, {**PUSH, "ref": "refs/heads/release-x"}),
    "`ip-whitelist`": (PUSH, PUSH),
    "… of several networks": (PUSH, PUSH),
    "`and`": (PUSH, {**PUSH, "commits": []}),
    "`or`": ({**PUSH, "action": "opened"}, PUSH),
    "`not`": (PUSH, {**PUSH, "sender": {"login": "renovate[bot]"}}),
}


def scope(data: dict[str, Any], http: dict[str, Any]) -> Scope:
    return Scope({"event": {}, "data": data, "http": http, "trigger": {}, "job": {}, "now": None})


def test_each_kind_of_rule_has_a_row() -> None:
    assert {kind for kind, _ in rows("## Rules")} == set(CASES)


@pytest.mark.parametrize(("kind", "line"), rows("## Rules"))
def test_a_rule_of_adnanhs_webhook_is_one_line_of_cel(tmp_path: Path, kind: str, line: str) -> None:
    yes, no = CASES[kind]
    assert Expression(line).holds(scope(yes, REQUEST)) is True
    assert Expression(line).holds(scope(no, ELSEWHERE)) is False
    text = f"""
[jobs.deploy]
run.exec = ["true"]
[triggers.push]
on.webhook = {{ path = "push", verify = "none" }}
filter = '{line}'
job = "deploy"
"""
    assert read(tmp_path, text).triggers["push"].filter == line


def test_a_header_that_lacks_is_no_fault_where_it_is_asked_for() -> None:
    (line,) = [line for kind, line in rows("## Rules") if kind == "… of a header that may lack"]
    assert Expression(line).holds(scope(PUSH, {**REQUEST, "headers": {}})) is False


def hmac_rows() -> list[tuple[str, str]]:
    text = PAGE.read_text("utf-8").partition("are no rules here")[2]
    return re.findall(r"^\| `([\w-]+)` \| `(verify = .+)` \|$", text, re.MULTILINE)


@pytest.mark.parametrize(("kind", "line"), hmac_rows())
def test_a_signature_of_adnanhs_webhook_is_one_line_of_configuration(tmp_path: Path, kind: str, line: str) -> None:
    config = read(tmp_path, f"""
[jobs.deploy]
run.exec = ["true"]
[triggers.push]
on.webhook = {{ path = "push", {line} }}
job = "deploy"
""")  # fmt: skip
    verify = hook_of(config, "push").verify
    assert isinstance(verify, Verify)
    assert verify.hmac is not None
    wanted = "sha1" if kind == "scalr-signature" else kind.rpartition("-")[2]
    assert verify.hmac.algorithm == wanted
    assert len(hmac_rows()) == 4


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("ip_in(http.remote, '10.0.0.0/8')", True),
        ('http.remote.ip_in("10.0.0.0/8")', True),
        ("ip_in(http.remote, ['192.0.2.1', \"10.0.0.0/8\",])", True),
        ("ip_in(http.remote, [\n  '192.0.2.1', // the office\n  '10.0.0.0/8'\n])", True),
        ("!ip_in(http.remote, '192.0.2.0/24') && ip_in(data.ips[1], '2001:db8::/32')", True),
        ("data.ips.exists(ip, ip_in(ip, '2001:db8::/32'))", True),
        ("ip_in(data.ips.map(x, x)[0], '203.0.113.0/24')", True),
        ("ip_in(data.count, '0.0.0.0/0') || ip_in(data.ips, '0.0.0.0/0')", False),
        ("ip_in('ip_in(x, y)', '0.0.0.0/0')", False),
    ],
)
def test_an_expression_asks_whether_an_address_is_in_a_network(text: str, holds: bool) -> None:
    data = {"ips": ["203.0.113.1", "2001:db8::1"], "count": 7}
    assert Expression(text).holds(scope(data, REQUEST)) is holds


@pytest.mark.parametrize(
    "text",
    [
        "ip_in(http.remote, data.network)", "ip_in(http.remote, [data.network])", "ip_in(http.remote, '10.0.0.1/8')",
        "ip_in(http.remote, 'inside')", "ip_in(http.remote, [])", "ip_in(http.remote)", "ip_in()",
        "ip_in(http.remote, '10.0.0.0/8', '192.0.2.1')", "ip_in(http.remote, '10.0.0.' + '0/8')",
        "ip_in(http.remote, ['10.0.0.0/8', 'x'])", "['10.0.0.0/8'].exists(n, ip_in(http.remote, n))",
        "ip_in(http.remote, '10.0.0.0/8') && ip_in(http.remote, data.network)",
    ],
)  # fmt: skip
def test_networks_that_are_none_or_not_written_out_are_told_when_the_configuration_is_read(text: str) -> None:
    with pytest.raises(ExpressionError, match="network"):
        Expression(text)


def test_a_list_of_addresses_from_outside_costs_no_more_than_any_other_expression() -> None:
    data = {"ips": ["203.0.113.1"] * 20_000}
    with pytest.raises(ExpressionError, match="steps"):
        Expression("data.ips.exists(ip, ip_in(ip, '10.0.0.0/8'))").holds(scope(data, REQUEST))
