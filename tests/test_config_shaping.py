"""The gates in the configuration: what they become, and combinations that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.triggers import Batch, Debounce, Dedupe, Edge, Rate, Take
from tests.test_config import T
from tests.test_config_plugins import load_text


def test_each_gate_is_read(tmp_path: Path) -> None:
    text = """
    debounce = { wait = "2s", max_wait = "30s", max_events = 5, edge = "both", take = "merge", key = "data.a" }
    throttle = { limit = 10, per = "1m", key = "event.subject" }
    rate_limit = { limit = 100, per = "1m" }
    dedupe = { key = "data.sha256", window = "24h" }
    expires = "1h"
    """
    made = load_text(tmp_path, T + text).triggers["t"]
    assert made.debounce == Debounce(
        wait_s=2.0, max_wait_s=30.0, max_events=5, edge=Edge.BOTH, take=Take.MERGE, key="data.a"
    )
    assert made.throttle == Rate(limit=10, per_s=60.0, burst=1, key="event.subject")
    assert made.rate_limit == Rate(limit=100, per_s=60.0, burst=100)
    assert (made.dedupe, made.expires_s) == (Dedupe(key="data.sha256", window_s=86400.0), 3600.0)


def test_a_batch_gives_a_list_of_all(tmp_path: Path) -> None:
    made = load_text(tmp_path, T + 'batch = { size = 100, wait = "5s", bytes = "1MiB" }').triggers["t"]
    assert made.batch == Batch(size=100, wait_s=5.0, size_bytes=1024 * 1024, take=Take.ALL)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("debounce = '2s'\nbatch = { size = 2, wait = '1s' }", "triggers.t.batch", "stands beside debounce"),
        ("debounce = { wait = '1s', edge = 'leading', take = 'all' }", "triggers.t.debounce.take", "has no effect"),
        ("debounce = { wait = '1s', edge = 'leading', max_events = 3 }", "triggers.t.debounce.max_events", "no effect"),
        ("debounce = { wait = '1s', edge = 'front' }", "triggers.t.debounce.edge", 'found "front"'),
        ("dedupe = { window = '1h' }", "triggers.t.dedupe.key", "missing"),
        ("dedupe = { key = 'dta.x', window = '1h' }", "triggers.t.dedupe.key", "unknown name `dta`"),
        ("throttle = { limit = 0, per = '1m' }", "triggers.t.throttle.limit", "found 0"),
        ("rate_limit = { limit = 1, per = '0s' }", "triggers.t.rate_limit.per", "greater than 0s"),
        ("batch = { size = 5 }", "triggers.t.batch.wait", "missing"),
        ("expires = '0s'", "triggers.t.expires", "greater than 0s"),
    ],
)
def test_what_makes_no_sense_is_told_at_its_place(tmp_path: Path, text: str, path: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, T + text)
    assert any(one.path == path and said in one.message for one in caught.value.problems), str(caught.value)
