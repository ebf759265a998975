"""What a live training run will take, before anything is loaded: for `eapo train --dry-run`.

Bounds, not forecasts: every rollout is counted as if it used all its turns and tokens, and every
turn as if it asked as often as it may. Acceptance alone is an expectation: a withheld query is not
sent, so calls are the queries times rho.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_help import HINTED
from eapo_agents.recipe_rules import is_own

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 1 << 30
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*([BM])(?![a-zA-Z])", re.IGNORECASE)
_PER_RANK = 0.00035
"""Weights of an adapter for each rank, as a share of the model's: that of a 7B model."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run in figures."""

    steps: int
    rollouts: int
    """Without those that are drawn again."""
    sampled_tokens_at_most: int
    expert_queries_at_most: int
    expert_calls_at_most: int
    """Queries that chance accepts, in expectation: the others are never sent."""
    expert_calls_if_called_first: int
    """What an implementation pays that calls first and withholds afterwards: all queries."""
    policy_parameters: int
    training_gib_per_process: float
    """Weights, gradients and Adam's states, spread evenly over the processes; activations come on
    top."""
    serving_gib: float
    """Weights of the policy on one server; its cache comes on top."""
    training_processes: int
    policy_servers: int
    expert_servers: int


def plan(recipe: Recipe, num_processes: int, size: ModelSize | None = None) -> Plan:
    """The figures of a live run on so many training processes.

    Args:
        size: the policy's, where it is known already.

    Raises:
        RecipeError: the model's size is neither in its files nor in its name, or the graph is a
            user's.
    """
    settings, consult = recipe.train, recipe.consult
    if is_own(recipe.graph):
        raise RecipeError(
            f"How often '{recipe.graph}' calls the policy is not known, so there is no plan of it: "
            "train it for a few steps (--set train.steps=2) and read off what they take."
        )
    acceptance = consult.acceptance
    per_step = settings.problems_per_step * settings.num_generations
    may_ask = per_step - settings.problems_per_step * round(
        consult.solo_share * settings.num_generations
    )
    solutions = float(most_solutions(recipe))
    calls = queries = solutions
    tokens = 0.0
    with_rollouts = range(first_with_rollouts(recipe), settings.steps + 1)
    for step in with_rollouts:
        asked = may_ask * most_calls_of_rollout(recipe, step)
        queries += asked
        calls += asked * acceptance.rho(step)
        tokens += per_step * _most_turns(recipe, step) * recipe.sampling.max_new_tokens
    if settings.expert_calls is not None:
        calls = min(calls, settings.expert_calls)
    size = size or policy_size(recipe)
    return Plan(
        steps=settings.steps,
        rollouts=per_step * len(with_rollouts),
        sampled_tokens_at_most=round(tokens),
        expert_queries_at_most=round(queries),
        expert_calls_at_most=round(calls),
        expert_calls_if_called_first=round(queries),
        policy_parameters=size.parameters,
        training_gib_per_process=training_bytes(recipe, size) / num_processes / GIB,
        serving_gib=size.parameters * _BYTES[recipe.policy.dtype] / GIB,
        training_processes=num_processes,
        policy_servers=len(recipe.policy.servers),
        expert_servers=len({url for expert in consult.experts.values() for url in expert.urls}),
    )


def first_with_rollouts(recipe: Recipe) -> int:
    """Return the first training step that samples."""
    train = recipe.train
    return 1 + (train.steps if train.method == "distillation" else train.distillation_steps)


def most_solutions(recipe: Recipe) -> int:
    """Return how many problems an expert is asked to solve."""
    train = recipe.train
    mixed = train.off_policy.solutions != "none"
    steps = train.steps if mixed else first_with_rollouts(recipe) - 1
    most = steps * train.problems_per_step
    return most if train.expert_calls is None else min(most, train.expert_calls)


def most_calls_of_rollout(recipe: Recipe, step: int) -> int:
    """Return the most calls of a rollout that may ask, in a graph of ours, each reply accepted."""
    consult = recipe.consult
    offered = sum(expert.offered for expert in consult.experts.values())
    if recipe.graph in ("solo", "leap") or not offered:
        return 0
    if recipe.graph in HINTED:
        return 1
    if recipe.graph == "workflow":
        return offered
    at_once = offered if consult.ask_all else 1
    # in its last turn it may not ask
    return consult.max_queries * (consult.turns.turns(step) - 1) * at_once


def _most_turns(recipe: Recipe, step: int) -> int:
    """Return the most turns of a rollout with experts."""
    if recipe.graph in HINTED:
        return 2 if recipe.graph == "critique" else 1
    return recipe.consult.turns.turns(step)


@dataclass(frozen=True, slots=True)
class ModelSize:
    """How many weights a model has, and an adapter on all its linear layers for each rank."""

    parameters: int
    per_rank: int


def model_size(model: str) -> ModelSize:
    """From its configuration where that is at hand, else as its name says (7B, 135M).

    Raises:
        RecipeError: neither tells.
    """
    if found := _from_config(model):
        return found
    sizes = _SIZE.findall(re.sub(r"[-_/]", " ", model))
    if not sizes:
        raise RecipeError(
            f"The size of '{model}' is not known: its configuration cannot be read here, and its "
            "name has none such as 7B; give a folder with its config.json."
        )
    number, unit = sizes[-1]
    size = round(float(number) * (1e9 if unit.upper() == "B" else 1e6))
    return ModelSize(size, round(size * _PER_RANK))


def policy_size(recipe: Recipe) -> ModelSize:
    """Return the size of a recipe's policy.

    Raises:
        RecipeError: it is neither in the model's files nor in its name.
    """
    policy = recipe.policy
    if policy.awaits_model and policy.fresh is not None:
        from eapo_agents.policy.fresh import config_of

        return _size_of(config_of(**policy.fresh.model_dump(exclude={"chat_template"})))
    return model_size(policy.model)


def _from_config(model: str) -> ModelSize | None:
    from transformers import AutoConfig

    from eapo_agents.policy.models import find_model

    source = find_model(model)
    try:
        return _size_of(AutoConfig.from_pretrained(source.loadable(), local_files_only=True))
    except (OSError, ValueError, KeyError):
        return None


def _size_of(config: PretrainedConfig) -> ModelSize:
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(config)
    empty.tie_weights()
    head = empty.get_output_embeddings()
    linear = [m for m in empty.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return ModelSize(
        sum(parameter.numel() for parameter in empty.parameters()),
        sum(layer.in_features + layer.out_features for layer in linear),
    )


def training_bytes(recipe: Recipe, size: ModelSize) -> float:
    """Return what training holds: the weights, and for what is trained its gradient, two states of
    Adam in float32, and a float32 copy where the weights are narrower."""
    width = _BYTES[recipe.policy.dtype]
    lora = recipe.train.lora
    trained = size.parameters if lora is None else size.per_rank * lora.r
    return size.parameters * width + trained * (width + 8 + (4 if width < 4 else 0))
