"""Names, signatures and keys of recipes that have changed since commit 0cd7080, for checks from
outside that were written then.

`RECIPE_KEYS` is dotted, old key to new; None says that the key is gone. A function or class here
takes the arguments of then. What it needs is imported when it is called: most checks want the keys
alone.
"""

from collections.abc import Sequence
from pathlib import Path

RECIPE_KEYS = {
    "train.forward_passes": "train.gradient_accumulation_steps",
    "train.updates_per_step": "train.minibatches_per_step",
    "train.rollouts": "train.num_generations",
    "train.schedule": "train.lr_scheduler_type",
    "train.max_redraws": "train.dynamic_sampling_retries",
    "train.kl": "train.beta",
    "train.epsilon_low": "train.epsilon",
    "train.importance_cap": "train.importance_ratio_cap",
    "train.internalise.weight": "train.internalise.hint_stripped_weight",
    "train.internalise.rehearse": "train.internalise.rehearsal_weight",
    "train.internalise.at_once": "train.internalise.solo_answer_weight",
    "train.internalise.at_once_from": "train.internalise.solo_answer_min_accuracy",
    "train.internalise.least_own": "train.internalise.min_answer_to_reply_ratio",
    "train.internalise.most_solo_success": "train.internalise.max_solo_accuracy",
    "train.internalise.self_distil": "train.internalise.self_distillation_weight",
    "train.penalty.from_solo_success": "train.penalty.min_solo_accuracy",
    "collect.rollouts": "collect.num_generations",
    "warm_start.schedule": "warm_start.lr_scheduler_type",
    "policy.mixed_versions": "policy.allow_midrollout_updates",
    "policy.lost_after_s": "policy.server_wait_s",
    "consult.granularity": "consult.acceptance.per",
    "collect.concurrency": "rollouts.concurrency",
    "collect.max_error_share": "rollouts.max_error_share",
    "eval.concurrency": "rollouts.concurrency",
    "eval.graph": "graph",
    "eval.paths": "graph_options.paths",
}


def Trajectory(**facts: object) -> object:
    """Then the graph's name told the role."""
    from eapo_agents import types
    from eapo_agents.store.convert import ROLE_OF_GRAPH

    facts.setdefault("role", ROLE_OF_GRAPH.get(str(facts["graph"]), types.Role.OWN))
    return types.Trajectory(**facts)


def trajectory_rows(trajectory: object, **options: object) -> list[object]:
    """Then a row named its trajectory by `position`."""
    from trainers import rows

    options.pop("position", None)
    return rows.trajectory_rows(trajectory, **options)


def EapoTrainer(*, importance_cap: float, **arguments: object) -> object:
    """Then it took `importance_cap`, and `_batch` took the groups first."""
    from trainers import grpo

    class Trainer(grpo.EapoTrainer):
        def _batch(self, *groups_and_rows: Sequence[object]) -> dict[str, object]:
            return super()._batch(*groups_and_rows[-2:])

    return Trainer(importance_ratio_cap=importance_cap, **arguments)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> object:
    """Then `train.epochs` and `train.max_staleness` were allowed whatever the method was."""
    import yaml

    from eapo_agents import recipe_file

    given = yaml.safe_load(Path(path).read_text()) if Path(path).exists() else {}
    if {"epochs", "max_staleness"} & set(given.get("train") or {}):
        overrides = ["train.method=logged", *overrides]
    return recipe_file.load_recipe(path, overrides)
