"""Runs the command: in this process, as its entry point does, or killed in the middle."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from eapo_agents.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def _killed_and_given_again(words: list[str], out: Path, steps: Path, num_steps: int):
    """Kill a command with its children once a training has so many steps, and run it to its end.

    Returns what it printed as JSON, and the results that it had before: file -> time of change.
    """
    log = out.parent / "log"
    with log.open("w") as file:
        first = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
        until = time.monotonic() + 1200
        while not (steps.exists() and len(steps.read_text().splitlines()) >= num_steps):
            assert first.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    done_before = {p: p.stat().st_mtime_ns for p in out.rglob("result.json")}
    second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return json.loads(second.stdout), done_before


@pytest.fixture(scope="session")
def killed_and_given_again():
    """A function that kills a command with -9 in the middle of its work, and gives it again."""
    return _killed_and_given_again


@pytest.fixture
def run_command(capsys, monkeypatch):
    """Runs `eapo` with these arguments; returns (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eapo", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
