"""`make gpu-check` on a CPU: the same parts, smaller, so that they work when there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/gpu_check.py"


def run_check(tmp_path: Path, device: str, *parts: str):
    """Returns the exit status, the lines and the report."""
    command = [sys.executable, str(SCRIPT), "--device", device, "--out", "report.json", *parts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    report = tmp_path / "report.json"
    assert report.exists(), done.stderr
    return done.returncode, done.stdout.splitlines(), json.loads(report.read_text())


@pytest.mark.long
def test_every_part_runs_and_the_report_has_its_figures(tmp_path):
    status, lines, report = run_check(tmp_path, "cpu")

    assert status == 0, lines
    parts = ["machine", "parity", "mismatch", "saved", "engine", "training", "live"]
    assert list(report) == parts
    assert [line.split()[:2] for line in lines[:-1]] == [[part, "ok"] for part in parts]
    assert report["parity"]["greedy"]["equal"] == report["parity"]["greedy"]["of"]
    assert report["mismatch"]["float32"]["largest"] < 1e-4
    assert report["training"]["whole"]["tokens_per_s"] > 0
    assert report["live"]["steps"] == 2


def test_a_part_that_fails_is_named_and_the_others_run(tmp_path):
    # there is no such GPU
    status, lines, report = run_check(tmp_path, "cuda:99", "saved", "mismatch")

    assert status == 1
    assert [line.split()[:2] for line in lines[:2]] == [["saved", "FAILED"], ["mismatch", "FAILED"]]
    assert not report["saved"]["ok"]
    assert report["mismatch"]["error"]
