"""Help in three ways, what `eapo env` tells, what the shell proposes, and how progress is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import eapo_agents
from eapo_agents.cli.completion import GRAPHS as PROPOSED_GRAPHS
from eapo_agents.runs.surroundings import phones_home

EAPO = Path(sys.executable).parent / "eapo"


def proposed(line: str, folder: Path) -> list[str]:
    """What the real program prints for a shell in which this much has been typed."""
    typed = {"_EAPO_COMPLETE": "complete_bash", "COMP_WORDS": line}
    place = {"COMP_CWORD": str(len(line.split(" ")) - 1)}
    done = subprocess.run(
        [EAPO], capture_output=True, text=True, cwd=folder, env={**os.environ, **typed, **place}
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("eapo train -r cpu", ["cpu-smol"]),
        ("eapo train -r scale-model+e", ["scale-model+eapo"]),
        ("eapo train -r min", ["mine", "mine.yaml"]),
        ("eapo eval -b math", ["math500"]),
        ("eapo eval -b gsm8k,humanevalp", ["gsm8k,humanevalplus"]),
        ("eapo study scale", ["scale-model"]),
        ("eapo study scale-model --arms eapo,self-e", ["eapo,self-exploration"]),
        ("eapo serve -r mine.yaml --expert ", ["strong", "weak"]),
        ("eapo run x --graph wo", ["workflow"]),
        ("eapo chat --policy runs/a", ["runs/a/policy"]),
        ("eapo chat --policy min", ["mine-folder/"]),
        ("eapo help tr", []),
    ],
)
def test_the_shell_proposes_values(tmp_path, line, found):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "mine-folder").mkdir()
    (tmp_path / "runs/a/policy").mkdir(parents=True)
    (tmp_path / "runs/a/policy/eapo_policy.json").write_text("{}")
    text = "name: m\nconsult: {experts: {strong: {kind: human}, weak: {kind: human}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "recipes/mine.yaml").write_text(text)
    assert proposed(line, tmp_path) == found


def test_the_proposed_graphs_are_those_that_ship():
    from graphs.builders import GRAPHS

    assert tuple(GRAPHS) == PROPOSED_GRAPHS


def test_help_may_be_asked_for_in_three_ways(run_command):
    said = [
        run_command("train", "-h"),
        run_command("train", "--help"),
        run_command("help", "train"),
    ]
    assert {status for status, _, _ in said} == {0}
    assert len({out.strip() for _, out, _ in said}) == 1
    assert "--from-traces" in said[0][1]
    assert "traces show" in run_command("help", "traces", "show")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [(["trian"], "Did you mean 'train'?"), (["traces", "shw"], "'show'"), (["run", "x"], "none")],
)
def test_help_for_an_unknown_command_names_the_known_ones(run_command, words, says):
    status, out, err = run_command("help", *words)
    assert (status, out) == (2, "")
    assert says in err


def test_env_tells_versions_machine_and_names(run_command, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "true")
    status, out, err = run_command("env", "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["versions"]["eapo-agents"] == eapo_agents.__version__
    assert found["versions"]["trl"].startswith("1.16")
    assert "eapo-scale-model (comes with the package)" in found["machine"]["models here"]
    assert "eapo" in found["names"]["arms"]
    assert "gsm8k" in found["names"]["benchmarks"]
    assert "number" in found["names"]["graders"]
    assert all(found["names"].values())
    told = found["reports to others"]
    assert told["TRL (a trainer began)"] == "off: HF_HUB_DISABLE_TELEMETRY=1"
    assert told["vLLM, by eapo serve"].startswith("off")
    assert told["LangSmith (your traces)"] == "on: LANGCHAIN_TRACING_V2=true"
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    assert phones_home()["TRL (a trainer began)"].startswith("on: HF_HUB_DISABLE_TELEMETRY=1")

    status, out, _ = run_command("env")
    assert status == 0
    assert "  torch " in out


@pytest.mark.parametrize("front", [True, False])
def test_progress_is_told_in_lines_as_events_or_not_at_all(run_command, tmp_path, front):
    def warm_start(*how: str) -> tuple[int, str, str]:
        # so short that it takes seconds: four problems, one pass
        small = ["--set", "warm_start.problems=4", "--set", "warm_start.epochs=1"]
        out = ["--out", tmp_path / ("told" + "".join(how))]
        words = ["warm-start", "-r", "scale-model", *small, *out, "--json"]
        return run_command(*(how if front else ()), *words, *(() if front else how))

    status, result, told = warm_start()
    assert status == 0, told
    assert "Warm start (steps): done in" in told

    status, result, told = warm_start("--quiet")
    assert (status, told) == (0, "")
    assert json.loads(result)["steps"] > 0

    status, result, told = warm_start("--events")
    assert status == 0
    events = [json.loads(line) for line in told.splitlines()]
    assert (
        {"said", "ended"} <= {event["event"] for event in events} <= {"said", "progress", "ended"}
    )
    (ended,) = [e for e in events if e["event"] == "ended" and e["what"] == "Warm start (steps)"]
    assert ended["done"] == ended["total"] == json.loads(result)["steps"]


def test_an_option_behind_two_dashes_is_a_word(run_command):
    status, _, err = run_command("traces", "stats", "--", "--quiet")
    assert status == 2
    assert "There is no store '--quiet'" in err
