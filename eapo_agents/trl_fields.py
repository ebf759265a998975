"""The recipe's `trl` block: fields of TRL's GRPOConfig that are passed through.

What our trainer sets from the recipe, or replaces, is refused with the reason. TRL is imported only
where a recipe has the block.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import get_type_hints

from pydantic import TypeAdapter, ValidationError

LOSS_TYPES = ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")
_ROLLOUTS = "rollouts are sampled by the recipe's own engine: see policy and sampling"
_BATCH = "batches are made of rollout groups: see train.problems_per_step and num_generations"
_REWARD = "rewards come with the rollouts: see task.reward"
_EVALUATION = "evaluation is the recipe's: see eval"
_DATA = "the data are rollout groups, in an order that the recipe's seed decides"
_TRACES = "rollouts are kept in the trace store: see `eapo traces`"
_RESUME = "a run must be able to continue between training steps: see train.save_steps"
_MODEL = "the model is loaded by the recipe: see policy"
_REFERENCE = "train.beta is measured from the weights without the adapter"
_STEPS = "use train.steps"
_OWN = {
    "train.problems_per_step": ("per_device_train_batch_size", "generation_batch_size"),
    "train.num_generations": ("num_generations",),
    "train.minibatches_per_step": ("steps_per_generation", "num_iterations"),
    "train.gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "train.learning_rate": ("learning_rate",),
    "train.lr_scheduler_type": ("lr_scheduler_type",),
    "train.warmup_steps": ("warmup_steps",),
    "train.max_grad_norm": ("max_grad_norm",),
    "train.epsilon": ("epsilon",),
    "train.epsilon_high": ("epsilon_high",),
    "train.beta": ("beta",),
    "train.advantage": ("scale_rewards",),
    "train.save_steps": ("save_steps", "save_strategy"),
    "train.report_to": ("report_to",),
    "train.steps": ("max_steps", "num_train_epochs"),
    "sampling.temperature": ("temperature",),
    "sampling.top_p": ("top_p",),
    "policy.device": ("use_cpu",),
    "policy.dtype": ("bf16", "fp16"),
    "seed": ("seed", "data_seed"),
    "--out": ("output_dir",),
}
"""Ours -> TRL's fields that it sets."""
_REPLACED = {
    _ROLLOUTS: (
        *("top_k", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs"),
        *("cache_implementation", "ds3_gather_for_generation", "max_tool_calling_iterations"),
        *("use_transformers_continuous_batching", "transformers_continuous_batching_config"),
        *("use_transformers_paged", "use_vllm"),
    ),
    _BATCH: ("auto_find_batch_size", "pad_to_multiple_of", "average_tokens_across_devices"),
    _REWARD: ("reward_weights", "multi_objective_aggregation"),
    _EVALUATION: (
        *("do_eval", "do_predict", "do_train", "batch_eval_metrics", "prediction_loss_only"),
        *("include_for_metrics", "load_best_model_at_end", "metric_for_best_model"),
        *("greater_is_better", "per_device_eval_batch_size", "num_generations_eval"),
        *("bf16_full_eval", "fp16_full_eval"),
    ),
    _DATA: (
        *("shuffle_dataset", "remove_unused_columns", "label_names", "label_smoothing_factor"),
        *("length_column_name", "train_sampling_strategy", "ignore_data_skip"),
    ),
    _TRACES: (
        *("log_completions", "log_multimodal", "num_completions_to_print", "log_unique_prompts"),
        "log_completions_hub_repo",
    ),
    _RESUME: ("resume_from_checkpoint", "save_only_model", "enable_jit_checkpoint"),
    _MODEL: ("model_init_kwargs", "trust_remote_code"),
    _REFERENCE: ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
    "truncated rollouts are kept: see train.overlong": ("mask_truncated_completions",),
    "rows of older weights are weighted: see train.importance_ratio_cap": (
        "off_policy_mask_threshold",
    ),
    "the loss of our rows has no such kernel": ("use_liger_kernel", "liger_kernel_config"),
    "the ratio compares the weights that sampled, without noise": ("neftune_noise_alpha",),
}
"""Reason -> TRL's fields that have no place in our trainer."""
_REPLACED_BY_PREFIX = {"vllm_": _ROLLOUTS, "eval_": _EVALUATION, "dataloader_": _DATA}


def refuse_unusable(block: dict[str, object]) -> dict[str, object]:
    """Return the block with its values as GRPOConfig's types.

    Raises:
        ValueError: TRL has no such field, our trainer sets or replaces it, or the value is wrong.
    """
    for name in block:
        if reason := _refusal(name):
            raise ValueError(f"'{name}' cannot be passed to TRL: {reason}")
    if not block:
        return block
    _refuse_unknown_losses(block)
    from trl import GRPOConfig

    types = get_type_hints(GRPOConfig)
    return {name: _fitting(name, value, types) for name, value in block.items()}


def _refusal(name: str) -> str | None:
    """Why a field cannot be passed; None where it can."""
    for key, fields in _OWN.items():
        if name in fields:
            return f"use {key}"
    for reason, fields in _REPLACED.items():
        if name in fields:
            return reason
    prefixed = (why for prefix, why in _REPLACED_BY_PREFIX.items() if name.startswith(prefix))
    return next(prefixed, None)


def _fitting(name: str, value: object, types: Mapping[str, type]) -> object:
    if name not in types:
        near = difflib.get_close_matches(name, types, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "See TRL's documentation."
        raise ValueError(f"TRL's GRPOConfig has no field '{name}'. {hint}")
    try:
        fitting: object = TypeAdapter(types[name]).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise ValueError(f"'{name}' of TRL's GRPOConfig: {first}, got {value!r}") from error
    return fitting


def _refuse_unknown_losses(block: Mapping[str, object]) -> None:
    """Refuse what TRL itself would notice only in its first loss."""
    loss_type = block.get("loss_type", "dapo")
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"'loss_type' must be one of {', '.join(LOSS_TYPES)}, got '{loss_type}'")
    level = block.get("importance_sampling_level", "token")
    if level not in ("token", "sequence"):
        raise ValueError(f"'importance_sampling_level' must be token or sequence, got '{level}'")
    if "max_completion_length" in block and loss_type != "dr_grpo":
        raise ValueError(
            "'max_completion_length' is only the constant of loss_type dr_grpo: the length of "
            "rollouts is sampling.max_new_tokens"
        )
