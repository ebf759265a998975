"""Packed layers compute what the model computes, and leave it as it was."""

import asyncio
from copy import deepcopy
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import Linear

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.fingerprint import policy_fingerprint
from eapo_agents.policy.packed_weights import PackedWeights
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.types import Sampling

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def with_adapter(model, **settings):
    given = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(1)
    adapted = get_peft_model(deepcopy(model), LoraConfig(**given | settings))
    shake(adapted)
    return adapted.eval()


@torch.no_grad()
def shake(adapted):
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def logits_of(model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    with torch.inference_mode():
        return model(input_ids=ids).logits


def packed_layers(model):
    return sum(isinstance(m.__dict__.get("forward"), partial) for m in model.modules())


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "down_proj"]}],
    ids=["lora", "rslora", "dora", "some layers"],
)
def test_a_policy_with_an_adapter_gives_the_same_logits(loaded_shallow_policy, settings):
    model = with_adapter(loaded_shallow_policy.model, **settings)
    own, fingerprint = logits_of(model), policy_fingerprint(model, "base")
    packed = PackedWeights()
    with packed.applied(model):
        found = logits_of(model)
        assert packed_layers(model) > 10
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)
    assert not packed_layers(model)
    assert torch.equal(logits_of(model), own), "not a bit of the weights is another"
    assert policy_fingerprint(model, "base") == fingerprint
    shake(model)  # as an optimizer step
    with packed.applied(model):
        found = logits_of(model)
    torch.testing.assert_close(found, logits_of(model), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, own, rtol=1e-3, atol=1e-3)


def test_without_its_adapter_a_model_is_the_base(loaded_shallow_policy):
    model, packed = with_adapter(loaded_shallow_policy.model), PackedWeights()
    with packed.applied(model):
        adapted = logits_of(model)
    with model.disable_adapter(), packed.applied(model):
        torch.testing.assert_close(
            logits_of(model), logits_of(loaded_shallow_policy.model), rtol=1e-4, atol=1e-4
        )
    with packed.applied(model):
        assert torch.equal(logits_of(model), adapted)


def test_a_model_without_an_adapter_is_packed_too_and_a_failure_puts_it_back(loaded_shallow_policy):
    model, packed = deepcopy(loaded_shallow_policy.model).eval(), PackedWeights()
    own = logits_of(model)
    with packed.applied(model):
        torch.testing.assert_close(logits_of(model), own, rtol=1e-4, atol=1e-4)
        assert packed_layers(model) == sum(type(m) is Linear for m in model.modules())
    with pytest.raises(IndexError), packed.applied(model):
        model(input_ids=torch.tensor([[10**9]]))
    assert not packed_layers(model)
    other = deepcopy(model)  # as after a change of the model that an engine samples from
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    with packed.applied(other):
        found = logits_of(other)
    torch.testing.assert_close(found, logits_of(other), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, own, rtol=0.1, atol=0.1)


def test_a_fused_optimizers_step_which_pytorch_does_not_count_is_sampled_from(
    loaded_shallow_policy,
):
    """The trainer's steps are such ones, and it tells the engine of each."""
    model = with_adapter(loaded_shallow_policy.model)
    engine = TransformersEngine(model, name="shallow", stop_ids=[0])
    key = RolloutKey(seed=0, problem_id="p", step=0, rollout=0, turn=0)

    def sample():
        return asyncio.run(engine.generate([5, 6, 7, 8], Sampling(max_new_tokens=4), key))

    before = sample()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    engine.weights_changed(1)
    after = sample()
    ids = torch.tensor([[5, 6, 7, 8, *after.completion_ids]])
    with torch.inference_mode():
        logprobs = model(input_ids=ids).logits[0, 3:-1].log_softmax(-1)
    wanted = logprobs.gather(1, torch.tensor(after.completion_ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(after.logprobs), wanted, rtol=1e-4, atol=1e-4)
    assert abs(before.logprobs[0] - after.logprobs[0]) > 1e-3


def test_what_is_large_or_not_in_float32_is_left_alone(loaded_shallow_policy, monkeypatch):
    model = deepcopy(loaded_shallow_policy.model).to(torch.bfloat16)
    with PackedWeights().applied(model):
        assert not packed_layers(model)
    monkeypatch.setattr("eapo_agents.policy.packed_weights.MOST_BYTES", 10_000)
    with PackedWeights().applied(loaded_shallow_policy.model):
        assert not packed_layers(loaded_shallow_policy.model)
