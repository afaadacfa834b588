"""The benches: that each of them runs and says what it found in the agreed shape; never how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import load
from tests.bench.__main__ import BENCHES
from tests.bench.material import SIZE_BYTES, order_json
from tests.bench.processes import ROOT, start_bare
from tests.bench.report import Figure, Report, percentile

SHAPE = {"bench", "value", "unit", "baseline", "ratio", "spread", "rounds"}

EXTRA = {
    "intake": {
        "single_median_ms",
        "single_p99_ms",
        "p99_ms",
        "cpu_loop_us",
        "cpu_writer_us",
        "stored",
        "refused",
        "verified_ratio",
    },
    "spawn": {"runs", "cpu_ms", "baseline_cpu_ms"},
    "runs": {"runs", "loop_us", "writer_us", "plain_runs_per_s", "started_median_ms", "started_p99_ms"},
    "latency": {"p99", "baseline_p99", "start_up_ms"},
    "depth": {"depth", "dispatch_ms", "dispatch_ratio", "resident_mb", "ready_s"},
    "files": {"p99", "baseline_p99", "burst_files", "burst_s", "baseline_burst_s"},
    "instants": {"croniter_us", "made_us", "made_distinct_us", "bytes", "bytes_distinct"},
    "timers": {"ready_s", "resident_mb", "idle_percent", "p50_ms", "p99_ms", "baseline_p50_ms", "away_dealt_with_s"},
    "purge": {"runs", "max_ms", "removed", "per_second"},
    "shaping": {"loop_us", "writer_us", "events_per_s"},
    "simulate": {"instants", "runs", "waited", "skipped", "instant_us"},
    "hostile": {
        "late_ms",
        "grown_mb",
        "peak_mb",
        "posts",
        "failed",
        "slow_connected",
        "chunked_bytes",
        "bombs",
        "flooded",
    },
    "idle": {"seconds", "wakeups_per_s"},
    "lists": {"slowest"},
    "pages": {"triggers", "runs", "page", "largest_kb"},
}
WORDS = {"bench", "unit", "slowest", "page"}


def bench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command; what it makes goes to `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(output: str) -> dict[str, Any]:
    """Return the JSON of the last line."""
    fields = json.loads(output.rstrip("\n").rpartition("\n")[2])
    assert isinstance(fields, dict)
    return fields


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", list(BENCHES))
def test_a_bench_prints_a_table_and_a_json_line_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    if name == "runs":
        pytest.importorskip("huey", reason="the baseline of this bench is not installed")
    if name == "instants":
        pytest.importorskip("cronsim", reason="the baseline of this bench is not installed")
    if name == "timers":
        pytest.importorskip("apscheduler", reason="the baseline of this bench is not installed")
    done = bench(name, "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    fields = last_line(done.stdout)
    assert fields.keys() >= SHAPE | EXTRA[name]
    assert fields["bench"] == name
    assert fields["rounds"] == 1
    assert isinstance(fields["unit"], str)
    for number in (SHAPE | EXTRA[name]) - WORDS:
        assert isinstance(fields[number], (int, float)), number
    assert fields["value"] > 0
    assert fields["baseline"] > 0
    assert fields["ratio"] == pytest.approx(fields["value"] / fields["baseline"], rel=1e-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["spawn", "idle"])
def test_rounds_are_as_many_as_asked_for(name: str, tmp_path: Path) -> None:
    done = bench(name, "--quick", "--rounds", "3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert last_line(done.stdout)["rounds"] == 3


def test_without_a_name_the_benches_are_listed(tmp_path: Path) -> None:
    done = bench(folder=tmp_path)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(BENCHES)


@pytest.mark.parametrize("arguments", [("nonsense",), ("idle", "--rounds", "0")])
def test_wrong_usage_ends_with_2_and_says_what_is_right(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = bench(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_figures_are_medians_and_the_ratio_is_theirs() -> None:
    figure = Figure(title="rate", unit="1/s", values=[10.0, 40.0, 20.0], baselines=[100.0, 50.0, 80.0])
    assert (figure.value, figure.baseline, figure.ratio, figure.spread) == (20.0, 80.0, 0.25, 1.5)
    fields = json.loads(Report(bench="made-up", figures=[figure], extra={"p99": 1.23456789}).line())
    assert fields == {
        "bench": "made-up", "value": 20.0, "unit": "1/s", "baseline": 80.0, "ratio": 0.25, "spread": 1.5,
        "rounds": 3, "p99": 1.2346,
    }  # fmt: skip


def test_a_baseline_of_nothing_has_no_ratio() -> None:
    figure = Figure(title="rate", unit="1/s", values=[10.0], baselines=[0.0])
    assert figure.ratio is None


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 50) == 50.0
    assert percentile([3.0], 99) == 3.0


def test_the_event_has_the_size_that_is_said() -> None:
    assert all(len(order_json(number)) == SIZE_BYTES for number in (0, 7, 999_999))
    assert json.loads(order_json(7))["order"] == "ord_000000007"


def test_our_own_client_counts_what_a_server_answers(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(order_json())
    with start_bare(tmp_path / "bare") as server:
        found = load.post_by_ours(server.port, "/hooks/bench", body, connections=4, seconds=0.3)
        assert found.accepted == found.requests > 0
        assert (found.refused, found.broken) == (0, 0)
        assert 0 < found.p50_ms <= found.p99_ms
        with pytest.raises(Exception, match="no request was accepted"):
            load.post_by_ours(server.port, "/nowhere", body, connections=1, seconds=0.2)
