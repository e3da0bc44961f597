"""The bench runs from end to end. What it measures says nothing here: the rows are few and the machine is busy."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from field_lab.cli import main

pytestmark = pytest.mark.processes
FIGURES = {
    "push_ratio", "pull_ratio", "twenty_sites_ratio", "latency_p50_ms", "latency_p95_ms", "wire_bytes_per_record",
    "cut_time_ratio", "cut_bytes_ratio", "push_raw", "pull_raw", "twenty_sites_raw", "push_raw_two_rows",
    "bare_stream_records_per_second", "seed",
}  # fmt: skip


def test_the_bench_measures_every_figure(tmp_path: Path) -> None:
    output = tmp_path / "build" / "bench.json"
    few = ("--rows", "1000", "--sites", "2", "--runs", "1", "--edits", "5")
    done = CliRunner().invoke(main, ["bench", *few, "--seed", "5", "--output", str(output), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(output.read_text())
    assert json.loads(done.stdout) == figures
    assert figures.keys() >= FIGURES
    assert figures["seed"] == 5
    assert all(figures[name] > 0 for name in FIGURES)
