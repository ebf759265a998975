"""What a recipe may not say: old keys, settings without effect, numbers that are not finite."""

import pytest
import yaml
from pydantic import ValidationError

from eapo_agents.errors import RecipeError, UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.usage import Price
from eapo_agents.old_keys import OLD_KEYS
from eapo_agents.recipe import InternaliseSection, Recipe
from eapo_agents.recipe_file import SHIPPED, fixed_part, load_recipe, to_yaml
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget

ARMS = sorted(file.stem for file in (SHIPPED / "arms").glob("*.yaml"))


def nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def load(tmp_path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "r.yaml").write_text(f"name: r\n{text}")
    return load_recipe(tmp_path / "r.yaml", overrides)


@pytest.mark.parametrize("old", OLD_KEYS)
def test_a_key_of_an_earlier_version_is_refused_with_its_new_name(old):
    with pytest.raises(ValidationError, match=f"'{old}': it is called '{OLD_KEYS[old]}' now"):
        Recipe.model_validate({"name": "r", **nested(old, 1)})


def test_new_names_are_keys():
    resolved = load_recipe("cpu-smol").model_dump()
    for new in OLD_KEYS.values():
        place = resolved
        *sections, key = new.split(".")
        for section in sections:
            place = place[section]
        assert key in place or sections == ["graph_options"], new


def test_an_arm_of_an_earlier_version_is_refused_with_its_new_name():
    with pytest.raises(RecipeError, match="'at-once': it is called 'solo-answers' now"):
        load_recipe("scale-model+at-once")


@pytest.mark.parametrize(
    ("text", "key", "needs"),
    [
        ("train: {epochs: 3}", "train.epochs", "train.method 'logged'"),
        ("train: {max_staleness: 3}", "train.max_staleness", "train.method 'logged'"),
        ("train: {method: logged, expert_calls: 3}", "train.expert_calls", "solutions of experts"),
        (
            "train: {expert_calls: 3, distillation_share: 0.5}",
            "train.expert_calls",
            "either solutions of experts or rollouts",
        ),
        (
            "consult: {solo_share: 1}\ntrain: {expert_calls: 3}",
            "train.expert_calls",
            "live rollouts that they help",
        ),
        (
            "train: {distillation_share: 0.3, off_policy: {solutions: rollout}}",
            "train.off_policy.solutions",
            "no train.distillation_share",
        ),
        (
            "train: {method: distillation, off_policy: {solutions: rollout}}",
            "train.off_policy.solutions",
            "'rollouts'",
        ),
        (
            "train: {method: logged, teacher: {model: m}}",
            "train.teacher",
            "'rollouts'",
        ),
        (
            "train: {teacher: {model: m}, overlong: {tokens: 9, buffer: 3}}",
            "train.overlong",
            "reward",
        ),
        ("train: {teacher: {model: m}, replay: {store: x}}", "train.replay", "samples now"),
        ("train: {off_policy: {hints: ratio}}", "train.off_policy.hints", "'hinted' or 'critique'"),
        (
            "graph: hinted\ntrain: {turn_discount: 0.5, off_policy: {hints: ratio}}",
            "train.turn_discount",
            "no train.off_policy",
        ),
        (
            "graph: critique\ntrain: {internalise: {hint_stripped_weight: 1}}",
            "train.internalise.hint_stripped_weight",
            "a policy that asks",
        ),
        ("graph: hinted\ntools: [calculator]", "tools", "a policy that asks"),
        (
            "train: {off_policy: {solutions: rollout, solution_weight: 2}}",
            "train.off_policy.solution_weight",
            "'likelihood'",
        ),
        (
            "graph: hinted\ntrain: {off_policy: {hints: ratio, gamma: 1}}",
            "train.off_policy.gamma",
            "'shaped'",
        ),
        (
            "train: {distillation_share: 0.3, replay: {store: x}}",
            "train.replay",
            "no train.distillation_share",
        ),
        ("train: {complete_replies: answer}", "train.complete_replies", "'distillation'"),
        (
            "train: {method: distillation, distillation_share: 0.5}",
            "train.distillation_share",
            "'rollouts'",
        ),
        (
            "train: {method: distillation, dynamic_sampling_retries: 3}",
            "train.dynamic_sampling_retries",
            "'rollouts'",
        ),
        (
            "train: {method: logged, replay: {store: x}}",
            "train.replay",
            "train.method 'rollouts'",
        ),
        (
            "train: {method: distillation, internalise: {rehearsal_weight: 1}}",
            "train.internalise.rehearsal_weight",
            "policy gradient",
        ),
        (
            "train: {internalise: {self_distillation_weight: 1}}",
            "train.internalise.self_distillation_weight",
            "consult.solo_share",
        ),
        (
            "consult: {solo_share: 0.5, acceptance: {kind: never}}\n"
            "train: {internalise: {self_distillation_weight: 1}}",
            "train.internalise.self_distillation_weight",
            "accepted replies",
        ),
        (
            "consult: {experts: {}}\ntrain: {internalise: {hint_stripped_weight: 1}}",
            "train.internalise.hint_stripped_weight",
            "an expert",
        ),
        (
            "consult: {turns: {start: 1, end: 1}}\ntrain: {penalty: {per_call: 0.1}}",
            "train.penalty.per_call",
            "a second turn",
        ),
        ("graph: mine:build\nconsult: {turns: {end: 2}}", "consult.turns.end", "'consult'"),
        ("inputs: mine:inputs", "inputs", "a graph of your own"),
        ("graph: leap\nsolo_graph: mine:solo", "solo_graph", "a graph of your own"),
        (
            "train: {internalise: {solo_answer_weight: 1}}",
            "train.internalise.solo_answer_weight",
            "consult.solo_share",
        ),
        (
            "train: {penalty: {per_call: 0.1, min_solo_accuracy: 0.5}}",
            "train.penalty.min_solo_accuracy",
            "consult.solo_share",
        ),
        ("train: {baseline: condition}", "train.baseline", "consult.solo_share"),
        ("consult: {acceptance: {steps: 5}}", "consult.acceptance.steps", "'linear' or 'cosine'"),
        ("consult: {acceptance: {target: 0.5}}", "consult.acceptance.target", "'adaptive'"),
        ("consult: {turns: {steps: 5}}", "consult.turns.steps", "consult.turns.end below"),
        ("consult: {quorum: 1}", "consult.quorum", "consult.ask_all"),
        ("policy: {server_wait_s: 5}", "policy.server_wait_s", "policy.servers"),
        (
            "policy: {servers: ['http://localhost:1'], max_batch_size: 5}",
            "policy.max_batch_size",
            "embedded engine",
        ),
        ("graph: solo\nconsult: {max_queries: 1}", "consult.max_queries", "the graph 'consult'"),
        (
            "graph: leap\nconsult: {routing: round_robin}",
            "consult.routing",
            "offers experts to the policy",
        ),
        (
            "task: {reward: 'a:b', format_reward: 0.5}",
            "task.format_reward",
            "task.reward 'paper'",
        ),
        ("train: {importance_ratio_cap: 5}", "train.importance_ratio_cap", "other weights"),
        (
            "train: {internalise: {ratio: importance}}",
            "train.internalise.ratio",
            "hint_stripped_weight above 0",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path, text, key, needs):
    with pytest.raises(RecipeError, match=f"'{key}' has no effect: it needs .*{needs}"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{method: distillation}\nconsult: {experts: {}}", "there is none: name one"),
        (
            "{off_policy: {solutions: rollout}}\n"
            "consult: {experts: {e: {kind: solver, offered: false}}}",
            "there is none: name one",
        ),
        (
            "{off_policy: {solutions: rollout}, baseline: condition}\nconsult: {solo_share: 0.5}",
            "set train.baseline to group",
        ),
        (
            "{teacher: {model: m}, internalise: {self_distillation_weight: 1}}\n"
            "consult: {solo_share: 0.5}",
            "both say who judges",
        ),
        (
            "{off_policy: {hints: ratio}}\ngraph: hinted\n"
            "trl: {importance_sampling_level: sequence}",
            "train.off_policy, train.teacher, .* weigh each token",
        ),
    ],
)
def test_help_that_cannot_be_learned_from_is_refused(tmp_path, text, rule):
    with pytest.raises(RecipeError, match=rule):
        load(tmp_path, f"train: {text}")


def test_distillation_in_the_first_steps_leaves_some_to_rollouts_and_their_number_stays(tmp_path):
    with pytest.raises(RecipeError, match="both distillation and rollouts a step: of 10 "):
        load(tmp_path, "train: {distillation_share: 0.97}")
    own = "graph: mine:build\nanswer_of: mine:answer\ntrain: {distillation_share: 0.3}"
    with pytest.raises(RecipeError, match="an answer is more than text"):
        load(tmp_path, own)
    first, longer = (load(tmp_path, "", f"train.steps={steps}") for steps in (10, 20))
    assert fixed_part(first) == fixed_part(longer)
    share = "train: {distillation_share: 0.3}"
    first, longer = (load(tmp_path, share, f"train.steps={steps}") for steps in (10, 20))
    assert (first.train.distillation_steps, longer.train.distillation_steps) == (3, 6)
    assert fixed_part(first) != fixed_part(longer)


def test_a_setting_at_its_default_may_be_written_out(tmp_path):
    recipe = load(tmp_path, "train: {epochs: 1, dynamic_sampling_retries: 1, method: distillation}")
    assert load(tmp_path, to_yaml(recipe)).train == recipe.train


def test_what_an_arm_or_an_override_makes_unused_is_taken_out(tmp_path):
    text = "consult: {acceptance: {kind: linear, steps: 5}}\ntrain: {dynamic_sampling_retries: 4}"
    recipe = load(tmp_path, text, "train.method=distillation", "consult.acceptance.kind=constant")
    assert recipe.train.dynamic_sampling_retries == 1
    assert recipe.consult.acceptance == AcceptanceSchedule(kind="constant")
    # what it makes unused in turn goes too: without solo rollouts there is no condition to compare
    assert load_recipe("scale-model+eapo+leap").train.baseline == "group"


def test_what_an_override_itself_gives_is_not_taken_out(tmp_path):
    with pytest.raises(RecipeError, match=r"'train\.epochs' has no effect"):
        load(tmp_path, "train: {method: rollouts}", "train.epochs=4")
    assert load(tmp_path, "", "train.method=logged", "train.epochs=4").train.epochs == 4


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("recipe", ["cpu-smol", "experts", "paper-7b", "scale-model"])
def test_every_shipped_arm_fits_every_shipped_recipe(recipe, arm):
    assert load_recipe(f"{recipe}+{arm}").name == f"{recipe}-{arm}"


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    "key",
    [
        "train.learning_rate",
        "sampling.temperature",
        "policy.gather_timeout_s",
        "rollouts.rollout_timeout_s",
        "consult.acceptance.start",
        "consult.budget.usd",
        "consult.experts.solver.timeout_s",
        "consult.experts.solver.options.depth",
        "graph_options.paths",
    ],
)
def test_a_number_that_is_not_finite_is_refused(tmp_path, key, number):
    text = "consult: {experts: {solver: {kind: solver}}}"
    with pytest.raises(RecipeError, match=r"finite|greater|less"):
        load(tmp_path, text, f"{key}={number}")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train.stesp", "1", "there is no key 'train.stesp': did you mean 'steps'"),
        ("sampling.temprature", "1", "there is no key 'sampling.temprature': did you mean"),
        ("consult.acceptance.stat", "1", "'consult.acceptance.stat': did you mean 'start'"),
        ("consult.experts.a.kidn", "x", "'consult.experts.a.kidn': did you mean 'kind'"),
        ("consult.acceptance.start", "2", "'consult.acceptance.start': .* less than or equal to 1"),
        ("consult.turns.end", "9", "'consult.turns': the turn budget needs end <= start"),
        ("rollouts.concurrency", "0", "'rollouts.concurrency"),
        ("rollouts.concurrency", "often", "'rollouts.concurrency"),
        ("sampling.max_new_tokens", "0", "sampling.max_new_tokens must be at least 1"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_key(tmp_path, key, value, says):
    with pytest.raises(RecipeError, match=says) as told:
        load(tmp_path, "", f"{key}={value}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AcceptanceSchedule(start=1.5), "'start': .* less than or equal to 1, got 1.5"),
        (lambda: TurnBudget(begin=2), "there is no key 'begin': known here: end, start, steps"),
        (lambda: Budget(calls=-1), "'calls'"),
        (lambda: Price(input_usd=1), "'output_usd': Field required"),
        (lambda: InternaliseSection(weight=1), "there is no key 'weight'"),
    ],
)
def test_a_section_made_in_code_is_checked_alike(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_the_budget_s_limits_are_the_recipe_s_and_what_is_spent_is_not(tmp_path):
    recipe = load(tmp_path, "consult: {budget: {calls: 3}}")
    budget = Budget(**recipe.consult.budget.model_dump())
    budget.reserve()
    assert (budget.calls, budget.spent_calls) == (3, 1)
    assert yaml.safe_load(to_yaml(recipe))["consult"]["budget"] == {
        "calls": 3,
        "tokens": None,
        "usd": None,
    }
