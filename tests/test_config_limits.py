"""Limits in the configuration: keys, pools, what they become, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from tests.test_config_plugins import load_text

JOB = "[jobs.j]\nrun.shell = ['true']\n"


def test_pools_and_keys_are_read(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        "[pools]\nwarehouse = 3\nmail = 1\n"
        + JOB + "pools = ['warehouse', 'mail']\nconcurrency_key = 'event.subject'\n"
        "[jobs.k]\nrun.shell = ['true']\npools = { warehouse = 2 }\n"
        "concurrency_key = 'data.customer'\nconcurrency = 4\n",
    )  # fmt: skip
    assert config.pools == {"warehouse": 3, "mail": 1}
    one, two = config.jobs["j"], config.jobs["k"]
    assert (one.pools, one.concurrency, one.concurrency_key) == ({"warehouse": 1, "mail": 1}, 1, "event.subject")
    assert (two.pools, two.concurrency, two.concurrency_key) == ({"warehouse": 2}, 4, "data.customer")


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("[pools]\nwarehouse = 0\n", "pools.warehouse", "found 0"),
        ("[pools]\nengine = 2\n", "pools.engine", "what the slots of the engine are called"),
        (JOB + "pools = ['cellar']", "jobs.j.pools[0]", "there is no such pool"),
        ("[pools]\nwarehouse = 2\n" + JOB + "pools = { warehose = 1 }", "jobs.j.pools.warehose", "no such pool"),
        ("[pools]\nwarehouse = 2\n" + JOB + "pools = { warehouse = 3 }", "jobs.j.pools.warehouse", "more than pool"),
        ("[pools]\nwarehouse = 2\n" + JOB + "pools = { warehouse = 0 }", "jobs.j.pools.warehouse", "found 0"),
        (JOB + "concurrency_key = 'evnt.subject'", "jobs.j.concurrency_key", "unknown name `evnt`"),
        (JOB + "concurrency_key = 'http.method'", "jobs.j.concurrency_key", "unknown name `http`"),
        (JOB + "concurrency_key = 'data.'", "jobs.j.concurrency_key", 'found "data."'),
    ],
)
def test_what_makes_no_sense_is_told_at_its_place(tmp_path: Path, text: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert any(one.path == path and said in one.message for one in caught.value.problems), str(caught.value)
