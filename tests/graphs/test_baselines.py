"""The workflow and LeaP graphs: real compiled graphs, a scripted policy, real experts."""

from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.solver import expression_in
from eapo_agents.policy.engine import RolloutKey
from graphs.baselines import SUMMARISE, build_leap_graph, build_workflow_graph
from graphs.rollout import run_group


async def test_the_workflow_asks_every_expert_and_the_policy_answers_once(scripted, problem):
    prompts = []

    def script(key: RolloutKey, prompt: str) -> str:
        prompts.append(prompt)
        return "Answer: 19" if "7 + 12 = 19." in prompt and "[b] hm" in prompt else "Answer: 0"

    policy = scripted(script)
    experts = [
        make_expert("solver", name="a", options={}),
        make_expert("scripted", name="b", options={"default": "hm"}),
    ]
    graph = build_workflow_graph(policy, ExpertPool(experts))
    group = await run_group(graph, policy, problem, 2, system_prompt="Solve.", seed=0)
    assert [t.correct for t in group.trajectories_G] == [True, True]
    assert all(len(t.turns) == 1 for t in group.trajectories_G)
    assert prompts[0].count("What is 7 + 3 * 4?") == 1


async def test_a_workflow_whose_experts_all_fail_goes_on_without(scripted, problem):
    policy = scripted(["Answer: 19"])
    broken = make_expert("scripted", name="a", options={"default": None})
    graph = build_workflow_graph(policy, ExpertPool([broken]))
    group = await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    assert group.trajectories_G[0].correct


async def test_leap_paths_see_the_others_summaries_and_the_majority_decides(scripted, problem):
    seen = {}

    def script(key: RolloutKey, prompt: str) -> str:
        path, stage = divmod(key.turn, 3)
        if stage == 0:
            return f"draft {path}"
        if stage == 1:
            assert prompt.rstrip().rsplit(SUMMARISE, 1)[0].endswith("user\n")
            return f"summary {path}"
        seen[path] = prompt
        return ["So. Answer: 19", "Answer: 5", "Thus Answer: 19"][path]

    policy = scripted(script)
    graph = build_leap_graph(policy, paths=3)
    group = await run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    (trajectory,) = group.trajectories_G
    assert trajectory.answer == "So. Answer: 19"
    assert trajectory.correct
    assert len(trajectory.turns) == 9
    assert "- summary 1\n- summary 2" in seen[0]
    assert "- summary 0\n- summary 1" in seen[2]


async def test_a_single_path_learns_from_nobody(scripted, problem):
    policy = scripted(["draft", "summary", "Answer: 19"])
    group = await run_group(
        build_leap_graph(policy, paths=1), policy, problem, 1, system_prompt="", seed=0
    )
    assert group.trajectories_G[0].answer is not None


def test_the_solver_finds_the_expression_in_a_question():
    assert expression_in("What is 7 + 3 * 4?") == "7 + 3 * 4"
    assert expression_in("(2 + 3) / -4") == "(2 + 3) / -4"
    assert expression_in("5") == "5"
    assert expression_in("no numbers here") == "no numbers here"
