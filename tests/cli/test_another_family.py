"""A fresh model of another family on the whole way: Qwen3's architecture, and the template with
which TRL trains Qwen3.5. It writes calls as XML, behind a thought that the prompt has opened."""

import json

import pytest

from eapo_agents.policy.formats import InvalidCall, ParsedCall
from eapo_agents.policy.models import load_tokenizer
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.store import TraceStore

FAMILY = "{layers: 2, width: 64, heads: 4, vocabulary: 900, architecture: qwen3, chat_template: "
SMALLER = {
    "policy.fresh": FAMILY + "qwen3_5_think}",
    "warm_start.problems": 60,
    "warm_start.script": "arithmetic",
    "warm_start.epochs": 20,
    "warm_start.rows_per_step": 32,
    "warm_start.warmup_steps": 10,
    "collect.problems": 8,
    "train.steps": 2,
    "train.save_steps": 2,
    "train.problems_per_step": 4,
    "train.minibatches_per_step": 1,
    "eval.problems": 20,
    "eval.every": "null",
    "eval.greedy": "false",
}
SETTINGS = [word for key, value in SMALLER.items() for word in ("--set", f"{key}={value}")]


@pytest.mark.long
def test_a_family_that_calls_by_xml_is_taught_collected_trained_and_evaluated(
    run_command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> dict:
        given = (words[0], "-r", "scale-model+eapo", *SETTINGS, *words[1:], "--json")
        status, out, err = run_command(*given)
        assert status == 0, err
        return json.loads(out)

    warm = run("warm-start", "--out", "warm")
    assert warm["episodes"] == 180
    run("collect", "--policy", "warm/policy", "--store", "traces.db")
    with TraceStore.open(tmp_path / "traces.db") as store:
        (run_id,) = [run.run_id for run in store.runs()]
        rollouts = [t for group in store.groups(run_id) for t in group.trajectories_G]
    assert len(rollouts) == 32
    renderer = ChatRenderer(load_tokenizer("warm/fresh"))
    queries = 0
    for rollout in rollouts:
        first = rollout.turns[0]
        if not first.consultations or first.consultations[0].query is None:
            continue
        text = renderer.tokenizer.decode(first.completion_ids)
        assert text.startswith("</think>\n\n<tool_call>\n<function=solver>\n<parameter=query>\n")
        calls = renderer.parse(renderer.decode(first.completion_ids), in_thought=True).calls
        queries += isinstance(calls[0], ParsedCall)
        assert isinstance(calls[0], InvalidCall) or (
            calls[0].arguments["query"] == first.consultations[0].query
        )
    assert queries >= 8  # half of each group is solo, and most of the others ask
    logged = run("train", "--policy", "warm/policy", "--from-traces", "traces.db", "--out", "log")
    assert logged["steps"] > warm["steps"]
    live = run("train", "--policy", "log/policy", "--out", "live")
    assert live["rollouts"] == 32
    scores = run("eval", "--policy", "live/policy", "--out", "eval")
    assert scores["results"]["arithmetic solo"]["n"] == 20
