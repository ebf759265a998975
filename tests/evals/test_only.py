"""`eapo eval --only`, with the tiny model that comes with the package."""

import json

import pytest
from typer.testing import CliRunner

from eapo_agents.cli.main import app
from eapo_agents.errors import EapoError


def run(*words: object) -> str:
    """Runs the command; raises what it raises."""
    found = CliRunner().invoke(app, [*map(str, words)])
    if found.exception is not None:
        raise found.exception
    return found.stdout


def test_single_problems_are_answered_and_not_compared_with_others(tmp_path):
    out, ids = tmp_path / "a", ("arithmetic/2+2*5", "arithmetic/10+7*9")
    few = ("eval", "-r", "quick", "--out", out, "--json", "--only")
    for words, rule in (
        (["nope"], "has no problem 'nope': its ids are like"),
        ([","], "--only names no problem"),
        ([ids[0], "--limit", 2], "--only and --limit both choose"),
        ([ids[0], "-b", "gsm8k,arithmetic"], "problems of one benchmark"),
    ):
        with pytest.raises(EapoError, match=rule):
            run(*few, *words)
    assert not out.exists()
    found = json.loads(run(*few, ",".join(ids)))["results"]["arithmetic solo"]
    assert found["n"] == 2
    lines = (out / "items.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(ids)
    run("rescore", out)
    with pytest.raises(EapoError, match=r"only \("):
        run(*few, ids[0])
