"""No key is in what a command prints of an error, ours or anybody's."""

import json
import os
import subprocess
import sys

import pytest

KEY = 'sk-pl/an+ted"-0123456789'
MINE = """
import os

from eapo_agents.secrets import read_key

key = read_key("VAULT_KEY", wanted_by="mine")
if os.environ.get("AT_ONCE"):
    raise RuntimeError(f"no login with {key}")

from dataclasses import replace

from evals.benchmarks.gsm8k import GSM8K


def problem(record, number):
    raise RuntimeError(f"no login with {key}")


BENCH = replace(GSM8K, name="mine:BENCH", problem=problem)
"""


@pytest.mark.parametrize(("at_once", "status"), [("1", 2), ("", 1)])
def test_an_error_of_the_user_s_code_is_shown_without_the_key(tmp_path, at_once, status):
    (tmp_path / "mine.py").write_text(MINE)
    for name in ("gold.jsonl", "made.jsonl"):
        (tmp_path / name).write_text(json.dumps({"id": 0, "question": "q", "answer": "#### 1"}))
    command = ["-m", "eapo_agents.cli.main", "score", "-b", "mine:BENCH", "--gold", "gold.jsonl"]
    ended = subprocess.run(
        [sys.executable, *command, "--predictions", "made.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "VAULT_KEY": KEY, "AT_ONCE": at_once},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == status
    assert "no login with [key]" in ended.stderr
    assert KEY not in ended.stderr + ended.stdout
