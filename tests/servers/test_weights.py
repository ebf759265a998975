"""New weights while a real server serves: training on its rollouts, and what is deployed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
import torch
from openai import OpenAI
from safetensors.torch import load_file

from eapo_agents.errors import ServerError
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.fingerprint import policy_fingerprint, saved_fingerprint
from eapo_agents.policy.models import servable_folder
from eapo_agents.runs.exporting import export
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import Sampling
from graphs.agent import load_agent
from trainers.run import train_live

MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def trained(server, recipe_file, tmp_path_factory):
    """Three steps on rollouts of the server: agent, base, the run's folder, what each step told."""
    from eapo_agents.recipe_file import load_recipe

    folder = tmp_path_factory.mktemp("trained")
    recipe = load_recipe(
        recipe_file,
        [
            f"policy.servers=[{server.url}]",
            "train.learning_rate=0.01",
            "task.format_reward=0.5",
        ],
    )
    agent = load_agent(recipe)
    base = agent.engine.policy_version
    told: list[dict[str, float]] = []

    def on_step(step: int, metrics: dict[str, float]) -> None:
        told.append(metrics)

    _learnable(agent)
    with TraceStore.open(str(folder / "traces.db"), create=True) as store:
        store.start_run(
            "train", kind="train", recipe=recipe.model_dump(mode="json"),
            sampling=agent.sampling, policy=base,
        )  # fmt: skip
        problems = load_problems("arithmetic", split="train", limit=8, seed=0)
        train_live(agent, problems, store, folder, "train", on_step)
        found = [stored.trajectory for stored in store.trajectories("train")]
    return agent, base, folder, told, found


def _learnable(agent) -> None:
    """A fresh small model answers nothing right: B starts off 0, so that weights differ at once."""
    from trainers.run import add_adapter

    add_adapter(agent)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in agent.model.named_parameters():
        if "lora_B" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.05 * noise)


def test_each_step_samples_with_the_weights_that_it_trained(trained):
    _, base, _, told, found = trained
    assert [round(m["rollouts"]) > 0 for m in told] == [True] * 3
    by_step = {t.global_step: t.policy for t in found}
    assert [by_step[s].step for s in (1, 2, 3)] == [0, 1, 2]
    assert len({version.weights for version in by_step.values()} | {base.weights}) >= 2
    assert all(t.policy.base == base.base for t in found)
    assert all(t.error is None for t in found)


def test_the_servers_logprobs_follow_the_trainers_weights(trained, server):
    agent, base, folder, _, _ = trained
    version = agent.engine.policy_version
    assert version.weights == policy_fingerprint(agent.model, base.base)
    assert version.weights == saved_fingerprint(folder / "published" / "step-3", base.base)
    problems = load_problems("arithmetic", split="train", limit=8, seed=0)
    served, own, without = (torch.cat(each) for each in zip(*_tokens(agent, problems), strict=True))
    # how much of what the adapter changes, token by token, the server changes too: bfloat16's
    # noise averages out of a slope, and a server with other weights is at 0
    slope = ((served - without) @ (own - without)) / ((own - without) @ (own - without))
    mean = (served - own).abs().mean()
    print(f"mean |delta| {mean:.4f}, slope {slope:.3f} over {len(served)} tokens")
    assert mean < 0.05
    assert 0.8 < slope < 1.2
    served_now = {m["id"] for m in httpx2.get(server.url + "/v1/models").json()["data"]}
    names = {name for name in served_now if "@" in name}
    assert f"{MODEL}@{version.weights}" in names
    assert len(names) <= 2, "old adapters are unloaded"


def _tokens(agent, problems):
    """Each answer's log probabilities [T]: the server's, the trainer's, those without adapter."""
    agent.model.eval()
    prompts = [agent.solo_prompt(problem) for problem in problems]

    async def answers():
        keys = [RolloutKey(seed=0, problem_id=p.id, step=0, rollout=0, turn=0) for p in problems]
        sampling = Sampling(max_new_tokens=48)
        made = (agent.engine.generate(p, sampling, k) for p, k in zip(prompts, keys, strict=True))
        return await asyncio.gather(*made)

    for prompt, done in zip(prompts, asyncio.run(answers()), strict=True):
        ids = done.completion_ids
        own = _logprobs(agent.model, prompt, ids)
        with agent.model.disable_adapter():
            yield torch.tensor(done.logprobs), own, _logprobs(agent.model, prompt, ids)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "model.safetensors"))


def _logprobs(model, prompt: list[int], ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *ids]])).logits[0].float().log_softmax(-1)
    return logprobs[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])[:, 0]


def test_an_adapter_is_published_in_under_two_seconds(trained):
    agent, _, folder, _, _ = trained
    from dataclasses import replace

    newer = replace(agent.engine.policy_version, weights="0" * 16, step=99)
    seconds = agent.engine.publish(newer, folder / "published" / "step-3")
    print(f"publish: {seconds:.2f} s")
    assert seconds < 2


def test_an_adapter_of_too_high_a_rank_is_refused_in_one_sentence(trained, tmp_path):
    agent = trained[0]
    from dataclasses import replace

    from peft import LoraConfig, get_peft_model

    from eapo_agents.policy.models import load_policy

    config = LoraConfig(r=32, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(load_policy(MODEL).model, config).save_pretrained(str(tmp_path))
    before = agent.engine.policy_version
    other = replace(before, weights="1" * 16)
    with pytest.raises(ServerError, match=r"does not take the adapter.*rank.*--max-lora-rank"):
        agent.engine.publish(other, tmp_path)
    with pytest.raises(ServerError, match="does not see the folder"):
        agent.engine.publish(other, tmp_path / "nowhere")
    assert agent.engine.policy_version == before, "what could not be published is not sampled from"


@pytest.mark.parametrize("how", ["adapter", "exported"])
def test_the_trained_policy_is_served_to_any_client_by_one_command(
    trained, serve, recipe_file, tmp_path, how
):
    agent, _, folder, _, _ = trained
    policy = ["--recipe", str(recipe_file), "--policy", str(folder)]
    if how == "adapter":
        policy.append("--adapter")
    if how == "exported":  # a folder that vLLM opens as it opens anybody's
        (folder / "recipe.yaml").write_text(recipe_file.read_text())
        export(folder, tmp_path / "exported")
        merged = Path(servable_folder(MODEL, str(folder / "policy")))  # without --adapter
        torch.testing.assert_close(_weights(merged), _weights(tmp_path / "exported"))
        policy = ["--expert", str(tmp_path / "exported"), "--name", "vllm-test"]
    served = serve(*policy, "--dtype", "float32")
    assert served.facts["models"][-2 if how == "adapter" else 0] == "vllm-test"
    client = OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    answer = client.chat.completions.create(
        model="vllm-test", messages=question, temperature=0, max_tokens=12, logprobs=True
    )
    told = [token.logprob for token in answer.choices[0].logprobs.content]
    prompt = client.post(
        "/../tokenize", cast_to=object, body={"model": "vllm-test", "messages": question}
    )["tokens"]
    ids = client.completions.create(
        model="vllm-test", prompt=prompt, temperature=0, max_tokens=12, logprobs=0,
        extra_body={"return_token_ids": True},
    ).choices[0].model_extra["token_ids"]  # fmt: skip
    agent.model.eval()
    own = _logprobs(agent.model, prompt, ids)
    assert (own - torch.tensor(told)).abs().mean() < 1e-2
    # a client of a deployed policy cannot put other weights in
    loading = {"lora_name": "x", "lora_path": str(folder / "policy")}
    refused = httpx2.post(served.url + "/v1/load_lora_adapter", json=loading)
    assert refused.status_code in (404, 405), json.dumps(refused.json())
