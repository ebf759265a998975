"""Every command with a user's graph: the graph, the model (a tiny one) and the stores are real."""

import sys
from pathlib import Path

import pytest

from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe_file import load_recipe
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import Role
from trainers.warm_start_episodes import script_texts


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "graphs"))
    yield
    sys.modules.pop("own_agents", None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    problems = load_problems("arithmetic", split="train", limit=8, seed=0)
    texts = script_texts(load_recipe("scale-model"), problems)
    make_model(folder, texts, layers=1, width=32, heads=2, vocabulary=320, seed=0)
    return folder


def test_every_command_takes_a_user_s_graph(tiny, run_command, tmp_path):
    settings = {
        "policy.model": tiny,
        "policy.fresh": "null",
        "sampling.max_new_tokens": 6,
        "consult.solo_share": 0.5,
        "consult.acceptance.kind": "adaptive",
        "collect.problems": 1,
        "collect.num_generations": 2,
        "train.steps": 1,
        "train.problems_per_step": 2,
        "train.num_generations": 2,
        "train.minibatches_per_step": 1,
        "train.gradient_accumulation_steps": 1,
        "train.report_to": "[]",
        "train.internalise.solo_answer_weight": 1,
        "eval.problems": 2,
    }
    given = ["-r", "scale-model+eapo", "--graph", "own_agents:build"]
    for key, value in settings.items():
        given += ["--set", f"{key}={value}"]
    store, out = tmp_path / "t.db", tmp_path / "train"
    for arguments in (
        ["collect", *given, "--store", store],
        ["train", *given, "--out", out],
        ["eval", *given, "--policy", out / "policy", "--out", tmp_path / "eval"],
        ["run", *given, "--json", "What is 2 + 3?"],
    ):
        status, _, told = run_command(*arguments)
        assert status == 0, told
    with TraceStore.open(out / "traces.db") as traces:
        found = [(s.trajectory.role, s.trajectory.graph) for s in traces.trajectories()]
    assert sorted(found) == [(Role.OWN, "agent")] * 2 + [(Role.SOLO, "agent")] * 2
