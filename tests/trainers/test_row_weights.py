"""Rows of forked trajectories weigh as they should, in the policy gradient and in the divergence:
compared with a plain GRPOTrainer of TRL on rows that are written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe import Recipe
from eapo_agents.types import (
    PolicyVersion,
    Problem,
    Role,
    RolloutGroup,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)
from trainers.batches import micro_batches
from trainers.grpo import EapoTrainer
from trainers.objective import Objective
from trainers.rows import TrainingRow
from trainers.sources import LoggedRollouts

QUESTION, DRAFT = (11, 12, 13), (21, 22, 23, 24)
CRITIC, NOTES, FINAL = (31, 32), (41, 42, 43, 44, 45), (51, 52, 53)
LEFT, RIGHT, ALONE = (61, 62, 63), (71, 72, 73, 74), (81, 82, 83, 84, 85, 86)
PROBLEM = Problem(id="p", question="q", answer="a", grader="exact")


def old(ids):
    """A logprob for each sampled token, near those of a model of 300 tokens without any training:
    some ratios are clipped, others not."""
    return tuple(-5.4 - (token % 7) / 10 for token in ids)


def turn(context, completion, parent):
    return Turn(
        context_ids=context,
        completion_ids=completion,
        logprobs=old(completion),
        parent=parent,
        text="",
        finish_reason="stop",
    )


def trajectory(rollout, *turns):
    return Trajectory(
        problem=PROBLEM,
        graph="own",
        role=Role.OWN,
        turns=turns,
        stop_reason=StopReason.ANSWERED,
        answer="a",
        reward=float(rollout),
        correct=bool(rollout),
        error=None,
        policy=PolicyVersion(model="m", base="b", weights="w", step=0),
        sampling=Sampling(),
        seed=0,
        rollout=rollout,
        global_step=1,
    )


FORKED = trajectory(
    1,
    turn(QUESTION, DRAFT, None),
    turn(CRITIC, LEFT, 0),
    turn(NOTES, RIGHT, 0),  # branches off the same draft
    turn(CRITIC, FINAL, 2),
)
PLAIN = trajectory(0, turn(QUESTION, ALONE, None))

# What a plain trainer is given: (prompt, completion, mask) of every row. The forked trajectory has
# two rows, so the other one's row stands there twice.
LEFT_ROW = (QUESTION, DRAFT + CRITIC + LEFT, (1, 1, 1, 1, 0, 0, 1, 1, 1))
RIGHT_ROW = (QUESTION + DRAFT + NOTES, RIGHT + CRITIC + FINAL, (1, 1, 1, 1, 0, 0, 1, 1, 1))
PLAIN_ROW = (QUESTION, ALONE, (1,) * 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_model(folder, ["1 + 2 = 3"], layers=1, width=16, heads=2, vocabulary=300, seed=0)
    return folder


def tiny(folder):
    """A model of a few thousand random weights, with an adapter that changes what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), adapter)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5)
    return {"model": model, "processing_class": AutoTokenizer.from_pretrained(folder)}


def reference(completion_ids):
    """What stands for the logprobs of the model that the divergence is measured from."""
    return -5.3 - (completion_ids % 5) / 10


def config(folder, *, num_rows, passes=1, **changes):
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=num_rows // passes,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes,
        num_generations=2,
        beta=0.1,
        use_cpu=True,
        bf16=False,
        report_to="none",
        gradient_checkpointing=False,
        remove_unused_columns=False,
        **changes,
    )


def ours(folder, *trajectories, passes=1, **changes):
    made = tiny(folder)
    group = RolloutGroup(problem=PROBLEM, trajectories_G=trajectories)
    settings = {"report_to": [], "gradient_accumulation_steps": 1, "minibatches_per_step": 1}
    trainer = EapoTrainer(
        model=made["model"],
        tokenizer=made["processing_class"],
        args=config(folder, num_rows=4, passes=passes, **changes),
        source=LoggedRollouts(logged=[group], groups_per_step=1),
        objective=Objective(
            solo_prompt=lambda problem: [1],
            settings=Recipe.model_validate({"name": "t", "train": settings}).train,
        ),
        fresh_from=lambda: 0,
        importance_ratio_cap=2.0,
    )
    trainer.current_gradient_accumulation_steps = passes
    trainer.model.train()
    return trainer


def by_hand(folder, rows, advantages, **changes):
    """A plain GRPOTrainer of TRL and its batch."""
    from datasets import Dataset
    from trl import GRPOTrainer

    trainer = GRPOTrainer(
        **tiny(folder),
        args=config(folder, num_rows=len(rows), **changes),
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["q"]}),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    wide_p = max(len(prompt) for prompt, _, _ in rows)
    wide_c = max(len(completion) for _, completion, _ in rows)

    def left(ids):
        return [0] * (wide_p - len(ids)) + list(ids)

    def right(ids):
        return list(ids) + [0] * (wide_c - len(ids))

    batch = {
        "prompt_ids": torch.tensor([left(prompt) for prompt, _, _ in rows]),
        "prompt_mask": torch.tensor([left([1] * len(prompt)) for prompt, _, _ in rows]),
        "completion_ids": torch.tensor([right(completion) for _, completion, _ in rows]),
        "completion_mask": torch.tensor([right([1] * len(c)) for _, c, _ in rows]),
        "tool_mask": torch.tensor([right(mask) for _, _, mask in rows]),
        "old_per_token_logps": torch.tensor([right(old(c)) for _, c, _ in rows]),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": torch.tensor(float(sum(sum(mask) for _, _, mask in rows))),
    }
    batch["ref_per_token_logps"] = reference(batch["completion_ids"])
    return trainer, batch


def gradient(trainer, batches):
    for batch in batches:
        trainer._compute_loss(trainer.model, batch).backward()
    found = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo"])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_gradient_on_forks_is_a_plain_trainer_s_on_rows_by_hand(folder, loss_type, passes):
    trainer = ours(folder, PLAIN, FORKED, passes=passes, loss_type=loss_type)
    batch = trainer._generate_and_score_completions([{"item": 0}])
    batch["ref_per_token_logps"] = reference(batch["completion_ids"])
    found = gradient(trainer, micro_batches(batch, updates=1, passes=passes))

    rows = [LEFT_ROW, RIGHT_ROW, PLAIN_ROW, PLAIN_ROW]
    won = 0.5 / (math.sqrt(0.5) + 1e-4)  # of rewards 1 and 0
    plain, batch = by_hand(folder, rows, [won, won, -won, -won], loss_type=loss_type)
    wanted = gradient(plain, [batch])
    assert wanted.abs().max() > 1e-3
    assert (found - wanted).abs().max() < 1e-6


def test_the_divergence_of_a_forked_trajectory_counts_once(folder):
    trainer = ours(folder, PLAIN, FORKED)
    batch = trainer._generate_and_score_completions([{"item": 0}])
    everything = torch.ones(len(batch["prompt_ids"]), dtype=torch.bool)
    present = trainer._current_logps(batch, everything)
    mask = batch["tool_mask"]
    # nats by which the reference finds the tokens less likely: 1 in the forked rows, 2 in the other
    gap = torch.where(mask.sum(1, keepdim=True) == 6, 2.0, 1.0)
    batch |= {
        "ref_per_token_logps": present - gap,
        "old_per_token_logps": present,
        "advantages": torch.zeros_like(batch["advantages"]),
    }
    one, two = math.exp(-1), math.exp(-2) + 1  # exp(-d) + d - 1
    # 14 sampled tokens in two rows of weight 1/2, and 6 in one of weight 1
    by_hand = 0.1 * (14 / 2 * one + 6 * two) / (14 / 2 + 6)
    assert float(trainer._compute_loss(trainer.model, batch)) == pytest.approx(by_hand, abs=1e-6)


def test_the_divergence_of_likelihood_rows_weighs_as_they_do(folder):
    trainer = ours(folder, PLAIN, FORKED)
    rows = [
        TrainingRow(
            prompt_ids=QUESTION,
            completion_ids_T=ids,
            mask_T=(1,) * len(ids),
            logprobs_T=None,
            advantage=0.0,
            weight=weight,
            trajectory=PLAIN,
        )
        for ids, weight in ((LEFT, 3.0), (RIGHT, 1.0))
    ]
    batch = trainer._batch([], rows)
    present = trainer._current_logps(batch, torch.ones(len(batch["prompt_ids"]), dtype=torch.bool))
    gap = torch.tensor([[1.0], [2.0]] + [[0.0]] * (len(present) - 2))
    batch["ref_per_token_logps"] = present - gap
    one, two = math.exp(-1), math.exp(-2) + 1
    by_hand = 0.1 * (3 * 3 * one + 4 * two) / (3 * 3 + 4)
    assert float(trainer._compute_loss(trainer.model, batch)) == pytest.approx(by_hand, abs=1e-6)
