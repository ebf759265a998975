"""On-policy distillation: a real teacher with the policy's tokenizer, another one without."""

import dataclasses

import pytest
import torch

from eapo_agents.errors import RecipeError
from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe import TrainSection
from eapo_agents.recipe_file import load_recipe
from eapo_agents.types import Role, RolloutGroup, Turn
from trainers.objective import Objective
from trainers.teacher import teacher_of
from trainers.warm_start_episodes import script_texts


@pytest.fixture
def a_model(tmp_path, eight_problems):
    """a_model(vocabulary) -> the folder of a model that differs from the policy."""

    def make(vocabulary: int = 320) -> str:
        texts = script_texts(load_recipe("scale-model"), eight_problems)
        folder = tmp_path / "teacher"
        make_model(folder, texts, layers=1, width=16, heads=2, vocabulary=vocabulary, seed=7)
        return str(folder)

    return make


def divergence(student, teacher, prompt_ids) -> float:
    """The reverse KL of the next token, in nats."""
    ids = torch.tensor([list(prompt_ids)])
    with torch.no_grad():
        own, theirs = (m(ids).logits[0, -1].log_softmax(-1) for m in (student.eval(), teacher))
    return float((own.exp() * (own - theirs)).sum())


def test_the_policy_comes_closer_to_its_teacher_on_what_it_writes(
    agent_of, live, eight_problems, a_model, tmp_path
):
    agent = agent_of(
        f"train.teacher.model={a_model()}",
        "train.steps=12",
        "train.problems_per_step=4",
        "train.num_generations=4",
        "train.learning_rate=1e-2",
        "train.lr_scheduler_type=constant",
        "sampling.max_new_tokens=4",
        arm="on-policy-distillation",
    )
    teacher = teacher_of(agent)
    prompts = [agent.solo_prompt(problem) for problem in eight_problems]

    def mean() -> float:
        found = [divergence(agent.model, teacher, prompt) for prompt in prompts]
        return sum(found) / len(found)

    # fresh models find all tokens equally likely: make the teacher sure of some
    with torch.no_grad():
        teacher.get_output_embeddings().weight.mul_(30)
    teacher.save_pretrained(agent.recipe.train.teacher.model)
    before = mean()
    told, trajectories = live(agent, eight_problems, tmp_path)
    first = [t for t in trajectories if t.global_step == 1]
    assert told[0]["teacher/tokens"] == sum(len(t.turns[0].completion_ids) for t in first)
    assert told[0]["experts/calls"] == 0
    assert before > 0.1
    assert mean() < before - 0.02  # of 5.05 nats, in twelve short steps


def test_a_teacher_with_other_tokens_is_refused(agent_of, a_model):
    agent = agent_of(f"train.teacher.model={a_model(340)}", arm="on-policy-distillation")
    with pytest.raises(RecipeError, match=r"must have the policy's tokenizer, .* differ: name a"):
        teacher_of(agent)
    assert teacher_of(agent_of()) is None


def test_a_teacher_judges_right_wrong_and_unscored_rollouts_and_no_solutions(trajectory, problem):
    turn = Turn(
        context_ids=(1, 5),
        completion_ids=(4, 2),
        logprobs=(-0.5, -0.25),
        parent=None,
        text="",
        finish_reason="stop",
    )
    right = trajectory((turn,), role=Role.SOLO)
    wrong = dataclasses.replace(right, reward=0.0, correct=False)
    unscored = dataclasses.replace(right, reward=None, correct=None)
    expert = dataclasses.replace(right, role=Role.EXPERT)
    group = RolloutGroup(problem=problem, trajectories_G=(right, wrong, unscored, expert))

    def objective(**teacher) -> Objective:
        train = TrainSection(teacher={"model": "m", "weight": 0.5, **teacher})
        return Objective(solo_prompt=lambda problem: [9], settings=train)

    rows = [r for r in objective().likelihood_rows([group]) if r.trajectory.role is Role.SOLO]
    assert [(r.advantage, r.logprobs_T, r.teacher_ids) for r in rows] == [(0.5, None, (1, 5))] * 3
    assert objective().relative_rows([group]) == []
    assert objective().has_spread(RolloutGroup(problem=problem, trajectories_G=(right, right)))
    assert len(objective(reward=True).relative_rows([group])) == 2
