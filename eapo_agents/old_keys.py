"""Keys and arms of earlier versions, which are told what they are called now."""

from __future__ import annotations

from collections.abc import Mapping

OLD_KEYS = {
    "policy.lost_after_s": "policy.server_wait_s",
    "policy.mixed_versions": "policy.allow_midrollout_updates",
    "consult.granularity": "consult.acceptance.per",
    "collect.rollouts": "collect.num_generations",
    "collect.concurrency": "rollouts.concurrency",
    "collect.max_error_share": "rollouts.max_error_share",
    "warm_start.schedule": "warm_start.lr_scheduler_type",
    "train.rollouts": "train.num_generations",
    "train.schedule": "train.lr_scheduler_type",
    "train.updates_per_step": "train.minibatches_per_step",
    "train.forward_passes": "train.gradient_accumulation_steps",
    "train.epsilon_low": "train.epsilon",
    "train.kl": "train.beta",
    "train.max_redraws": "train.dynamic_sampling_retries",
    "train.importance_cap": "train.importance_ratio_cap",
    "train.internalise.weight": "train.internalise.hint_stripped_weight",
    "train.internalise.rehearse": "train.internalise.rehearsal_weight",
    "train.internalise.at_once": "train.internalise.solo_answer_weight",
    "train.internalise.at_once_from": "train.internalise.solo_answer_min_accuracy",
    "train.internalise.self_distil": "train.internalise.self_distillation_weight",
    "train.internalise.most_solo_success": "train.internalise.max_solo_accuracy",
    "train.internalise.least_own": "train.internalise.min_answer_to_reply_ratio",
    "train.penalty.from_solo_success": "train.penalty.min_solo_accuracy",
    "eval.concurrency": "rollouts.concurrency",
    "eval.graph": "graph",
    "eval.paths": "graph_options.paths",
}
"""Key of an earlier version -> the key of today."""
OLD_ARMS = {"at-once": "solo-answers"}


def refuse_old_keys(given: object) -> None:
    """Raise ValueError where a recipe has a key of an earlier version."""
    for old, new in OLD_KEYS.items():
        *sections, key = old.split(".")
        place = given
        for section in sections:
            place = place.get(section) if isinstance(place, Mapping) else None
        if isinstance(place, Mapping) and key in place:
            raise ValueError(f"there is no key '{old}': it is called '{new}' now")
