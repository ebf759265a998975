"""The recipe's trl block: what is passed to TRL, what is refused, and that every loss trains."""

import dataclasses

import pytest

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.trl_fields import LOSS_TYPES, refuse_unusable
from eapo_agents.types import RolloutGroup, Turn
from trainers.run import train_logged
from trainers.trl_arguments import grpo_config


def test_fields_reach_trl_with_its_types(recipe, tmp_path):
    block = {"loss_type": "dr_grpo", "optim": "sgd", "adam_beta2": "0.95", "delta": 3}
    whole = Recipe.model_validate({**recipe.model_dump(), "trl": block})
    args = grpo_config(whole, tmp_path, 1)
    assert (args.loss_type, args.optim, args.adam_beta2, args.delta) == ("dr_grpo", "sgd", 0.95, 3)


def test_a_log_may_be_trained_on_at_a_rate_of_its_own(recipe, tmp_path):
    rates = {"learning_rate": 2e-4, "logged_learning_rate": 1e-3}
    both = recipe.model_copy(update={"train": recipe.train.model_copy(update=rates)})
    assert grpo_config(both, tmp_path, 1).learning_rate == 2e-4
    assert grpo_config(both, tmp_path, 1, logged=True).learning_rate == 1e-3
    assert grpo_config(recipe, tmp_path, 1, logged=True).learning_rate == 1e-5


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"los_type": "grpo"}, "no field 'los_type'. Did you mean 'loss_type'"),
        ({"learning_rate": 1}, "use train.learning_rate"),
        ({"num_iterations": 2}, "use train.minibatches_per_step"),
        ({"use_vllm": True}, "sampled by the recipe's own engine"),
        ({"vllm_mode": "server"}, "sampled by the recipe's own engine"),
        ({"reward_weights": [1.0]}, "task.reward"),
        ({"mask_truncated_completions": True}, "train.overlong"),
        ({"loss_type": "gspo"}, "'loss_type' must be one of dapo"),
        ({"importance_sampling_level": "word"}, "token or sequence"),
        ({"max_completion_length": 5}, "sampling.max_new_tokens"),
        ({"top_entropy_quantile": "most"}, "'top_entropy_quantile' of TRL's GRPOConfig"),
        ({"weight_decay": float("inf")}, "finite"),
    ],
)
def test_what_cannot_be_passed_is_refused_when_the_recipe_is_read(tmp_path, block, says):
    file = tmp_path / "r.yaml"
    file.write_text("name: r\n")
    with pytest.raises(RecipeError, match=says):
        load_recipe(file, [f"trl={block}".replace("True", "true").replace("inf", ".inf")])


def test_settings_of_the_block_must_fit_the_recipe_s(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("name: r\n")
    with pytest.raises(RecipeError, match=r"train\.epsilon_high, which must be 1 or more"):
        load_recipe(file, ["trl.loss_type=cispo"])
    assert load_recipe(file, ["trl.loss_type=cispo", "train.epsilon_high=5"]).trl
    with pytest.raises(RecipeError, match="one weight"):
        load_recipe(file, ["trl.importance_sampling_level=sequence", "train.replay={store: x}"])


def test_every_field_that_we_refuse_is_a_field_of_trl():
    from trl import GRPOConfig

    from eapo_agents import trl_fields

    fields = {field.name for field in dataclasses.fields(GRPOConfig)}
    ours = [name for group in trl_fields._OWN.values() for name in group]
    replaced = [name for group in trl_fields._REPLACED.values() for name in group]
    assert set(ours) | set(replaced) <= fields
    assert len(ours) + len(replaced) == len({*ours, *replaced})


def test_a_value_that_trl_refuses_is_one_sentence(recipe, tmp_path):
    whole = recipe.model_copy(update={"trl": refuse_unusable({"optim": "no-such-optimizer"})})
    with pytest.raises(RecipeError, match="TRL refuses"):
        grpo_config(whole, tmp_path, 1)


def groups_of(agent, trajectory, problem, lengths) -> list[RolloutGroup]:
    """Two groups of two rollouts of one turn each, of these numbers of tokens."""
    prompt = tuple(agent.solo_prompt(problem))
    found = []
    for number in range(2):
        one = dataclasses.replace(problem, id=f"p{number}")
        rollouts = []
        for index, length in enumerate(lengths[2 * number : 2 * number + 2]):
            turn = Turn(
                id=f"{number}-{index}",
                context_ids=prompt,
                completion_ids=tuple(range(300 + index, 300 + index + length)),
                logprobs=(-2.0,) * length,
                parent=None,
                text="t",
                finish_reason="stop",
            )
            rollouts.append(
                dataclasses.replace(
                    trajectory((turn,), reward=float(index), correct=bool(index)),
                    problem=one,
                    policy=agent.engine.policy_version,
                    rollout=index,
                )
            )
        found.append(RolloutGroup(problem=one, trajectories_G=tuple(rollouts)))
    return found


def trained(agent, groups, folder, **block) -> str:
    changes = {**agent.recipe.model_dump(), "trl": {"optim": "sgd", **block}}
    changes["train"]["learning_rate"] = 1e-2
    changes["train"]["epsilon_high"] = 5.0
    agent.recipe = Recipe.model_validate(changes)
    steps: list[dict[str, float]] = []
    train_logged(agent, groups, folder, lambda step, metrics: steps.append(metrics))
    assert len(steps) == 1
    return agent.engine.policy_version.weights


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_every_loss_trains(agent, trajectory, problem, tmp_path, loss_type, level):
    before = agent.engine.policy_version.weights
    groups = groups_of(agent, trajectory, problem, [3, 5, 4, 6])
    block = {"loss_type": loss_type, "importance_sampling_level": level}
    assert trained(agent, groups, tmp_path, **block) != before
