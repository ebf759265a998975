"""What a recipe may not say about help that the policy did not ask for: an expert's solutions,
hints that are pushed, critiques, a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eapo_agents.recipe_conditions import Condition

if TYPE_CHECKING:
    from eapo_agents.recipe_sections import RecipeSections

HINTED = ("hinted", "critique")
"""Graphs in which an expert speaks unasked."""
POLICY_GRADIENT = (
    "train.advantage",
    "train.baseline",
    "train.turn_discount",
    "task.reward_of_turn",
    "train.epsilon",
    "train.epsilon_high",
    "train.penalty",
    "train.overlong",
)
"""What shapes the policy gradient of rewards."""


def may_ask(recipe: RecipeSections) -> bool:
    """Return whether a live training's rollouts in the graph `consult` may ask experts."""
    consult = recipe.consult
    return bool(
        recipe.graph == "consult"
        and consult.experts
        and consult.solo_share < 1
        and consult.turns.start > 1
    )


def learns_from_solutions(recipe: RecipeSections) -> bool:
    """Return whether a training asks the first expert for solutions and learns from its text."""
    train = recipe.train
    return bool(
        train.method == "distillation"
        or train.distillation_share
        or train.off_policy.solutions != "none"
    )


def refuse_unfit_solutions(recipe: RecipeSections) -> None:
    """Raise ValueError where an expert's solutions cannot be learned from as the recipe says."""
    train = recipe.train
    mixed, imitates = train.off_policy.solutions, learns_from_solutions(recipe)
    if recipe.answer_of is not None and (imitates or train.internalise.min_answer_to_reply_ratio):
        raise ValueError(
            "an expert's text is learned from by train.method 'distillation', "
            "train.distillation_share, train.off_policy.solutions and "
            "train.internalise.min_answer_to_reply_ratio, and with answer_of an answer is more "
            "than text: take one of them out"
        )
    offered = [name for name, expert in recipe.consult.experts.items() if expert.offered]
    if imitates and not offered:
        raise ValueError(
            "solutions come from the first expert of consult.experts that is offered, and there is "
            "none: name one, or take train.method 'distillation', train.distillation_share and "
            "train.off_policy.solutions out"
        )
    if train.distillation_share and train.distillation_steps in (0, train.steps):
        raise ValueError(
            "train.distillation_share must give both distillation and rollouts a step: of "
            f"{train.steps} (train.steps), {train.distillation_share:g} is all or none"
        )
    if mixed == "rollout" and train.baseline == "condition":
        raise ValueError(
            "with train.baseline 'condition' a solution is not compared with solo rollouts, and "
            "train.off_policy.solutions 'rollout' compares it with the group: set train.baseline "
            "to group"
        )


def refuse_unfit_teacher(recipe: RecipeSections) -> None:
    """Raise ValueError where two teachers would judge the same tokens."""
    train = recipe.train
    if train.teacher is not None and train.internalise.self_distillation_weight:
        raise ValueError(
            "train.teacher and train.internalise.self_distillation_weight both say who judges the "
            "policy's tokens: take one out"
        )


def is_weighted(recipe: RecipeSections) -> bool:
    """Return whether tokens are weighted that were not sampled behind their prompt."""
    off_policy = recipe.train.off_policy
    return off_policy.hints != "kept" or off_policy.solutions != "none"


def _helped_live(recipe: RecipeSections) -> bool:
    """Return whether experts help a live training's rollouts, asked for or not."""
    consult = recipe.consult
    pushed = recipe.graph in HINTED and bool(consult.experts) and consult.solo_share < 1
    return recipe.train.method == "rollouts" and (pushed or may_ask(recipe))


_NEED_ASKING = (
    "consult.max_queries",
    "consult.ask_all",
    "consult.turns",
    "tools",
    "train.penalty",
    "train.internalise.hint_stripped_weight",
    "train.internalise.self_distillation_weight",
    "train.internalise.solo_answer_weight",
)
"""What the graphs of `HINTED` cannot use: the policy does not ask there, and has no tools."""
HELP_CONDITIONS = (
    Condition(
        lambda r: r.graph in HINTED,
        ("graph",),
        _NEED_ASKING,
        "a policy that asks (the graph 'consult' or one of your own)",
    ),
    Condition(
        lambda r: r.graph not in HINTED,
        ("graph",),
        ("train.off_policy.hints",),
        "the graph 'hinted' or 'critique'",
    ),
    Condition(
        lambda r: r.consult.solo_share == 1,
        ("consult.solo_share",),
        ("train.off_policy.hints",),
        "rollouts with experts (consult.solo_share below 1)",
    ),
    Condition(
        lambda r: not learns_from_solutions(r),
        ("train.method", "train.distillation_share", "train.off_policy.solutions"),
        ("train.complete_replies",),
        "train.method 'distillation', train.distillation_share or train.off_policy.solutions",
    ),
    Condition(
        lambda r: not learns_from_solutions(r) and not _helped_live(r),
        ("train.method", "graph", "consult.experts", "consult.solo_share", "consult.turns.start"),
        ("train.expert_calls",),
        "solutions of experts, or live rollouts that they help (the graph 'consult', 'hinted' or "
        "'critique', consult.solo_share below 1; of a log, collect.problems is the limit)",
    ),
    Condition(
        lambda r: learns_from_solutions(r) and _helped_live(r),
        ("train.distillation_share", "train.off_policy.solutions", "consult.solo_share"),
        ("train.expert_calls",),
        "either solutions of experts or rollouts that they help: each has a count of its own",
    ),
    Condition(
        lambda r: r.train.distillation_share > 0,
        ("train.distillation_share",),
        ("train.replay", "train.off_policy.solutions"),
        "a run of rollouts alone (no train.distillation_share)",
    ),
    Condition(
        lambda r: r.train.off_policy.solutions != "none",
        ("train.off_policy.solutions",),
        ("train.replay",),
        "a run without train.off_policy.solutions",
    ),
    Condition(
        is_weighted,
        ("train.off_policy.hints", "train.off_policy.solutions"),
        ("train.turn_discount", "task.reward_of_turn"),
        "rollouts that are trained as they were sampled (no train.off_policy)",
    ),
    Condition(
        lambda r: r.train.teacher is not None and not r.train.teacher.reward,
        ("train.teacher",),
        (*POLICY_GRADIENT, "train.off_policy.hints", "train.skip_settled"),
        "learning from the reward (no train.teacher, or train.teacher.reward)",
    ),
    Condition(
        lambda r: r.train.teacher is not None,
        ("train.teacher",),
        ("train.replay",),
        "a run without train.teacher, which judges what the policy samples now",
    ),
    Condition(
        lambda r: r.train.off_policy.solutions != "likelihood",
        ("train.off_policy.solutions",),
        ("train.off_policy.solution_weight",),
        "train.off_policy.solutions 'likelihood'",
    ),
    Condition(
        lambda r: (
            r.train.off_policy.hints != "shaped" and r.train.off_policy.solutions != "rollout"
        ),
        ("train.off_policy.hints", "train.off_policy.solutions"),
        ("train.off_policy.gamma",),
        "train.off_policy.hints 'shaped' or train.off_policy.solutions 'rollout'",
    ),
)
