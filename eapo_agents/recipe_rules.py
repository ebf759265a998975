"""What a recipe may not say: settings that contradict, settings without effect.

A setting has no effect where a condition below holds. It is refused there, unless it is at its
default. An arm (or `--set`) may make a setting of the recipe below it unused: `recipe_file` then
takes that setting out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from eapo_agents.recipe_conditions import TASK_CONDITIONS, Condition, refuse_unfit_rewards
from eapo_agents.recipe_help import (
    HELP_CONDITIONS,
    HINTED,
    POLICY_GRADIENT,
    is_weighted,
    refuse_unfit_solutions,
    refuse_unfit_teacher,
)

if TYPE_CHECKING:
    from eapo_agents.recipe_sections import RecipeSections


def refuse_unfit(recipe: RecipeSections) -> None:
    """Raise ValueError where settings contradict each other."""
    _refuse_unfit_sampling(recipe)
    train, consult, policy = recipe.train, recipe.consult, recipe.policy
    if policy.endpoint is not None and policy.chat_model is not None:
        raise ValueError("policy.endpoint and policy.chat_model are both given: take one out")
    refuse_unfit_solutions(recipe)
    refuse_unfit_teacher(recipe)
    if consult.acceptance.kind == "adaptive" and not (
        round(consult.solo_share * train.num_generations)
        and round(consult.solo_share * recipe.collect.num_generations)
    ):
        raise ValueError(
            "consult.acceptance.kind 'adaptive' follows the solo rollouts of a group: set "
            "consult.solo_share so that a group has at least one"
        )
    if train.expert_calls is not None and train.method == "rollouts" and consult.ask_all:
        raise ValueError(
            "train.expert_calls counts the queries of rollouts, and consult.ask_all sends one to "
            "every expert: take one of them out"
        )
    replay = train.replay
    if replay is not None and round(replay.share * train.problems_per_step) in (
        0,
        train.problems_per_step,
    ):
        raise ValueError(
            "train.replay.share must leave each step both live and logged groups: of "
            f"{train.problems_per_step} (train.problems_per_step), {replay.share} is all or none"
        )
    if train.beta and train.lora is None:
        raise ValueError(
            "train.beta is measured from the weights without the adapter: set train.lora, or beta 0"
        )
    num_rollouts = train.problems_per_step * train.num_generations
    num_passes = train.minibatches_per_step * train.gradient_accumulation_steps
    if num_rollouts % num_passes:
        raise ValueError(
            f"train.problems_per_step x train.num_generations ({num_rollouts}) must divide by "
            f"train.minibatches_per_step x train.gradient_accumulation_steps ({num_passes}): "
            "change one of them"
        )
    _refuse_unfit_trl(recipe)
    refuse_unfit_rewards(recipe)


def _refuse_unfit_sampling(recipe: RecipeSections) -> None:
    sampling = recipe.sampling
    if sampling.temperature <= 0:
        raise ValueError(
            "sampling.temperature must be above 0: greedy rollouts are all the same, got "
            f"{sampling.temperature}"
        )
    if sampling.top_p != 1:
        raise ValueError(
            "sampling.top_p must be 1: the trainer's ratio is over the whole distribution, got "
            f"{sampling.top_p}"
        )
    if sampling.max_new_tokens < 1:
        raise ValueError(
            f"sampling.max_new_tokens must be at least 1, got {sampling.max_new_tokens}"
        )


def _refuse_unfit_trl(recipe: RecipeSections) -> None:
    train, trl = recipe.train, recipe.trl
    if trl.get("loss_type") == "cispo" and train.epsilon_high < 1:
        raise ValueError(
            "trl.loss_type 'cispo' truncates the ratio itself at train.epsilon_high, which must be "
            f"1 or more (its authors take 5), got {train.epsilon_high}"
        )
    weighted = (
        train.internalise.self_distillation_weight
        or train.internalise.ratio == "importance"
        or train.replay is not None
        or train.max_staleness
        or train.teacher is not None
        or is_weighted(recipe)
    )
    if trl.get("importance_sampling_level") == "sequence" and weighted:
        raise ValueError(
            "trl.importance_sampling_level 'sequence' gives every token of a row one weight, and "
            "train.internalise.self_distillation_weight, train.internalise.ratio 'importance', "
            "train.off_policy, train.teacher, train.replay and train.max_staleness weigh each "
            "token: use one or the other"
        )


class UnusedSettingError(ValueError):
    """A recipe has settings without effect."""

    def __init__(self, unused: Mapping[str, Sequence[Condition]]) -> None:
        """Take each key with the conditions that make it unused."""
        self.unused = unused
        key, (first, *_) = next(iter(unused.items()))
        super().__init__(
            f"'{key}' has no effect: it needs {first.needs}. Take it out, or change that"
        )


def refuse_unused(recipe: RecipeSections) -> None:
    """Raise UnusedSettingError where a setting that is not at its default has no effect."""
    unused: dict[str, list[Condition]] = {}
    for condition in _CONDITIONS:
        if condition.holds(recipe):
            for key in condition.keys:
                for given in _given(recipe, key):
                    unused.setdefault(given, []).append(condition)
    if unused:
        raise UnusedSettingError(unused)


def _given(recipe: RecipeSections, key: str) -> Iterator[str]:
    """The settings at and below a key that are not at their default."""
    section: BaseModel = recipe
    *sections, name = key.split(".")
    for part in sections:
        section = getattr(section, part)
    value = getattr(section, name)
    default = type(section).model_fields[name].get_default(call_default_factory=True)
    if isinstance(value, BaseModel) and isinstance(default, BaseModel):
        for inner in type(value).model_fields:
            yield from _given(recipe, f"{key}.{inner}")
    elif value != default:
        yield key


def _has_no_solo(recipe: RecipeSections) -> bool:
    share = recipe.consult.solo_share
    groups = (recipe.train.num_generations, recipe.collect.num_generations)
    return not any(round(share * size) for size in groups)


def is_own(graph: str) -> bool:
    """Return whether a name is that of a user's graph."""
    return ":" in graph


_ASKING = ("consult.acceptance", "consult.max_queries", "consult.solo_share")
_POOL = ("consult.routing", "consult.ask_all")
_LEARNED_FROM_REPLIES = (
    "train.internalise.hint_stripped_weight",
    "train.internalise.self_distillation_weight",
    "train.penalty.per_token",
)
_LEARNED_FROM_QUERIES = ("train.penalty.per_call", "train.internalise.solo_answer_weight")
_CONDITIONS = (
    *TASK_CONDITIONS,
    *HELP_CONDITIONS,
    Condition(
        lambda r: r.graph not in ("consult", *HINTED) and not is_own(r.graph),
        ("graph",),
        _ASKING,
        "the graph 'consult', 'hinted', 'critique' or one of your own",
    ),
    Condition(
        lambda r: is_own(r.graph),
        ("graph",),
        ("consult.turns",),
        "the graph 'consult': a graph of your own decides itself when it ends",
    ),
    Condition(
        lambda r: not is_own(r.graph),
        ("graph",),
        ("solo_graph", "inputs", "answer_of"),
        "a graph of your own (package.module:function)",
    ),
    Condition(
        lambda r: r.graph in ("solo", "workflow", "leap"),
        ("graph",),
        (*_POOL, *_LEARNED_FROM_REPLIES, *_LEARNED_FROM_QUERIES),
        "a graph that offers experts to the policy",
    ),
    Condition(
        lambda r: not r.consult.experts,
        ("consult.experts",),
        (
            *_ASKING,
            *_POOL,
            *_LEARNED_FROM_REPLIES,
            *_LEARNED_FROM_QUERIES,
            "train.off_policy.hints",
        ),
        "an expert in consult.experts",
    ),
    Condition(
        lambda r: r.consult.solo_share == 1,
        ("consult.solo_share",),
        ("consult.acceptance", "train.baseline", *_LEARNED_FROM_REPLIES, "train.penalty.per_call"),
        "rollouts with experts (consult.solo_share below 1)",
    ),
    Condition(
        lambda r: r.consult.turns.start == 1,
        ("consult.turns.start",),
        (*_LEARNED_FROM_REPLIES, "train.penalty.per_call"),
        "a second turn (consult.turns.start above 1): nobody is asked in the last one",
    ),
    Condition(
        lambda r: r.consult.acceptance.kind == "never",
        ("consult.acceptance.kind",),
        ("consult.acceptance.start", "consult.acceptance.per", *_LEARNED_FROM_REPLIES),
        "accepted replies (a consult.acceptance.kind other than 'never')",
    ),
    Condition(
        lambda r: r.consult.acceptance.start == 0,
        ("consult.acceptance.start",),
        _LEARNED_FROM_REPLIES,
        "accepted replies (consult.acceptance.start above 0)",
    ),
    Condition(
        lambda r: r.consult.acceptance.kind not in ("linear", "cosine"),
        ("consult.acceptance.kind",),
        ("consult.acceptance.steps",),
        "consult.acceptance.kind 'linear' or 'cosine'",
    ),
    Condition(
        lambda r: r.consult.acceptance.kind != "adaptive",
        ("consult.acceptance.kind",),
        ("consult.acceptance.target",),
        "consult.acceptance.kind 'adaptive'",
    ),
    Condition(
        lambda r: r.consult.turns.start == r.consult.turns.end,
        ("consult.turns.start", "consult.turns.end"),
        ("consult.turns.steps",),
        "consult.turns.end below consult.turns.start",
    ),
    Condition(
        lambda r: not r.consult.ask_all,
        ("consult.ask_all",),
        ("consult.quorum",),
        "consult.ask_all",
    ),
    Condition(
        _has_no_solo,
        ("consult.solo_share",),
        (
            "train.baseline",
            "train.internalise.self_distillation_weight",
            "train.internalise.solo_answer_weight",
            "train.internalise.max_solo_accuracy",
            "train.penalty.min_solo_accuracy",
        ),
        "solo rollouts in each group (consult.solo_share)",
    ),
    Condition(
        lambda r: r.policy.api_model is not None,
        ("policy.endpoint", "policy.chat_model"),
        (
            *(
                f"policy.{key}"
                for key in ("model", "template", "fresh", "adapter", "dtype", "device")
            ),
            *(f"policy.{key}" for key in ("max_batch_size", "gather_timeout_s", "servers")),
            "policy.allow_midrollout_updates",
        ),
        "a policy whose weights are here (no policy.endpoint or policy.chat_model)",
    ),
    Condition(
        lambda r: r.policy.api_model is None,
        ("policy.endpoint", "policy.chat_model"),
        ("policy.calls",),
        "an API model (policy.endpoint or policy.chat_model)",
    ),
    Condition(
        lambda r: not r.policy.servers,
        ("policy.servers",),
        ("policy.server_key_env", "policy.request_timeout_s", "policy.server_wait_s"),
        "policy.servers",
    ),
    Condition(
        lambda r: bool(r.policy.servers),
        ("policy.servers",),
        ("policy.max_batch_size", "policy.gather_timeout_s"),
        "the embedded engine (no policy.servers)",
    ),
    Condition(
        lambda r: r.warm_start is not None and r.warm_start.script == "asking",
        ("warm_start.script",),
        ("warm_start.asks",),
        "warm_start.script 'arithmetic' or 'operations'",
    ),
    Condition(
        lambda r: r.train.method != "logged",
        ("train.method",),
        ("train.epochs", "train.max_staleness"),
        "train.method 'logged'",
    ),
    Condition(
        lambda r: r.train.method != "rollouts",
        ("train.method",),
        (
            "train.dynamic_sampling_retries",
            "train.skip_settled",
            "train.replay",
            "train.distillation_share",
            "train.off_policy.solutions",
            "train.teacher",
        ),
        "train.method 'rollouts'",
    ),
    Condition(
        lambda r: r.train.method == "distillation",
        ("train.method",),
        (*POLICY_GRADIENT, "train.internalise", "train.off_policy"),
        "a method with a policy gradient (train.method 'rollouts' or 'logged')",
    ),
    Condition(
        lambda r: (
            not (
                r.train.max_staleness
                or r.train.replay
                or r.train.internalise.ratio == "importance"
                or r.train.off_policy.hints == "ratio"
                or r.policy.allow_midrollout_updates
            )
        ),
        (
            "train.max_staleness",
            "train.replay",
            "train.internalise.ratio",
            "train.off_policy.hints",
            "policy.allow_midrollout_updates",
        ),
        ("train.importance_ratio_cap",),
        "rows of other weights (train.max_staleness, train.replay, train.internalise.ratio "
        "'importance', train.off_policy.hints 'ratio' or policy.allow_midrollout_updates)",
    ),
    Condition(
        lambda r: not r.train.internalise.hint_stripped_weight,
        ("train.internalise.hint_stripped_weight",),
        (
            "train.internalise.ratio",
            "train.internalise.max_solo_accuracy",
            "train.internalise.min_answer_to_reply_ratio",
        ),
        "train.internalise.hint_stripped_weight above 0",
    ),
    Condition(
        lambda r: not r.train.internalise.solo_answer_weight,
        ("train.internalise.solo_answer_weight",),
        ("train.internalise.solo_answer_min_accuracy",),
        "train.internalise.solo_answer_weight above 0",
    ),
    Condition(
        lambda r: not (r.train.penalty.per_call or r.train.penalty.per_token),
        ("train.penalty.per_call", "train.penalty.per_token"),
        ("train.penalty.min_solo_accuracy",),
        "train.penalty.per_call or per_token above 0",
    ),
)
