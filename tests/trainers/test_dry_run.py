"""What a run will take, by hand and by `eapo train --dry-run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from eapo_agents.errors import RecipeError
from eapo_agents.policy.models import EMBEDDED
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from trainers.dry_run import GIB, model_size, plan

RECIPES = Path(__file__).parents[2] / "eapo_agents" / "recipes"


def test_the_papers_preset_pays_for_few_of_its_queries(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = plan(load_recipe(RECIPES / "paper-7b.yaml"), num_processes=8)
    assert found.rollouts == 200 * 64 * 8
    assert found.policy_parameters == pytest.approx(7.6e9, rel=0.1)
    assert (found.training_processes, found.policy_servers, found.expert_servers) == (8, 1, 3)
    # all weights in bfloat16: 2 + 2 + 8 + 4 bytes each, over eight processes
    assert found.training_gib_per_process == pytest.approx(16 * 7e9 / 8 / GIB, rel=0.1)
    assert found.expert_calls_at_most < 0.1 * found.expert_calls_if_called_first


def test_queries_and_tokens_are_counted_by_hand():
    recipe = Recipe.model_validate(
        {
            "name": "plan",
            "sampling": {"max_new_tokens": 10},
            "consult": {"turns": {"start": 3, "end": 2, "steps": 2}, "max_queries": 2},
            "train": {"steps": 2, "problems_per_step": 1, "num_generations": 4},
        }
    )
    found = plan(recipe, num_processes=1)
    assert found.sampled_tokens_at_most == 4 * 3 * 10 + 4 * 2 * 10
    assert found.expert_queries_at_most == 4 * 2 * 2 + 4 * 2 * 1
    assert found.expert_calls_at_most == 4 * 2 * 2 + 4 * 2 * 1 / 2
    limited = recipe.train.model_copy(update={"expert_calls": 5})
    assert plan(recipe.model_copy(update={"train": limited}), 1).expert_calls_at_most == 5


@pytest.mark.parametrize(
    ("settings", "rollouts", "tokens", "calls"),
    [
        ({"train": {"method": "distillation"}}, 0, 0, 8),
        ({"train": {"method": "distillation", "expert_calls": 3}}, 0, 0, 3),
        ({"train": {"distillation_share": 0.5}}, 8, 160, 4 + 8),
        ({"train": {"off_policy": {"solutions": "rollout"}}}, 16, 320, 8 + 16),
        ({"graph": "hinted"}, 16, 160, 16),
        ({"graph": "critique"}, 16, 320, 16),
    ],
)
def test_solutions_and_help_that_is_not_asked_for_are_counted(settings, rollouts, tokens, calls):
    train = {"steps": 4, "problems_per_step": 2, "num_generations": 2} | settings.get("train", {})
    consult: dict[str, object] = {"acceptance": {"kind": "constant"}}
    if "graph" not in settings:
        consult |= {"turns": {"start": 2, "end": 2}, "max_queries": 1}
    common = {"name": "plan", "sampling": {"max_new_tokens": 10}}
    if train.get("method") == "distillation":
        consult = {}
    recipe = Recipe.model_validate({**common, **settings, "train": train, "consult": consult})
    found = plan(recipe, num_processes=1)
    assert (found.rollouts, found.sampled_tokens_at_most) == (rollouts, tokens)
    assert found.expert_calls_at_most == calls


def test_an_adapter_has_the_weights_that_peft_gives_it():
    from peft import LoraConfig, get_peft_model

    from eapo_agents.policy.models import load_policy

    model = load_policy(EMBEDDED).model
    num_parameters = sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    size = model_size(EMBEDDED)
    assert size.per_rank * 4 == trained
    assert size.parameters == num_parameters


def test_a_model_of_unknown_size_is_refused():
    with pytest.raises(RecipeError, match=r"The size of 'nobody/knows' is not known"):
        model_size("nobody/knows")


@pytest.mark.parametrize("file", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=str)
def test_accelerate_reads_the_shipped_configurations(file):
    config = load_config_from_file(str(file))
    assert config.num_processes == 8
    assert config.distributed_type.value in ("FSDP", "DEEPSPEED")
