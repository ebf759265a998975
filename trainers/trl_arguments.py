"""The training processes, and TRL's arguments for a recipe."""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path

from accelerate import PartialState
from trl import GRPOConfig

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe


def processes(recipe: Recipe) -> PartialState:
    """The training processes that `accelerate launch` started; one where it did not."""
    state = PartialState(cpu=recipe.policy.device == "cpu")
    if state.num_processes > 1:
        _leave_group_at_exit()
    return state


@cache
def _leave_group_at_exit() -> None:
    """Once: an interpreter that ends while gloo's threads run is sometimes aborted
    ("terminate called without an active exception"); its launcher then calls the run failed."""
    atexit.register(PartialState().destroy_process_group)


def grpo_config(recipe: Recipe, folder: Path, steps: int, *, logged: bool = False) -> GRPOConfig:
    """Return TRL's arguments for `steps` training steps. The loss is DAPO's, unless the recipe's
    `trl` block says otherwise.

    Raises:
        RecipeError: the batch does not divide, or TRL refuses a value.
    """
    settings = recipe.train
    num_rollouts = settings.problems_per_step * settings.num_generations
    num_passes = settings.minibatches_per_step * settings.gradient_accumulation_steps
    num_processes = processes(recipe).num_processes
    if settings.problems_per_step % num_processes or num_rollouts % (num_passes * num_processes):
        raise RecipeError(
            f"train.problems_per_step ({settings.problems_per_step}) must divide by the number of "
            f"processes ({num_processes}), and its rollouts ({num_rollouts}) by processes x "
            "train.minibatches_per_step x train.gradient_accumulation_steps: change one of them."
        )
    on_cpu = recipe.policy.device == "cpu"
    rate = settings.logged_learning_rate if logged else None
    ours: dict[str, object] = {
        "output_dir": str(folder),
        "max_steps": steps * settings.minibatches_per_step,
        "per_device_train_batch_size": num_rollouts // (num_passes * num_processes),
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "steps_per_generation": num_passes,
        "num_generations": settings.num_generations,
        "num_iterations": 1,
        "learning_rate": rate or settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup"
        if settings.lr_scheduler_type == "constant"
        else settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "max_grad_norm": settings.max_grad_norm,
        "weight_decay": 0.0,
        "temperature": recipe.sampling.temperature,
        "loss_type": "dapo",
        "epsilon": settings.epsilon,
        "epsilon_high": settings.epsilon_high,
        "beta": settings.beta,
        "scale_rewards": "group",
        "gradient_checkpointing": not on_cpu,
        "bf16": not on_cpu and recipe.policy.dtype == "bfloat16",
        "fp16": False,
        "use_cpu": on_cpu,
        "logging_steps": 1,
        "report_to": settings.report_to or "none",
        # between rollouts only: a resumed run must not find half of their rows used
        "save_steps": settings.save_steps * settings.minibatches_per_step,
        "save_total_limit": 2,
        "seed": recipe.seed,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not on_cpu,
        # padding rows go through the whole model too
        "ddp_find_unused_parameters": False,
    }
    try:
        return GRPOConfig(**{**ours, **recipe.trl})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"TRL refuses the recipe's trl block: {error}") from error
