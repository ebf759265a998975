"""On-policy distillation: another model judges each token that the policy sampled.

The advantage of a token is by how many nats the teacher finds it likelier than the policy does, so
that training lowers the divergence from policy to teacher (the reverse KL) on what the policy
itself writes. Agarwal et al. 2024 (GKD, arXiv 2306.13649); in this form, the policy gradient of the
sampled tokens alone, Thinking Machines 2025 ("On-Policy Distillation").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError
from eapo_agents.policy.models import load_policy, load_tokenizer
from eapo_agents.types import Role, RolloutGroup
from graphs.agent import Agent, own_device
from trainers.rows import TrainingRow, trajectory_rows

if TYPE_CHECKING:
    from torch.nn import Module


def taught_rows(groups_P: Sequence[RolloutGroup], *, weight: float) -> list[TrainingRow]:
    """Return the rows of all rollouts, right or wrong and scored or not, for a teacher to judge
    behind the policy's own prompt."""
    return [
        replace(row, logprobs_T=None, teacher_ids=row.prompt_ids)
        for group in groups_P
        for trajectory in group.trajectories_G
        if trajectory.role is not Role.EXPERT
        for row in trajectory_rows(trajectory, advantage=weight)
    ]


def teacher_of(agent: Agent) -> Module | None:
    """Return the model that the recipe names as the teacher, ready to judge; None without one.

    Raises:
        RecipeError: its tokens are not the policy's.
        ModelError: it cannot be found or loaded.
    """
    settings = agent.recipe.train.teacher
    if settings is None:
        return None
    theirs, own = (
        tokenizer.backend_tokenizer.get_vocab()
        for tokenizer in (load_tokenizer(settings.model), agent.loaded.tokenizer)
    )
    if theirs != own:
        differing = len(set(theirs.items()) ^ set(own.items()))
        raise RecipeError(
            f"train.teacher.model '{settings.model}' must have the policy's tokenizer, since it "
            f"judges the policy's tokens, and {differing} entries of their vocabularies differ: "
            "name a model of the policy's family."
        )
    loaded = load_policy(
        settings.model,
        adapter=settings.adapter,
        dtype=settings.dtype,
        device=own_device(agent.recipe.policy.device),
    )
    model: Module = loaded.model
    return model.requires_grad_(False).eval()
