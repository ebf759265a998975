"""Trains a tiny model for one step on groups that are always the same, under `accelerate launch` or
not, and writes the loss, the gradients and what was told of the step. Used by test_distributed.py.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from eapo_agents.policy.models import EMBEDDED, load_tokenizer
from eapo_agents.recipe import InternaliseSection, Recipe
from eapo_agents.types import (
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Problem,
    Role,
    RolloutGroup,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)
from trainers.grpo import EapoTrainer
from trainers.objective import Objective
from trainers.sources import LoggedRollouts
from trainers.trl_arguments import grpo_config

VERSION = PolicyVersion(model="tiny", base="b", weights="b", step=0)
RHO = {"rho": 0.5, "u": 0.1}


def groups(num_groups: int = 4, num_rollouts: int = 4) -> list[RolloutGroup]:
    """Two turns each, of very different lengths; some rewards; some helped by an expert."""
    dice = random.Random(0)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(dice.randrange(3, 64) for _ in range(dice.randrange(1, most)))

    def turn(parent: int | None, asked: tuple[Consultation, ...]) -> Turn:
        ids = tokens(12)
        logprobs = tuple(-dice.random() * 5 for _ in ids)
        return Turn(context_ids=tokens(20), completion_ids=ids, logprobs=logprobs, parent=parent,
                    text="", finish_reason="stop", consultations=asked)  # fmt: skip

    found = []
    for number in range(num_groups):
        problem = Problem(id=f"p{number}", question="?", answer="1", grader="number")
        members = []
        for rollout in range(num_rollouts):
            right = dice.random() < 0.5
            help_ = Consultation(slot=0, expert="e", query="q", reply="r",
                                 status=ConsultationStatus.ACCEPTED, **RHO)  # fmt: skip
            turns = (turn(None, (help_,)), turn(0, ()))
            facts = {"stop_reason": StopReason.ANSWERED, "answer": "1", "error": None, "seed": 0}
            members.append(
                Trajectory(
                    problem=problem,
                    graph="consult",
                    role=Role.CONSULT,
                    turns=turns,
                    reward=float(right),
                    correct=right,
                    policy=VERSION,
                    sampling=Sampling(),
                    rollout=rollout,
                    global_step=1,
                    **facts,
                )
            )
        found.append(RolloutGroup(problem=problem, trajectories_G=tuple(members)))
    return found


class _KeepGradients(TrainerCallback):
    gradients: dict[str, torch.Tensor]

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {
            name.removeprefix("module."): parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


def main(out: Path) -> None:
    recipe = Recipe.model_validate({
        "name": "tiny",
        "train": {"problems_per_step": 4, "num_generations": 4, "gradient_accumulation_steps": 2,
                  "report_to": [], "max_grad_norm": 1e9,
                  "internalise": {"hint_stripped_weight": 0.5}},
    })  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    lora = LoraConfig(
        r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = get_peft_model(LlamaForCausalLM(config), lora)
    tokenizer = load_tokenizer(EMBEDDED)
    told: list[dict[str, float]] = []
    keeper = _KeepGradients()
    trainer = EapoTrainer(
        model=model,
        tokenizer=tokenizer,
        args=grpo_config(recipe, out, 1),
        source=LoggedRollouts(logged=groups(), groups_per_step=4),
        objective=Objective(
            solo_prompt=lambda problem: [3, 4, 5],
            settings=recipe.train.model_copy(
                update={"internalise": InternaliseSection(hint_stripped_weight=0.5)}
            ),
        ),
        fresh_from=lambda: VERSION.step,
        importance_ratio_cap=2.0,
        on_step=lambda step, metrics: told.append(metrics),
        callbacks=[keeper],
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        torch.save(keeper.gradients, out / "gradients.pt")
        history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        facts = {"loss": history[0], "told": told, "processes": trainer.accelerator.num_processes}
        (out / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
