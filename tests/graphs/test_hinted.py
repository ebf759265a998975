"""The hinted and the critique graph: real compiled graphs, a scripted policy, real experts."""

import pytest

from eapo_agents.errors import UsageError
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import ConsultationStatus, Role, StopReason
from graphs.groups import Assistance
from graphs.hinted import build_critique_graph, build_hinted_graph
from graphs.rollout import RolloutPlan, run_group, run_rollouts
from graphs.solo import build_solo_graph

ALWAYS = AcceptanceSchedule(kind="constant")
RULE = "First the product."


def pool(reply: str | None = RULE) -> ExpertPool:
    return ExpertPool([make_expert("scripted", name="a", options={"default": reply})])


@pytest.fixture
def seen(scripted):
    """(a policy that answers 19 where it reads the rule, and 0 where not; the prompts it saw)."""
    prompts: list[str] = []

    def script(key: RolloutKey, prompt: str) -> str:
        prompts.append(prompt)
        return "Answer: 19" if RULE in prompt else "Answer: 0"

    return scripted(script), prompts


@pytest.mark.parametrize("shown_as", ["consultation", "prompt"])
async def test_a_hint_stands_before_the_only_turn_and_is_its_consultation(seen, problem, shown_as):
    policy, prompts = seen
    graph = build_hinted_graph(policy, pool(), acceptance=ALWAYS, shown_as=shown_as)
    group = await run_group(graph, policy, problem, 2, system_prompt="Solve.", seed=0)
    for trajectory in group.trajectories_G:
        assert (trajectory.role, trajectory.correct) == (Role.CONSULT, True)
        (turn,) = trajectory.turns
        (asked,) = turn.consultations
        assert (asked.query, asked.reply) == (problem.question, RULE)
        assert asked.status is ConsultationStatus.ACCEPTED
    assert prompts[0].count(RULE) == 1
    assert (f"{problem.question}\n\nHint: {RULE}" in prompts[0]) == (shown_as == "prompt")


async def test_without_a_hint_the_prompt_is_the_tool_free_one(seen, problem, trajectory):
    policy, _ = seen
    solo = build_solo_graph(policy)
    (bare,) = (await run_group(solo, policy, problem, 1, system_prompt="", seed=0)).trajectories_G
    never = AcceptanceSchedule(kind="never")
    for experts, acceptance in ((pool(), never), (pool(None), ALWAYS)):  # withheld, and failing
        graph = build_hinted_graph(policy, experts, acceptance=acceptance)
        group = await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
        (found,) = group.trajectories_G
        assert found.turns[0].context_ids == bare.turns[0].context_ids
        (asked,) = found.turns[0].consultations
        assert asked.status is not ConsultationStatus.ACCEPTED


@pytest.mark.parametrize(("right", "hinted"), [("Answer: 0", 2), ("Answer: 19", 0)])
async def test_hints_come_where_every_solo_rollout_failed_and_only_there_are_paid(
    scripted, problem, right, hinted
):
    policy = scripted(lambda key, prompt: right if key.rollout == 0 else "Answer: 0")
    adaptive = AcceptanceSchedule(kind="adaptive", target=0.01)
    experts = pool()
    graph = build_hinted_graph(policy, experts, acceptance=adaptive)
    plan = RolloutPlan(problem=problem, rollouts=range(4), num_solo=2, solo_first=True)
    (group,) = await run_rollouts(
        graph,
        policy,
        [plan],
        system_prompt="",
        seed=0,
        assistance=Assistance(solo_share=0.5, acceptance=adaptive),
    )
    assert [t.role for t in group.trajectories_G] == [Role.SOLO] * 2 + [Role.CONSULT] * 2
    asked = [c.status for t in group.trajectories_G for c in t.turns[0].consultations]
    assert asked.count(ConsultationStatus.ACCEPTED) == hinted
    assert experts.budget.spent_calls == hinted


async def test_a_critique_is_of_the_try_and_before_the_answer(seen, problem):
    policy, prompts = seen
    graph = build_critique_graph(policy, pool(), acceptance=ALWAYS)
    group = await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    (found,) = group.trajectories_G
    attempt, answer = found.turns
    (asked,) = attempt.consultations
    assert problem.question in asked.query
    assert "Answer: 0" in asked.query
    assert (attempt.text, answer.text, found.correct) == ("Answer: 0", "Answer: 19", True)
    assert answer.parent == 0
    assert RULE not in prompts[0]
    assert RULE in prompts[1]


async def test_a_try_that_gets_no_critique_is_the_answer(seen, problem, scripted):
    policy, _ = seen
    solo = RolloutPlan(problem=problem, rollouts=range(1), num_solo=1)
    with_experts = RolloutPlan(problem=problem, rollouts=range(1))
    never = AcceptanceSchedule(kind="never")
    for acceptance, plan in ((never, with_experts), (ALWAYS, solo)):
        graph = build_critique_graph(policy, pool(), acceptance=acceptance)
        (group,) = await run_rollouts(graph, policy, [plan], system_prompt="", seed=0)
        (found,) = group.trajectories_G
        assert (len(found.turns), found.answer) == (1, "Answer: 0")
        assert found.stop_reason is StopReason.ANSWERED
    cut_off = scripted(["Answer: 0, and much more than fits"], max_new_tokens=3)
    graph = build_critique_graph(cut_off, pool(), acceptance=ALWAYS)
    (found,) = (
        await run_group(graph, cut_off, problem, 1, system_prompt="", seed=0)
    ).trajectories_G
    assert (len(found.turns), found.stop_reason) == (1, StopReason.LENGTH)


def test_an_expert_that_cannot_be_asked_is_refused(scripted):
    policy = scripted(["x"])
    with pytest.raises(UsageError, match=r"asks 'b', and the experts that may be asked are: a"):
        build_hinted_graph(policy, pool(), acceptance=ALWAYS, expert="b")
    with pytest.raises(UsageError, match=r"asks an expert, and .* are: none"):
        build_critique_graph(policy, ExpertPool(), acceptance=ALWAYS)
